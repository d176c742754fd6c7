"""Ranking metrics of one positive among candidates, as plain functions of a score matrix.

Ties are resolved by expectation: each metric is averaged over all orders of the tied candidates,
so a scorer that gives everything the same score has AUC 0.5 and HR@1 0.1 among ten candidates,
whatever order the candidates stand in.
"""

import numpy as np
from scipy.stats import rankdata

METRICS = ("auc", "gauc", "hit", "ndcg", "mrr")


def rank_ranges(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Candidates above the positive and tied with it, for each user.

    Parameters
    ----------
    scores : float array [users, candidates]
        The positive stands in column 0.

    Returns
    -------
    above : int64 array [users]
        Negatives with a higher score.
    tied : int64 array [users]
        Negatives with the same score. The positive's rank, from 1, is uniform on
        ``above + 1 .. above + tied + 1``.
    """
    positive, negatives = scores[:, :1], scores[:, 1:]
    return (negatives > positive).sum(axis=1), (negatives == positive).sum(axis=1)


def expected_ranks(scores: np.ndarray) -> np.ndarray:
    """The positive's expected rank, from 1, for each user: float64 [users]."""
    above, tied = rank_ranges(scores)
    return 1.0 + above + tied / 2.0


def hit(scores: np.ndarray, k: int) -> np.ndarray:
    """Probability that the positive stands among the first ``k``: float64 [users]."""
    return _expected_gain(scores, k, lambda rank: np.ones_like(rank))


def ndcg(scores: np.ndarray, k: int) -> np.ndarray:
    """Expected 1 / log2(rank + 1) where the rank is at most ``k``: float64 [users]."""
    return _expected_gain(scores, k, lambda rank: 1.0 / np.log2(rank + 1.0))


def mrr(scores: np.ndarray, k: int) -> np.ndarray:
    """Expected 1 / rank where the rank is at most ``k``: float64 [users]."""
    return _expected_gain(scores, k, lambda rank: 1.0 / rank)


def gauc(scores: np.ndarray) -> np.ndarray:
    """Share of negatives below the positive, a tie counting half: float64 [users]."""
    above, tied = rank_ranges(scores)
    return 1.0 - (above + tied / 2.0) / (scores.shape[1] - 1)


def auc(scores: np.ndarray) -> float:
    """Area under the ROC curve pooled over all pairs of all users.

    Unlike :func:`gauc` it compares scores across users, so it also sees how well they are
    calibrated between users.
    """
    positives = len(scores)
    negatives = scores.size - positives
    ranks = rankdata(scores, method="average").reshape(scores.shape)
    return float((ranks[:, 0].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def ranking_metrics(scores, ks=(1, 3, 5)) -> dict[str, float]:
    """All metrics of the protocol from one score matrix.

    Parameters
    ----------
    scores : float array [users, candidates]
        The positive stands in column 0.
    ks : sequence of int
        Cut-offs of Hit, NDCG and MRR.

    Returns
    -------
    dict
        ``auc``, ``gauc``, then ``hit@k``, ``ndcg@k`` and ``mrr@k`` for each k.

    Raises
    ------
    ValueError
        If the matrix has no user or no negative, or holds a NaN.
    """
    scores = np.asarray(scores)
    if scores.ndim != 2 or scores.shape[0] == 0 or scores.shape[1] < 2:
        raise ValueError(f"scores must be [users, candidates >= 2], not {scores.shape}")
    if np.isnan(scores).any():
        raise ValueError("scores hold a NaN")
    result = {"auc": auc(scores), "gauc": float(gauc(scores).mean())}
    for name, metric in (("hit", hit), ("ndcg", ndcg), ("mrr", mrr)):
        for k in ks:
            result[f"{name}@{k}"] = float(metric(scores, k).mean())
    return result


def _expected_gain(scores: np.ndarray, k: int, gain) -> np.ndarray:
    above, tied = rank_ranges(scores)
    # cumulative[r] is the gain summed over ranks 1 .. r, zero beyond k.
    ranks = np.arange(1, scores.shape[1] + 1, dtype=np.float64)
    cumulative = np.concatenate([[0.0], np.cumsum(np.where(ranks <= k, gain(ranks), 0.0))])
    return (cumulative[above + tied + 1] - cumulative[above]) / (tied + 1)
