"""From positions of users' sequences to packed rows of prompts."""

from dataclasses import dataclass

import numpy as np

from recbole_ganprompt.data.sequences import Sequences
from recbole_ganprompt.language.packing import Branch, Row, pack_row
from recbole_ganprompt.prompt.rendering import PromptTokens


@dataclass(frozen=True)
class Positions:
    """Positions of users' sequences, each with the candidates that are judged there.

    Attributes
    ----------
    users, ends : int64 array [rows]
        The history is what stands before ``sequences.of(user)[end]``. Sorted by user, then end.
    candidates : int64 array [rows, candidates]
        The target in column 0.
    opinions : float32 array [rows, candidates], optional
        The teacher's, in nats; ``None`` where it has none to give.
    """

    users: np.ndarray
    ends: np.ndarray
    candidates: np.ndarray
    opinions: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.users)

    def __getitem__(self, index) -> "Positions":
        opinions = None if self.opinions is None else self.opinions[index]
        return Positions(self.users[index], self.ends[index], self.candidates[index], opinions)

    def joined(self, others: "Positions") -> tuple["Positions", np.ndarray]:
        """These and others that have no opinions, in order; and where these stand among them."""
        users = np.concatenate([self.users, others.users])
        ends = np.concatenate([self.ends, others.ends])
        candidates = np.concatenate([self.candidates, others.candidates])
        opinions = np.concatenate([self.opinions, np.zeros(others.candidates.shape, dtype=np.float32)])
        order = np.lexsort((ends, users))
        return Positions(users, ends, candidates, opinions)[order], np.flatnonzero(order < len(self))

    def split_by_age(self) -> tuple["Positions", "Positions"]:
        """The older and the newer half of each user's positions (the newer one is the larger)."""
        _, first, counts = np.unique(self.users, return_index=True, return_counts=True)
        place = np.arange(len(self)) - np.repeat(first, counts)
        older = place < np.repeat(counts // 2, counts)
        return self[older], self[~older]


class TextVariants:
    """Original titles and, in training, reconstructed ones for a share of all occurrences.

    Parameters
    ----------
    tables : list of TitleTable
        The original titles first.
    share : float
        Probability that an occurrence takes one of the other tables, drawn uniformly.
    """

    def __init__(self, tables: list, share: float):
        self.tables = tables
        self.share = share if len(tables) > 1 else 0.0

    def draw(self, items, generator: np.random.Generator) -> list[list[int]]:
        """Token ids of each item's text, one draw an occurrence."""
        if not self.share:
            return [self.tables[0][item] for item in items]
        other = generator.random(len(items)) < self.share
        table = np.where(other, generator.integers(1, len(self.tables), size=len(items)), 0)
        return [self.tables[choice][item] for choice, item in zip(table, items)]


def training_rows(
    positions: Positions,
    sequences: Sequences,
    prompts: list[PromptTokens],
    texts: TextVariants,
    guidance: np.ndarray | None,
    unpreference: np.ndarray | None,
    history_length: int,
    row_tokens: int,
    soft_guidance: bool,
    generator: np.random.Generator,
    references: np.ndarray | None = None,
) -> list[Row]:
    """Pack positions of one user behind their common history.

    Parameters
    ----------
    positions : Positions
    sequences : Sequences
    prompts : list of PromptTokens
        Each row takes one of them, drawn uniformly.
    texts : TextVariants
    guidance : int64 array [rows, candidates], optional
        Index of each candidate's guidance word.
    unpreference : int64 array [rows, titles], optional
        Items that the user disliked before each position, padded with 0.
    history_length : int
        Items of history at most; positions further apart go into rows of their own.
    row_tokens : int
        A row is closed once it has this many tokens.
    soft_guidance : bool
    generator : numpy Generator
    references : int64 array [rows], optional
        What each position is called in the rows' references; its index by default.

    Returns
    -------
    list of Row
        A row's references are ``(position, candidate)``.
    """
    rows: list[Row] = []
    count = positions.candidates.shape[1]
    references = np.arange(len(positions)) if references is None else references
    start = 0
    while start < len(positions):
        prompt = prompts[generator.integers(len(prompts))] if len(prompts) > 1 else prompts[0]
        overhead = len(prompt.middle) + count * len(prompt.tail)
        user, titles, tokens, stop = positions.users[start], [], 0, start
        # Positions join until the row is full, or until the first one's history, which begins
        # where the last one's does, would be less than half of what it may be.
        while (
            stop < len(positions)
            and positions.users[stop] == user
            and 2 * (positions.ends[stop] - positions.ends[start]) <= history_length
            and tokens < row_tokens
        ):
            titles.append(texts.draw(positions.candidates[stop], generator))
            tokens += sum(map(len, titles[-1])) + overhead
            stop += 1
        origin = max(0, positions.ends[stop - 1] - history_length)
        branches = [
            Branch(
                history=int(positions.ends[index] - origin),
                titles=titles[index - start],
                guidance=[prompt.guidance[level] for level in guidance[index]]
                if guidance is not None
                else [()] * count,
                reference=[(int(references[index]), candidate) for candidate in range(count)],
                unpreference=texts.draw(unpreference[index][unpreference[index] > 0], generator)
                if unpreference is not None
                else [],
            )
            for index in range(start, stop)
        ]
        trunk = sequences.of(user)[origin : positions.ends[stop - 1]]
        rows.append(pack_row(prompt, texts.draw(trunk, generator), branches, soft_guidance))
        start = stop
    return rows
