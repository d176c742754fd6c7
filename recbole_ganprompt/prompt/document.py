"""The prompts that describe one user or item to the diversity encoder (the paper's Figures 3 and 4)."""

import re

import yaml

from recbole_ganprompt.errors import UserError
from recbole_ganprompt.keys import properties_path
from recbole_ganprompt.prompt.rendering import SEPARATOR, encode_piece

SLOTS = ("UserHistory", "DataDomain", "MASK", "Attribute")


def load_document(name: str) -> str:
    """Text of ``properties/prompt/diversity.yaml`` under ``attributes`` or ``encoder``."""
    path = properties_path("prompt", "diversity.yaml")
    return yaml.safe_load(path.read_text(encoding="utf-8"))[name]


class Document:
    """A prompt as token ids around one history.

    Parameters
    ----------
    tokenizer : transformers tokenizer
    text : str
        With ``⟨UserHistory⟩`` and any of ``⟨DataDomain⟩``, ``⟨Attribute⟩`` (both plain text) and
        ``⟨MASK⟩`` (the tokenizer's mask token). ``[[phrases]]`` whose slot has no value vanish.
    max_tokens : int
        Length of the whole document, special tokens included. A history that is too long loses its
        oldest items; a single title that is too long is cut.
    values : str
        Text for ``DataDomain`` and ``Attribute``, by name.

    Raises
    ------
    UserError
        If a slot is unknown or has no value, if the history's is missing, or if the fixed text
        alone fills ``max_tokens``.
    """

    def __init__(self, tokenizer, text: str, max_tokens: int, **values: str | None):
        given = {name: value for name, value in values.items() if value}
        known = {"UserHistory", *given} | ({"MASK"} if tokenizer.mask_token else set())

        def optional(match: re.Match) -> str:
            inside = match.group(1)
            return inside if set(re.findall("⟨(.*?)⟩", inside)) <= known else ""

        text = re.sub(r"\[\[(.*?)\]\]", optional, text, flags=re.S)
        parts: list[list[int]] = [[]]
        for index, piece in enumerate(re.split("( ?⟨.*?⟩)", text)):
            name = piece.strip(" ⟨⟩")
            if index % 2 == 0:
                parts[-1] += encode_piece(tokenizer, piece) if piece else []
            elif name not in known:
                raise UserError(f"The prompt has nothing for the slot ⟨{name}⟩: take it out.")
            elif name == "UserHistory":
                parts.append([])
            elif name == "MASK":
                parts[-1].append(tokenizer.mask_token_id)
            else:
                blank = " " if piece.startswith(" ") else ""
                parts[-1] += encode_piece(tokenizer, blank + given[name])
        if len(parts) != 2:
            raise UserError("The prompt needs the slot ⟨UserHistory⟩ exactly once.")
        whole = tokenizer("a")["input_ids"]
        plain = tokenizer("a", add_special_tokens=False)["input_ids"]
        before = next(i for i in range(len(whole)) if whole[i : i + len(plain)] == plain)
        self.head = whole[:before] + parts[0]
        self.tail = parts[1] + whole[before + len(plain) :]
        self.separator = encode_piece(tokenizer, SEPARATOR.rstrip())
        self.room = max_tokens - len(self.head) - len(self.tail)
        if self.room < 1:
            raise UserError(f"The prompt fills all of the {max_tokens} tokens: allow more of them.")

    def __call__(self, titles: list[list[int]]) -> list[int]:
        """Token ids of the document whose history is ``titles`` (token ids, oldest first)."""
        history: list[int] = []
        for title in reversed(titles):
            longer = [*title, *self.separator, *history] if history else list(title)
            if len(longer) > self.room:
                break
            history = longer
        if not history and titles:
            history = list(titles[-1][: self.room])
        return [*self.head, *history, *self.tail]
