"""From packed rows to tensors, in one of three layouts that give the same scores.

``shared``
    Trunks, and apart from them the branches that share them: attention costs what it should, as a branch
    looks at its trunk and at itself, never at another branch.
``flat``
    A whole row at once under the mask of its tree. For gradient checkpointing, which can't carry keys and
    values from one pass to the next.
``separate``
    Every prompt on its own, as ordinary causal text. For models that can't share (recurrent ones, attention
    that takes no mask), and to compare with.
"""

from dataclasses import dataclass

import numpy as np
import torch

from recbole_ganprompt.language.packing import SHARED, Row

LAYOUTS = ("shared", "flat", "separate")
PADDING = -2
"""In place of a leaf: no token at all."""


@dataclass
class Batch:
    """Packed rows as tensors.

    Attributes
    ----------
    trunks : int64 [rows, trunk tokens]
        Token ids, padded on the right with 0; no tokens unless the layout is ``shared``.
    ids, positions : int64 [pieces, tokens]
        A piece is a branch, a whole row or a whole prompt; 0 at padding and at soft tokens.
    row : int64 [pieces]
        Whose trunk a branch grows from.
    allowed : bool [pieces, 1, tokens, trunk tokens + tokens] or None
        Which key (last axis: the trunk, then the piece) a query may attend to; none: what stands before.
    answers : int64 [answers, 2]
        Piece and column of every leaf's last token.
    soft : int64 [soft tokens, 3]
        Piece, column and kind of every soft token.
    soft_references, references : list of tuple
        What each soft token and each answer stand for.
    """

    trunks: torch.Tensor
    ids: torch.Tensor
    positions: torch.Tensor
    row: torch.Tensor
    allowed: torch.Tensor | None
    answers: torch.Tensor
    soft: torch.Tensor
    soft_references: list[tuple]
    references: list[tuple]

    @property
    def tokens(self) -> int:
        """Tokens computed, padding included."""
        return self.trunks.numel() + self.ids.numel()


def collate(rows: list[Row], device="cpu", layout: str = "shared") -> Batch:
    """Pad trunks and pieces to the longest of each, and build the pieces' attention masks."""
    if layout == "separate":
        rows = [prompt for row in rows for prompt in separate_prompts(row)]
    shared = layout == "shared"
    width = max(row.trunk for row in rows) if shared else 0
    trunks = np.zeros((len(rows), width), dtype=np.int64)
    pieces, owner, seen, answers, soft = [], [], [], [], []
    for number, row in enumerate(rows):
        trunks[number, : row.trunk if shared else 0] = row.ids[: row.trunk] if shared else ()
        starts = row.starts if shared else [0]
        ends = [*starts[1:], len(row)]
        place = np.searchsorted(starts, row.answers, side="right") - 1
        answers += [(len(pieces) + p, a - starts[p]) for p, a in zip(place, row.answers)]
        place = np.searchsorted(starts, [index for index, _, _ in row.soft], side="right") - 1
        soft += [(len(pieces) + p, index - starts[p], kind) for p, (index, kind, _) in zip(place, row.soft)]
        pieces += [(row, slice(start, end)) for start, end in zip(starts, ends)]
        owner += [number] * len(starts)
        seen += row.visible if shared else [0]

    shape = len(pieces), max(piece.stop - piece.start for _, piece in pieces)
    ids, positions = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    leaf = np.full(shape, PADDING)
    for index, (row, piece) in enumerate(pieces):
        columns = slice(0, piece.stop - piece.start)
        ids[index, columns] = row.ids[piece]
        positions[index, columns] = row.positions[piece]
        leaf[index, columns] = row.leaf[piece]
    allowed = None
    if layout != "separate":
        leaf = torch.from_numpy(leaf).to(device)
        inside = (leaf[:, None, :] == SHARED) | (leaf[:, :, None] == leaf[:, None, :])
        if layout == "flat":
            branch, reach = (part.to(device) for part in _branches(rows, shape))
            column = torch.arange(shape[1], device=device)
            # Of another branch, or of the trunk, only what stands before the own branch's start.
            inside &= (branch[:, :, None] == branch[:, None, :]) | (column < reach[:, :, None])
        seen = torch.arange(width, device=device) < torch.tensor(seen, device=device)[:, None]
        allowed = torch.cat([seen[:, None, :].expand(-1, shape[1], -1), inside.tril()], dim=2)[:, None]
    return Batch(
        trunks=torch.from_numpy(trunks).clamp_min(0).to(device),
        ids=torch.from_numpy(ids).clamp_min(0).to(device),
        positions=torch.from_numpy(positions).to(device),
        row=torch.tensor(owner, device=device),
        allowed=allowed,
        answers=_integers(answers, 2, device),
        soft=_integers(soft, 3, device),
        soft_references=[reference for row in rows for _, _, reference in row.soft],
        references=[reference for row in rows for reference in row.references],
    )


def _integers(values: list, width: int, device) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64, device=device).reshape(-1, width)


def _branches(rows: list[Row], shape: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """For each token of whole rows its branch (-1: the trunk) and how much of the trunk it sees."""
    branch, reach = np.full(shape, -1), np.zeros(shape, dtype=np.int64)
    for index, row in enumerate(rows):
        for number, (start, visible) in enumerate(zip(row.starts, row.visible)):
            branch[index, start:] = number
            reach[index, start:] = visible
    return torch.from_numpy(branch), torch.from_numpy(reach)


def separate_prompts(row: Row) -> list[Row]:
    """Each prompt of a packed row as a row of its own, in the order of its answers."""
    prompts = []
    leaves, soft = np.asarray(row.leaf), {index: (kind, reference) for index, kind, reference in row.soft}
    bounds = zip(row.starts, [*row.starts[1:], len(row)], row.visible)
    for start, end, visible in bounds:
        of_branch = leaves[start:end]
        for leaf in np.unique(of_branch[of_branch != SHARED]):
            inside = start + np.flatnonzero((of_branch == SHARED) | (of_branch == leaf))
            indices = [*range(visible), *inside.tolist()]
            prompts.append(
                Row(
                    ids=[row.ids[index] for index in indices],
                    positions=list(range(len(indices))),
                    leaf=[SHARED] * len(indices),
                    starts=[0],
                    visible=[0],
                    answers=[len(indices) - 1],
                    soft=[(place, *soft[index]) for place, index in enumerate(indices) if index in soft],
                    references=[row.references[leaf]],
                )
            )
    return prompts
