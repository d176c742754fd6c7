"""GANPrompt's stages, from top to bottom: teacher, diversity, step one, step two."""

import numpy as np

from recbole_ganprompt.data.batches import TextVariants
from recbole_ganprompt.prompt.rendering import TitleTable
from recbole_ganprompt.trainer.diversity import DiversityStages, write_findings
from recbole_ganprompt.trainer.language import LanguageTrainer
from recbole_ganprompt.trainer.teacher import train_teacher


class GANPromptTrainer(LanguageTrainer):
    """RecBole's trainer interface over the two stages of the paper."""

    def run_stages(self, train_data, valid_data):
        dataset, model, config = train_data._dataset, self.model, self.config
        held_out = None
        collaborative = config["step_two"] != "no_collaborative"
        if collaborative:
            with self.stages.stage("teacher"):
                held_out, _ = train_teacher(model.teacher, train_data, valid_data, config)
        texts = self.diverse_texts(dataset)
        older, newer = (None, None) if held_out is None else held_out.split_by_age()
        with self.stages.stage("step one"):
            self.tune_language_model(dataset, valid_data, texts, guided=older, kept_back=newer)
        if collaborative:
            with self.stages.stage("step two"):
                positions, guided = newer, None
                if config["mapping_positions"] == "all":
                    # The others have no opinion that the teacher hadn't learnt by heart: only its vectors.
                    generator = np.random.default_rng([config["seed"], 3])
                    others = self.text_positions(dataset, [newer], generator)
                    positions, guided = newer.joined(others)
                self.tune_mapping(dataset, valid_data, positions, texts, guided)

    def diverse_texts(self, dataset) -> TextVariants:
        """Stages 1 to 3: item texts under each attribute, for a share of the training prompts."""
        config, model = self.config, self.model
        original = model.title_table
        if not config["reconstructed_share"] or not config["attributes"]:
            return TextVariants([original], 0.0)
        stages = DiversityStages(config, dataset)
        with self.stages.stage("attributes"):
            attributes = stages.attributes()
        with self.stages.stage("diversity"):
            texts, findings, folder = stages.texts(attributes)
        fallbacks = findings["reconstruction"]["fallbacks"]
        total = findings["reconstruction"]["texts"]
        self.logger.info(f"attributes: {', '.join(attributes)}")
        self.logger.info(f"{sum(fallbacks.values())} of {total} texts fell back to the title: {fallbacks}")
        self.findings["attributes"] = attributes
        self.findings["diversity"] = findings
        self.curves["diversity encoder"] = findings["curve"]
        if self.directory is not None:
            write_findings(self.directory, folder, attributes, texts, model.titles)
        tables = [TitleTable(model.tokenizer, row, config["title_tokens"]) for row in texts]
        return TextVariants([original, *tables], config["reconstructed_share"])
