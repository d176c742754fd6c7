"""The text that the built-in language models are made of: no download, only the dataset's own.

Three folders can be made, each an ordinary transformers model with its tokenizer (safetensors): a causal
LM (Llama) for recommendation, a masked LM (BERT) for attributes and an encoder-decoder (T5) for the
diversity encoder. All of them only see the training split's sequences, and the catalogue.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from recbole_ganprompt.data.sequences import Sequences
from recbole_ganprompt.language import builtin_tokenizer, builtin_training
from recbole_ganprompt.language.builtin_tokenizer import WORD
from recbole_ganprompt.prompt import document, rendering

TITLE_TOKENS = 20
"""Titles are cut to this many tokens, as in the prompts."""


@dataclass(frozen=True)
class Corpus:
    """The text that a built-in model may learn from.

    Attributes
    ----------
    titles : list of str [items]
        Index = internal item id; ``titles[0]`` (padding) is unused.
    sequences : Sequences
        The *training* part of each user's sequence (``dataset.training_sequences()``): validation
        and test targets must not be in it.
    """

    titles: list[str]
    sequences: Sequences

    def texts(self) -> list[str]:
        """All titles as they stand inside a prompt, behind a blank."""
        return [f" {title}" for title in self.titles[1:]]

    def key(self) -> dict:
        """What identifies the corpus, for :func:`recbole_ganprompt.data.cache.cached_folder`."""
        items, offsets = self.sequences.items, self.sequences.offsets
        return {
            "titles": self.titles,
            "training sequences": [np.asarray(part, dtype=np.int64) for part in (items, offsets)],
        }


def source_digest(*files: str) -> list[str]:
    """The text of our own source files: cached models must not outlive the code that made them."""
    shared = [module.__file__ for module in (builtin_tokenizer, builtin_training, document, rendering)]
    return [Path(file).read_text(encoding="utf-8") for file in (*files, __file__, *shared)]


def content_words(text: str, skipped: Collection[str]) -> list[str]:
    """Distinct lower-case alphabetic words of three or more letters that are not in ``skipped``."""
    words = dict.fromkeys(word.lower() for word in WORD.findall(text))
    return [word for word in words if len(word) > 2 and word not in skipped]


def pad(rows: list[list[int]], value: int) -> torch.Tensor:
    """Lists of ids as int64 [rows, longest], padded on the right with ``value``."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])
