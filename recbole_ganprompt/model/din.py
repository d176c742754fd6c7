"""RecBole's DIN, trained on all positions of a window against shared negatives."""

from logging import getLogger

import torch
from recbole.model.sequential_recommender import DIN as RecBoleDIN

from recbole_ganprompt.errors import UserError
from recbole_ganprompt.model.sequence_training import SequenceTraining


class DIN(SequenceTraining, RecBoleDIN):
    """Same architecture and scores as RecBole's class.

    DIN's attention is a function of one candidate and one item of the history, and is summed without a
    softmax. So a window's negatives meet every item once, and partial sums give the user's vector for
    each prefix. Pairs of a candidate and an item are only computed where there is an item.
    """

    sequence_losses = ("CE", "BCE")

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.sequence_loss = config["loss_type"]
        if self.sequence_loss not in self.sequence_losses:
            raise UserError(
                f"DIN's loss_type must be one of {', '.join(self.sequence_losses)}, "
                f"not {self.sequence_loss!r}."
            )
        self.window_negatives = config["window_negatives"]
        asked = config["train_neg_sample_args"]
        if (asked["distribution"], asked["sample_num"]) != ("uniform", 1):  # what auto stands for
            getLogger().warning(
                f"DIN learns from whole windows: its negatives are window_negatives={self.window_negatives}, "
                "and train_neg_sample_args has no effect."
            )
        self._touched = None

    def prepare_training(self, sequences):
        users = torch.arange(len(sequences.lengths)).repeat_interleave(torch.from_numpy(sequences.lengths))
        pairs = users * self.n_items + torch.from_numpy(sequences.items)
        self._touched = pairs.unique().to(self.device)

    def item_features(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """All features of items: int64 [batch, items] to float [batch, items, features * embedding_size]."""
        sparse, dense = self.embedding_layer(users, items)
        parts = [part["item"] for part in (sparse, dense) if part["item"] is not None]
        return torch.cat(parts, dim=-2).flatten(start_dim=2)

    def attention_weights(self, queries, keys, wanted) -> torch.Tensor:
        """Attention of candidates to items of the history.

        Parameters
        ----------
        queries : float [batch, candidates, size]
        keys : float [batch, length, size]
        wanted : bool [batch, candidates, length]
            The pairs to compute.

        Returns
        -------
        float [batch, candidates, length], 0 where not wanted
        """
        _, first, *rest = self.attention.att_mlp_layers.mlp_layers  # its dropout is 0
        # The layer's input is [q, k, q - k, q * k]; by linearity only the last needs all pairs.
        of_query, of_key, of_difference, of_product = first.weight.chunk(4, dim=1)
        by_query = queries @ (of_query + of_difference).T + first.bias
        by_key = keys @ (of_key - of_difference).T
        row, candidate, item = wanted.nonzero(as_tuple=True)
        query, key = row * queries.size(1) + candidate, row * keys.size(1) + item

        def pick(table, index):
            return table.flatten(end_dim=1).index_select(0, index)

        hidden = (pick(queries, query) * pick(keys, key)) @ of_product.T
        hidden = hidden + pick(by_query, query) + pick(by_key, key)
        for layer in rest:
            hidden = layer(hidden)
        weights = self.attention.dense(hidden).squeeze(1) / keys.size(-1) ** 0.5
        return torch.zeros_like(wanted, dtype=weights.dtype).index_put((row, candidate, item), weights)

    def logits(self, user_vectors, candidates) -> torch.Tensor:
        """DIN's network on pairs: two times float [..., size] to float [...]."""
        pairs = torch.cat([user_vectors, candidates, user_vectors * candidates], dim=-1)
        out = self.dnn_predict_layers(self.dnn_mlp_layers(pairs.flatten(end_dim=-2)))
        return out.view(pairs.shape[:-1])

    def draw_negatives(self, users: torch.Tensor) -> torch.Tensor:
        """Items drawn uniformly, avoiding the users' training items: int64 [batch, window_negatives]."""
        shape = (len(users), self.window_negatives)
        drawn = torch.randint(1, self.n_items, shape, device=users.device)
        for _ in range(10):  # a user who touched nearly everything keeps a few wrong ones
            pair = users.unsqueeze(1) * self.n_items + drawn
            slot = torch.searchsorted(self._touched, pair).clamp_max(len(self._touched) - 1)
            again = torch.randint(1, self.n_items, shape, device=users.device)
            drawn = torch.where(self._touched[slot] == pair, again, drawn)
        return drawn

    def window_logits(self, windows, users, negatives) -> torch.Tensor:
        """Logits of every target and of the window's negatives after the items before it.

        Parameters
        ----------
        windows : int64 [batch, length + 1]
        users : int64 [batch]
        negatives : int64 [batch, negatives]

        Returns
        -------
        float [targets, 1 + negatives]
            The target stands in column 0; rows in the order of ``windows[:, 1:]`` where it isn't 0.
        """
        known = windows[:, 1:] > 0
        length = known.size(1)
        features = self.item_features(users, torch.cat([windows, negatives], dim=1))
        items, drawn = features[:, : length + 1], features[:, length + 1 :]
        keys, targets = items[:, :-1], items[:, 1:]
        # Target t comes after keys 0..t; where it is known, so are they.
        weights = self.attention_weights(targets, keys, known.unsqueeze(2).expand(-1, -1, length).tril())
        of_targets = (weights @ keys)[known]
        pairs = known.unsqueeze(1).expand(-1, drawn.size(1), -1)
        weights = self.attention_weights(drawn, keys, pairs)
        before = known.new_ones(length, length).tril()  # [position, item]
        sums = (weights.unsqueeze(1) * before.unsqueeze(1)).flatten(1, 2) @ keys
        sums = sums.unflatten(1, (length, -1))[known]  # [targets, negatives, size]
        vectors = torch.cat([of_targets.unsqueeze(1), sums], dim=1)
        drawn = drawn.unsqueeze(1).expand(-1, length, -1, -1)[known]
        return self.logits(vectors, torch.cat([targets[known].unsqueeze(1), drawn], dim=1))

    def calculate_sequence_loss(self, windows, users):
        """Softmax over a target and its negatives (CE), or whether each is the target (BCE)."""
        logits = self.window_logits(windows, users, self.draw_negatives(users))
        if self.sequence_loss == "CE":
            return -torch.log_softmax(logits, dim=1)[:, 0].mean()
        positive, negative = logits[:, 0], logits[:, 1:]
        softplus = torch.nn.functional.softplus
        return (softplus(-positive).mean() + softplus(negative).mean()) / 2

    def score_candidates(self, interaction, candidates):
        users, lengths = interaction[self.USER_ID], interaction[self.ITEM_SEQ_LEN]
        history = interaction[self.ITEM_SEQ][:, : int(lengths.max())]
        features = self.item_features(users, torch.cat([history, candidates], dim=1))
        keys, queries = features.split([history.size(1), candidates.size(1)], dim=1)
        pairs = torch.arange(history.size(1), device=lengths.device) < lengths.unsqueeze(1)
        pairs = pairs.unsqueeze(1).expand(-1, candidates.size(1), -1)
        vectors = self.attention_weights(queries, keys, pairs) @ keys
        return self.sigmoid(self.logits(vectors, queries))
