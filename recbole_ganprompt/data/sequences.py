"""All users' item sequences in two flat arrays."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Sequences:
    """The item sequences of all users, flat.

    Attributes
    ----------
    items : int64 array [interactions]
        Internal item ids (0 is RecBole's padding and never occurs), user by user, oldest first.
    offsets : int64 array [users + 1]
        User ``u`` owns ``items[offsets[u]:offsets[u + 1]]``; user 0 is padding and owns nothing.
    """

    items: np.ndarray
    offsets: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Number of interactions of each user, int64 [users]."""
        return np.diff(self.offsets)

    def of(self, user: int) -> np.ndarray:
        """The items of one user, oldest first, int64 [length]."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    def without_last(self, drop: np.ndarray) -> "Sequences":
        """Every sequence without its last ``drop[u]`` items (int64 [users])."""
        position = np.arange(len(self.items))
        keep = position < np.repeat(self.offsets[1:] - drop, self.lengths)
        offsets = np.concatenate([[0], np.cumsum(self.lengths - drop)])
        return Sequences(self.items[keep], offsets)


def histories_before(sequences: Sequences, users, ends, max_length: int):
    """Lay out the last ``max_length`` items before a position of each user's sequence.

    Parameters
    ----------
    sequences : Sequences
    users : int64 array [rows]
    ends : int64 array [rows]
        Position inside the user's sequence; the history is everything before it.
    max_length : int

    Returns
    -------
    histories : int64 array [rows, max_length]
        Oldest first, padded on the right with 0 (RecBole's layout).
    lengths : int64 array [rows]
    """
    lengths = np.minimum(ends, max_length)
    starts = sequences.offsets[users] + ends - lengths
    columns = np.arange(max_length)
    inside = columns < lengths[:, None]
    index = np.where(inside, starts[:, None] + columns, 0)
    return np.where(inside, sequences.items[index], 0), lengths
