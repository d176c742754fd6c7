"""A trained RecBole model as teacher: user vectors, item vectors and opinions (stage 0).

The language model learns *how far* to trust the teacher from the teacher's opinions on training
pairs. A teacher that was trained on those pairs is surer of them than it will ever be of a new pair,
and would teach blind trust. So training opinions are cross-fitted over time: the teacher first trains
without each user's last few training items, gives its opinions on those, and only then goes on to
train on the whole training split. Like at test time, the opinions concern what comes after everything
that it has seen.
"""

from inspect import signature
from logging import getLogger

import numpy as np
import torch
from recbole.model.abstract_recommender import GeneralRecommender
from recbole.model.general_recommender.lightgcn import LightGCN
from recbole.model.general_recommender.ngcf import NGCF
from recbole.model.sequential_recommender.din import DIN
from recbole.utils import get_model
from recbole.utils.argument_list import dataset_arguments

from recbole_ganprompt.config import build_teacher_config
from recbole_ganprompt.data.candidates import EvaluationSet
from recbole_ganprompt.data.sequences import Sequences
from recbole_ganprompt.evaluation.evaluator import interaction_of, score_candidates
from recbole_ganprompt.model.registry import recbole_model
from recbole_ganprompt.seeding import seeded
from recbole_ganprompt.teachers import GENERAL_TEACHERS

_GRAPH_MODELS = (LightGCN, NGCF)

# What the teacher takes over from the run; its own training settings are its own file's.
_SHARED = [
    *dataset_arguments,
    *("seed", "candidate_seed", "reproducibility", "checkpoint_dir", "data_path", "protocol"),
    *("show_progress", "use_gpu", "gpu_id", "state", "rating_threshold", "item_text"),
    *("metrics", "topk", "valid_metric", "metric_decimal_place", "eval_batch_size"),
]


def teacher_settings(config):
    """The teacher's own RecBole ``Config``.

    It shares the data, the protocol and the seed of the run; its own settings come from
    ``properties/model/<teacher>.yaml`` and, over them, the dictionary ``teacher_config``.
    """
    values = {key: config[key] for key in _SHARED if key in config}
    values.update(eval_args={"mode": config["eval_args"]["mode"]})
    values.update(config["teacher_config"] or {})
    return build_teacher_config(config["teacher"], config["dataset"], values)


def build_teacher_model(config, dataset):
    """Make the untrained teacher that ``config`` asks for: (model, its config)."""
    settings = teacher_settings(config)
    name = GENERAL_TEACHERS.get(config["teacher"])
    with seeded(config["seed"]):  # the same teacher whatever the language model drew
        if name is None:
            model = recbole_model(config["teacher"], settings, dataset)
        else:
            model = get_model(name)(settings, dataset.training_pairs())
    return model.to(settings["device"]), settings


class Teacher:
    """The view that the language model has of a trained RecBole model.

    Parameters
    ----------
    model : recbole SequentialRecommender, BPR, LightGCN or NGCF
        One of :mod:`recbole_ganprompt.teachers`, which says how each makes its vectors.
    config : recbole Config
    seed : int
        Draws the items that opinions are measured against.
    """

    REFERENCE_ITEMS = 256

    def __init__(self, model, config, seed: int):
        self.model = model
        self.config = config
        generator = np.random.default_rng([seed, 77])
        count = min(self.REFERENCE_ITEMS, model.n_items - 1)
        self.reference = 1 + generator.choice(model.n_items - 1, size=count, replace=False)
        if isinstance(model, DIN):
            getLogger().info("DIN has no vector of a user: e_u is the mean of the history's item vectors.")

    def item_table(self) -> torch.Tensor:
        """e_i of all items with their gradients: float [items, vector_size]."""
        if isinstance(self.model, _GRAPH_MODELS):
            return self.model.forward()[1]
        if isinstance(self.model, DIN):  # the first token field of an item is its id
            table = self.model.embedding_layer.token_embedding_table["item"].embedding
            return table.weight[: self.model.n_items]
        return self.model.item_embedding.weight[: self.model.n_items]

    def know_only(self, dataset) -> None:
        """Take the graph of a graph model from a (partial) training split; other models have none."""
        if isinstance(self.model, _GRAPH_MODELS):
            device = self.model.norm_adj_matrix.device
            self.model.interaction_matrix = dataset.training_pairs().inter_matrix(form="coo")
            self.model.norm_adj_matrix = self.model.get_norm_adj_mat().to(device)

    @property
    def vector_size(self) -> int:
        """Size of the item vectors (user vectors have the same)."""
        return self.item_table().shape[1]

    @torch.no_grad()
    def item_vectors(self) -> torch.Tensor:
        """e_i of all items in evaluation mode: float [items, vector_size], on the CPU."""
        self.model.eval()
        return self.item_table().detach().float().cpu().clone()

    def encode_users(self, users, histories, lengths) -> torch.Tensor:
        """e_u after the given histories, with gradients: float [rows, vector_size].

        :mod:`recbole_ganprompt.teachers` says what it is for which model.
        """
        model = self.model
        device = next(model.parameters()).device
        if isinstance(model, GeneralRecommender):
            index = torch.from_numpy(users).to(device)
            if isinstance(model, _GRAPH_MODELS):
                return model.forward()[0][index]
            return model.user_embedding(index)
        batch = interaction_of(self.config, users, histories, lengths).to(device)
        owners, items, counts = batch[model.USER_ID], batch[model.ITEM_SEQ], batch[model.ITEM_SEQ_LEN]
        if hasattr(model, "encode_histories"):
            return model.encode_histories(owners, items, counts)
        if isinstance(model, DIN):
            known = (items > 0).unsqueeze(-1)
            return (self.item_table()[items] * known).sum(dim=1) / known.sum(dim=1).clamp_min(1)
        counts = counts.clone()  # HRM writes into it
        inputs = {"user": owners, "item_seq": items, "item_seq_len": counts}
        inputs |= {"seq_item": items, "seq_item_len": counts}
        return model(**{name: inputs[name] for name in signature(model.forward).parameters})

    @torch.no_grad()
    def user_vectors(self, users, histories, lengths) -> torch.Tensor:
        """:meth:`encode_users` in evaluation mode, without gradients, on the CPU."""
        self.model.eval()
        parts = [slice(start, start + 4096) for start in range(0, len(users), 4096)]
        vectors = [self.encode_users(users[p], histories[p], lengths[p]).float().cpu() for p in parts]
        return torch.cat(vectors)

    def opinions(self, users, histories, lengths, candidates) -> np.ndarray:
        """How much likelier each candidate is than an item drawn at random, in nats.

        opinion(u, i) = s(u, i) - log mean over random items j of exp s(u, j), with s the model's
        score (a logit). Subtracting the user's own level makes opinions comparable between users.

        Parameters
        ----------
        users, lengths : int64 array [rows]
        histories : int64 array [rows, max_length]
        candidates : int64 array [rows, candidates]

        Returns
        -------
        float32 array [rows, candidates]
        """
        reference = np.broadcast_to(self.reference, (len(users), len(self.reference)))
        both = np.concatenate([candidates, reference], axis=1)
        scores = score_candidates(self.model, EvaluationSet(users, histories, lengths, both), self.config)
        if isinstance(self.model, DIN):  # the one model that scores by probability
            scores = torch.logit(scores, eps=1e-6)
        own, other = scores[:, : candidates.shape[1]], scores[:, candidates.shape[1] :]
        level = torch.logsumexp(other, dim=1, keepdim=True) - np.log(other.shape[1])
        return (own - level).numpy()


def training_negatives(sequences: Sequences, users, item_count: int, negatives: int, generator):
    """Items drawn uniformly for each row, avoiding the user's *training* items.

    Validation and test targets are drawn like any other item: avoiding them would tell.

    Returns
    -------
    int64 array [rows, negatives]
    """
    owner = np.repeat(np.arange(len(sequences.offsets) - 1), sequences.lengths)
    touched = np.unique(owner * item_count + sequences.items)
    drawn = generator.integers(1, item_count, size=(len(users), negatives))
    for _ in range(100):  # a user who touched nearly everything keeps a few wrong negatives
        key = users[:, None] * item_count + drawn
        slot = np.minimum(np.searchsorted(touched, key), len(touched) - 1)
        wrong = touched[slot] == key
        if not wrong.any():
            break
        drawn[wrong] = generator.integers(1, item_count, size=int(wrong.sum()))
    return drawn
