"""One table of results as terminal text, Markdown, LaTeX and HTML.

``summarise`` turns long-form results into a :class:`Table` of cells; each format only writes it down.
"""

import html
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from tabulate import tabulate

from recbole_ganprompt.report.names import metric_name

OURS = "GANPrompt"


@dataclass(frozen=True)
class Cell:
    """A number of the table.

    Attributes
    ----------
    mean, sd : float or None
        Over the seeds; ``sd`` (n - 1) is None for one seed, ``mean`` None where every run failed.
    place : int
        1 for the best of the column, 2 for the second, else 0.
    stars : str
        Significance of the best against the second.
    """

    mean: float | None
    sd: float | None = None
    place: int = 0
    stars: str = ""


@dataclass
class Table:
    """Results on one dataset.

    Attributes
    ----------
    title : str
    columns : list of str
        Metrics as readers know them.
    rows : dict of str to list of Cell
        By model.
    failed : dict of str to str
        Models with a failed run, and why.
    improvement : (str, list of float or None) or None
        Label and percent of the row "Impr.".
    paper : dict of str to list of str
        The paper's own numbers as it prints them, by row.
    notes : list of str
        Sentences under the table.
    """

    title: str
    columns: list[str]
    rows: dict[str, list[Cell]]
    failed: dict[str, str] = field(default_factory=dict)
    improvement: tuple | None = None
    paper: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def summarise(title: str, results: pd.DataFrame, models, metrics, failed=None, marks=None) -> Table:
    """Means and standard deviations over seeds, best, second, and improvement.

    Parameters
    ----------
    title : str
    results : DataFrame
        ``model``, ``seed``, ``metric``, ``value``: one dataset, one split.
    models, metrics : list of str
        Rows and columns, in this order.
    failed : dict of str to str, optional
        Why runs of a model failed.
    marks : dict of str to str, optional
        Stars of the best by metric.

    Returns
    -------
    Table
        With the row "Impr. (%)" of GANPrompt over the best of all others, relative, where both are there;
        of the best over the second in a table without GANPrompt.
    """
    grouped = results.groupby(["model", "metric"])["value"]
    means, deviations = grouped.mean(), grouped.std(ddof=1)
    columns = {}
    for metric in metrics:
        values = {model: means.get((model, metric)) for model in models}
        order = sorted((model for model in models if values[model] is not None), key=lambda one: -values[one])
        column = {}
        for model in models:
            sd = deviations.get((model, metric))
            place = order.index(model) + 1 if model in order[:2] else 0
            star = (marks or {}).get(metric, "") if place == 1 else ""
            known = sd is not None and np.isfinite(sd)
            column[model] = Cell(values[model], float(sd) if known else None, place, star)
        columns[metric] = column
    rows = {model: [columns[metric][model] for metric in metrics] for model in models}
    table = Table(title, [metric_name(metric) for metric in metrics], rows, dict(failed or {}))
    percents = [improvement({model: columns[metric][model].mean for model in models}) for metric in metrics]
    if any(percent is not None for percent in percents):
        table.improvement = (improvement_label(models), percents)
    return table


def improvement_label(models) -> str:
    """What the row "Impr. (%)" compares, for these models."""
    return f"Impr. (%) of {OURS}" if OURS in models else "Impr. (%) of best over second"


def improvement(means: dict) -> float | None:
    """By how many percent GANPrompt is above the best other model; without it, the best above the second.

    Parameters
    ----------
    means : dict of str to float or None
        One metric by model.
    """
    values = {model: value for model, value in means.items() if value is not None}
    if len(values) < 2 or (OURS in means and OURS not in values):
        return None
    ours = values.pop(OURS if OURS in values else max(values, key=values.get))
    best = max(values.values())
    return 100.0 * (ours / best - 1.0) if best > 0 else None


def _number(cell: Cell) -> str:
    if cell.mean is None:
        return "failed"
    return f"{cell.mean:.4f}" + ("" if cell.sd is None else f" ± {cell.sd:.4f}")


def _extra_rows(table: Table) -> list[list[str]]:
    """Rows below the models: the improvement, and what the paper has."""
    rows = [[f"{label} (paper)", *values] for label, values in table.paper.items()]
    if table.improvement:
        label, percents = table.improvement
        rows.insert(0, [label, *("" if value is None else f"{value:+.2f}" for value in percents)])
    return rows


def _lines(table: Table) -> list[str]:
    """What stands under the table: failures first."""
    failures = [f"{model}: failed: {reason}" for model, reason in table.failed.items()]
    return [*failures, *table.notes]


def to_text(table: Table) -> str:
    """For a terminal: the best in ``[brackets]``, the second in ``(parentheses)``."""

    def show(cell):
        shown = _number(cell)
        if cell.place == 1:
            return f"[{shown}]{cell.stars}"
        return f"({shown})" if cell.place == 2 else shown

    rows = [[model, *map(show, cells)] for model, cells in table.rows.items()]
    rows += _extra_rows(table)
    body = tabulate(rows, headers=["", *table.columns], disable_numparse=True, stralign="right")
    return "\n".join([table.title, body, *_lines(table)]) + "\n"


def to_markdown(table: Table) -> str:
    """The best bold, the second underlined (with HTML's ``<u>``, as Markdown has none)."""

    def show(cell):
        shown = _number(cell)
        if cell.place == 1:
            return f"**{shown}**" + cell.stars.replace("*", r"\*")
        return f"<u>{shown}</u>" if cell.place == 2 else shown

    lines = [f"**{table.title}**", "", "| model | " + " | ".join(table.columns) + " |"]
    lines.append("|---" + "|---:" * len(table.columns) + "|")
    lines += [
        f"| {_pipes(model)} | " + " | ".join(map(show, cells)) + " |" for model, cells in table.rows.items()
    ]
    lines += ["| " + " | ".join(row) + " |" for row in _extra_rows(table)]
    notes = [f"- {_pipes(line)}" for line in _lines(table)]
    return "\n".join([*lines, "", *notes]) + "\n"


def _pipes(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")


_LATEX = {
    "\\": r"\textbackslash{}",
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "≥": r"$\geq$",
    "–": "--",
}


def latex_escape(text: str) -> str:
    """Text that LaTeX prints as it stands; characters outside ASCII that it may not know become ``?``."""
    escaped = "".join(_LATEX.get(character, character) for character in text)
    return escaped.encode("ascii", "replace").decode()


def to_latex(tables: list[Table]) -> str:
    """A document that compiles, with ``booktabs``: one table for each dataset."""

    def show(cell):
        shown = latex_escape(_number(cell))
        if cell.place == 1:
            return rf"\textbf{{{shown}}}" + (f"$^{{{cell.stars}}}$" if cell.stars else "")
        return rf"\underline{{{shown}}}" if cell.place == 2 else shown

    lines = [r"\documentclass{article}", r"\usepackage{booktabs,graphicx}", r"\begin{document}"]
    for table in tables:
        lines += [r"\begin{table}", r"\centering", rf"\caption{{{latex_escape(table.title)}}}"]
        lines += [r"\resizebox{\textwidth}{!}{%", rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}"]
        lines += [r"\toprule", " & ".join(["Model", *map(latex_escape, table.columns)]) + r" \\", r"\midrule"]
        for model, cells in table.rows.items():
            lines.append(" & ".join([latex_escape(model), *map(show, cells)]) + r" \\")
        extra = [" & ".join(map(latex_escape, row)) + r" \\" for row in _extra_rows(table)]
        lines += [r"\midrule", *extra] if extra else []
        lines += [r"\bottomrule", r"\end{tabular}}"]
        notes = " ".join(latex_escape(line) for line in _lines(table))
        lines += [r"\par\footnotesize " + notes, r"\end{table}"]
    return "\n".join([*lines, r"\end{document}"]) + "\n"


def to_html(tables: list[Table]) -> str:
    """A page that stands alone."""

    def show(cell):
        shown = html.escape(_number(cell))
        if cell.place == 1:
            return f"<b>{shown}</b>{cell.stars}"
        return f"<u>{shown}</u>" if cell.place == 2 else shown

    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Results</title>',
        "<style>body{font-family:system-ui,sans-serif;margin:2rem}table{border-collapse:collapse}"
        "th,td{padding:.3rem .7rem;text-align:right;border-bottom:1px solid #ccc}"
        "th:first-child{text-align:left}caption{text-align:left;font-weight:600;padding:.5rem 0}</style>",
    ]
    for table in tables:
        heads = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in table.columns)
        rows = [
            f'<tr><th scope="row">{html.escape(model)}</th>'
            + "".join(f"<td>{show(cell)}</td>" for cell in cells)
            + "</tr>"
            for model, cells in table.rows.items()
        ]
        for label, *values in _extra_rows(table):
            cells = "".join(f"<td>{html.escape(text)}</td>" for text in values)
            rows.append(f'<tr><th scope="row">{html.escape(label)}</th>{cells}</tr>')
        notes = "".join(f"<li>{html.escape(line)}</li>" for line in _lines(table))
        parts.append(
            f'<table><caption>{html.escape(table.title)}</caption><thead><tr><th scope="col">Model</th>'
            f"{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table><ul>{notes}</ul>"
        )
    return "\n".join([*parts, "</html>"]) + "\n"
