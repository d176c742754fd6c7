"""Robustness: how far a run's metrics move over unseen wordings and perturbed prompts."""

from collections import defaultdict

import numpy as np
from matplotlib.lines import Line2D

from recbole_ganprompt.report.names import metric_name
from recbole_ganprompt.report.style import COLOURS, MARKERS, Drawing, styled

PREFERRED = ("gauc", "hit@1")
_MEAN = {"marker": "|", "color": "black", "markersize": 14, "markeredgewidth": 2}
_WORST = {
    "marker": "o",
    "markersize": 11,
    "linestyle": "",
    "markerfacecolor": "none",
    "markeredgecolor": "black",
}


@styled()
def robustness_figure(robustness: dict) -> Drawing:
    """Draw every variant, their mean and worst, for each group of variants and each model, seeds averaged.

    Panels: the relative drop of GAUC and HR@1 (or of the first metrics that were asked for) against
    the prompt trained on, and the share of users whose first item changes. A mean has its 95 %
    bootstrap interval over users where the file holds one.

    Parameters
    ----------
    robustness : dict
        As read from ``robustness.json``.
    """
    runs = robustness["labels"]
    groups = list(dict.fromkeys(variant["group"] for variant in robustness["variants"]))
    group_of = {variant["name"]: variant["group"] for variant in robustness["variants"]}
    metrics = [name for name in PREFERRED if name in robustness["metrics"]] or robustness["metrics"][:2]
    rows = [(run, group) for run in runs for group in groups]
    figure = Drawing(figsize=(11, 1.7 + 0.55 * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(metrics) + 1, sharey=True)
    for axes, metric in zip(panels, [*metrics, None]):
        for place, (run, group) in enumerate(rows):
            own = [one for one in run["variants"] if group_of[one["name"]] == group]
            values = [one["relative_drop"][metric] if metric else one["top1_changed"] for one in own]
            kept = [(100 * v, one["name"]) for v, one in zip(values, own) if v is not None and np.isfinite(v)]
            summary = run["summary"].get(group) or {}
            if metric:
                summary = (summary.get("metrics") or {}).get(metric) or {}
            else:
                summary = summary.get("top1_changed") or {}
            if kept:
                _strip(axes, place, groups.index(group), kept, summary)
        if metric:
            axes.axvline(0, color="black", linewidth=0.8, linestyle="--")
        name = f"drop of {metric_name(metric)} (%)" if metric else "users whose first item changes (%)"
        axes.set(title=name, xlabel="worse →")
        low, high = axes.get_xlim()
        axes.set_xlim(low, high + 0.4 * (high - low))  # room for the worst variant's name
        for place in range(len(groups), len(rows), len(groups)):
            axes.axhline(place - 0.5, color="0.8", linewidth=0.8)
        axes.grid(axis="x", alpha=0.3)
        axes.tick_params(axis="y", length=0)
    centres = [len(groups) * index + (len(groups) - 1) / 2 for index in range(len(runs))]
    names = _names(runs)
    levels = [", ".join(f"{metric_name(m)} {run['baseline'][m]:.3f}" for m in metrics) for run in runs]
    panels[0].set_yticks(centres, [f"{name}\n{level}" for name, level in zip(names, levels)])
    panels[0].set_ylim(len(rows) - 0.5, -0.5)  # the first run on top
    handles = [
        Line2D([], [], linestyle="", label=group, **_marker(index)) for index, group in enumerate(groups)
    ]
    handles.append(
        Line2D(
            [], [], color="black", marker="|", markersize=11, markeredgewidth=2, label="mean, 95 % interval"
        )
    )
    worst = {"marker": "o", "markersize": 11, "markerfacecolor": "none", "markeredgecolor": "black"}
    handles.append(Line2D([], [], linestyle="", label="worst, with its name", **worst))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    said = [
        f"{name}: the worst {group} for {metric_name(metrics[0])} is {worst['name']}, a drop of "
        f"{100 * worst['relative_drop'][metrics[0]]:.1f} %."
        for name, run in zip(names, runs)
        for group in groups
        if (worst := _worst(run, group, group_of, metrics[0]))
    ]
    title = "Robustness to wordings and perturbations, against the prompt of training"
    figure.describe(title, " ".join(said), [run["run"] for run in robustness["runs"] if "run" in run])
    return figure


def _worst(run: dict, group: str, group_of: dict, metric: str) -> dict | None:
    """The variant of a group under which the metric drops most; None where no drop is known."""
    own = [one for one in run["variants"] if group_of[one["name"]] == group]
    known = [one for one in own if one["relative_drop"][metric] is not None]
    return max(known, key=lambda one: one["relative_drop"][metric], default=None)


def _marker(index: int) -> dict:
    return {
        "marker": MARKERS[index % len(MARKERS)],
        "color": COLOURS[index % len(COLOURS)],
        "markeredgecolor": "black",
        "markeredgewidth": 0.4,
        "markersize": 6,
    }


def _strip(axes, place: int, index: int, kept: list, summary: dict) -> None:
    """One group of one run: a point a variant, their mean with its interval, the worst one's name."""
    values = np.array([value for value, _ in kept])
    # Points of nearly equal values lie above each other, in the order of the variants.
    offsets = np.resize([-0.15, 0.0, 0.15], len(values))
    axes.plot(values, place + offsets, linestyle="", alpha=0.85, **_marker(index))
    if summary.get("low") is not None:
        axes.plot([100 * summary["low"], 100 * summary["high"]], [place, place], color="black", linewidth=1.2)
    axes.plot(values.mean(), place, **_MEAN)
    worst = int(values.argmax())
    height = place + offsets[worst]
    axes.plot(values[worst], height, **_WORST)
    axes.annotate(
        kept[worst][1],
        (values[worst], height),
        (9, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
    )


def _names(runs: list[dict]) -> list[str]:
    """The labels, with the dataset where one of them is on several."""
    datasets = defaultdict(set)
    for run in runs:
        datasets[run["label"]].add(run["dataset"])
    return [
        f"{run['label']} on {run['dataset']}" if len(datasets[run["label"]]) > 1 else run["label"]
        for run in runs
    ]
