"""Measures of separability on embeddings whose answer is known."""

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy

from recbole_ganprompt.diversity.measure import class_measures


def test_equal_classes_are_at_chance():
    users = np.random.default_rng(0).normal(size=(60, 1, 4))
    found = class_measures(np.repeat(users, 3, axis=1))
    assert found["probe_accuracy"] == found["chance"] == pytest.approx(1 / 3)
    assert found["cosine"] == pytest.approx(1, abs=1e-5)
    assert max(found["kl"], found["tv"], found["js"]) == pytest.approx(0, abs=1e-6)


def test_distant_classes_are_separated():
    noise = 0.1 * np.random.default_rng(0).normal(size=(60, 3, 3))
    found = class_measures(noise + 5 * np.eye(3))
    assert found["probe_accuracy"] == found["centroid_accuracy"] == 1
    assert found["silhouette"] > 0.9 and found["cosine"] < 0.1 and found["js"] > 0.5
    assert found["centered_cosine"] == pytest.approx(-0.5, abs=0.05)


def test_divergences_agree_with_scipy():
    embeddings = np.random.default_rng(0).normal(size=(8, 2, 5)).astype(np.float32)
    found = class_measures(embeddings, temperature=0.5)
    p, q = softmax(embeddings / 0.5, axis=-1).transpose(1, 0, 2)
    kl = np.mean([(entropy(a, b) + entropy(b, a)) / 2 for a, b in zip(p, q)])
    assert found["kl"] == pytest.approx(kl, rel=1e-4)
    assert found["tv"] == pytest.approx(0.5 * np.abs(p - q).sum(-1).mean(), rel=1e-4)
