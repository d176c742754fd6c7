"""Training a sequential model on whole windows of a user's sequence.

RecBole trains on one row for each prefix of a sequence, and scores one row for each candidate. The
prefixes of a sequence share nearly everything, and so do the candidates of a history: the models here
compute what is shared once. A state_dict of theirs is one of RecBole's class of the same name, and
gives the same scores there.
"""

import numpy as np
import torch


class SequenceTraining:
    """Mix-in for RecBole's sequential models that learn from windows of items.

    Attributes
    ----------
    sequence_losses : tuple of str
        Values of ``loss_type`` that :meth:`calculate_sequence_loss` has; with any other one the model
        trains on RecBole's rows, as RecBole does.
    """

    sequence_losses = ("CE",)

    def prepare_training(self, sequences) -> None:
        """Take what the loss needs from the ``Sequences`` that are trained on, before the first epoch."""

    def calculate_sequence_loss(self, windows: torch.Tensor, users: torch.Tensor) -> torch.Tensor:
        """Loss of one step.

        Parameters
        ----------
        windows : int64 [batch, length + 1]
            Consecutive items of one user each, padded on the right with 0.
        users : int64 [batch]

        Returns
        -------
        scalar tensor
        """
        raise NotImplementedError

    def score_candidates(self, interaction, candidates: torch.Tensor) -> torch.Tensor:
        """What RecBole's ``predict`` gives for several items of a user; the history is encoded once.

        Parameters
        ----------
        interaction : recbole Interaction
            ``user_id``, ``item_id_list`` and ``item_length`` of [batch] users.
        candidates : int64 [batch, candidates]

        Returns
        -------
        float [batch, candidates]
        """
        raise NotImplementedError


class UserVectors(SequenceTraining):
    """A model that encodes a user before it sees the target, and scores by inner product."""

    def encode_histories(
        self, users: torch.Tensor, items: torch.Tensor, lengths: torch.Tensor
    ) -> torch.Tensor:
        """Vector of each user after the given history.

        Parameters
        ----------
        users : int64 [batch]
        items : int64 [batch, MAX_ITEM_LIST_LENGTH]
            Oldest first, padded on the right with 0.
        lengths : int64 [batch]

        Returns
        -------
        float [batch, hidden], as wide as ``item_embedding``
        """
        raise NotImplementedError

    def score_candidates(self, interaction, candidates):
        vectors = self.encode_histories(
            interaction[self.USER_ID], interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
        )
        return torch.einsum("bh,bch->bc", vectors, self.item_embedding(candidates))


def training_windows(sequences, max_length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut sequences into windows of up to ``max_length + 1`` items.

    A longer sequence is cut from its end, windows overlapping by one item, so that every item but
    the first is a target exactly once.

    Parameters
    ----------
    sequences : Sequences
        The training part.
    max_length : int

    Returns
    -------
    windows : int64 [windows, max_length + 1]
        Padded on the right with 0.
    users : int64 [windows]
        Whose items they are.
    """
    rows, users = [], []
    for user in np.flatnonzero(sequences.lengths > 1):
        items = sequences.of(user)
        for end in range(len(items), 1, -max_length):
            rows.append(items[max(0, end - max_length - 1) : end])
            users.append(user)
    table = np.zeros((len(rows), max_length + 1), dtype=np.int64)
    for row, items in zip(table, rows):
        row[: len(items)] = items
    return torch.from_numpy(table), torch.tensor(users, dtype=torch.int64)
