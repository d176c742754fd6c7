"""GANPrompt's stages, from top to bottom: teacher, diversity, step one, step two."""

import logging

from recbole_ganprompt.data.batches import TextVariants
from recbole_ganprompt.trainer.language import LanguageTrainer
from recbole_ganprompt.trainer.teacher import train_teacher


class GANPromptTrainer(LanguageTrainer):
    """RecBole's trainer interface over the two stages of the paper."""

    def fit(
        self,
        train_data,
        valid_data=None,
        verbose=True,
        saved=True,
        show_progress=False,
        callback_fn=None,
    ):
        """Run all stages.

        Returns
        -------
        (float, dict)
            Best validation score and metrics, on all validation users.
        """
        dataset, model, config = train_data._dataset, self.model, self.config
        held_out = None
        collaborative = config["step_two"] != "no_collaborative"
        if collaborative:
            with self.stages.stage("teacher"):
                held_out, metrics = train_teacher(model.teacher, train_data, valid_data, config)
        texts = TextVariants([model.title_table], 0.0)
        with self.stages.stage("step one"):
            self.tune_language_model(dataset, valid_data, held_out, texts)
        if collaborative:
            with self.stages.stage("step two"):
                self.tune_mapping(dataset, valid_data, held_out, texts)
        with self.stages.stage("validation"):
            self.best_valid_result = self.evaluate(valid_data, load_best_model=False)
        if saved:
            self._save_checkpoint(0, verbose=verbose)
        if self.best_valid_result is not None:
            self.best_valid_score = self.best_valid_result[self.valid_metric]
        return self.best_valid_score, self.best_valid_result
