"""The loop that trains a language model: packed batches, a step of so many samples, the best epoch kept."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from recbole_ganprompt import interruption, workers
from recbole_ganprompt.checkpoints import Checkpoints, NotFinite, rolling_back
from recbole_ganprompt.data.cache import cached_folder
from recbole_ganprompt.evaluation.evaluator import configured_metrics, score_candidates
from recbole_ganprompt.language.layout import collate
from recbole_ganprompt.language.packing import batches_by_tokens
from recbole_ganprompt.seeding import random_states, restore_random, seeded
from recbole_ganprompt.trainer.sequential import SequentialTrainer


@dataclass(frozen=True)
class Step:
    """How one training step goes.

    Attributes
    ----------
    name : str
        For progress bars and curves.
    epochs : int
        After each the model is validated.
    learning_rate : float
        Peak of a linear warm-up and decay (AdamW).
    batch_size : int
        Samples (pairs of a user and an item) an optimizer step, as near as whole rows come to it.
    steps : int, optional
        Optimizer steps after which training ends, however many samples are left.
    """

    name: str
    epochs: int
    learning_rate: float
    batch_size: int
    steps: int | None = None


class StepTrainer(SequentialTrainer):
    """A trainer of language models, one :class:`Step` after the other.

    Attributes
    ----------
    epoch_ended : callable or None
        Takes the :class:`Step`, the epoch's number and its metrics on the sample of validation users.
    """

    def __init__(self, config, model):
        super().__init__(config, model)
        self.epoch_ended = None

    def run_step(self, step: Step, parameters, epoch_batches, loss_of_batch, valid_data, key: dict):
        """Optimise ``parameters``, keep the epoch that is best on validation; nothing is done twice.

        The result is kept in ``<checkpoint_dir>/stages`` under all that it depends on, and taken from there
        where it is; a killed step goes on from its last checkpoint. Dropout doesn't depend on
        what drew before.

        Parameters
        ----------
        step : Step
        parameters : list of Parameter
        epoch_batches : callable
            Epoch number to a list of batches, each a list of packed rows; the same at each call.
        loss_of_batch : callable
            Collated batch to (summed loss, number of samples).
        valid_data : RecBole data loader
        key : dict
            What the result depends on, beside the step.

        Returns
        -------
        dict or None
            Best metrics on validation.
        """
        model = self.model
        trained = {id(parameter) for parameter in parameters}
        names = {name for name, parameter in model.named_parameters() if id(parameter) in trained}
        names |= {name for name, _ in model.named_buffers()}

        built = False

        def build(folder: Path, checkpoints: Checkpoints) -> None:
            nonlocal built
            built = True
            start = [parameter.detach().clone() for parameter in parameters]

            def train(state, halvings):
                with seeded(self.config["seed"]), torch.autograd.set_detect_anomaly(False):
                    training = _StepTraining(self, step, parameters, loss_of_batch, checkpoints, halvings)
                    training.start(start, state)
                    return training.run(epoch_batches, valid_data)

            curve, best = rolling_back(train, checkpoints)
            state = model.state_dict()
            weights = {name: value.contiguous() for name, value in state.items() if name in names}
            save_file(weights, folder / "weights.safetensors")
            (folder / "curve.json").write_text(json.dumps({"curve": curve, "best": best}), encoding="utf-8")

        stages = Path(self.config["checkpoint_dir"]) / "stages"
        kind = step.name.replace(" ", "_")
        folder = cached_folder(stages, kind, {"step": asdict(step), **key}, build, together=True)
        own = dict(model.named_parameters()) | dict(model.named_buffers())
        with torch.no_grad():
            for name, value in load_file(folder / "weights.safetensors").items():
                own[name].copy_(value)
        model.eval()
        kept = json.loads((folder / "curve.json").read_text(encoding="utf-8"))
        self.curves[step.name] = kept["curve"]
        if not built:
            for entry in kept["curve"]:
                self.epoch_was(step, entry)
        return kept["best"]

    def validate(self, valid_data):
        """Metrics on a fixed sample of ``valid_users`` users of the validation split, or None."""
        if not len(valid_data._dataset):
            return None
        evaluation = self.evaluation_set(valid_data).sample(self.config["valid_users"])
        return configured_metrics(score_candidates(self.model, evaluation, self.config).numpy(), self.config)

    def epoch_was(self, step: Step, entry: dict) -> None:
        """Tell those who follow the training how an epoch went, in this process or before a kill."""
        self.tensorboard.add_scalar(f"Loss/{step.name}", entry["loss"], entry["epoch"])
        if entry["valid"] is not None:
            score = entry["valid"][self.valid_metric]
            self.tensorboard.add_scalar(f"Valid/{step.name}", score, entry["epoch"])
        if self.epoch_ended is not None:
            self.epoch_ended(step, entry["epoch"], entry["valid"])

    def freeze_dropout(self, parameters):
        """Modules none of whose parameters are trained stay in evaluation mode (the teacher)."""
        trained = {id(parameter) for parameter in parameters}
        for module in self.model.children():
            if not any(id(parameter) in trained for parameter in module.parameters()):
                module.eval()


class _StepTraining:
    """One step on its way: everything that a checkpoint must hold.

    Attributes
    ----------
    epoch, at : int
        How far it has come: batches done of an epoch.
    done, total : int
        Samples done and to do, or optimizer steps where the step counts those.
    summed, counted
        Loss and samples of this epoch, on this worker.
    """

    def __init__(self, trainer, step: Step, parameters, loss_of_batch, checkpoints, halvings: int):
        self.trainer, self.step, self.parameters = trainer, step, parameters
        self.loss_of_batch, self.checkpoints, self.halvings = loss_of_batch, checkpoints, halvings
        self.model, self.config = trainer.model, trainer.config
        self.optimizer = torch.optim.AdamW(
            parameters, lr=step.learning_rate, weight_decay=self.config["llm_weight_decay"]
        )
        self.epoch = self.at = self.done = self.total = 0
        self.summed, self.counted = 0.0, 0
        self.curve: list[dict] = []
        self.best_score, self.best_metrics, self.best_state = -np.inf, None, None

    def start(self, parameters: list[torch.Tensor], state: dict | None) -> None:
        """Begin with these values of the parameters, or where a checkpoint's state was."""
        self.optimizer.zero_grad(set_to_none=True)
        if state is not None:
            for name in ("epoch", "at", "done", "total", "curve", "best_score", "best_metrics"):
                setattr(self, name, state[name])
            self.summed, self.counted = state["sums"][workers.rank()].view(torch.float64).tolist()
            self.optimizer.load_state_dict(state["optimizer"])
            self.model.reader.token_budget = state["token_budget"]
            self.best_state = state["best_state"]
            restore_random(state["random"])
            parameters = state["parameters"]
        self._put(parameters)

    def _put(self, values: list[torch.Tensor]) -> None:
        with torch.no_grad():
            for parameter, value in zip(self.parameters, values):
                parameter.copy_(value)

    def _state(self) -> dict:
        names = ("epoch", "at", "done", "total", "curve", "best_score", "best_metrics", "halvings")
        sums = torch.tensor([self.summed, self.counted], dtype=torch.float64).view(torch.uint8)
        return {
            **{name: getattr(self, name) for name in names},
            "parameters": [parameter.detach() for parameter in self.parameters],
            "best_state": self.best_state,
            "optimizer": self.optimizer.state_dict(),
            "sums": workers.of_each(sums),
            "token_budget": self.model.reader.token_budget,
            "random": random_states(together=True),
        }

    def run(self, epoch_batches, valid_data) -> tuple[list[dict], dict | None]:
        """Train to the end; the curve, and the metrics of the epoch whose weights the model has then."""
        step = self.step
        unit = "step" if step.steps else "sample"
        bar = tqdm(desc=step.name, disable=not self.config["show_progress"], unit=unit)
        for entry in self.curve:
            self.trainer.epoch_was(step, entry)
        while self.epoch < step.epochs:
            batches = epoch_batches(self.epoch)
            samples = [sum(len(row.answers) for row in rows) for rows in batches]
            if self.total == 0:
                self.total = step.steps or sum(samples) * step.epochs
            bar.reset(self.total)
            bar.update(self.done)
            self.model.train()
            self.trainer.freeze_dropout(self.parameters)
            while self.at < len(batches) and self.done < self.total:
                self._update(batches, samples, bar)
                self.checkpoints.reached(self._state)
            self._end_epoch(valid_data, bar)
        bar.close()
        if self.best_state is not None:
            self._put(self.best_state)
        return self.curve, self.best_metrics

    def _update(self, batches, samples, bar) -> None:
        """One step of the optimizer, on as many batches as it takes."""
        step, first, pending = self.step, self.at, 0
        rows = []
        # One batch more, if the step comes nearer to its size by it.
        while self.at < len(batches) and (not rows or pending + samples[self.at] / 2 <= step.batch_size):
            rows += batches[self.at]
            pending += samples[self.at]
            self.at += 1
        advance = 1 if step.steps else pending
        self.done += advance
        bar.update(advance)
        place = f"{step.name}, epoch {self.epoch}, batches {first} to {self.at - 1}"
        broken = self._accumulate(rows)
        if workers.largest([float(broken is not None)])[0]:  # all of them turn back, or none
            raise NotFinite(f"{place}: the loss is not finite{broken or ''}")
        workers.add_up_gradients(self.parameters)
        # Less than a full batch weighs less, and a batch that overshot is averaged.
        scale = step.batch_size / max(pending, step.batch_size)
        for parameter in self.parameters:
            if parameter.grad is not None:
                parameter.grad.mul_(scale)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        if not torch.isfinite(norm):
            raise NotFinite(f"{place}: the gradient is not finite")
        progress = self.done / self.total
        factor = min(1.0, progress / 0.05) * max(0.02, 1.0 - progress) * 0.5**self.halvings
        for group in self.optimizer.param_groups:
            group["lr"] = step.learning_rate * factor
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _end_epoch(self, valid_data, bar) -> None:
        trainer = self.trainer
        totals = torch.tensor([self.summed, self.counted], dtype=torch.float64)
        workers.add_up([totals])
        loss = (totals[0] / totals[1].clamp_min(1)).item()
        try:
            metrics = trainer.validate(valid_data)
        except interruption.Interrupted:
            self.checkpoints.save(self._state())
            raise
        score = -np.inf if metrics is None else metrics[trainer.valid_metric]
        self.curve.append({"epoch": self.epoch, "loss": loss, "valid": metrics})
        bar.set_postfix(loss=f"{loss:.4f}", valid=f"{score:.4f}")
        trainer.logger.info(f"{self.step.name}: epoch {self.epoch} loss {loss:.4f} valid {metrics}")
        if metrics is None or score > self.best_score:
            self.best_score, self.best_metrics = score, metrics
            self.best_state = [parameter.detach().clone() for parameter in self.parameters]
        self.epoch, self.at = self.epoch + 1, 0
        self.summed, self.counted = 0.0, 0
        trainer.epoch_was(self.step, self.curve[-1])

    def _accumulate(self, rows) -> str | None:
        """Add the gradients of this worker's part of some rows to the parameters', as memory allows.

        Returns
        -------
        str or None
            Where the loss was not finite, if it was so.
        """
        reader, every_row, broken = self.model.reader, rows, None
        waiting = [workers.share(rows)]
        while waiting:
            rows = waiting.pop()
            lengths = [reader.tokens(row) for row in rows]
            parts = batches_by_tokens(lengths, reader.token_budget)
            if reader.sharded:
                missing = int(workers.largest([float(len(parts))])[0]) - len(parts)
                for _ in range(missing):  # passes that only serve the others
                    loss, _ = self.loss_of_batch(collate(every_row[:1], self.trainer.device, reader.layout))
                    torch.autograd.grad(loss, self.parameters, allow_unused=True)
            for number, part in enumerate(parts):
                try:
                    batch = collate([rows[index] for index in part], self.trainer.device, reader.layout)
                    loss, count = self.loss_of_batch(batch)
                    if not torch.isfinite(loss):
                        ids = [token for token in rows[part[0]].ids if token >= 0]
                        broken = f" (its first prompts: {self.model.tokenizer.decode(ids)[-200:]!r})"
                    # Not backward(): a pass that runs out of memory half-way must leave nothing behind.
                    gradients = torch.autograd.grad(
                        loss / self.step.batch_size, self.parameters, allow_unused=True
                    )
                except torch.OutOfMemoryError as error:
                    loss = batch = None
                    reader.spend_less(error, max(lengths[index] for index in part))
                    waiting.append([rows[index] for left in parts[number:] for index in left])
                    break
                for parameter, gradient in zip(self.parameters, gradients):
                    if gradient is not None:
                        parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
                self.summed, self.counted = self.summed + loss.item(), self.counted + count
        return broken
