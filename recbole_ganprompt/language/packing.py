"""Candidates and positions that share one history: one row instead of many prompts.

A user's prompts differ only behind the history, and the history of an earlier position is the
beginning of a later one's. So all of them fit into one row, a tree laid flat::

    trunk   head  title 1 ; title 2 ; title 3 ; ... ; title n
    branch          └ middle                          └ middle
    leaves             └ tail of candidate 1             └ tail of candidate 1
                       └ tail of candidate 2 ...         └ tail of candidate 2 ...

A branch sees the trunk up to its own position, a leaf sees its branch and what that sees; no leaf
sees another. Position ids restart behind the point where a piece branches off, so every leaf's last
token gets exactly the score that the separate prompt would get. Scoring has one branch in a row (the
whole history), training has one for each training position.
"""

from dataclasses import dataclass, field

import numpy as np

from recbole_ganprompt.prompt.rendering import PromptTokens

SHARED = -1
"""In place of a leaf: tokens that all leaves behind them see."""


@dataclass
class Branch:
    """One position of a user's sequence and the candidates that are judged there.

    Attributes
    ----------
    history : int
        How many items of the row's trunk stand before this position.
    titles : list of list of int
        Token ids of each candidate's text.
    guidance : list of list of int
        Token ids of each candidate's guidance words; empty lists where the prompt has none.
    reference : list of tuple of int
        For each candidate what its soft tokens stand for: any indices that the caller chooses.
    unpreference : list of list of int
        Token ids of titles that the user disliked before this position.
    """

    history: int
    titles: list[list[int]]
    guidance: list[list[int]]
    reference: list[tuple]
    unpreference: list[list[int]] = field(default_factory=list)


@dataclass
class Row:
    """A tree of prompts laid flat, before padding.

    Attributes
    ----------
    ids : list of int
        Token ids; ``-1 - kind`` at a soft token.
    positions, leaf : list of int
        For each token its position id, and the leaf that it belongs to (``SHARED`` for none).
    trunk : int
        How many of the tokens are the trunk.
    starts : list of int
        Index of each branch's first token.
    visible : list of int
        How many leading trunk tokens each branch sees.
    answers : list of int
        Index of each leaf's last token.
    soft : list of tuple
        ``(index, kind, reference)`` of each soft token; none in the trunk.
    references : list of tuple
        What the answers stand for, in the order of ``answers``.
    """

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    leaf: list[int] = field(default_factory=list)
    trunk: int = 0
    starts: list[int] = field(default_factory=list)
    visible: list[int] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    soft: list[tuple] = field(default_factory=list)
    references: list[tuple] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def append(self, ids, start: int, leaf: int = SHARED, reference=None) -> int:
        """Add a piece whose first token has position id ``start``; returns the position behind it."""
        first = len(self.ids)
        self.ids.extend(ids)
        self.positions.extend(range(start, start + len(ids)))
        self.leaf.extend([leaf] * len(ids))
        self.soft.extend(
            (first + offset, -1 - token, reference) for offset, token in enumerate(ids) if token < 0
        )
        return start + len(ids)


def pack_row(
    prompt: PromptTokens,
    trunk: list[list[int]],
    branches: list[Branch],
    soft_guidance: bool = False,
) -> Row:
    """Lay out one user's prompts as one row.

    Parameters
    ----------
    prompt : PromptTokens
    trunk : list of list of int
        Token ids of the titles of the history's items, oldest first.
    branches : list of Branch
    soft_guidance : bool
        Whether a soft token follows the guidance words.
    """
    row = Row()
    # boundary[n]: trunk tokens that a position with n items of history sees.
    position = row.append(prompt.head, 0)
    boundary = [position]
    if prompt.history_in_trunk:
        for index, title in enumerate(trunk):
            piece = [*prompt.separator, *title] if index else title
            position = row.append(piece, position)
            boundary.append(position)
    row.trunk = len(row)
    leaf = 0
    for branch in branches:
        visible = boundary[branch.history if prompt.history_in_trunk else 0]
        filling = {
            "history": () if prompt.history_in_trunk else prompt.history(trunk[: branch.history]),
            "unpreference": prompt.history(branch.unpreference),
        }
        row.starts.append(len(row))
        row.visible.append(visible)
        # The user's soft token is the same for all candidates of a position.
        start = row.append(prompt.fill(prompt.middle, **filling), visible, SHARED, branch.reference[0])
        for title, guidance, reference in zip(branch.titles, branch.guidance, branch.reference):
            tail = prompt.fill(
                prompt.tail, title=title, guidance=guidance, soft_guidance=soft_guidance, **filling
            )
            row.append(tail, start, leaf, reference)
            row.answers.append(len(row) - 1)
            row.references.append(reference)
            leaf += 1
    return row


def batches_by_tokens(
    lengths, budget: int, shuffle: np.random.Generator | None = None, sizes=None, most: int | None = None
):
    """Group rows into batches of similar length, each at most ``budget`` padded tokens.

    Parameters
    ----------
    lengths : sequence of int
    budget : int
        Tokens in a batch, padding included; a longer row gets a batch of its own.
    shuffle : numpy Generator, optional
        Shuffles rows of the same length and the order of batches.
    sizes : sequence of int, optional
        Samples of each row, of which a batch has at most ``most``; a larger row gets a batch of its own.

    Returns
    -------
    list of int64 array
        Indices of the rows of each batch.
    """
    lengths = np.asarray(lengths)
    jitter = shuffle.random(len(lengths)) if shuffle is not None else np.zeros(len(lengths))
    order = np.lexsort((jitter, lengths))
    counted = np.cumsum([0, *(sizes[index] for index in order)]) if most else None
    batches, start = [], 0
    for stop in range(1, len(order) + 1):
        # Ascending order: the row at ``stop`` would be the longest of the batch.
        if (
            stop == len(order)
            or lengths[order[stop]] * (stop + 1 - start) > budget
            or (most and counted[stop + 1] - counted[start] > most)
        ):
            batches.append(order[start:stop])
            start = stop
    if shuffle is not None:
        shuffle.shuffle(batches)
    return batches
