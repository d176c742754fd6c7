"""The loop that trains a language model: packed batches, a step of so many samples, the best epoch kept."""

from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from recbole_ganprompt import workers
from recbole_ganprompt.evaluation.evaluator import configured_metrics, score_candidates
from recbole_ganprompt.language.layout import collate
from recbole_ganprompt.language.packing import batches_by_tokens
from recbole_ganprompt.seeding import seeded
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
        Samples (pairs of a user and an item) an optimizer step.
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
    curves : dict of list
        Loss and validation metric by step, for figures.
    epoch_ended : callable or None
        Takes the :class:`Step`, the epoch's number and its metrics on the sample of validation users.
    """

    def __init__(self, config, model):
        super().__init__(config, model)
        self.curves: dict[str, list] = {}
        self.epoch_ended = None

    def run_step(self, step: Step, parameters, epoch_batches, loss_of_batch, valid_data):
        """Run :meth:`_run_step` with dropout that doesn't depend on what drew before."""
        with seeded(self.config["seed"]), torch.autograd.set_detect_anomaly(False):
            return self._run_step(step, parameters, epoch_batches, loss_of_batch, valid_data)

    def _run_step(self, step: Step, parameters, epoch_batches, loss_of_batch, valid_data):
        """Optimise ``parameters``, keep the epoch that is best on validation.

        Parameters
        ----------
        step : Step
        parameters : list of Parameter
        epoch_batches : callable
            Epoch number to a list of batches, each a list of packed rows.
        loss_of_batch : callable
            Collated batch to (summed loss, number of samples).
        valid_data : RecBole data loader

        Returns
        -------
        dict or None
            Best metrics on validation.
        """
        optimizer = torch.optim.AdamW(
            parameters, lr=step.learning_rate, weight_decay=self.config["llm_weight_decay"]
        )
        best_score, best_metrics, best_state = -np.inf, None, None
        curve = self.curves.setdefault(step.name, [])
        done = total = 0
        bar = tqdm(desc=step.name, disable=not self.config["show_progress"], unit="sample")
        for epoch in range(step.epochs):
            batches = epoch_batches(epoch)
            samples = [sum(len(row.answers) for row in rows) for rows in batches]
            if total == 0:
                total = step.steps * step.batch_size if step.steps else sum(samples) * step.epochs
                bar.reset(total)
            self.model.train()
            self._freeze_dropout(parameters)
            summed = counted = pending = 0
            for rows, size in zip(batches, samples):
                if done >= total:
                    break
                loss, count = self._accumulate(rows, loss_of_batch, parameters, step.batch_size)
                summed, counted = summed + loss, counted + count
                pending, done = pending + size, done + size
                bar.update(size)
                if pending < step.batch_size and done < total:
                    continue
                workers.add_up_gradients(parameters)
                # Less than a full batch weighs less, and a batch that overshot is averaged.
                scale = step.batch_size / max(pending, step.batch_size)
                for parameter in parameters:
                    if parameter.grad is not None:
                        parameter.grad.mul_(scale)
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                progress = done / total
                factor = min(1.0, progress / 0.05) * max(0.02, 1.0 - progress)
                for group in optimizer.param_groups:
                    group["lr"] = step.learning_rate * factor
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                pending = 0
            totals = torch.tensor([summed, counted], dtype=torch.float64)
            workers.add_up([totals])
            loss = (totals[0] / totals[1].clamp_min(1)).item()
            self.tensorboard.add_scalar(f"Loss/{step.name}", loss, epoch)
            metrics = self.validate(valid_data)
            score = -np.inf if metrics is None else metrics[self.valid_metric]
            curve.append({"epoch": epoch, "loss": loss, "valid": metrics})
            if metrics is not None:
                self.tensorboard.add_scalar(f"Valid/{step.name}", score, epoch)
            bar.set_postfix(loss=f"{loss:.4f}", valid=f"{score:.4f}")
            self.logger.info(f"{step.name}: epoch {epoch} loss {loss:.4f} valid {metrics}")
            if metrics is None or score > best_score:
                best_score, best_metrics = score, metrics
                best_state = [parameter.detach().clone() for parameter in parameters]
            if self.epoch_ended is not None:
                self.epoch_ended(step, epoch, metrics)
        bar.close()
        if best_state is not None:
            with torch.no_grad():
                for parameter, value in zip(parameters, best_state):
                    parameter.copy_(value)
        self.model.eval()
        return best_metrics

    def _accumulate(self, rows, loss_of_batch, parameters, batch_size: int) -> tuple[float, int]:
        """Add the gradients of this worker's part of some rows to the parameters', as memory allows.

        Returns
        -------
        (float, int)
            The summed loss, and the number of samples that it was summed over.
        """
        reader, summed, counted = self.model.reader, 0.0, 0
        waiting = [workers.share(rows)]
        while waiting:
            rows = waiting.pop()
            lengths = [reader.tokens(row) for row in rows]
            parts = batches_by_tokens(lengths, reader.token_budget)
            for number, part in enumerate(parts):
                try:
                    batch = collate([rows[index] for index in part], self.device, reader.layout)
                    loss, count = loss_of_batch(batch)
                    self._check_nan(loss)
                    # Not backward(): a pass that runs out of memory half-way must leave nothing behind.
                    gradients = torch.autograd.grad(loss / batch_size, parameters, allow_unused=True)
                except torch.OutOfMemoryError as error:
                    loss = batch = None
                    reader.spend_less(error, max(lengths[index] for index in part))
                    waiting.append([rows[index] for left in parts[number:] for index in left])
                    break
                for parameter, gradient in zip(parameters, gradients):
                    if gradient is not None:
                        parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
                summed, counted = summed + loss.item(), counted + count
        return summed, counted

    def validate(self, valid_data):
        """Metrics on a fixed sample of ``valid_users`` users of the validation split, or None."""
        if not len(valid_data._dataset):
            return None
        evaluation = self.evaluation_set(valid_data).sample(self.config["valid_users"])
        return configured_metrics(score_candidates(self.model, evaluation, self.config).numpy(), self.config)

    def _freeze_dropout(self, parameters):
        """Modules none of whose parameters are trained stay in evaluation mode (the teacher)."""
        trained = {id(parameter) for parameter in parameters}
        for module in self.model.children():
            if not any(id(parameter) in trained for parameter in module.parameters()):
                module.eval()
