"""Training and evaluating RecBole's sequential models under the shared protocol."""

import copy

import torch
from recbole.trainer import Trainer
from tqdm import tqdm

from recbole_ganprompt.errors import UserError
from recbole_ganprompt.evaluation.evaluator import configured_metrics, score_candidates
from recbole_ganprompt.model.sequence_training import SequenceTraining, training_windows
from recbole_ganprompt.trainer.stages import Stages


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
    """

    def __init__(self, config, model):
        super().__init__(config, model)
        self.scores = None
        self.best_state = None
        self.write_checkpoints = True
        self.directory = None
        self.stages = Stages()
        self.findings = {}
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
        """RecBole's ``fit`` under one progress bar for all epochs."""
        # RecBole's SINE turns autograd's search for NaN on for the whole process when it is imported,
        # which takes a third of the time; `_check_nan` looks at every loss anyway.
        quick = torch.autograd.set_detect_anomaly(False)
        bar = tqdm(total=self.epochs, desc=self.config["model"], disable=not show_progress)
        with quick, bar:

            def epoch_done(epoch, score):
                bar.update()
                bar.set_postfix({self.valid_metric: f"{score:.4f}"})
                if callback_fn is not None:
                    callback_fn(epoch, score)

            return super().fit(train_data, valid_data, verbose, saved, False, epoch_done)

    def _learns_windows(self) -> bool:
        """Whether the model learns whole windows; else it is trained on RecBole's rows."""
        model = self.model
        return isinstance(model, SequenceTraining) and self.config["loss_type"] in model.sequence_losses

    def _train_epoch(self, train_data, epoch_idx, loss_func=None, show_progress=False):
        if not self._learns_windows():
            return super()._train_epoch(train_data, epoch_idx, loss_func, show_progress)
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
            none is opened here.
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
