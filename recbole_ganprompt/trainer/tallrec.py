"""TALLRec's only stage: tune the language model on all samples, or on a few."""

import numpy as np

from recbole_ganprompt.data.batches import Positions, TextVariants
from recbole_ganprompt.trainer.language import LanguageTrainer


class TALLRecTrainer(LanguageTrainer):
    """RecBole's trainer interface over TALLRec's instruction tuning."""

    def run_stages(self, train_data, valid_data):
        config = self.config
        texts = TextVariants([self.model.title_table], 0.0)
        steps = config["llm_steps"] or (config["few_shot_steps"] if config["few_shot"] else None)
        with self.stages.stage("step one"):
            self.tune_language_model(train_data._dataset, valid_data, texts, steps=steps)

    def text_positions(self, dataset, excluded: list[Positions], generator) -> Positions:
        """All training positions, or those few whose ``few_shot`` samples the seed has chosen."""
        few = self.config["few_shot"]
        if not few:
            return super().text_positions(dataset, excluded, generator)
        positions = super().text_positions(dataset, excluded, np.random.default_rng([self.config["seed"], 4]))
        each = positions.candidates.shape[1]
        chosen = np.random.default_rng([self.config["seed"], 5]).choice(
            len(positions), size=few // each, replace=False
        )
        return positions[np.sort(chosen)]
