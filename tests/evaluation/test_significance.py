"""Paired tests of two models: what they say of models that differ, and of ones that don't."""

import numpy as np
import pytest
from scipy.stats import norm

from recbole_ganprompt.evaluation.metrics import ranking_metrics
from recbole_ganprompt.evaluation.significance import compare, holm, per_user, stars

METRICS = ("auc", "gauc", "hit@1", "hit@3", "ndcg@3", "mrr@3")


@pytest.fixture
def scores():
    generator = np.random.default_rng(0)
    matrix = generator.normal(size=(400, 10))
    matrix[:, 0] += 1
    matrix[::7] = matrix[::7].round(0)  # ties
    return matrix


@pytest.mark.parametrize("metric", METRICS)
def test_the_mean_over_users_is_the_metric(scores, metric):
    values = per_user(scores, metric)
    assert values.shape == (400,) and values.mean() == pytest.approx(ranking_metrics(scores)[metric])


def test_the_interval_of_the_auc_is_that_of_resampled_users(scores):
    generator = np.random.default_rng(1)
    other = scores + generator.normal(scale=0.7, size=scores.shape)
    found = compare(per_user(scores, "auc"), per_user(other, "auc"))
    draws = [generator.integers(0, 400, 400) for _ in range(400)]
    differences = [ranking_metrics(scores[d])["auc"] - ranking_metrics(other[d])["auc"] for d in draws]
    assert found.low == pytest.approx(np.quantile(differences, 0.025), abs=0.006)
    assert found.high == pytest.approx(np.quantile(differences, 0.975), abs=0.006)


def test_a_better_model_is_significant_and_the_same_model_is_not(scores):
    better = scores.copy()
    better[:, 0] += 0.5
    found = compare(per_user(better, "gauc"), per_user(scores, "gauc"))
    assert 0 < found.low < found.difference < found.high and found.p < 0.001
    same = compare(per_user(scores, "gauc"), per_user(scores, "gauc"))
    assert same.difference == 0 and same.p == 1 and not same.agrees
    worse = compare(per_user(scores, "gauc"), per_user(better, "gauc"))
    assert (found.direction, found.agrees, worse.direction, worse.agrees) == (1, True, -1, True)


def test_a_mean_that_the_signed_ranks_contradict_is_no_gain():
    """Most users lose a little and a few win much: the mean is positive, the test is of the others."""
    differences = np.repeat([-0.1, 0.4], [750, 250])
    found = compare(differences, np.zeros(1000))
    assert found.difference == pytest.approx(0.025) and found.low > 0
    assert found.p < 0.001 and found.direction == -1 and not found.agrees


def test_every_interval_is_wider_where_there_are_more_of_them(scores):
    better = scores + np.where(np.arange(10) == 0, 0.1, 0)
    one, six = (compare(per_user(better, "gauc"), per_user(scores, "gauc"), count) for count in (1, 6))
    assert six.low < one.low < one.difference < one.high < six.high and six.p == one.p


def test_seeds_in_another_order_are_the_same_model():
    values = np.random.default_rng(3).random((3, 500))
    first, second = values.mean(axis=0), values[[2, 0, 1]].mean(axis=0)
    assert (first != second).any()  # in their last bits
    found = compare(first, second)
    assert (found.difference, found.low, found.high, found.p, found.agrees) == (0, 0, 0, 1, False)
    # Nor do equal users count as small gains beside those that differ.
    gain = np.where(np.arange(500) < 5, 0.2, 0)
    assert compare(first + gain, second).p == compare(gain, np.zeros(500)).p


def test_chance_is_found_significant_as_often_as_promised():
    generator = np.random.default_rng(2)
    p = [compare(*generator.normal(size=(2, 60)), resamples=10).p for _ in range(300)]
    expected = 0.05 * 300
    assert abs(np.sum(np.array(p) < 0.05) - expected) < norm.ppf(0.999) * np.sqrt(expected * 0.95)


def test_users_must_pair():
    with pytest.raises(ValueError, match="two values for each"):
        compare(np.zeros(3), np.zeros(4))


def test_holm_and_stars():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]).max() <= 1
    assert [stars(p) for p in (0.0009, 0.009, 0.049, 0.05)] == ["***", "**", "*", ""]
