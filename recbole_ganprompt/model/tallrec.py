"""TALLRec (arXiv 2305.00447): instruction tuning on titles alone.

What is TALLRec's own is the prompt, with what the user liked and, where ratings tell, what the user did
not; and that it learns from a few samples (:mod:`recbole_ganprompt.trainer.tallrec`).
"""

from recbole_ganprompt.model.language_recommender import LanguageRecommender
from recbole_ganprompt.prompt.template import HISTORY, TITLE, UNPREFERENCE


class TALLRec(LanguageRecommender):
    """An LLM that sees titles only."""

    slots = (HISTORY, UNPREFERENCE, TITLE)
