"""CoLLM's stages, from top to bottom: teacher, step one without the ID tokens, step two with them."""

import numpy as np

from recbole_ganprompt.data.batches import TextVariants
from recbole_ganprompt.trainer.language import LanguageTrainer
from recbole_ganprompt.trainer.teacher import train_teacher


class CoLLMTrainer(LanguageTrainer):
    """RecBole's trainer interface over CoLLM's two steps."""

    def run_stages(self, train_data, valid_data):
        dataset, model, config = train_data._dataset, self.model, self.config
        collaborative = config["step_two"] != "no_collaborative"
        if collaborative:
            with self.stages.stage("teacher"):
                train_teacher(model.teacher, train_data, valid_data, config)
        texts = TextVariants([model.title_table], 0.0)
        with self.stages.stage("step one"):
            self.tune_language_model(dataset, valid_data, texts)
        if collaborative:
            with self.stages.stage("step two"):
                positions = self.text_positions(dataset, [], np.random.default_rng([config["seed"], 3]))
                self.tune_mapping(dataset, valid_data, positions, texts)
