"""Which class runs under a model's name in our commands."""

from recbole.utils import get_model

from recbole_ganprompt.model.gru4rec import GRU4Rec
from recbole_ganprompt.model.sasrec import SASRec

ALL_POSITIONS = {"GRU4Rec": GRU4Rec, "SASRec": SASRec}
"""Same architecture as RecBole's class of that name, trained on all positions at once."""


def model_class(name: str):
    """Our faster training of a RecBole model where there is one, else what RecBole knows by name."""
    return ALL_POSITIONS.get(name) or get_model(name)
