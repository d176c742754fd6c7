"""Training and evaluating RecBole's sequential models under the shared protocol."""

import copy
import json

import torch
from recbole.trainer import Trainer
from tqdm import tqdm

from recbole_ganprompt.checkpoints import Checkpoints, NotFinite, rolling_back
from recbole_ganprompt.errors import UserError
from recbole_ganprompt.evaluation.evaluator import configured_metrics, score_candidates
from recbole_ganprompt.model.sequence_training import SequenceTraining, training_windows
from recbole_ganprompt.seeding import SeededBatches, random_states, restore_random
from recbole_ganprompt.trainer.stages import Stages
from recbole_ganprompt.writing import write_text


class SequentialTrainer(Trainer):
    """RecBole's trainer on frozen candidates, on whole windows where the model can learn them.

    ``evaluate`` takes the evaluation set from the dataset behind the data loader, so that every model
    ranks the same lists; the loader's own sampled negatives are not used.

    Attributes
    ----------
    scores : float32 array [users, candidates]
        Scores of the last evaluation.
    best_state : dict of tensors
        Weights of the epoch that was best on validation.
    write_checkpoints : bool
        Whether RecBole's ``.pth`` is written too; False keeps the best weights in memory only.
    directory : Path or None
        Where artefacts of the run go; None writes none.
    stages : Stages
        Seconds and memory of each stage.
    findings : dict
        What a run found out beside its metrics, for ``result.json``.
    curves : dict of list
        Loss (the mean of an epoch's batches) and validation metrics by epoch, for figures.
    checkpoints : Checkpoints
        Where training leaves its state, and finds that of a killed one.
    """

    def __init__(self, config, model):
        super().__init__(config, model)
        self.scores = None
        self.best_state = None
        self.write_checkpoints = True
        self.directory = None
        self.stages = Stages()
        self.findings = {}
        self.curves: dict[str, list] = {}
        self.checkpoints = Checkpoints()
        self._epoch = self._batch = self._halvings = 0
        self._evaluation_sets = {}
        self._windows = None

    def fit(
        self,
        train_data,
        valid_data=None,
        verbose=True,
        saved=True,
        show_progress=False,
        callback_fn=None,
    ):
        """RecBole's ``fit`` under one progress bar; goes on from a checkpoint, and back to one at NaN.

        A checkpoint is taken between epochs, where it is time for one.

        Raises
        ------
        UserError
            If the loss isn't finite, also with an eighth of the learning rate.
        """
        if not isinstance(train_data.collate_fn, SeededBatches):
            # RecBole's loaders draw while they put a batch together, each of their processes for itself.
            train_data.collate_fn = SeededBatches(train_data.collate_fn, self.config["seed"])
        fit = super().fit
        start = copy.deepcopy(self.model.state_dict())
        begun = random_states(), train_data.generator.get_state()
        nothing = {"best_valid_score": self.best_valid_score, "best_valid_result": None, "cur_step": 0}

        def train(state: dict | None, halvings: int):
            state = state or {
                **nothing,
                "model": start,
                "random": begun[0],
                "loader": begun[1],
                "epoch": 0,
                "best_state": None,
                "losses": {},
                "curve": [],
                "optimizer": None,
            }
            self._halvings = halvings
            self.model.load_state_dict(state["model"])
            self.optimizer = self._build_optimizer()
            if state["optimizer"] is not None:
                self.optimizer.load_state_dict(state["optimizer"])
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate * 0.5**halvings
            for name in nothing:
                setattr(self, name, state[name])
            self.best_state, self.train_loss_dict = state["best_state"], dict(state["losses"])
            self.curves = {"training": list(state.get("curve", ()))}
            self.start_epoch = state["epoch"]
            restore_random(state["random"])
            train_data.generator.set_state(state["loader"])
            bar = tqdm(
                total=self.epochs,
                initial=self.start_epoch,
                desc=self.config["model"],
                disable=not show_progress,
            )

            def epoch_done(epoch, score):
                bar.update()
                bar.set_postfix({self.valid_metric: f"{score:.4f}"})
                if callback_fn is not None:
                    callback_fn(epoch, score)

            # RecBole's SINE turns autograd's search for NaN on for the whole process when it is imported,
            # which takes a third of the time; `_check_nan` looks at every loss anyway.
            with torch.autograd.set_detect_anomaly(False), bar:
                return fit(train_data, valid_data, verbose, saved, False, epoch_done)

        best = rolling_back(train, self.checkpoints)
        if self.directory is not None:
            write_text(self.directory / "curves.json", json.dumps(self.curves, indent=1))
        return best

    def _state(self, epoch: int, train_data) -> dict:
        """Where training stands before an epoch."""
        names = ("best_valid_score", "best_valid_result", "cur_step", "best_state")
        return {
            **{name: getattr(self, name) for name in names},
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": random_states(),
            "loader": train_data.generator.get_state(),
            "losses": self.train_loss_dict,
            "curve": self.curves["training"],
            "epoch": epoch,
            "halvings": self._halvings,
        }

    def _learns_windows(self) -> bool:
        """Whether the model learns whole windows; else it is trained on RecBole's rows."""
        model = self.model
        return isinstance(model, SequenceTraining) and self.config["loss_type"] in model.sequence_losses

    def _check_nan(self, loss):
        """RecBole's look at every loss, which here leads back to a checkpoint."""
        if not torch.isfinite(loss):
            place = f"epoch {self._epoch}, batch {self._batch}"
            raise NotFinite(f"{self.config['model']}, {place}: the loss is not finite")
        self._batch += 1

    def _train_epoch(self, train_data, epoch_idx, loss_func=None, show_progress=False):
        if epoch_idx > self.start_epoch:
            self.checkpoints.reached(lambda: self._state(epoch_idx, train_data))
        self._epoch, self._batch = epoch_idx, 0
        if self._learns_windows():
            loss = self._train_windows(train_data)
        else:
            loss = super()._train_epoch(train_data, epoch_idx, loss_func, show_progress)
        total = sum(loss) if isinstance(loss, tuple) else loss
        self.curves["training"].append({"epoch": epoch_idx, "loss": total / self._batch, "valid": None})
        return loss

    def _valid_epoch(self, valid_data, show_progress=False):
        score, result = super()._valid_epoch(valid_data, show_progress)
        self.curves["training"][-1]["valid"] = dict(result)
        return score, result

    def _train_windows(self, train_data) -> float:
        if self._windows is None:
            sequences = train_data._dataset.training_sequences()
            self._windows = training_windows(sequences, self.config["MAX_ITEM_LIST_LENGTH"])
            self.model.prepare_training(sequences)
        every_window, owners = self._windows
        self.model.train()
        order = torch.randperm(len(owners))
        total = 0.0
        for index in order.split(self.config["train_batch_size"]):
            windows = every_window[index]
            width = int((windows > 0).sum(dim=1).max())
            loss = self.model.calculate_sequence_loss(
                windows[:, :width].to(self.device), owners[index].to(self.device)
            )
            self._check_nan(loss)
            self.optimizer.zero_grad()
            loss.backward()
            if self.clip_grad_norm:
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), **self.clip_grad_norm)
            self.optimizer.step()
            total += loss.item()
        return total

    @torch.no_grad()
    def evaluate(self, eval_data, load_best_model=True, model_file=None, show_progress=False):
        """Rank the frozen candidates of the split behind ``eval_data``.

        Returns
        -------
        dict or None
            Metrics by name; ``None`` for a split without users.

        Raises
        ------
        UserError
            If a checkpoint's file is named, or nothing was trained yet: a ``.pth`` can run code, so
            none is opened here; or if a score is NaN or infinite.
        """
        if not len(eval_data._dataset):
            return None
        if load_best_model:
            if model_file is not None or self.best_state is None:
                raise UserError(
                    "This trainer evaluates the weights that it trained: load a checkpoint with RecBole's "
                    "load_data_and_model and pass load_best_model=False."
                )
            self.model.load_state_dict(self.best_state)
        scores = score_candidates(self.model, self.evaluation_set(eval_data), self.config)
        if not torch.isfinite(scores).all():  # the last step may have broken what no loss has shown yet
            raise NotFinite(f"{self.config['model']}, after epoch {self._epoch}: the scores are not finite")
        self.scores = scores.numpy()
        return configured_metrics(self.scores, self.config)

    def evaluation_set(self, eval_data):
        """Histories and candidates of the split behind a data loader."""
        dataset = eval_data._dataset
        if dataset.phase not in self._evaluation_sets:
            self._evaluation_sets[dataset.phase] = dataset.evaluation_set(dataset.phase)
        return self._evaluation_sets[dataset.phase]

    def _save_checkpoint(self, epoch, verbose=True, **kwargs):
        self.best_state = copy.deepcopy(self.model.state_dict())
        if self.write_checkpoints:
            super()._save_checkpoint(epoch, verbose=verbose, **kwargs)
