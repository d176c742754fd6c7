"""How much a model's answers move when only the wording of the prompt, or the spelling of the input, changes.

Everything is measured on the same test candidates. Scores under the training wording are the baseline;
each variant is compared with it, and all wordings (or all perturbations) with each other. The seeds of a
model are averaged within a user first, as in :mod:`~recbole_ganprompt.evaluation.significance`; intervals
resample the users, the same ones for every model, so that the difference of two models is a paired one.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from recbole_ganprompt.evaluation.significance import per_user

METRICS = ("auc", "gauc", "hit@1", "hit@3", "ndcg@3", "mrr@3")
AGREEMENT = ("top1_changed", "kendall_tau", "overlap@3")
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


def robustness(runs: list[dict[str, np.ndarray]], groups: dict[str, str], moved: dict | None = None) -> dict:
    """Measure variants against the training wording, and against each other.

    Parameters
    ----------
    runs : list of dict of str to float array [users, candidates]
        For each seed the scores under ``TRAINING`` and every variant; the positive stands in column 0.
    groups : dict of str to str
        The variants, and what each changes: ``wording`` or ``perturbation``.
    moved : dict of str to dict, optional
        What :func:`movement` gave for each group; computed if None.

    Returns
    -------
    dict
        ``users``, ``baseline`` (metrics), ``variants`` (a list, each with ``metrics``, ``relative_drop``,
        ``top1_changed``, ``kendall_tau``, ``overlap@3`` against the training wording) and ``summary`` by
        group: for each metric mean, worst, sd over the variants, the mean's relative drop and its 95 %
        bootstrap interval over users (``low``, ``high``); ``top1_changed`` against the training wording;
        ``kendall_tau`` and ``overlap@3`` over all pairs of wordings, the training one among them; each
        with its interval. A drop from zero is None.
    """
    before = _levels(runs, TRAINING)
    rows = []
    for name in groups:
        found = _levels(runs, name)
        alike = _agreement([(run[TRAINING], run[name]) for run in runs]).mean(axis=0)
        drops = {metric: _drop(found[metric], before[metric]) for metric in METRICS}
        rows.append({"name": name, "metrics": found, "relative_drop": drops})
        rows[-1].update(zip(AGREEMENT, alike.tolist()))
    summary = {}
    for group, names in in_groups(groups).items():
        values = (moved or {}).get(group) or movement(runs, names)
        metrics = {}
        for metric in METRICS:
            each = np.array([row["metrics"][metric] for row in rows if row["name"] in names])
            metrics[metric] = {
                "mean": float(each.mean()),
                "worst": float(each.min()),
                "sd": float(each.std(ddof=1)) if len(each) > 1 else None,
                **_estimate(values[metric], "relative_drop"),
            }
        summary[group] = {"metrics": metrics, **{one: _estimate(values[one], "mean") for one in AGREEMENT}}
    return {"users": len(runs[0][TRAINING]), "baseline": before, "variants": rows, "summary": summary}


def in_groups(groups: dict[str, str]) -> dict[str, list[str]]:
    """The variants of each group, in their order."""
    return {
        group: [name for name in groups if groups[name] == group] for group in dict.fromkeys(groups.values())
    }


def movement(runs: list[dict[str, np.ndarray]], variants: list[str]) -> dict[str, np.ndarray]:
    """How far a group of variants moves a model: on all users, and on bootstrap resamples of them.

    Parameters
    ----------
    runs : list of dict of str to float array [users, candidates]
        As for :func:`robustness`.
    variants : list of str

    Returns
    -------
    dict of str to float64 array [1 + RESAMPLES]
        By metric the relative drop of the variants' mean, NaN where the metric is zero as trained; then
        ``AGREEMENT`` as in ``summary`` of :func:`robustness`. Element 0 is of all users. Two models on the
        same users are resampled alike.
    """
    own = _metrics(runs, [TRAINING])
    changed = _metrics(runs, variants)
    apart = _agreement([(run[TRAINING], run[name]) for run in runs for name in variants])[:, :1]
    pairs = itertools.combinations([TRAINING, *variants], 2)
    alike = _agreement([(run[one], run[two]) for one, two in pairs for run in runs])[:, 1:]
    values = np.concatenate([own, changed, apart, alike], axis=1)
    users = len(values)
    generator = np.random.default_rng(0)
    draws = (np.bincount(generator.integers(users, size=users), minlength=users) for _ in range(RESAMPLES))
    means = np.stack([values.mean(axis=0), *(draw @ values / users for draw in draws)])
    own, changed, agreements = np.split(means, [len(METRICS), 2 * len(METRICS)], axis=1)
    drops = 1 - np.divide(changed, own, out=np.full_like(own, np.nan), where=own > 0)
    return dict(zip((*METRICS, *AGREEMENT), np.concatenate([drops, agreements], axis=1).T))


def difference(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> dict:
    """By how much the first of two models moves more than the second, each as :func:`movement` gave it.

    Returns
    -------
    dict
        ``relative_drop`` by metric, and ``AGREEMENT``: each with ``difference`` and its paired 95 %
        bootstrap interval over users, ``low`` and ``high``; None where a relative drop has no value.
    """
    found = {name: _estimate(first[name] - second[name], "difference") for name in first}
    agreements = {name: found.pop(name) for name in AGREEMENT}
    return {"relative_drop": found, **agreements}


def decided(value: dict) -> bool:
    """Whether the interval of a :func:`difference` leaves out zero."""
    return value["low"] is not None and not value["low"] <= 0 <= value["high"]


def _metrics(runs: list[dict], names: list[str]) -> np.ndarray:
    """Each user's metrics, averaged over runs and variants: float64 [users, METRICS]."""
    matrices = [run[name] for run in runs for name in names]
    each = [[per_user(scores, metric) for metric in METRICS] for scores in matrices]
    return np.mean(each, axis=0).T


def _levels(runs: list[dict], name: str) -> dict[str, float]:
    return dict(zip(METRICS, _metrics(runs, [name]).mean(axis=0).tolist()))


def _agreement(pairs: list[tuple]) -> np.ndarray:
    """Each user's ``AGREEMENT``, averaged over pairs of score matrices: float64 [users, 3]."""
    total = 0.0
    for pair in pairs:
        alike = agreement(*pair)
        total = total + np.stack([alike.top1_changed, alike.kendall_tau, alike.overlap_at_3], axis=1)
    return total / len(pairs)


def _drop(changed: float, before: float) -> float | None:
    return 1 - changed / before if before > 0 else None


def _estimate(values: np.ndarray, name: str) -> dict:
    """Element 0 under ``name``, and the interval of the others; None for what is NaN."""
    found = (values[0], *np.quantile(values[1:], (0.025, 0.975)))
    return {
        key: None if np.isnan(value) else float(value) for key, value in zip((name, "low", "high"), found)
    }
