"""Training a language-model recommender on packed prompts: step one and step two.

Both steps minimise the binary cross-entropy of p(Yes) over a positive and its negatives. Step one
trains the language model (LoRA, or all of a small one); step two trains the mapping MLP with the
language model and the teacher frozen.
"""

import json
import math
from dataclasses import replace

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from recbole_ganprompt import recommender, workers
from recbole_ganprompt.collaborative import training_negatives
from recbole_ganprompt.data.batches import Positions, TextVariants, training_rows
from recbole_ganprompt.data.sequences import histories_before
from recbole_ganprompt.errors import UserError
from recbole_ganprompt.evaluation.evaluator import score_candidates
from recbole_ganprompt.evaluation.metrics import ranking_metrics
from recbole_ganprompt.language.packing import batches_by_tokens
from recbole_ganprompt.trainer.stage_key import stage_key
from recbole_ganprompt.trainer.steps import Step, StepTrainer


class LanguageTrainer(StepTrainer):
    """Base of the trainers of our own models."""

    VALIDATIONS = 5
    BATCH_TOKENS = 6000

    def __init__(self, config, model):
        super().__init__(config, model)
        if config["llm_sharding"]:
            if workers.count() == 1 or config["llm_tuning"] == "full":
                raise UserError(
                    "llm_sharding spreads a frozen LLM's weights over several workers: set num_workers and "
                    "llm_tuning=lora, or llm_sharding=false."
                )
            model.reader.shard(self.device)

    def evaluate(self, eval_data, load_best_model=True, model_file=None, show_progress=False):
        """As the base class; the teacher's own metrics on the same candidates go to ``findings``."""
        result = super().evaluate(eval_data, load_best_model, model_file, show_progress)
        if result is not None and self.model.stage in ("guided", "mapped"):
            teacher = self.model.teacher
            scores = score_candidates(teacher.model, self.evaluation_set(eval_data), teacher.config)
            alone = self.findings.setdefault("teacher", {"model": self.config["teacher"]})
            alone[eval_data._dataset.phase] = ranking_metrics(scores, ks=self.config["topk"])
        return result

    def fit(
        self,
        train_data,
        valid_data=None,
        verbose=True,
        saved=True,
        show_progress=False,
        callback_fn=None,
    ):
        """Run the method's stages, validate the model on all users and write what it is.

        Returns
        -------
        (float, dict)
            Best validation score and metrics, on all validation users.
        """
        self.run_stages(train_data, valid_data)
        with self.stages.stage("validation"):
            self.best_valid_result = self.evaluate(valid_data, load_best_model=False)
        if saved:
            self.write_checkpoints = workers.rank() == 0
            self._save_checkpoint(0, verbose=verbose)
        if self.directory is not None:
            self.model.save_adapter(self.directory / "adapter")
            recommender.save(self.model, train_data._dataset, self.directory)
            (self.directory / "curves.json").write_text(json.dumps(self.curves, indent=1))
        if self.best_valid_result is not None:
            self.best_valid_score = self.best_valid_result[self.valid_metric]
        return self.best_valid_score, self.best_valid_result

    def run_stages(self, train_data, valid_data) -> None:
        """Train: what a method is, from its first stage to its last (each method states its own)."""
        raise NotImplementedError

    def text_positions(self, dataset, excluded: list[Positions], generator) -> Positions:
        """All training positions but the excluded ones, with freshly drawn negatives."""
        sequences = dataset.training_sequences()
        users = np.repeat(np.arange(len(sequences.lengths)), sequences.lengths)
        ends = np.arange(len(users)) - sequences.offsets[users]
        wanted = ends > 0
        for part in excluded:
            wanted[sequences.offsets[part.users] + part.ends] = False
        users, ends = users[wanted], ends[wanted]
        negatives = training_negatives(
            sequences, users, dataset.item_num, self.config["train_negatives"], generator
        )
        targets = sequences.items[sequences.offsets[users] + ends]
        return Positions(users, ends, np.concatenate([targets[:, None], negatives], axis=1))

    def rows(self, dataset, positions: Positions, stage: str, texts: TextVariants, generator, at=None):
        """Pack positions (those with the indices ``at``, or all) into rows of the stage's prompt."""
        part = positions if at is None else positions[at]
        guidance = None
        if stage in ("guided", "mapped") and self.model.guidance_words:
            guidance = self.model.guidance_levels(part.opinions)
        return training_rows(
            part,
            dataset.training_sequences(),
            self.model.training_prompts(stage),
            texts,
            guidance,
            dataset.dislikes_before(part.users, part.ends),
            self.model.history_length,
            self.config["row_tokens"],
            self.model.soft_guidance and stage == "mapped",
            generator,
            at,
        )

    def batches(self, rows, generator, batch_size: int):
        """Rows of similar length together, in batches of some thousand tokens, in random order.

        No batch has more samples than an optimizer step wants, but for a row that alone has more. Which rows
        a step sees must not depend on ``token_budget``, which memory may halve.
        """
        lengths = [self.model.reader.tokens(row) for row in rows]
        sizes = [len(row.answers) for row in rows]
        chosen = batches_by_tokens(lengths, self.BATCH_TOKENS, generator, sizes, batch_size)
        return [[rows[index] for index in batch] for batch in chosen]

    def tune_language_model(
        self,
        dataset,
        valid_data,
        texts: TextVariants,
        guided: Positions | None = None,
        kept_back: Positions | None = None,
        steps: int | None = None,
    ):
        """Step one: the language model learns to answer.

        Parameters
        ----------
        texts : TextVariants
        guided : Positions, optional
            Asked with the teacher's opinion as words, which cross-fitting made honest; all others
            are asked with the titles alone.
        kept_back : Positions, optional
            Left for step two: what the language model says of a pair that it was tuned on is as
            overconfident as what the teacher says of one.
        steps : int, optional
            Optimizer steps, instead of ``llm_steps`` or ``llm_epochs``.
        """
        model, config = self.model, self.config
        if guided is not None and model.guidance_words:
            quantiles = np.linspace(0, 1, len(model.guidance_thresholds) + 2)[1:-1]
            known = guided if len(guided) else kept_back  # none is older where one item of each is kept back
            thresholds = np.quantile(known.opinions, quantiles)
            model.guidance_thresholds.copy_(torch.from_numpy(thresholds))
        model.stage = "text" if guided is None else "guided"
        excluded = [part for part in (guided, kept_back) if part is not None]

        def one_pass(number):
            generator = np.random.default_rng([config["seed"], 2, number])
            positions = self.text_positions(dataset, excluded, generator)
            rows = self.rows(dataset, positions, "text", texts, generator)
            if guided is not None:
                rows += self.rows(dataset, guided, "guided", texts, generator)
            return self.batches(rows, generator, batch_size)

        parameters = [p for p in model.llm.parameters() if p.requires_grad]
        epochs, passes, batch_size = config["llm_epochs"], 1, config["llm_batch_size"]
        steps = steps or config["llm_steps"]
        if steps:
            # Steps may be many passes over few samples: validate a few times, not after each.
            samples = sum(len(row.answers) for rows in one_pass(0) for row in rows)
            batch_size = min(batch_size, samples)
            passes = math.ceil(steps * batch_size / samples)
            epochs = min(passes, self.VALIDATIONS)
            passes = math.ceil(passes / epochs)

        def epoch_batches(epoch):
            # Batches don't come out even, so the last epoch has enough for whatever steps are left.
            more = passes if steps and epoch == epochs - 1 else 0
            return [batch for number in range(passes + more) for batch in one_pass(epoch * passes + number)]

        step = Step("step one", epochs, config["llm_learning_rate"], batch_size, steps)
        parts = {"guided": guided, "kept back": kept_back, "passes": passes}
        key = stage_key(self, dataset, valid_data, texts, later=("mapping", "step_two"), **parts)
        return self.run_step(
            step, parameters, epoch_batches, lambda batch: self._loss(batch, None), valid_data, key
        )

    def tune_mapping(self, dataset, valid_data, positions: Positions, texts: TextVariants, guided=None):
        """Step two: soft tokens from the teacher's vectors and, where the prompt has it, opinion.

        Parameters
        ----------
        positions : Positions
        texts : TextVariants
        guided : int64 array, optional
            Indices of the positions that are asked with the teacher's opinion; all by default. The others,
            and all where there are no opinions, get fresh negatives in each epoch.

        ``step_two`` decides what learns: ``mapping`` only the mapping MLP; ``lora+mapping`` the
        language model's trainable weights as well; ``teacher+mapping`` the teacher as well; ``all``.
        """
        model, config = self.model, self.config
        teacher = model.teacher
        model.mapping.standardize(teacher.item_vectors())
        model.stage = "mapped"
        histories, lengths = histories_before(
            dataset.training_sequences(),
            positions.users,
            positions.ends,
            config["MAX_ITEM_LIST_LENGTH"],
        )
        trains_teacher = config["step_two"] in ("teacher+mapping", "all")
        parameters = list(model.mapping.parameters())
        if config["step_two"] in ("lora+mapping", "all"):
            parameters += [p for p in model.llm.parameters() if p.requires_grad]
        frozen = [p for p in model.llm.parameters() if p.requires_grad and p not in set(parameters)]
        for parameter in frozen:
            parameter.requires_grad_(False)
        if trains_teacher:
            parameters += list(model.teacher_model.parameters())
            users = items = None
        else:
            users = teacher.user_vectors(positions.users, histories, lengths)
            items = teacher.item_vectors()

        everyone = np.arange(len(positions))
        others = None if guided is None else np.setdiff1d(everyone, guided)
        redrawn = everyone if positions.opinions is None else others
        candidates = positions.candidates.copy()

        def epoch_batches(epoch):
            generator = np.random.default_rng([config["seed"], 3, epoch])
            if redrawn is not None:
                candidates[redrawn, 1:] = training_negatives(
                    dataset.training_sequences(),
                    positions.users[redrawn],
                    dataset.item_num,
                    config["train_negatives"],
                    generator,
                )
            current = replace(positions, candidates=candidates)
            rows = self.rows(dataset, current, "mapped", texts, generator, guided)
            if others is not None:
                rows += self.rows(dataset, current, "vectors", texts, generator, others)
            return self.batches(rows, generator, config["mapping_batch_size"])

        def loss_of_batch(batch):
            chosen = np.unique([row for row, _ in batch.references])
            place = {row: index for index, row in enumerate(chosen)}
            batch.soft_references = [(place[row], c) for row, c in batch.soft_references]
            items_of = torch.from_numpy(candidates[chosen])
            if trains_teacher:
                inputs = positions.users[chosen], histories[chosen], lengths[chosen]
                user_vectors = teacher.encode_users(*inputs)
                item_vectors = teacher.item_table()[items_of.to(self.device)]
            else:
                user_vectors, item_vectors = users[chosen], items[items_of]
            opinions = None
            if model.soft_guidance:
                opinions = torch.from_numpy(positions.opinions[chosen]).to(self.device)
            soft = model.soft_vectors(
                batch, user_vectors.to(self.device), item_vectors.to(self.device), opinions
            )
            return self._loss(batch, soft)

        step = Step(
            "step two",
            config["mapping_epochs"],
            config["mapping_learning_rate"],
            config["mapping_batch_size"],
        )
        key = stage_key(self, dataset, valid_data, texts, positions=positions, guided=guided)
        metrics = self.run_step(step, parameters, epoch_batches, loss_of_batch, valid_data, key)
        for parameter in frozen:
            parameter.requires_grad_(True)
        return metrics

    def _loss(self, batch, soft):
        logits = self.model.reader.logits(batch, soft)
        labels = torch.tensor(
            [float(reference[1] == 0) for reference in batch.references], device=logits.device
        )
        return binary_cross_entropy_with_logits(logits, labels, reduction="sum"), len(labels)
