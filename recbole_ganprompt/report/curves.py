"""Loss and validation metrics of a run by epoch, one row of panels for each of its steps."""

import json
from pathlib import Path

from matplotlib.ticker import MaxNLocator

from recbole_ganprompt.errors import UserError
from recbole_ganprompt.report.names import metric_name
from recbole_ganprompt.report.style import COLOURS, MARKERS, Drawing, styled

METRICS = ("auc", "gauc", "hit@1", "ndcg@3")
# The diversity encoder's panels: the keys of each and what the legend calls them.
ENCODER = {
    "reconstruction loss (nats)": {"reconstruction": None},
    "adversarial loss (nats)": {"adversarial": "generator", "discriminator": "discriminator"},
    "discriminator's accuracy": {"accuracy": None},
    "D_total": {"d_total": None},
    "cosine of classes": {"cosine": None},
}


@styled()
def curves_figure(run) -> Drawing:
    """Draw ``curves.json`` of a run; a teacher's own validation value is a dashed line.

    The values of a language model's step are of the fixed sample of ``valid_users`` users that choose an
    epoch; the teacher's, and those of the other models' training, of all users.

    Parameters
    ----------
    run : path
        A finished run's folder.

    Raises
    ------
    UserError
        If the run has no curves.
    """
    path = Path(run) / "curves.json"
    curves = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    curves = {step: entries for step, entries in curves.items() if entries}
    if not curves:
        raise UserError(f"{run} has no curves.json: it is of an older version, run it again for the curves.")
    record = json.loads((Path(run) / "result.json").read_text(encoding="utf-8"))
    teacher = record.get("teacher") or {}
    rows = [_panels(entries) for entries in curves.values()]
    columns = max(map(len, rows))
    figure = Drawing(figsize=(max(5, 2.4 * columns), 0.6 + 2.3 * len(rows)), layout="constrained")
    dashed = None
    for axes_row, (step, entries), panels in zip(
        figure.subplots(len(rows), columns, squeeze=False), curves.items(), rows
    ):
        axes_row[0].set_title(step, loc="left", fontweight="bold")
        for axes, (title, series) in zip(axes_row, panels.items()):
            _draw(axes, entries, series, title)
            level = (teacher.get("valid") or {}).get(next(iter(series)))
            if level is not None:
                dashed = axes.axhline(level, color="black", linestyle="--", linewidth=1)
        for axes in axes_row[len(panels) :]:
            axes.remove()
    if dashed is not None:
        name = f"the teacher ({teacher['model']}) alone"
        figure.legend([dashed], [name], loc="outside lower right")
    title = f"{record['model']} on {record['dataset']}: loss and validation by epoch"
    figure.describe(title, " ".join(map(_best, curves, curves.values())), [run])
    return figure


def _best(step: str, entries: list[dict]) -> str:
    """How many epochs a step had, and which was the best in the first metric that is drawn."""
    said = f"{step}: {len(entries)} epoch{'s' * (len(entries) > 1)}"
    key, *_ = [*_metrics(entries), None]
    known = [entry for entry in entries if key in (entry.get("valid") or {})]
    if not known:
        return f"{said}."
    best = max(known, key=lambda entry: entry["valid"][key])
    return f"{said}, {metric_name(key)} is best after epoch {best['epoch']} ({best['valid'][key]:.3f})."


def _metrics(entries: list[dict]) -> list[str]:
    valid = next((entry["valid"] for entry in entries if entry.get("valid")), {})
    return [key for key in METRICS if key in valid] or list(valid)[: len(METRICS)]


def _panels(entries: list[dict]) -> dict[str, dict]:
    """The panels of one step: title to keys, each with its name for a legend or None."""
    if "loss" not in entries[0]:
        return ENCODER
    return {"loss (nats)": {"loss": None}, **{metric_name(key): {key: None} for key in _metrics(entries)}}


def _draw(axes, entries: list[dict], series: dict, title: str) -> None:
    """Draw the keys of ``series`` over the epochs that have them."""
    entries = [{**entry, **(entry.get("valid") or {})} for entry in entries]
    for index, (key, name) in enumerate(series.items()):
        some = [entry for entry in entries if key in entry]
        axes.plot(
            [entry["epoch"] for entry in some],
            [entry[key] for entry in some],
            color=COLOURS[index],
            marker=MARKERS[index] if len(some) <= 40 else "",
            linestyle=("-", "--", ":")[index % 3],
            markersize=5,
            fillstyle="none" if index else "full",  # lines often coincide
            label=name,
        )
    epochs = [entry["epoch"] for entry in entries]
    axes.set(xlabel="epoch", ylabel=title, xlim=(min(epochs) - 0.4, max(epochs) + 0.4))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    axes.margins(y=0.15)
    axes.grid(axis="y", alpha=0.3)
    if len(series) > 1:
        axes.legend(
            loc="lower center",
            bbox_to_anchor=(0.5, 1),
            ncols=2,
            fontsize=8,
            columnspacing=1,
            handlelength=1.6,
        )
