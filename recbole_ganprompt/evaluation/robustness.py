"""How much a model's answers move when only the wording of the prompt, or the spelling of the input, changes.

Everything is measured on one run's test candidates. Scores under the training wording are the baseline;
each variant is compared with it, and all wordings (or all perturbations) with each other.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from recbole_ganprompt.evaluation.metrics import ranking_metrics
from recbole_ganprompt.evaluation.significance import per_user

METRICS = ("auc", "gauc", "hit@1", "hit@3", "ndcg@3", "mrr@3")
TRAINING = "training"
RESAMPLES = 1000


@dataclass(frozen=True)
class Agreement:
    """How alike two rankings of the same candidates are, user by user: float64 arrays [users].

    Attributes
    ----------
    top1_changed : array
        1 where the first candidate is another one.
    kendall_tau : array
        Kendall's tau-b of the two lists; 1 where both tie all candidates.
    overlap_at_3 : array
        Share of the first three that both have.
    """

    top1_changed: np.ndarray
    kendall_tau: np.ndarray
    overlap_at_3: np.ndarray


def agreement(first: np.ndarray, second: np.ndarray) -> Agreement:
    """Compare the lists that two score matrices [users, candidates] make."""
    one, two = np.triu_indices(first.shape[1], k=1)
    signs = [np.sign(scores[:, one] - scores[:, two]) for scores in (first, second)]
    together = (signs[0] * signs[1]).sum(axis=1)
    untied = [np.abs(sign).sum(axis=1) for sign in signs]
    scale = np.sqrt(untied[0] * untied[1])
    both_constant = (untied[0] == 0) & (untied[1] == 0)
    tau = np.where(both_constant, 1.0, together / np.maximum(scale, 1))
    orders = [np.argsort(-scores, axis=1, kind="stable") for scores in (first, second)]
    changed = (orders[0][:, 0] != orders[1][:, 0]).astype(np.float64)
    shared = (orders[0][:, :3, None] == orders[1][:, None, :3]).any(axis=2).mean(axis=1)
    return Agreement(changed, tau, shared)


def robustness(baseline: np.ndarray, variants: dict[str, np.ndarray], groups: dict[str, str]) -> dict:
    """Measure one run's variants against its training wording, and against each other.

    Parameters
    ----------
    baseline : float array [users, candidates]
        Scores under the training wording; the positive stands in column 0.
    variants : dict of str to float array [users, candidates]
        Scores under every variant.
    groups : dict of str to str
        What a variant changes: ``wording`` or ``perturbation``.

    Returns
    -------
    dict
        ``baseline`` (metrics), ``variants`` (a list, each with ``metrics``, ``relative_drop``,
        ``top1_changed``, ``kendall_tau``, ``overlap@3``) and ``summary`` by group: for each metric mean,
        worst, sd over the variants, the mean's relative drop and its 95 % bootstrap interval over users
        (``low``, ``high``); ``top1_changed`` against the training wording; ``kendall_tau`` and
        ``overlap@3`` over all pairs of wordings, the training one among them; each with its interval.
    """
    before = _metrics(baseline)
    rows = []
    for name, scores in variants.items():
        found, alike = _metrics(scores), agreement(baseline, scores)
        rows.append(
            {
                "name": name,
                "metrics": found,
                "relative_drop": {metric: 1 - found[metric] / before[metric] for metric in METRICS},
                "top1_changed": float(alike.top1_changed.mean()),
                "kendall_tau": float(alike.kendall_tau.mean()),
                "overlap@3": float(alike.overlap_at_3.mean()),
            }
        )
    summary = {}
    for group in dict.fromkeys(groups.values()):
        chosen = {name: scores for name, scores in variants.items() if groups[name] == group}
        if chosen:
            summary[group] = _summary(baseline, chosen, before)
    return {"users": len(baseline), "baseline": before, "variants": rows, "summary": summary}


def _metrics(scores: np.ndarray) -> dict[str, float]:
    found = ranking_metrics(scores)
    return {metric: found[metric] for metric in METRICS}


def _summary(baseline: np.ndarray, variants: dict[str, np.ndarray], before: dict) -> dict:
    users = len(baseline)
    draws = np.random.default_rng(0).integers(0, users, size=(RESAMPLES, users))
    found = [_metrics(scores) for scores in variants.values()]
    metrics = {}
    for metric in METRICS:
        values = np.array([one[metric] for one in found])
        own = per_user(baseline, metric)
        changed = np.mean([per_user(scores, metric) for scores in variants.values()], axis=0)
        low, high = _interval(1 - changed[draws].mean(axis=1) / own[draws].mean(axis=1))
        metrics[metric] = {
            "mean": float(values.mean()),
            "worst": float(values.min()),
            "sd": float(values.std(ddof=1)) if len(values) > 1 else None,
            "relative_drop": float(1 - values.mean() / before[metric]),
            "low": low,
            "high": high,
        }
    pairs = [agreement(*pair) for pair in itertools.combinations([baseline, *variants.values()], 2)]
    each = {
        "top1_changed": [agreement(baseline, scores).top1_changed for scores in variants.values()],
        "kendall_tau": [pair.kendall_tau for pair in pairs],
        "overlap@3": [pair.overlap_at_3 for pair in pairs],
    }
    summary = {"metrics": metrics}
    for name, values in each.items():
        mean = np.mean(values, axis=0)
        low, high = _interval(mean[draws].mean(axis=1))
        summary[name] = {"mean": float(mean.mean()), "low": low, "high": high}
    return summary


def _interval(resampled: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(resampled, (0.025, 0.975))
    return float(low), float(high)
