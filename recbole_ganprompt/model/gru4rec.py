"""RecBole's GRU4Rec, trained on all positions at once."""

import torch
from recbole.model.sequential_recommender import GRU4Rec as RecBoleGRU4Rec

from recbole_ganprompt.model.all_positions import AllPositions


class GRU4Rec(AllPositions, RecBoleGRU4Rec):
    """Same architecture and scores as RecBole's class; see :class:`AllPositions`.

    In training, the recurrent layers' outputs can be dropped too, not only the embeddings.
    """

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.hidden_dropout = torch.nn.Dropout(config["hidden_dropout_prob"])

    def position_outputs(self, item_seq):
        embedded = self.emb_dropout(self.item_embedding(item_seq))
        return self.dense(self.hidden_dropout(self.gru_layers(embedded)[0]))
