"""Is one model better than another, or luckier? Tests that pair the users.

Every model ranks the same candidates of the same users, so two models are compared on the differences of
each user's own metric. Seeds are averaged within a user first: a user counts once, however many seeds ran.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap, rankdata, wilcoxon

from recbole_ganprompt.evaluation.metrics import auc, gauc, hit, mrr, ndcg

CONFIDENCE = 0.95
STARS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))


@dataclass(frozen=True)
class Comparison:
    """The better of two models against the other, in one metric.

    Attributes
    ----------
    difference : float
        Mean over users of (first - second).
    low, high : float
        95 % bootstrap interval of it over users.
    p : float
        Two-sided Wilcoxon signed-rank test.
    """

    difference: float
    low: float
    high: float
    p: float


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


def compare(first: np.ndarray, second: np.ndarray, resamples: int = 2000, seed: int = 0) -> Comparison:
    """Compare two models user by user.

    Parameters
    ----------
    first, second : float array [users]
        :func:`per_user`, averaged over each model's seeds, of the same users in the same order.
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
    differences = first - second
    if not np.ptp(differences):  # nothing to resample
        mean = float(differences[0])
        return Comparison(mean, mean, mean, 1.0 if mean == 0 else 0.0)
    found = bootstrap(
        (differences,),
        np.mean,
        n_resamples=resamples,
        confidence_level=CONFIDENCE,
        method="percentile",
        batch=100,
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    # Many users have the same hit under both models: Pratt ranks these zeros too before leaving them out.
    p = wilcoxon(differences, zero_method="pratt").pvalue
    return Comparison(float(differences.mean()), float(found.low), float(found.high), float(p))


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
