"""Ranking metrics against checked values and against sampling of tie orders."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from recbole_ganprompt.evaluation.metrics import expected_ranks, ranking_metrics


def test_reproduces_the_checked_vectors(shared):
    cases = json.loads((shared / "vectors" / "ranking_metrics.json").read_text())
    assert cases
    for name, case in cases.items():
        result = ranking_metrics(np.array(case["scores"]))
        assert set(result) == set(case["expected"])
        for key, value in case["expected"].items():
            assert result[key] == pytest.approx(value, abs=1e-9), (name, key)


def test_a_constant_scorer_is_at_chance():
    result = ranking_metrics(np.full((7, 10), 0.3))
    assert result["auc"] == 0.5 and result["gauc"] == 0.5
    assert result["hit@1"] == pytest.approx(0.1) and result["hit@5"] == pytest.approx(0.5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(1, 4))
def test_ties_are_the_mean_over_orders(seed, candidates, levels):
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, levels, size=(3, candidates)).astype(float)
    sampled = [
        ranking_metrics(scores + 1e-6 * generator.permuted(np.tile(np.arange(candidates), (3, 1)), axis=1))
        for _ in range(400)
    ]
    result = ranking_metrics(scores)
    for key in ("gauc", "hit@1", "ndcg@3", "mrr@3"):
        assert result[key] == pytest.approx(np.mean([one[key] for one in sampled]), abs=0.12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_auc_agrees_with_scikit_learn(seed):
    scores = np.random.default_rng(seed).integers(0, 5, size=(6, 7)).astype(float)
    labels = np.zeros_like(scores)
    labels[:, 0] = 1
    assert ranking_metrics(scores)["auc"] == pytest.approx(roc_auc_score(labels.ravel(), scores.ravel()))


def test_column_order_of_negatives_does_not_matter():
    scores = np.random.default_rng(0).normal(size=(50, 10))
    shuffled = np.concatenate([scores[:, :1], scores[:, :0:-1]], axis=1)
    assert ranking_metrics(scores) == pytest.approx(ranking_metrics(shuffled))


def test_expected_rank_counts_half_of_the_ties():
    assert expected_ranks(np.array([[1.0, 2.0, 1.0, 0.0]])).tolist() == [2.5]


@pytest.mark.parametrize("scores", [np.zeros((0, 10)), np.zeros((3, 1)), np.full((2, 3), np.nan)])
def test_unusable_scores_are_refused(scores):
    with pytest.raises(ValueError):
        ranking_metrics(scores)
