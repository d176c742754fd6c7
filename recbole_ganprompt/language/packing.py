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
import torch

from recbole_ganprompt.prompt.rendering import PromptTokens

TRUNK = -1


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
    positions, visible, branch, leaf : list of int
        For each token: its position id, how many leading trunk tokens it sees, and the branch and
        leaf that it belongs to (``TRUNK`` for none).
    answers : list of int
        Index of each leaf's last token.
    soft : list of tuple
        ``(index, kind, reference)`` of each soft token.
    references : list of tuple
        What the answers stand for, in the order of ``answers``.
    """

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    visible: list[int] = field(default_factory=list)
    branch: list[int] = field(default_factory=list)
    leaf: list[int] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    soft: list[tuple] = field(default_factory=list)
    references: list[tuple] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def append(self, ids, start: int, visible: int | None, branch: int, leaf: int, reference):
        """Add a piece whose first token has position id ``start``; returns the position behind it."""
        first = len(self.ids)
        count = len(ids)
        self.ids.extend(ids)
        self.positions.extend(range(start, start + count))
        if visible is None:  # the trunk itself: causal
            self.visible.extend(range(first + 1, first + count + 1))
        else:
            self.visible.extend([visible] * count)
        self.branch.extend([branch] * count)
        self.leaf.extend([leaf] * count)
        self.soft.extend(
            (first + offset, -1 - token, reference) for offset, token in enumerate(ids) if token < 0
        )
        return start + count


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
    position = row.append(prompt.head, 0, None, TRUNK, TRUNK, None)
    boundary = [position]
    if not prompt.history_in_tail:
        for index, title in enumerate(trunk):
            piece = [*prompt.separator, *title] if index else title
            position = row.append(piece, position, None, TRUNK, TRUNK, None)
            boundary.append(position)
    leaf = 0
    for number, branch in enumerate(branches):
        visible = boundary[0] if prompt.history_in_tail else boundary[branch.history]
        history = prompt.history(trunk[: branch.history]) if prompt.history_in_tail else ()
        unpreference = prompt.history(branch.unpreference)
        middle = prompt.fill(prompt.middle, unpreference=unpreference)
        # The user's soft token is the same for all candidates of a position.
        start = row.append(middle, visible, visible, number, TRUNK, branch.reference[0])
        for title, guidance, reference in zip(branch.titles, branch.guidance, branch.reference):
            tail = prompt.fill(
                prompt.tail,
                title=title,
                history=history,
                unpreference=unpreference,
                guidance=guidance,
                soft_guidance=soft_guidance,
            )
            row.append(tail, start, visible, number, leaf, reference)
            row.answers.append(len(row) - 1)
            row.references.append(reference)
            leaf += 1
    return row


@dataclass
class Batch:
    """Rows padded to one length, as tensors.

    Attributes
    ----------
    ids, positions : int64 [rows, tokens]
        0 at padding and at soft tokens.
    allowed : bool [rows, 1, tokens, tokens]
        Which key (last axis) a query may attend to; a padding token sees itself only.
    answers : int64 [answers, 2]
        Row and column of every leaf's last token.
    soft : int64 [soft tokens, 3]
        Row, column and kind of every soft token.
    soft_references, references : list of tuple
        What each soft token and each answer stands for.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    allowed: torch.Tensor
    answers: torch.Tensor
    soft: torch.Tensor
    soft_references: list[tuple]
    references: list[tuple]

    @property
    def tokens(self) -> int:
        """Tokens computed, padding included."""
        return self.ids.numel()


def collate(rows: list[Row], device="cpu") -> Batch:
    """Pad rows to the longest and build the attention mask of the tree."""
    width = max(len(row) for row in rows)

    def padded(name: str, filler: int) -> torch.Tensor:
        table = np.full((len(rows), width), filler, dtype=np.int64)
        for index, row in enumerate(rows):
            table[index, : len(row)] = getattr(row, name)
        return torch.from_numpy(table).to(device)

    ids = padded("ids", 0)
    # Padding belongs to a branch of its own, so it sees only itself and nothing sees it.
    visible, branch, leaf = padded("visible", 0), padded("branch", -2), padded("leaf", TRUNK)
    order = torch.arange(width, device=device)
    in_trunk = (branch == TRUNK)[:, None, :]
    trunk = in_trunk & (order < visible[:, :, None])
    same_branch = branch[:, :, None] == branch[:, None, :]
    inside = same_branch & ((leaf[:, None, :] == TRUNK) | (leaf[:, :, None] == leaf[:, None, :]))
    inside &= order <= order[:, None]
    allowed = trunk | (inside & ~in_trunk)
    return Batch(
        ids=ids.clamp_min(0),
        positions=padded("positions", 0),
        allowed=allowed[:, None],
        answers=_pairs([(r, a) for r, row in enumerate(rows) for a in row.answers], 2, device),
        soft=_pairs([(r, i, kind) for r, row in enumerate(rows) for i, kind, _ in row.soft], 3, device),
        soft_references=[reference for row in rows for _, _, reference in row.soft],
        references=[reference for row in rows for reference in row.references],
    )


def _pairs(values: list, width: int, device) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64, device=device).reshape(-1, width)


def batches_by_tokens(lengths, budget: int, shuffle: np.random.Generator | None = None):
    """Group rows into batches of similar length, each at most ``budget`` padded tokens.

    Parameters
    ----------
    lengths : sequence of int
    budget : int
        Tokens in a batch, padding included; a longer row gets a batch of its own.
    shuffle : numpy Generator, optional
        Shuffles rows of the same length and the order of batches.

    Returns
    -------
    list of int64 array
        Indices of the rows of each batch.
    """
    lengths = np.asarray(lengths)
    jitter = shuffle.random(len(lengths)) if shuffle is not None else np.zeros(len(lengths))
    order = np.lexsort((jitter, lengths))
    batches, start = [], 0
    for stop in range(1, len(order) + 1):
        # Ascending order: the row at ``stop`` would be the longest of the batch.
        if stop == len(order) or lengths[order[stop]] * (stop + 1 - start) > budget:
            batches.append(order[start:stop])
            start = stop
    if shuffle is not None:
        shuffle.shuffle(batches)
    return batches
