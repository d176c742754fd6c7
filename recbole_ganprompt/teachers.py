"""Which of RecBole's models can teach a language model, and how each makes e_u and e_i.

================================================  ==========================  ===========================
teacher                                           e_u                         e_i
================================================  ==========================  ===========================
MF (RecBole's BPR)                                row of the user table       row of the item table
LightGCN, NGCF                                    propagated user vector      propagated item vector
SASRec, GRU4Rec, Caser, BERT4Rec                  encoding of the history     row of the item table
CORE, FOSSIL, GCSAN, HGN, HRM, LightSANs, NARM,   what ``forward`` makes of   row of the item table
NPE, NextItNet, SINE, SRGNN, STAMP, TransRec      the user and the history
DIN                                               mean of the history's e_i,  row of the item table
                                                  as it has no vector before
                                                  it sees the target
================================================  ==========================  ===========================

Opinions are the model's own scores in all of them. The others can't teach:

- FPMC, RepeatNet: no one vector for each item.
- DIEN, SHAN: read negative or reversed histories, which the frozen candidates don't have.
- GRU4RecCPR, SASRecCPR: don't score single items.
- FEARec: shares weights between its layers, which safetensors doesn't keep.
- GRU4RecF, SASRecF, FDSA, S3Rec, GRU4RecKG, KSR: need item features, pre-training or a knowledge graph.
- All other general models: no vectors for users and items in one space (NeuMF, DMF, autoencoders), or
  more data in them than a graph (ENMF, SGL), which the early teacher of stage 0 would have to unlearn.
"""

GENERAL_TEACHERS = {"MF": "BPR", "LightGCN": "LightGCN", "NGCF": "NGCF"}
"""Models without histories that can teach a language model, and RecBole's names for them."""

TEACHERS = (
    *GENERAL_TEACHERS,
    *("SASRec", "GRU4Rec", "DIN", "Caser", "BERT4Rec"),
    *("CORE", "FOSSIL", "GCSAN", "HGN", "HRM", "LightSANs", "NARM", "NPE", "NextItNet"),
    *("SINE", "SRGNN", "STAMP", "TransRec"),
)
"""Values of the key ``teacher``."""
