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

SHARED, PADDING = -1, -2
"""In place of a leaf: tokens that all leaves behind them see, and no token at all."""


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


@dataclass
class Batch:
    """Trees of several rows as tensors: trunks, and apart from them the branches that share them.

    Attention costs what it should: a branch looks at its trunk and at itself, never at another
    branch.

    Attributes
    ----------
    trunks : int64 [rows, trunk tokens]
        Token ids, padded on the right with 0.
    ids, positions : int64 [branches, tokens]
        0 at padding and at soft tokens.
    row : int64 [branches]
        Whose trunk a branch grows from.
    allowed : bool [branches, 1, tokens, trunk tokens + tokens]
        Which key (last axis: the trunk, then the branch) a query may attend to.
    answers : int64 [answers, 2]
        Branch and column of every leaf's last token.
    soft : int64 [soft tokens, 3]
        Branch, column and kind of every soft token.
    soft_references, references : list of tuple
        What each soft token and each answer stands for.
    """

    trunks: torch.Tensor
    ids: torch.Tensor
    positions: torch.Tensor
    row: torch.Tensor
    allowed: torch.Tensor
    answers: torch.Tensor
    soft: torch.Tensor
    soft_references: list[tuple]
    references: list[tuple]

    @property
    def tokens(self) -> int:
        """Tokens computed, padding included."""
        return self.trunks.numel() + self.ids.numel()


def collate(rows: list[Row], device="cpu") -> Batch:
    """Pad trunks and branches to the longest of each, and build the branches' attention masks."""
    width = max(row.trunk for row in rows)
    trunks = np.zeros((len(rows), width), dtype=np.int64)
    pieces, owner, seen, answers, soft = [], [], [], [], []
    for number, row in enumerate(rows):
        trunks[number, : row.trunk] = row.ids[: row.trunk]
        ends = [*row.starts[1:], len(row)]
        place = np.searchsorted(row.starts, row.answers, side="right") - 1
        answers += [(len(pieces) + p, a - row.starts[p]) for p, a in zip(place, row.answers)]
        place = np.searchsorted(row.starts, [index for index, _, _ in row.soft], side="right") - 1
        soft += [
            (len(pieces) + p, index - row.starts[p], kind) for p, (index, kind, _) in zip(place, row.soft)
        ]
        pieces += [(row, slice(start, end)) for start, end in zip(row.starts, ends)]
        owner += [number] * len(row.starts)
        seen += row.visible

    shape = len(pieces), max(piece.stop - piece.start for _, piece in pieces)
    ids, positions = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    leaf = np.full(shape, PADDING)
    for index, (row, piece) in enumerate(pieces):
        columns = slice(0, piece.stop - piece.start)
        ids[index, columns] = row.ids[piece]
        positions[index, columns] = row.positions[piece]
        leaf[index, columns] = row.leaf[piece]
    leaf, seen = torch.from_numpy(leaf).to(device), torch.tensor(seen, device=device)
    inside = (leaf[:, None, :] == SHARED) | (leaf[:, :, None] == leaf[:, None, :])
    inside = inside.tril()
    trunk = torch.arange(width, device=device) < seen[:, None]
    trunk = trunk[:, None, :].expand(-1, shape[1], -1)
    return Batch(
        trunks=torch.from_numpy(trunks).clamp_min(0).to(device),
        ids=torch.from_numpy(ids).clamp_min(0).to(device),
        positions=torch.from_numpy(positions).to(device),
        row=torch.tensor(owner, device=device),
        allowed=torch.cat([trunk, inside], dim=2)[:, None],
        answers=_pairs(answers, 2, device),
        soft=_pairs(soft, 3, device),
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
