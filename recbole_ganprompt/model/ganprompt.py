"""GANPrompt (arXiv 2408.09671): the recommender.

What is GANPrompt's own about the model is the prompt: reconstructed texts in training, a soft token for
the user and the item, and the teacher's opinion both as words and as a soft token
(⟨GuidanceKnowledge⟩). The stages that train it are in :mod:`recbole_ganprompt.trainer.ganprompt`.
"""

from recbole_ganprompt.diversity.attributes import excluded_words, read_words
from recbole_ganprompt.language.backbone import check_source
from recbole_ganprompt.model.language_recommender import LanguageRecommender
from recbole_ganprompt.prompt.template import SLOTS


class GANPrompt(LanguageRecommender):
    """The paper's recommender: every slot of Figure 5 is filled.

    Raises
    ------
    UserError
        If a backbone's folder or a word list that a later stage needs isn't there.
    """

    slots = SLOTS

    def __init__(self, config, dataset):
        for key in ("llm", "generator", "attribute_lm"):
            check_source(config[key], key)
        if config["attribute_file"]:
            read_words(config["attribute_file"])
        excluded_words(config["attribute_exclude"])
        super().__init__(config, dataset)
