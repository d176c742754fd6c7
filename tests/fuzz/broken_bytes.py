"""Strategies of hypothesis for broken files, and what every reader must keep to."""

from datetime import timedelta

from hypothesis import strategies as st

from recbole_ganprompt.errors import UserError

# A hang, and not a busy machine: no input here takes a tenth of it.
DEADLINE = timedelta(seconds=30)

NASTY = [
    "\t",
    "\n",
    "\r\n",
    "\r",
    '"',
    "'",
    "\0",
    "\ufeff",
    "\x1a",
    "\x1b[2J",
    " ",
    ",",
    ":",
    ";",
    "|",
    "\u2028",
]
NASTY += [
    "\u200b",
    "\u202e",
    "\u0301",
    "א",
    "\U0001f468\u200d\U0001f469",
    "\ufffd",
    "&#9;",
    "&amp;",
    "<b>",
    "[PAD]",
]
NASTY += ["nan", "NA", "None", "inf", "-inf", "1e999", "-0", "1_0", "0x1", "٣", "1.5", "9" * 400, "x" * 2000]
PIECES = st.sampled_from([piece.encode() for piece in NASTY]) | st.binary(max_size=6)
ANYTHING = st.lists(PIECES, max_size=30).map(b"".join)


def damaged(*sound: bytes):
    """One of some sound files with a few places overwritten, cut out or filled in."""

    @st.composite
    def strategy(draw):
        content = draw(st.sampled_from(sound))
        for _ in range(draw(st.integers(0, 4))):
            start = draw(st.integers(0, len(content)))
            end = start + draw(st.sampled_from([0, 0, 1, 2, 8]))
            content = content[:start] + draw(PIECES) + content[end:]
        return content

    return strategy()


def is_one_sentence(error: UserError) -> bool:
    text = str(error)
    return bool(text) and text.isprintable()
