"""Training a causal sequential model on all positions of a sequence in one pass.

RecBole trains on one row for each prefix. A causal model's output at position t depends on items
1..t only, so one pass over the sequence gives the outputs of all its prefixes: the same loss over the
same targets for a fraction of the work.
"""

import numpy as np
import torch


class AllPositions:
    """Mix-in for RecBole's causal sequential models that score by inner product.

    A class states its ``position_outputs``; RecBole's own ``forward``, ``predict`` and
    ``full_sort_predict`` stay as they are.
    """

    def position_outputs(self, item_seq: torch.Tensor) -> torch.Tensor:
        """Output at every position: item ids int64 [batch, length] to float [batch, length, hidden]."""
        raise NotImplementedError

    def calculate_sequence_loss(self, windows: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of the next item over the whole catalogue, averaged over all positions.

        Parameters
        ----------
        windows : int64 [batch, length + 1]
            Consecutive items, padded on the right with 0.
        """
        targets = windows[:, 1:]
        known = targets > 0
        outputs = self.position_outputs(windows[:, :-1])[known]
        logits = outputs @ self.item_embedding.weight.T
        return torch.nn.functional.cross_entropy(logits, targets[known])

    def score_candidates(self, interaction, candidates: torch.Tensor) -> torch.Tensor:
        """Inner products of a history with several items; the history is encoded once.

        Parameters
        ----------
        interaction : recbole Interaction
            ``item_id_list`` and ``item_length`` of [batch] users.
        candidates : int64 [batch, candidates]

        Returns
        -------
        float [batch, candidates]
        """
        user = self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
        return torch.einsum("bh,bch->bc", user, self.item_embedding(candidates))


def training_windows(sequences, max_length: int) -> torch.Tensor:
    """Cut sequences into windows of up to ``max_length + 1`` items for all-position training.

    A longer sequence is cut from its end, windows overlapping by one item, so that every item but
    the first is a target exactly once.

    Parameters
    ----------
    sequences : Sequences
        The training part.
    max_length : int

    Returns
    -------
    int64 [windows, max_length + 1], padded on the right with 0.
    """
    rows = []
    for user in np.flatnonzero(sequences.lengths > 1):
        items = sequences.of(user)
        for end in range(len(items), 1, -max_length):
            rows.append(items[max(0, end - max_length - 1) : end])
    table = np.zeros((len(rows), max_length + 1), dtype=np.int64)
    for row, items in zip(table, rows):
        row[: len(items)] = items
    return torch.from_numpy(table)
