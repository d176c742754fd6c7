"""Is one model better than another, or luckier? Tests that pair the users.

Every model ranks the same candidates of the same users, so two models are compared on the differences of
each user's own metric. Seeds are averaged within a user first: a user counts once, however many seeds ran.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap, rankdata, wilcoxon

from recbole_ganprompt.evaluation.metrics import auc, gauc, hit, mrr, ndcg

LEVEL = 0.05
STARS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))


@dataclass(frozen=True)
class Comparison:
    """One model against another, in one metric.

    Attributes
    ----------
    difference : float
        Mean over users of (first - second).
    low, high : float
        Bootstrap interval of it over users.
    p : float
        Two-sided Wilcoxon signed-rank test.
    direction : int
        Whom its signed ranks speak for: 1 the first, -1 the second, 0 neither.
    """

    difference: float
    low: float
    high: float
    p: float
    direction: int

    @property
    def agrees(self) -> bool:
        """Whether the mean, its interval and the signed ranks all name the same model the better one.

        Many small losses and a few large gains have a positive mean and negative ranks: the test, which is
        of the ranks, then says nothing for the mean.
        """
        return self.direction * self.low > 0 and self.direction * self.high > 0


def per_user(scores: np.ndarray, metric: str) -> np.ndarray:
    """One value for each user whose mean is the metric.

    Parameters
    ----------
    scores : float array [users, candidates]
        The positive stands in column 0.
    metric : str
        ``auc``, ``gauc``, ``hit@k``, ``ndcg@k`` or ``mrr@k``.

    Returns
    -------
    float64 array [users]
        For the pooled ``auc`` a user's part in it: the share of all negatives below the user's positive,
        plus the mean share of all positives above the user's negatives, minus the AUC (the structural
        components of DeLong 1988, clustered by user as in Obuchowski 1997).
    """
    name, _, k = metric.partition("@")
    if name == "auc":
        return _auc_components(scores)
    if name == "gauc":
        return gauc(scores)
    return {"hit": hit, "ndcg": ndcg, "mrr": mrr}[name](scores, int(k))


def _auc_components(scores: np.ndarray) -> np.ndarray:
    users, candidates = scores.shape
    negatives = users * (candidates - 1)
    overall = rankdata(scores, method="average").reshape(scores.shape)
    among_positives = rankdata(scores[:, 0], method="average")
    among_negatives = rankdata(scores[:, 1:], method="average").reshape(users, candidates - 1)
    below = (overall[:, 0] - among_positives) / negatives
    above = 1.0 - (overall[:, 1:] - among_negatives) / users
    return below + above.mean(axis=1) - auc(scores)


def compare(
    first: np.ndarray, second: np.ndarray, metrics: int = 1, resamples: int = 10_000, seed: int = 0
) -> Comparison:
    """Compare two models user by user.

    Parameters
    ----------
    first, second : float array [users]
        :func:`per_user`, averaged over each model's seeds, of the same users in the same order.
    metrics : int
        How many are compared: each interval has the :func:`confidence` that all of them together hold at
        95 % (Bonferroni). The p value is not corrected; see :func:`holm`.
    resamples : int
        Of the bootstrap.
    seed : int

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError
        If the arrays don't pair.
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1 or len(first) < 2:
        raise ValueError(f"two values for each of at least two users, not {first.shape} and {second.shape}")
    # Means over seeds differ in their last bits where they are equal, and would be ranked as differences.
    differences = (first - second).round(10)
    if not differences.any():
        return Comparison(0.0, 0.0, 0.0, 1.0, 0)
    found = bootstrap(
        (differences,),
        np.mean,
        n_resamples=resamples,
        confidence_level=confidence(metrics),
        method="percentile",
        batch=100,
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    # Many users have the same hit under both models: Pratt ranks these zeros too before leaving them out.
    p = wilcoxon(differences, zero_method="pratt").pvalue
    direction = np.sign(np.sum(np.sign(differences) * rankdata(np.abs(differences))))
    return Comparison(
        float(differences.mean()), float(found.low), float(found.high), float(p), int(direction)
    )


def confidence(metrics: int) -> float:
    """The level of each of so many intervals that together hold at 95 %."""
    return 1.0 - LEVEL / metrics


def holm(p_values) -> np.ndarray:
    """Correct p values for their number (Holm 1979): float64, in the given order."""
    p_values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p_values)
    stepped = np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1))
    corrected = np.empty_like(p_values)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


def stars(p: float) -> str:
    """``***`` below 0.001, ``**`` below 0.01, ``*`` below 0.05."""
    return next((mark for limit, mark in STARS if p < limit), "")
