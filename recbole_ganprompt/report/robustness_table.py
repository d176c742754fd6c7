"""What ``robustness.json`` says, as Markdown."""

from tabulate import tabulate

from recbole_ganprompt.evaluation.robustness import AGREEMENT, decided
from recbole_ganprompt.report.names import metric_name

SHOWN = ("auc", "gauc", "hit@1", "ndcg@3")


def to_markdown(record: dict) -> str:
    """The tables: one row for each label and group of variants, then the labels against each other."""
    headers = ["dataset", "model", "seeds", "changed", "metric", "as trained", "mean", "worst", "sd"]
    headers += ["relative drop [95 %]", "top-1 changed", "Kendall tau", "overlap@3"]
    rows = []
    for one in record["labels"]:
        for group, summary in one["summary"].items():
            for metric in SHOWN:
                found = summary["metrics"][metric]
                row = [one["dataset"], one["label"], ", ".join(map(str, one["seeds"])), group]
                row += [metric_name(metric), f"{one['baseline'][metric]:.4f}", f"{found['mean']:.4f}"]
                row += [f"{found['worst']:.4f}", "" if found["sd"] is None else f"{found['sd']:.4f}"]
                row.append(_with_interval(found, "relative_drop", 100, 1, " %"))
                row += [_with_interval(summary[name], "mean") for name in AGREEMENT]
                rows.append(row)
    parts = [
        tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True),
        "Seeds are averaged within each user; mean, worst and sd are over the variants that all runs on the "
        "dataset were asked in; [95 % bootstrap intervals over users]. Top-1 changed: against the wording of "
        "training; Kendall tau and overlap@3: over all pairs of wordings.",
    ]
    if record["comparisons"]:
        headers = ["dataset", "changed", "first − second", *(f"drop of {metric_name(one)}" for one in SHOWN)]
        headers += ["top-1 changed", "Kendall tau", "overlap@3"]
        rows = []
        for one in record["comparisons"]:
            row = [one["dataset"], one["group"], f"{one['first']} − {one['second']}"]
            row += [_marked(one["relative_drop"][metric], 100, 1, " points") for metric in SHOWN]
            rows.append([*row, *(_marked(one[name]) for name in AGREEMENT)])
        parts += [
            tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True),
            "First minus second, paired by user; bold where the 95 % interval leaves out zero (not corrected "
            "for the number of comparisons). The first is the steadier where the drops and the top-1 changes "
            "are below zero, Kendall tau and overlap@3 above.",
        ]
    left_out = [
        f"- not asked in {name}: {run['label']} on {run['dataset']}, seed {run['seed']}: {reason}"
        for run in record["runs"]
        for name, reason in run["skipped"].items()
    ]
    left_out += [f"- failed: {one['run']}: {one['reason']}" for one in record["failed"]]
    if left_out:
        parts.append("\n".join(left_out))
    return "\n\n".join(parts) + "\n"


def _with_interval(value: dict, name: str, scale: int = 1, digits: int = 3, unit: str = "") -> str:
    if value[name] is None:
        return "–"
    shown = f"{scale * value[name]:.{digits}f}{unit}"
    if value["low"] is None:
        return shown
    return f"{shown} [{scale * value['low']:.{digits}f}, {scale * value['high']:.{digits}f}]"


def _marked(value: dict, *how) -> str:
    shown = _with_interval(value, "difference", *how)
    return f"**{shown}**" if decided(value) else shown
