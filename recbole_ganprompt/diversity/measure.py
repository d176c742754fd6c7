"""How far apart the classes of the diversity encoder lie (the paper's Figure 6, in numbers)."""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import silhouette_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn.functional import cosine_similarity, log_softmax

from recbole_ganprompt.diversity.constraint import class_pairs, jensen_shannon

CLASSES_FILE = "classes.safetensors"
"""Embeddings ``before`` and ``after`` [users, classes, hidden] (float16) of held-out users, for Figure 6.

This module's source is part of the key of the encoder's cached folder, so that a folder made before
there was such a file is not taken for one that has it.
"""
CLASSES_USERS = 300
"""Users in that file, at most."""


def class_measures(
    embeddings: np.ndarray, *, temperature: float = 1.0, seed: int = 0, sample: int = 1500
) -> dict[str, float]:
    """Measure separability and divergence of classes.

    Parameters
    ----------
    embeddings : float array [users, classes, hidden]
        Of users that the encoder did not train on; at least four users and two classes.
    temperature : float
        Of the softmax that turns an embedding into a distribution.
    seed : int
        Of the split into users for the probe to train on and users to test it on (half each).
    sample : int
        Embeddings, at most, among which the silhouette is computed.

    Returns
    -------
    dict
        ``chance`` (1 / classes); ``probe_accuracy``, a fresh linear probe's; ``centroid_accuracy``,
        that of the nearest class mean, which needs classes farther apart than users are;
        ``silhouette`` in [-1, 1]; and, as means over users and pairs of classes of one user,
        ``cosine``, ``kl`` (nats, mean of both directions), ``tv`` (total variation, [0, 1]) and
        ``js`` (nats, [0, ln 2]). ``centered_cosine`` is the cosine after the mean of all embeddings
        is taken off: a direction that all share hides what differs from the plain cosine.
    """
    embeddings = np.asarray(embeddings, dtype=np.float32)
    users, classes, hidden = embeddings.shape
    order = np.random.default_rng(seed).permutation(users)
    learn, test = order[: users // 2], order[users // 2 :]
    truth = np.tile(np.arange(classes), users).reshape(users, classes)
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    probe.fit(embeddings[learn].reshape(-1, hidden), truth[learn].ravel())
    tested = embeddings[test].reshape(-1, hidden)
    accuracy = probe.score(tested, truth[test].ravel())
    centroids = embeddings[learn].mean(0)
    distances = ((tested[:, None] - centroids) ** 2).sum(-1)
    nearest = (distances.argmin(1) == truth[test].ravel()).mean()
    some = order[: max(2, sample // classes)]
    silhouette = silhouette_score(embeddings[some].reshape(-1, hidden), truth[some].ravel())

    first, second = class_pairs(classes)
    values = torch.from_numpy(embeddings)
    centered = values - values.mean((0, 1))
    x, y = values[:, first], values[:, second]
    p, q = log_softmax(x / temperature, -1), log_softmax(y / temperature, -1)
    kl = 0.5 * ((p.exp() - q.exp()) * (p - q)).sum(-1)
    measures = {
        "chance": 1 / classes,
        "probe_accuracy": accuracy,
        "centroid_accuracy": nearest,
        "silhouette": silhouette,
        "cosine": cosine_similarity(x, y, dim=-1).mean(),
        "centered_cosine": cosine_similarity(centered[:, first], centered[:, second], dim=-1).mean(),
        "kl": kl.mean(),
        "tv": 0.5 * (p.exp() - q.exp()).abs().sum(-1).mean(),
        "js": jensen_shannon(x, y, temperature).mean(),
    }
    measures = {name: float(value) for name, value in measures.items()}
    return measures
