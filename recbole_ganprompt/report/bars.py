"""The ablation's bar charts: a block for each group of variants, a panel for each measure."""

from matplotlib.colors import to_rgba

from recbole_ganprompt.report.names import metric_name
from recbole_ganprompt.report.style import COLOURS, HATCHES, Drawing, styled

COLUMNS = 4
# Bars show what a model is above guessing; half of a picture of AUC would be guessing otherwise.
GUESSING = {"auc": 0.5, "gauc": 0.5}


@styled()
def ablation_figure(ablation: dict) -> Drawing:
    """Draw what each variant of each group of ``ablation.json`` reaches.

    Bars of AUC and GAUC start at 0.5, all others at 0. A line at a bar's end is the standard
    deviation over seeds, where there are several; a variant says how many of its runs failed.

    Parameters
    ----------
    ablation : dict
        As read from ``ablation.json``.
    """
    groups = ablation["groups"]
    # Inches: a line for the title and the axis, and one for each bar.
    heights = [
        -(-len(group["measures"]) // COLUMNS) * (0.75 + 0.3 * len(group["rows"])) + 0.3 for group in groups
    ]
    figure = Drawing(figsize=(11, 0.4 + sum(heights)), layout="constrained")
    blocks = figure.subfigures(len(groups), 1, height_ratios=heights, squeeze=False)[:, 0]
    for block, group in zip(blocks, groups):
        block.suptitle(f"{group['title']} ({group['figure']})" if group.get("figure") else group["title"])
        lines = -(-len(group["measures"]) // COLUMNS)
        panels = block.subplots(lines, COLUMNS, squeeze=False, sharey=True).ravel()
        for axes, measure in zip(panels, group["measures"]):
            _panel(axes, group["rows"], measure, len(ablation["seeds"]))
        for axes in panels[len(group["measures"]) :]:
            axes.remove()
    seeds = ", ".join(map(str, ablation["seeds"]))
    several = "; lines: standard deviation" if len(ablation["seeds"]) > 1 else ""
    title = f"Ablation on {ablation['dataset']} (seeds: {seeds}{several})"
    runs = [run for group in groups for row in group["rows"] for run in row.get("runs", ()) if run]
    figure.describe(title, " ".join(map(_best, groups)), runs, fontweight="bold")
    return figure


def _best(group: dict) -> str:
    """Which row of a group is the best, in the first of its measures."""
    measure = group["measures"][0]
    means = {row["label"]: (row["values"] or {}).get(measure, {}).get("mean") for row in group["rows"]}
    means = {label: mean for label, mean in means.items() if mean is not None}
    if not means:
        return f"{group['title']}: no run finished."
    best, worst = max(means, key=means.get), min(means, key=means.get)
    found = f"{metric_name(measure)} is best with {best} ({means[best]:.3f})"
    return f"{group['title']}: {found}, worst with {worst} ({means[worst]:.3f})."


def _panel(axes, rows: list[dict], measure: str, seeds: int) -> None:
    start = GUESSING.get(measure, 0.0)
    axes.axvline(start, color="black", linewidth=0.8)
    note = {"textcoords": "offset points", "xytext": (4, 0), "va": "center", "fontsize": 8}
    room = 0.4
    for index, row in enumerate(rows):
        value = (row.get("values") or {}).get(measure) or {}
        mean, sd = value.get("mean"), value.get("sd")
        if mean is None:
            word = "failed" if row["status"] == "failed" else "not measured"
            axes.annotate(word, (start, index), style="italic", **note)
            continue
        axes.barh(
            index,
            mean - start,
            left=start,
            height=0.7,
            color=to_rgba(COLOURS[index % len(COLOURS)], 0.6),  # lighter than the hatches
            hatch=HATCHES[index % len(HATCHES)],
            edgecolor="black",
            linewidth=0.8,
            xerr=sd,
            error_kw={"capsize": 2, "linewidth": 1.2},
        )
        text = f"{mean:.3f}"
        if sd is not None:
            text, room = f"{text} ± {sd:.3f}", 0.8
        if row.get("failures"):
            text, room = f"{text} ({row['finished']} of {seeds} seeds)", 1.4
        # Right of the start also where the bar goes left.
        axes.annotate(text, (max(mean + (sd or 0), start), index), **note)
    axes.set_yticks(
        range(len(rows)), [row["label"] + " (default)" * row.get("default", False) for row in rows]
    )
    axes.set_ylim(len(rows) - 0.4, -0.6)  # the first row on top
    axes.tick_params(axis="y", length=0)
    axes.spines.left.set_visible(False)
    axes.set_title(f"{metric_name(measure)} (bars from {start})" if start else metric_name(measure))
    axes.xaxis.get_major_locator().set_params(nbins=4)
    low, high = axes.get_xlim()
    axes.set_xlim(low, high + room * (high - low))  # for the numbers
