"""RecBole's sequential dataset with what the protocol adds: item titles, true order, one split.

Four things differ from :class:`recbole.data.dataset.SequentialDataset`:

* **Order.** RecBole casts timestamps to float32 before it sorts; Unix seconds then collapse into
  buckets of 64 to 128 seconds and the order inside a bucket is lost. Here the order is taken in
  float64, ties by file order.
* **Augmentation.** Every prefix of a sequence is still a row (``item_id_list`` → ``item_id``), since
  RecBole's pointwise models train on such rows, but they are laid out in one vectorised step.
* **Item text.** Every item has one, from the columns that ``item_text`` names.
* **Broken files.** A line that can't be read is named, and what is left out is counted
  (:mod:`recbole_ganprompt.data.checked_dataset`).
"""

import copy
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from recbole.data.interaction import Interaction
from recbole.utils import FeatureSource, FeatureType

from recbole_ganprompt.data.atomic_files import AtomicFile
from recbole_ganprompt.data.candidates import EvaluationSet, frozen_candidates
from recbole_ganprompt.data.checked_dataset import COUNTED, CheckedDataset
from recbole_ganprompt.data.dislikes import Dislikes
from recbole_ganprompt.data.download import locate
from recbole_ganprompt.data.item_text import read_titles
from recbole_ganprompt.data.sequences import Sequences, histories_before
from recbole_ganprompt.errors import UserError


class TextSequentialDataset(CheckedDataset):
    """Sequences, titles and the leave-one-out split that all models share.

    Attributes
    ----------
    sequences : Sequences
        Whole sequences after filtering.
    titles : list of str [items]
        ``titles[0]`` is the padding item's, empty; an item without text is called "untitled item".
    untitled : int
        How many items had no text.
    read_counts : dict of str to int
        What was left out or mended in reading the files, by the names of `COUNTED`; nothing that
        did not happen.
    times : float64 array [interactions]
        When each interaction of ``sequences`` took place.
    dislikes : Dislikes
        Items rated ``unpreference_rating`` or less; empty unless that key is set and ratings are there.

    Raises
    ------
    UserError
        If files or columns are missing, a line can't be read, or nothing is left after filtering.
    """

    def __init__(self, config):
        self._low_rated = None
        config["data_path"] = str(locate(config))
        super().__init__(config)
        frame = self.inter_feat
        # A stable sort on float64 keeps file order among equal times.
        frame = frame.sort_values([self.uid_field, self.time_field], kind="stable")
        self.inter_feat = frame.reset_index(drop=True)
        self.sequences = self._sequences_of(frame)
        self.times = frame[self.time_field].to_numpy(dtype=np.float64)
        self.dislikes = self._read_dislikes()
        self.kept_from_training = np.zeros(self.user_num, dtype=np.int64)
        self.titles = self._read_titles()
        self.untitled = self.counted["untitled_items"]
        self.read_counts = {name: self.counted[name] for name in COUNTED if self.counted[name]}
        if self.read_counts:
            found = "; ".join(f"{COUNTED[name]}: {count}" for name, count in self.read_counts.items())
            self.logger.warning(f"{self.dataset_name}: {found}.")

    # -- filtering ----------------------------------------------------------------------------

    def _filter_by_field_value(self):
        super()._filter_by_field_value()
        threshold = self.config["rating_threshold"]
        if threshold is None:
            return
        rating = self.config["RATING_FIELD"]
        if rating not in self.inter_feat:
            self.logger.info(
                f"{self.dataset_name} has no '{rating}' column: all interactions count as liked."
            )
            return
        self.counted["interactions_without_rating"] = int(self.inter_feat[rating].isna().sum())
        low = self.config["unpreference_rating"]
        if low is not None:
            ratings = self.inter_feat[rating]
            self._low_rated = self.inter_feat[(ratings <= low) & (ratings < threshold)]
        self.inter_feat = self.inter_feat[self.inter_feat[rating] >= threshold]

    def _sequences_of(self, frame) -> Sequences:
        """Items of a frame with internal ids that is sorted by user."""
        counts = np.bincount(frame[self.uid_field].to_numpy(dtype=np.int64), minlength=self.user_num)
        return Sequences(
            frame[self.iid_field].to_numpy(dtype=np.int64),
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        )

    def _read_dislikes(self) -> Dislikes:
        """Low ratings, of users and items that the filters left, by user and time."""
        fields = [self.uid_field, self.iid_field, self.time_field]
        frame = pd.DataFrame(columns=fields) if self._low_rated is None else self._low_rated[fields].copy()
        self._low_rated = None
        for field in (self.uid_field, self.iid_field):
            frame[field] = frame[field].map(self.field2token_id[field])
        frame = frame.dropna().sort_values([self.uid_field, self.time_field], kind="stable")
        return Dislikes(self._sequences_of(frame), frame[self.time_field].to_numpy(dtype=np.float64))

    def features(self) -> dict[str, np.ndarray]:
        """Columns of users and items beyond their ids: arrays [users or items, ...] by ``item.<field>``.

        In the order of the columns.
        """
        found = {}
        for name, feat, own in (
            ("user", self.user_feat, self.uid_field),
            ("item", self.item_feat, self.iid_field),
        ):
            if feat is None:
                continue
            if not isinstance(feat, Interaction):  # before the splits are built it is a table
                feat = self._dataframe_to_interaction(feat)
            columns = feat.interaction.items()
            found |= {f"{name}.{field}": values.numpy() for field, values in columns if field != own}
        return found

    def dislikes_before(self, users, ends) -> np.ndarray | None:
        """What users disliked before the given positions of their sequences.

        Parameters
        ----------
        users, ends : int64 array [rows]

        Returns
        -------
        int64 array [rows, prompt_unpreference], padded with 0; None where nothing is known.
        """
        if not len(self.dislikes):
            return None
        times = self.times[self.sequences.offsets[users] + ends]
        return self.dislikes.before(users, times, self.config["prompt_unpreference"])

    def _reset_index(self):
        if len(self.inter_feat) == 0:
            raise UserError(
                f"No user of {self.dataset_name} is left after filtering: lower rating_threshold, "
                "user_inter_num_interval or item_inter_num_interval."
            )
        super()._reset_index()

    # -- text ---------------------------------------------------------------------------------

    def _read_titles(self) -> list[str]:
        path = Path(self.dataset_path) / f"{self.dataset_name}.item"
        if not path.is_file():
            raise UserError(f"{path} is missing: GANPrompt's protocol needs item text, one line an item.")
        file = AtomicFile(path, self.config["field_separator"], self.config["encoding"], mend=True)
        ids = self.field2token_id[self.iid_field]
        titles, counts = read_titles(file, self.iid_field, self.config["item_text"], ids)
        self.counted.update(counts)
        return titles

    # -- RecBole's rows -----------------------------------------------------------------------

    def data_augmentation(self):
        """Lay out one row for each prefix of each sequence, in RecBole's fields.

        The fields are ``user_id``, ``item_id`` (the target) with its other columns, ``item_id_list``
        (int64 [rows, MAX_ITEM_LIST_LENGTH], padded on the right) and ``item_length``.
        """
        list_field = self.iid_field + self.config["LIST_SUFFIX"]
        self.item_id_list_field = list_field
        self.set_field_property(
            list_field, FeatureType.TOKEN_SEQ, FeatureSource.INTERACTION, self.max_item_list_len
        )
        self.set_field_property(self.item_list_length_field, FeatureType.TOKEN, FeatureSource.INTERACTION, 1)
        users = np.repeat(np.arange(self.user_num), self.sequences.lengths)
        position = np.arange(len(users)) - self.sequences.offsets[users]
        rows = np.flatnonzero(position > 0)
        histories, lengths = histories_before(
            self.sequences, users[rows], position[rows], self.max_item_list_len
        )
        targets = self.inter_feat[rows]
        targets.update(
            Interaction(
                {
                    list_field: torch.from_numpy(histories),
                    self.item_list_length_field: torch.from_numpy(lengths),
                }
            )
        )
        self.inter_feat = targets

    def build(self):
        """Split into [training, validation, test] datasets by leave-one-out.

        The last interaction of each user tests and, unless ``protocol: paper``, the one before it
        validates. A user with fewer interactions than the split needs only trains.
        """
        self._change_feat_format()
        self._drop_unused_col()
        phase = self._phase_of_positions()
        first = np.zeros(len(phase), dtype=bool)
        first[self.sequences.offsets[:-1][self.sequences.lengths > 0]] = True
        phase = phase[~first]  # a user's first item is no target
        parts = []
        for index, name in enumerate(("train", "valid", "test")):
            part = self.copy(self.inter_feat[np.flatnonzero(phase == index)])
            part.phase = name
            parts.append(part)
        return parts

    @property
    def held_out(self) -> int:
        """How many interactions at the end of each sequence are kept from training."""
        return 2 if self.config["eval_args"]["split"] == {"LS": "valid_and_test"} else 1

    def _phase_of_positions(self) -> np.ndarray:
        """0, 1 or 2 (train, valid, test) for each interaction of ``sequences``."""
        lengths = np.repeat(self.sequences.lengths, self.sequences.lengths)
        from_end = np.repeat(self.sequences.offsets[1:], self.sequences.lengths) - np.arange(len(lengths))
        phase = np.zeros(len(lengths), dtype=np.int64)
        evaluated = lengths > self.held_out
        phase[evaluated & (from_end == 1)] = 2
        if self.held_out == 2:
            phase[evaluated & (from_end == 2)] = 1
        return phase

    def training_sequences(self) -> Sequences:
        """The part of every sequence that models may train on."""
        evaluated = self.sequences.lengths > self.held_out
        return self.sequences.without_last(np.where(evaluated, self.held_out, 0) + self.kept_from_training)

    def training_pairs(self) -> "TextSequentialDataset":
        """The training split as RecBole's general models read it: pairs of a user and an item."""
        sequences = self.training_sequences()
        users = np.repeat(np.arange(self.user_num), sequences.lengths)
        part = copy.copy(self)
        part.inter_feat = Interaction(
            {
                self.uid_field: torch.from_numpy(users),
                self.iid_field: torch.from_numpy(sequences.items),
                # inter_matrix adds the first items of rows whose history is one item long: none.
                self.item_list_length_field: torch.zeros(len(users), dtype=torch.int64),
            }
        )
        return part

    def early(self, count: int) -> "TextSequentialDataset":
        """The training split without each user's last ``count`` items, two at least being left.

        For a model whose outputs on those items must come from one that never trained on them.
        """
        lengths = self.training_sequences().lengths
        part = copy.copy(self)
        part.kept_from_training = np.clip(lengths - 2, 0, count)
        # Of every user's rows (targets, oldest first) the last ones go.
        users = self.inter_feat[self.uid_field].numpy()
        ends = np.cumsum(np.bincount(users, minlength=self.user_num))
        part.inter_feat = self.inter_feat[
            np.flatnonzero(np.arange(len(users)) < (ends - part.kept_from_training)[users])
        ]
        return part

    def evaluation_set(self, phase: str) -> EvaluationSet | None:
        """Histories and frozen candidates of the ``"valid"`` or ``"test"`` split.

        Returns ``None`` for the validation split of ``protocol: paper``, which has none.
        """
        if phase == "valid" and self.held_out == 1:
            return None
        lengths = self.sequences.lengths
        users = np.flatnonzero(lengths > self.held_out)
        ends = lengths[users] - (2 if phase == "valid" else 1)
        histories, history_lengths = histories_before(self.sequences, users, ends, self.max_item_list_len)
        positives = self.sequences.items[self.sequences.offsets[users] + ends]
        candidates = frozen_candidates(self, phase, users, positives)
        dislikes = self.dislikes_before(users, ends)
        return EvaluationSet(users, histories, history_lengths, candidates, dislikes)

    def statistics(self) -> dict[str, float]:
        """Users, items, interactions and sparsity in percent, as the paper's Table 1 counts them."""
        users, items = self.user_num - 1, self.item_num - 1
        interactions = len(self.sequences.items)
        sparsity = 100.0 * (1.0 - interactions / (users * items))
        return {
            "users": users,
            "items": items,
            "interactions": interactions,
            "sparsity": sparsity,
        }
