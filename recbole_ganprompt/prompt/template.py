"""Prompt templates with slots (the paper's Figure 5 and its variants).

A template is text with slots such as ``⟨UserHistory⟩``. It is parsed once, from its own file; item
text is put into the slots later, as tokens, so nothing in a title can open a slot.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from recbole_ganprompt.checks import shown
from recbole_ganprompt.errors import UserError
from recbole_ganprompt.keys import load_yaml, properties_path

HISTORY, UNPREFERENCE, USER, TITLE, TARGET, GUIDANCE = (
    "UserHistory",
    "UserUnpreference",
    "UserID",
    "TargetTitle",
    "TargetID",
    "GuidanceKnowledge",
)
LIMIT = 20_000  # characters of a template
SLOTS = (HISTORY, UNPREFERENCE, USER, TITLE, TARGET, GUIDANCE)
OF_TARGET = (TITLE, TARGET, GUIDANCE)
"""Slots whose content differs between the candidates of one user."""


@dataclass(frozen=True)
class Text:
    """Literal text of a template."""

    text: str


@dataclass(frozen=True)
class Slot:
    """A place to be filled, by name."""

    name: str


@dataclass(frozen=True)
class Template:
    """A parsed prompt.

    Attributes
    ----------
    parts : tuple of Text and Slot
        The whole prompt up to the answer.
    positive, negative : str
        The two answers.
    """

    parts: tuple[Text | Slot, ...]
    positive: str
    negative: str

    def __contains__(self, slot: str) -> bool:
        return Slot(slot) in self.parts

    def literals(self) -> list[str]:
        """The literal texts and the answers, for a tokenizer that is trained on them."""
        return [
            *(part.text for part in self.parts if isinstance(part, Text)),
            f" {self.positive}",
            f" {self.negative}",
        ]


def parse_template(source: dict, slots) -> Template:
    """Parse a template, keeping only the given optional slots.

    Parameters
    ----------
    source : dict
        ``instruction``, ``input``, ``positive`` and ``negative``; or, for another frame than
        "Instruction: ... Input: ... Output:", the whole prompt as ``text`` instead of the first two.
    slots : collection of str
        The slots that the model can fill; a ``[[...]]`` phrase around another one vanishes.

    Raises
    ------
    UserError
        If a key is missing or no text, a slot is unknown, or one that can't be filled isn't optional.
    """
    frame = {"text"} if "text" in source else {"instruction", "input"}
    missing = (frame | {"positive", "negative"}) - set(source)
    if missing:
        raise UserError(f"The prompt template lacks {', '.join(sorted(missing))}: add it.")
    for key in frame | {"positive", "negative"}:
        if not isinstance(source[key], str) or not source[key].strip():
            raise UserError(f"The prompt template's {key} must be a text: put quotation marks around it.")
    if source["positive"].strip() == source["negative"].strip():
        raise UserError("The prompt template's positive and negative are the same: make them differ.")
    if "text" in source:
        text = source["text"].rstrip()
    else:
        text = f"Instruction: {source['instruction']}\nInput: {source['input']}\nOutput:"

    if len(text) > LIMIT:
        raise UserError(f"The prompt template has {len(text):,} characters: {LIMIT:,} are the most.")

    def optional(match: re.Match) -> str:
        inside = match.group(1)
        return inside if set(re.findall("⟨(.*?)⟩", inside)) <= set(slots) else ""

    text = re.sub(r"\[\[(.*?)\]\]", optional, text, flags=re.S)
    parts: list[Text | Slot] = []
    for index, piece in enumerate(re.split("⟨(.*?)⟩", text)):
        if index % 2 == 0:
            if piece:
                parts.append(Text(piece))
        elif piece not in SLOTS:
            raise UserError(
                f"The prompt template has the unknown slot {shown(piece)}: known are {', '.join(SLOTS)}."
            )
        elif piece not in slots:
            raise UserError(
                f"This model has nothing for the slot ⟨{piece}⟩: put [[ ]] around the phrase "
                "that holds it, so that it can vanish."
            )
        else:
            parts.append(Slot(piece))
    if Slot(TITLE) not in parts:
        raise UserError(f"The prompt template needs the slot ⟨{TITLE}⟩.")
    return Template(tuple(parts), source["positive"], source["negative"])


def read_template(name: str) -> dict:
    """Read ``properties/prompt/<name>.yaml``, or the file of that path, as :func:`parse_template` takes it.

    Raises
    ------
    UserError
        If there is no such file, or it is no template.
    """
    path = properties_path("prompt", f"{name}.yaml")
    if not os.path.isfile(path):  # false, where Path.is_file fails at a name that can't be one
        path = Path(name)
    if not os.path.isfile(path):
        raise UserError(f"There is no prompt template {shown(str(name))}: give a YAML file's path.")
    return load_yaml(path)


def load_template(name: str, slots) -> Template:
    """:func:`read_template` and :func:`parse_template` in one."""
    return parse_template(read_template(name), slots)
