"""What users rated low: TALLRec's "unpreference", beside the sequences of what they liked."""

from dataclasses import dataclass

import numpy as np

from recbole_ganprompt.data.sequences import Sequences, histories_before


@dataclass(frozen=True)
class Dislikes:
    """Low-rated items of all users, oldest first, with the times that decide who may know of them.

    Attributes
    ----------
    sequences : Sequences
        Items of the filtered catalogue only; an item may also be liked at another time.
    times : float64 array [low ratings]
        In the order of ``sequences.items``.
    """

    sequences: Sequences
    times: np.ndarray

    def __len__(self) -> int:
        return len(self.times)

    def before(self, users, times, count: int) -> np.ndarray:
        """The last items that users disliked strictly before given times.

        Parameters
        ----------
        users : int64 array [rows]
        times : float64 array [rows]
        count : int

        Returns
        -------
        int64 array [rows, count], padded on the right with 0
        """
        if not len(self):
            return np.zeros((len(users), count), dtype=np.int64)
        # Times grow inside a user's part only, so the search goes over ranks of (user, time).
        owner = np.repeat(np.arange(len(self.sequences.lengths)), self.sequences.lengths)
        _, ranks = np.unique(np.concatenate([self.times, times]), return_inverse=True)
        own, asked = ranks[: len(self.times)], ranks[len(self.times) :]
        width = int(ranks.max(initial=0)) + 1
        ends = np.searchsorted(owner * width + own, users * width + asked, side="left")
        return histories_before(self.sequences, users, ends - self.sequences.offsets[users], count)[0]
