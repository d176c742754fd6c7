"""Training a causal sequential model on all positions of a sequence in one pass.

A causal model's output at position t depends on items 1..t only, so one pass over the sequence gives
the outputs of all its prefixes: the same loss over the same targets for a fraction of the work.
"""

import torch

from recbole_ganprompt.model.sequence_training import UserVectors


class AllPositions(UserVectors):
    """Mix-in for RecBole's causal sequential models that score by inner product.

    A class states its ``position_outputs``; RecBole's own ``forward``, ``predict`` and
    ``full_sort_predict`` stay as they are.
    """

    def position_outputs(self, item_seq: torch.Tensor) -> torch.Tensor:
        """Output at every position: item ids int64 [batch, length] to float [batch, length, hidden]."""
        raise NotImplementedError

    def calculate_sequence_loss(self, windows, users):
        """Cross-entropy of the next item over the whole catalogue, averaged over all positions."""
        targets = windows[:, 1:]
        known = targets > 0
        outputs = self.position_outputs(windows[:, :-1])[known]
        logits = outputs @ self.item_embedding.weight.T
        return torch.nn.functional.cross_entropy(logits, targets[known])

    def encode_histories(self, users, items, lengths):
        return self.forward(items, lengths)
