"""RecBole's Caser, trained on all prefixes of a window at once."""

import torch
from recbole.model.sequential_recommender import Caser as RecBoleCaser

from recbole_ganprompt.model.sequence_training import UserVectors


class Caser(UserVectors, RecBoleCaser):
    """Same architecture and scores as RecBole's class.

    RecBole convolves every prefix, padded to ``MAX_ITEM_LIST_LENGTH``, for itself. A convolution is a
    sum over the items that it covers, so the sums of all prefixes are cumulative sums over one product
    of items and filters; what a filter gives for the padding is a constant.
    """

    def prefix_outputs(self, users: torch.Tensor, item_seq: torch.Tensor) -> torch.Tensor:
        """RecBole's ``forward`` for every prefix of the sequences.

        Parameters
        ----------
        users : int64 [batch]
        item_seq : int64 [batch, length]
            ``length`` may be less than ``MAX_ITEM_LIST_LENGTH``.

        Returns
        -------
        float [batch, length, embedding_size]
            At ``t``: for items ``0..t``.
        """
        embedded = self.item_embedding(item_seq)
        padding = self.item_embedding.weight[0].detach()  # a look-up of padding has no gradient
        parts = []
        if self.n_v:
            parts.append(self._vertical(embedded, padding))
        if self.n_h:
            parts += [self._horizontal(embedded, padding, conv) for conv in self.conv_h]
        hidden = self.ac_fc(self.fc1(self.dropout(torch.cat(parts, dim=-1))))
        owner = self.user_embedding(users).unsqueeze(1).expand(-1, hidden.size(1), -1)
        return self.ac_fc(self.fc2(torch.cat([hidden, owner], dim=-1)))

    def _vertical(self, embedded, padding):
        """Vertical filters of all prefixes: float [batch, length, n_v * embedding_size]."""
        length = embedded.size(1)
        weight = self.conv_v.weight[:, 0, :, 0]  # [n_v, max_length]
        until = torch.tril(weight[:, :length].unsqueeze(1).expand(-1, length, -1))
        after = weight.sum(dim=1, keepdim=True) - until.sum(dim=-1)  # [n_v, length]
        out = torch.einsum("vtl,ble->btve", until, embedded)
        out = out + after.T.unsqueeze(-1) * padding + self.conv_v.bias.unsqueeze(-1)
        return out.flatten(start_dim=2)

    def _horizontal(self, embedded, padding, conv):
        """One height of horizontal filters, pooled: float [batch, length, n_h]."""
        batch, length, _ = embedded.shape
        weight = conv.weight[:, 0]  # [n_h, height, embedding_size]
        height = weight.size(1)
        # From offset `length` on, every prefix shows the filter nothing but padding: one such is enough.
        offsets = min(self.max_seq_length - height, length) + 1
        covered = min(height, length)
        products = torch.einsum("ble,hje->bljh", embedded, weight[:, :covered])
        offset = torch.arange(offsets, device=embedded.device)
        row = torch.arange(covered, device=embedded.device)
        # An index beyond the end is clamped: no prefix is long enough to read it.
        item = (offset.unsqueeze(1) + row).clamp_max(length - 1)
        real = products[:, item, row].cumsum(dim=2)  # [batch, offsets, covered, n_h]
        real = torch.cat([real.new_zeros(batch, offsets, 1, self.n_h), real], dim=2)
        # The filter's rows from n on see padding: [covered + 1, n_h].
        unreal = (weight @ padding).T.flip(0).cumsum(dim=0).flip(0)
        unreal = torch.cat([unreal, unreal.new_zeros(1, self.n_h)])[: covered + 1]
        sums = real + unreal + conv.bias
        # Prefix t shows the filter at an offset its items offset..t.
        prefix = torch.arange(1, length + 1, device=embedded.device)
        seen = (prefix.unsqueeze(1) - offset).clamp(0, covered)  # [length, offsets]
        return self.ac_conv(sums[:, offset, seen].amax(dim=2))

    def calculate_sequence_loss(self, windows, users):
        """Cross-entropy over the catalogue at all positions, and RecBole's regularisation."""
        targets = windows[:, 1:]
        known = targets > 0
        outputs = self.prefix_outputs(users, windows[:, :-1])[known]
        logits = outputs @ self.item_embedding.weight.T
        loss = torch.nn.functional.cross_entropy(logits, targets[known])
        tables = [self.user_embedding, self.item_embedding, self.conv_v, self.fc1, self.fc2]
        norms = self.reg_loss([table.weight for table in tables])
        return loss + self.reg_weight * norms + self.reg_loss_conv_h()

    def encode_histories(self, users, items, lengths):
        return self.forward(users, items)
