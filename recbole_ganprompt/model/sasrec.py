"""RecBole's SASRec, trained on all positions at once."""

import torch
from recbole.model.sequential_recommender import SASRec as RecBoleSASRec

from recbole_ganprompt.model.all_positions import AllPositions


class SASRec(AllPositions, RecBoleSASRec):
    """Same architecture and scores as RecBole's class; see :class:`AllPositions`."""

    def position_outputs(self, item_seq):
        positions = torch.arange(item_seq.size(1), device=item_seq.device)
        embedded = self.item_embedding(item_seq) + self.position_embedding(positions)
        embedded = self.dropout(self.LayerNorm(embedded))
        mask = self.get_attention_mask(item_seq)  # causal, padding hidden
        return self.trm_encoder(embedded, mask, output_all_encoded_layers=False)[-1]
