"""From templates and titles to tokens.

Every piece of a prompt (literal text, a title, a separator) is tokenized on its own and the pieces
are joined as tokens. That makes a history shareable between candidates, and it makes item text
data: a title is tokenized with special tokens switched off, so ``</s>`` in a title is four or five
ordinary characters and not the end of the prompt.
"""

from dataclasses import dataclass

from recbole_ganprompt.errors import UserError
from recbole_ganprompt.prompt.template import (
    GUIDANCE,
    HISTORY,
    OF_TARGET,
    TARGET,
    TITLE,
    UNPREFERENCE,
    USER,
    Slot,
    Template,
    Text,
)

SEPARATOR = "; "
NOTHING = " none"
"""Stands for an empty list."""
# A piece is tokenized behind this anchor, which is cut off again: tokenizers treat the start of a
# string in different ways (an added blank, none), the middle of one alike.
ANCHOR = ":"

SOFT_USER, SOFT_TARGET, SOFT_GUIDANCE = 0, 1, 2
"""Kinds of soft tokens."""


def encode_piece(tokenizer, text: str) -> list[int]:
    """Tokenize a piece of text as it stands inside a longer one, never as a special token.

    Returns
    -------
    list of int
        What a tokenizer turns into a special token all the same is left out.
    """

    def encode(string):
        ids = tokenizer(string, add_special_tokens=False, split_special_tokens=True, verbose=False)
        return ids["input_ids"]

    anchor, ids = encode(ANCHOR), encode(ANCHOR + text)
    if ids[: len(anchor)] != anchor:
        # The tokenizer merged the anchor with the piece: fall back to the piece alone.
        ids, anchor = encode(text), []
    ids = ids[len(anchor) :]
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    return [token for token in ids if token not in special]


def frame_of(tokenizer, prompt_format: str) -> tuple[list[int], str]:
    """What stands around a prompt.

    Parameters
    ----------
    tokenizer : transformers tokenizer
    prompt_format : str
        ``plain``: the prompt alone; ``chat``: as a user's message in the tokenizer's own chat template.

    Returns
    -------
    before : list of int
        Token ids in front of the prompt: a begin of sequence where the tokenizer has one, or the template's.
    ending : str
        The text between the prompt and the answer.

    Raises
    ------
    UserError
        If the tokenizer has no chat template.
    """
    if prompt_format == "plain":
        return [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else [], "Output: "
    if not getattr(tokenizer, "chat_template", None):
        raise UserError("This tokenizer has no chat template: set prompt_format=plain.")
    message = [{"role": "user", "content": ANCHOR * 8}]
    text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    before, _, ending = text.partition(ANCHOR * 8)
    # The template is the tokenizer's, so its special tokens are meant as such.
    return tokenizer(before, add_special_tokens=False)["input_ids"], ending


class TitleTable:
    """Token ids of all items' texts, each cut to ``max_tokens``.

    Parameters
    ----------
    tokenizer : transformers tokenizer
    titles : list of str [items]
        ``titles[0]`` belongs to the padding item.
    max_tokens : int
    """

    def __init__(self, tokenizer, titles: list[str], max_tokens: int):
        self.tokens = [encode_piece(tokenizer, f" {title}")[:max_tokens] for title in titles]

    def __getitem__(self, item: int) -> list[int]:
        return self.tokens[item]


@dataclass(frozen=True)
class SoftToken:
    """A place for one mapped vector."""

    kind: int


class PromptTokens:
    """A template's literal pieces as tokens, arranged for sharing.

    The prompt is cut into three parts:

    * ``head``: up to the end of the history's slot, shared by all positions of a user,
    * ``middle``: between the history and the first slot of the target, shared by all candidates of
      a position,
    * ``tail``: from the first slot of the target to the answer, one for each candidate.

    If the user's soft token, the unpreference or the target stands before the history, the history is
    rendered inside the middle or the tail: less is shared, the tokens are the same.

    Attributes
    ----------
    head, middle, tail : list
        Token ids (int), :class:`SoftToken`, or the names of slots (str) left to fill.
    history_in_trunk : bool
        Whether the history follows the head, shared by all positions.
    separator : list of int
    ending : str
        The text before the answer.

    Raises
    ------
    UserError
        If the template has no history, or ``prompt_format`` is ``chat`` and the tokenizer has no template.
    """

    def __init__(
        self,
        tokenizer,
        template: Template,
        words_for_guidance: list[str] | None = None,
        prompt_format: str = "plain",
    ):
        order = [part.name for part in template.parts if isinstance(part, Slot)]
        if HISTORY not in order:
            raise UserError(f"The prompt template needs the slot ⟨{HISTORY}⟩.")
        before = order[: order.index(HISTORY)]
        self.history_in_trunk = not {USER, UNPREFERENCE, *OF_TARGET} & set(before)
        self.separator = encode_piece(tokenizer, SEPARATOR.rstrip())
        self.nothing = encode_piece(tokenizer, NOTHING)
        self.guidance = [encode_piece(tokenizer, f" {word}") for word in words_for_guidance or []]
        head, middle, tail = [], [], []
        before, self.ending = frame_of(tokenizer, prompt_format)
        head.extend(before)
        section = head
        for part in template.parts:
            if isinstance(part, Text):
                section.extend(encode_piece(tokenizer, part.text.rstrip(" ")))
                continue
            if part.name in OF_TARGET:
                section = tail
            elif part.name in (USER, UNPREFERENCE) and section is head:
                section = middle  # they differ between positions; the head is shared by them
            if part.name == USER:
                section.append(SoftToken(SOFT_USER))
            elif part.name == TARGET:
                section.append(SoftToken(SOFT_TARGET))
            elif part.name == HISTORY and section is head:
                section = middle  # the trunk's titles stand between the two
            else:
                section.append(part.name)
        if prompt_format == "chat":
            tail.extend(tokenizer(self.ending, add_special_tokens=False)["input_ids"])
        self.head, self.middle, self.tail = head, middle, tail

    def fill(self, section: list, *, title=(), history=(), unpreference=(), guidance=(), soft_guidance=False):
        """Fill a section's slots.

        Parameters
        ----------
        section : list
            ``middle`` or ``tail``.
        title, history, unpreference, guidance : sequence of int
            Token ids for the slots; an empty unpreference is filled with the word "none".
        soft_guidance : bool
            Put a soft token behind the guidance words.

        Returns
        -------
        ids : list of int
            -1 - kind stands where a soft token goes.
        """
        ids: list[int] = []
        for piece in section:
            if isinstance(piece, SoftToken):
                ids.append(-1 - piece.kind)
            elif piece == TITLE:
                ids.extend(title)
            elif piece == HISTORY:
                ids.extend(history)
            elif piece == UNPREFERENCE:
                ids.extend(unpreference or self.nothing)
            elif piece == GUIDANCE:
                ids.extend(guidance)
                if soft_guidance:
                    ids.append(-1 - SOFT_GUIDANCE)
            else:
                ids.append(piece)
        return ids

    def history(self, titles: list[list[int]]) -> list[int]:
        """The tokens of a whole history: titles with separators between them."""
        ids: list[int] = []
        for index, title in enumerate(titles):
            if index:
                ids.extend(self.separator)
            ids.extend(title)
        return ids
