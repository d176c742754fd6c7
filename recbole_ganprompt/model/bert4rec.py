"""RecBole's BERT4Rec, trained on whole windows."""

import torch
from recbole.model.sequential_recommender import BERT4Rec as RecBoleBERT4Rec

from recbole_ganprompt.model.sequence_training import UserVectors


class BERT4Rec(UserVectors, RecBoleBERT4Rec):
    """Same architecture and scores as RecBole's class.

    RecBole draws masks on every prefix of a sequence, item by item in Python. A bidirectional model
    sees no more in a prefix than in the whole window, so each window stands for its prefixes: in a
    share ``ft_ratio`` of the rows it is cut at a random item, which alone is masked, as at scoring;
    in the others items are masked at random.
    """

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.ft_ratio = config["ft_ratio"]
        self.masks_per_window = config["masks_per_window"]
        if self.hidden_act == "gelu":  # the same function in one kernel
            for layer in self.trm_encoder.layer:
                layer.feed_forward.intermediate_act_fn = torch.nn.functional.gelu

    def reconstruct_test_data(self, item_seq, item_seq_len):
        """RecBole's: append the mask, then drop the oldest item (of a short history, too)."""
        longer = torch.nn.functional.pad(item_seq, (0, 1))
        return longer.scatter(1, item_seq_len.unsqueeze(1), self.mask_token)[:, 1:]

    def masked_rows(self, windows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw masks.

        Parameters
        ----------
        windows : int64 [batch, length]
            Items, padded on the right with 0.

        Returns
        -------
        rows : int64 [batch, length]
            The windows with the mask's token in places, some cut.
        masked : bool [batch, length]
            Where; one place at least in every row.
        """
        lengths = (windows > 0).sum(dim=1, keepdim=True)
        position = torch.arange(windows.size(1), device=windows.device)
        # Rows that are cut: the last one left is masked; a first item has nothing before it.
        last = 1 + (torch.rand_like(lengths, dtype=torch.float) * (lengths - 1)).long()
        last = last.clamp_max(lengths - 1)
        cut = torch.rand_like(last, dtype=torch.float) < self.ft_ratio
        cloze = torch.rand(windows.shape, device=windows.device) < self.mask_ratio
        none = ~(cloze & (position < lengths)).any(dim=1, keepdim=True)
        cut = cut | none
        masked = torch.where(cut, position == last, cloze & (position < lengths))
        rows = torch.where(cut & (position > last), 0, windows)
        return rows.masked_fill(masked, self.mask_token), masked

    def calculate_sequence_loss(self, windows, users):
        """Cross-entropy over the catalogue at masked items."""
        # A history holds one item less than a window of full width.
        full = windows[:, self.max_seq_length :].any(dim=1, keepdim=True)
        items = torch.where(full, windows.roll(-1, dims=1), windows)[:, : self.max_seq_length]
        items = items.repeat(self.masks_per_window, 1)
        rows, masked = self.masked_rows(items)
        outputs = self.forward(rows)[masked]
        logits = outputs @ self.item_embedding.weight[: self.n_items].T + self.output_bias
        return torch.nn.functional.cross_entropy(logits, items[masked])

    def encode_histories(self, users, items, lengths):
        rows = self.reconstruct_test_data(items, lengths)[:, : int(lengths.max())]
        return self.gather_indexes(self.forward(rows), lengths - 1)

    def score_candidates(self, interaction, candidates):
        return super().score_candidates(interaction, candidates) + self.output_bias[candidates]
