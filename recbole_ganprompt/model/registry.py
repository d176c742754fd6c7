"""Which class runs under a model's name in our commands."""

from recbole.utils import get_model

from recbole_ganprompt.errors import UserError
from recbole_ganprompt.model.bert4rec import BERT4Rec
from recbole_ganprompt.model.caser import Caser
from recbole_ganprompt.model.din import DIN
from recbole_ganprompt.model.gru4rec import GRU4Rec
from recbole_ganprompt.model.sasrec import SASRec

SEQUENCE_MODELS = {
    "BERT4Rec": BERT4Rec,
    "Caser": Caser,
    "DIN": DIN,
    "GRU4Rec": GRU4Rec,
    "SASRec": SASRec,
}
"""Same architecture and parameters as RecBole's class of that name, trained on whole windows."""


def model_class(name: str):
    """Our faster training of a RecBole model where there is one, else what RecBole knows by name."""
    return SEQUENCE_MODELS.get(name) or get_model(name)


def recbole_model(name: str, config, dataset):
    """Make one of RecBole's models.

    Raises
    ------
    UserError
        If it refuses its settings, as SASRec does a ``hidden_size`` that ``n_heads`` doesn't divide.
    """
    try:
        return model_class(name)(config, dataset)
    except UserError:  # a ValueError too
        raise
    except ValueError as error:
        raise UserError(f"{name} refuses its settings: {' '.join(str(error).split())}") from error
