"""GANPrompt (arXiv 2408.09671): the recommender.

What is GANPrompt's own about the model is the prompt: reconstructed texts in training, a soft token for
the user and the item, and the teacher's opinion both as words and as a soft token
(⟨GuidanceKnowledge⟩). The stages that train it are in :mod:`recbole_ganprompt.trainer.ganprompt`.
"""

from recbole_ganprompt.model.language_recommender import LanguageRecommender
from recbole_ganprompt.prompt.template import SLOTS


class GANPrompt(LanguageRecommender):
    """The paper's recommender: every slot of Figure 5 is filled."""

    slots = SLOTS
