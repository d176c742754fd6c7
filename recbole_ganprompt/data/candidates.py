"""Frozen candidate sets: every model, seed and epoch ranks the very same lists.

RecBole draws negatives anew at every evaluation and for every model, with replacement, and its
sequential sampler forgets each user's first item (RecBole issues 1751 and 2077). Here the negatives
of a split are drawn once, uniformly and without replacement, from the items that the user never
touched in any split, and are kept on disk.
"""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from recbole_ganprompt.data.fingerprint import fingerprint
from recbole_ganprompt.errors import UserError


@dataclass(frozen=True)
class EvaluationSet:
    """What a model ranks in one split.

    Attributes
    ----------
    users : int64 array [users]
    histories : int64 array [users, MAX_ITEM_LIST_LENGTH]
        Oldest first, padded on the right with 0.
    lengths : int64 array [users]
    candidates : int64 array [users, 1 + negatives]
        The positive stands in column 0.
    dislikes : int64 array [users, titles], optional
        Items that the user rated low before, for prompts that name them; padded with 0.
    """

    users: np.ndarray
    histories: np.ndarray
    lengths: np.ndarray
    candidates: np.ndarray
    dislikes: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.users)

    def sample(self, count: int) -> "EvaluationSet":
        """The same for ``count`` users, drawn once and for all; all of them if there are fewer."""
        if count >= len(self):
            return self
        rows = np.sort(np.random.default_rng(0).choice(len(self), size=count, replace=False))
        dislikes = None if self.dislikes is None else self.dislikes[rows]
        return EvaluationSet(
            self.users[rows], self.histories[rows], self.lengths[rows], self.candidates[rows], dislikes
        )


def draw_negatives(sequences, users, item_count: int, negatives: int, seed: int) -> np.ndarray:
    """Draw distinct items that a user never touched, uniformly.

    Parameters
    ----------
    sequences : Sequences
        Whole sequences, all splits.
    users : int64 array [rows]
    item_count : int
        Number of internal item ids, padding included: items are ``1 .. item_count - 1``.
    negatives : int
        Items drawn for each user.
    seed : int

    Returns
    -------
    int64 array [rows, negatives]

    Raises
    ------
    UserError
        If a user has touched so many items that fewer than ``negatives`` are left.
    """
    generator = np.random.default_rng(seed)
    owner = np.repeat(np.arange(len(sequences.offsets) - 1), sequences.lengths)
    touched = np.unique(owner * item_count + sequences.items)
    touched_count = np.bincount(touched // item_count, minlength=len(sequences.offsets) - 1)
    left = item_count - 1 - touched_count[users]
    if len(left) and left.min() < negatives:
        raise UserError(
            f"A user has touched all but {left.min()} of {item_count - 1} items, so {negatives} "
            f"negatives don't exist: ask for fewer with "
            f"--eval_args=\"{{'mode': 'uni{max(int(left.min()), 1)}'}}\" or filter such users "
            "with user_inter_num_interval."
        )
    drawn = np.zeros((len(users), negatives), dtype=np.int64)
    # Where little is left, rejection would spin: permute the few that remain.
    for row in np.flatnonzero(left < 4 * negatives):
        free = np.setdiff1d(np.arange(1, item_count), sequences.of(users[row]))
        drawn[row] = generator.permutation(free)[:negatives]
    # Rejection, one column at a time: a draw is kept if the user never touched the item and the
    # row doesn't hold it yet, which is uniform without replacement.
    spacious = np.flatnonzero(left >= 4 * negatives)
    for column in range(negatives):
        pending = spacious
        while len(pending):
            item = generator.integers(1, item_count, size=len(pending))
            key = users[pending] * item_count + item
            slot = np.minimum(np.searchsorted(touched, key), len(touched) - 1)
            rejected = touched[slot] == key
            rejected |= (drawn[pending, :column] == item[:, None]).any(axis=1)
            drawn[pending[~rejected], column] = item[~rejected]
            pending = pending[rejected]
    return drawn


def negatives_per_user(config, phase: str) -> int:
    """The number in RecBole's ``eval_args: mode: uni9``."""
    return int(config["eval_args"]["mode"][phase].removeprefix("uni"))


def frozen_candidates(dataset, phase: str, users, positives) -> np.ndarray:
    """Return the candidates of one split, drawing them the first time.

    They are kept in ``<checkpoint_dir>/candidates/<dataset>-<phase>-<fingerprint>.safetensors``, the
    fingerprint taken over everything that determines them: the sequences in the data's own
    tokens, the number of negatives and ``candidate_seed``; training seeds don't move them.

    Returns
    -------
    int64 array [users, 1 + negatives]
    """
    config = dataset.config
    negatives = negatives_per_user(config, phase)
    # A seed of its own for each split, or test negatives would repeat validation's.
    seed = [config["candidate_seed"], {"valid": 0, "test": 1}[phase]]
    key = fingerprint(
        "candidates-1",
        dataset.sequences.items,
        dataset.sequences.offsets,
        "\n".join(map(str, dataset.field2id_token[dataset.iid_field])),
        "\n".join(map(str, dataset.field2id_token[dataset.uid_field])),
        users,
        positives,
        negatives,
        seed,
    )
    folder = Path(config["checkpoint_dir"]) / "candidates"
    path = folder / f"{dataset.dataset_name}-{phase}-{key}.safetensors"
    if path.is_file():
        return load_file(path)["candidates"]
    drawn = draw_negatives(dataset.sequences, users, dataset.item_num, negatives, seed)
    candidates = np.concatenate([positives[:, None], drawn], axis=1)
    folder.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=folder, suffix=".tmp")
    os.close(handle)
    try:
        save_file({"candidates": candidates}, temporary)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return candidates


def candidates_fingerprint(*sets: EvaluationSet | None) -> str:
    """One digest of the lists that a result was measured on."""
    return fingerprint(*(part and [part.users, part.histories, part.candidates] for part in sets))
