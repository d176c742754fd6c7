"""Other spellings of the same input: what a catalogue's titles and a user's history go through in life.

A perturbation is deterministic: a title always turns into the same text, so that it is the same item in
the history and among the candidates.
"""

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from recbole_ganprompt.keys import load_yaml, properties_path

_KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def _same(value):
    return value


@dataclass(frozen=True)
class Perturbation:
    """One way to change the input.

    Attributes
    ----------
    description : str
    title : callable
        Text of an item to another text.
    history : callable
        Positions (int64 array, oldest first) of a history to those that are kept, in their new order.
    """

    description: str
    title: Callable[[str], str] = _same
    history: Callable[[np.ndarray], np.ndarray] = _same


def _generator(title: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(title.encode("utf-8", "replace")))


def typos(title: str) -> str:
    """A slip in every third word, at least one: a letter swapped, left out, doubled or hit beside its key."""
    generator, words = _generator(title), title.split(" ")
    long = [index for index, word in enumerate(words) if len(word) > 3]
    if not long:
        return title
    for index in generator.permutation(long)[: max(1, len(long) // 3)]:
        word = words[index]
        at = int(generator.integers(1, len(word) - 1))
        kind = generator.integers(4)
        if kind == 0:
            words[index] = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        elif kind == 1:
            words[index] = word[:at] + word[at + 1 :]
        elif kind == 2:
            words[index] = word[:at] + word[at] + word[at:]
        else:
            words[index] = word[:at] + _neighbour(word[at], generator) + word[at + 1 :]
    return " ".join(words)


def _neighbour(letter: str, generator) -> str:
    for row in _KEYS:
        if letter in row:
            place = row.index(letter)
            around = row[max(0, place - 1) : place] + row[place + 1 : place + 2]
            return around[int(generator.integers(len(around)))]
    return letter


@cache
def _words(kind: str) -> dict[str, str]:
    return load_yaml(properties_path("perturbation.yaml"))[kind]


def _replace(title: str, kind: str) -> str:
    def other(match: re.Match) -> str:
        found = _words(kind).get(match[0].lower())
        if found is None:
            return match[0]
        return found.capitalize() if match[0][0].isupper() else found

    return re.sub(r"[^\W\d_]+", other, title)


def abbreviations(title: str) -> str:
    """Usual abbreviations, and of words above eight letters the first five and a full stop."""
    return re.sub(r"[^\W\d_]{9,}", lambda match: match[0][:5] + ".", _replace(title, "abbreviations"))


def synonyms(title: str) -> str:
    """Words of the list in ``properties/perturbation.yaml`` by others of much the same meaning."""
    return _replace(title, "synonyms")


def spaces_and_punctuation(title: str) -> str:
    """Doubled blanks, a comma behind every third word, an exclamation mark at the end."""
    words = title.split(" ")
    marked = [word + "," * (place % 3 == 2 and place + 1 < len(words)) for place, word in enumerate(words)]
    return "  ".join(marked) + " !"


def word_order(title: str) -> str:
    """The second half of the words before the first."""
    words = title.split(" ")
    half = (len(words) + 1) // 2
    return " ".join(words[half:] + words[:half])


def _shuffled(history: np.ndarray) -> np.ndarray:
    return np.random.default_rng(len(history)).permutation(history)


PERTURBATIONS: dict[str, Perturbation] = {
    "typos": Perturbation("a slip in every third word of a title", typos),
    "lower_case": Perturbation("titles in lower case", str.lower),
    "upper_case": Perturbation("titles in upper case", str.upper),
    "abbreviations": Perturbation("usual abbreviations, long words cut", abbreviations),
    "synonyms": Perturbation("words replaced by synonyms", synonyms),
    "spaces_and_punctuation": Perturbation(
        "doubled blanks, stray commas, exclamation marks", spaces_and_punctuation
    ),
    "word_order": Perturbation("the second half of a title's words first", word_order),
    "reversed_history": Perturbation(
        "the history from newest to oldest", history=lambda history: history[::-1]
    ),
    "shuffled_history": Perturbation("the history in random order", history=_shuffled),
    "thinned_history": Perturbation(
        "every third title of the history left out",
        history=lambda history: history[np.arange(len(history)) % 3 != 1],
    ),
}
