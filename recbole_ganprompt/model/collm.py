"""CoLLM (arXiv 2310.19488): a traditional model's vectors as tokens in the LLM's prompt.

What is CoLLM's own about the model is the prompt with one soft token for the user and one for the item
(its equations 3 to 5); the two steps that train it are in :mod:`recbole_ganprompt.trainer.collm`.
"""

from recbole_ganprompt.model.language_recommender import LanguageRecommender
from recbole_ganprompt.prompt.template import HISTORY, TARGET, TITLE, USER


class CoLLM(LanguageRecommender):
    """An LLM that sees titles and, mapped into its space, e_u and e_i."""

    slots = (HISTORY, USER, TITLE, TARGET)
