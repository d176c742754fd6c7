"""TALLRec (arXiv 2305.00447): instruction tuning on titles alone.

What is TALLRec's own is the prompt, with what the user liked and, where ratings tell, what the user did
not; and that it learns from a few samples (:mod:`recbole_ganprompt.trainer.tallrec`).
"""

from recbole_ganprompt.errors import UserError
from recbole_ganprompt.model.language_recommender import LanguageRecommender
from recbole_ganprompt.prompt.template import HISTORY, TITLE, UNPREFERENCE


class TALLRec(LanguageRecommender):
    """An LLM that sees titles only.

    Raises
    ------
    UserError
        If ``few_shot`` can't be had: before a language model is built for it.
    """

    slots = (HISTORY, UNPREFERENCE, TITLE)

    def __init__(self, config, dataset):
        if few := config["few_shot"]:
            each = 1 + config["train_negatives"]
            samples = each * int((dataset.training_sequences().lengths - 1).clip(0).sum())
            if few % each or few > samples:
                raise UserError(
                    f"few_shot must be a multiple of {each} (a positive and its train_negatives) and at "
                    f"most {samples}, not {few}."
                )
        super().__init__(config, dataset)
