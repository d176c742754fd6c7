"""What a benchmark's finished runs say together: tables, significance, users' ranks, examples."""

import contextlib
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import load_file

from recbole_ganprompt.data.dataset import TextSequentialDataset
from recbole_ganprompt.errors import UserError
from recbole_ganprompt.evaluation.significance import LEVEL, compare, confidence, holm, per_user, stars
from recbole_ganprompt.keys import load_yaml, properties_path
from recbole_ganprompt.report import table as tables
from recbole_ganprompt.report.figure import classes_figure, curves_figure, save
from recbole_ganprompt.report.names import metric_name
from recbole_ganprompt.report.page import write_page
from recbole_ganprompt.writing import write_text

EXAMPLES = 5


def write_results(folder: Path, summary: dict, configs: dict, options: dict) -> None:
    """Write everything that follows from the cells' runs.

    Parameters
    ----------
    folder : Path
    summary : dict
        Of ``benchmark.json``; gets ``datasets`` and ``significance``.
    configs : dict of str to recbole Config
        One for each dataset.
    options : dict
        ``metrics`` and ``paper``.
    """
    datasets = {name: TextSequentialDataset(config) for name, config in configs.items()}
    finished = [cell for cell in summary["cells"] if cell["status"] == "finished"]
    summary["datasets"] = {
        name: {
            **dataset.statistics(),
            "candidates": next((cell["candidates"] for cell in finished if cell["dataset"] == name), None),
        }
        for name, dataset in datasets.items()
    }
    runs = _long_form(finished)
    scores = {
        (cell["dataset"], cell["model"], cell["seed"]): load_file(Path(cell["run"], "ranks.safetensors"))
        for cell in finished
    }
    summary["significance"] = []
    shown = []
    for name in datasets:
        results = runs[(runs["dataset"] == name) & (runs["split"] == "test")]
        found = _significance(name, results, scores, options["metrics"])
        summary["significance"] += found
        shown.append(_table(name, results, summary, found, options))
    _write_frame(runs, folder / "runs.csv")
    _write_frame(_ranks(scores, datasets), folder / "ranks.parquet")
    write_text(folder / "table.txt", "\n".join(map(tables.to_text, shown)))
    write_text(folder / "table.md", "\n".join(map(tables.to_markdown, shown)))
    write_text(folder / "table.tex", tables.to_latex(shown))
    write_text(folder / "table.html", tables.to_html(shown))
    write_text(folder / "examples.json", json.dumps(_examples(scores, datasets), ensure_ascii=False))
    write_text(folder / "benchmark.json", json.dumps(summary, indent=1))
    _figures(folder / "figures", finished)
    print((folder / "table.txt").read_text(encoding="utf-8"))
    print(write_page(folder))


def _figures(folder: Path, finished: list[dict]) -> None:
    """Curves of each model's first seed, and the classes of GANPrompt's diversity encoder."""
    drawn = set()
    for cell in finished:
        name = f"{cell['dataset']}-{cell['model']}"
        if name in drawn:
            continue
        drawn.add(name)
        for kind, figure in (("curves", curves_figure), ("classes", classes_figure)):
            with contextlib.suppress(UserError):  # a run without a diversity encoder has no classes
                save(figure(cell["run"]), folder, f"{name}-{kind}")


def _long_form(finished: list[dict]) -> pd.DataFrame:
    rows = []
    for cell in finished:
        record = json.loads(Path(cell["run"], "result.json").read_text(encoding="utf-8"))
        for split in ("valid", "test"):
            for metric, value in (record[split] or {}).items():
                row = {key: cell[key] for key in ("dataset", "model", "seed")}
                row |= {"split": split, "metric": metric, "value": value}
                rows.append(
                    row | {key: cell[key] for key in ("seconds", "peak_memory_mb", "candidates", "run")}
                )
    return pd.DataFrame(rows)


def _significance(dataset: str, results: pd.DataFrame, scores: dict, metrics: list[str]) -> list[dict]:
    """Best against second in each metric, p values and intervals corrected for the number of metrics."""
    found = []
    for metric in metrics:
        means = (
            results[results["metric"] == metric].groupby("model")["value"].mean().sort_values(ascending=False)
        )
        if len(means) < 2:
            continue
        values = [
            np.mean(
                [
                    per_user(one["test_score"], metric)
                    for (name, of, _), one in scores.items()
                    if (name, of) == (dataset, model)
                ],
                axis=0,
            )
            for model in means.index[:2]
        ]
        result = compare(*values, len(metrics))
        found.append(
            {
                "dataset": dataset,
                "metric": metric,
                "best": means.index[0],
                "second": means.index[1],
                "difference": result.difference,
                "low": result.low,
                "high": result.high,
                "confidence": confidence(len(metrics)),
                "p": result.p,
                "agrees": result.agrees,
            }
        )
    for one, corrected in zip(found, holm([one["p"] for one in found])):
        one.update(p_corrected=float(corrected), stars=stars(corrected) if one["agrees"] else "")
    return found


def _table(name: str, results, summary: dict, found: list[dict], options: dict) -> tables.Table:
    cells = [cell for cell in summary["cells"] if cell["dataset"] == name]
    failed = {
        f"{cell['model']}, seed {cell['seed']}": cell["reason"]
        for cell in cells
        if cell["status"] == "failed"
    }
    models = list(dict.fromkeys(cell["model"] for cell in cells))
    seeds = {cell["seed"] for cell in cells}
    marks = {one["metric"]: one["stars"] for one in found}
    numbers = summary["datasets"][name]
    title = (
        f"{name}: {numbers['users']} users, {numbers['items']} items, "
        f"{numbers['interactions']} interactions; test split, {len(seeds)} seed{'s' * (len(seeds) > 1)}"
    )
    table = tables.summarise(title, results, models, options["metrics"], failed, marks)
    if options["paper"]:
        rows = load_yaml(properties_path("paper.yaml")).get(name, {})
        table.paper = {
            label: [str(values.get(metric, "–")) for metric in options["metrics"]]
            for label, values in rows.items()
        }
        if rows:
            table.notes.append(
                "The paper's numbers are from its own extract of the data and its own candidates."
            )
    table.notes.append("Mean ± standard deviation over seeds; best and second of each column are marked.")
    for one in found:
        difference = round(one["difference"], 4) + 0.0  # a tie is no "-0.0000"
        against = f"{one['best']} over {one['second']} by {difference:.4f}"
        interval = f"[{one['low']:.4f}, {one['high']:.4f}]"
        p = f"p = {one['p_corrected']:.2g} {one['stars']}".rstrip()
        if one["p_corrected"] < LEVEL and not one["agrees"]:
            p += " (no star: interval and signed ranks don't both speak for it)"
        table.notes.append(f"{metric_name(one['metric'])}: {against} {interval}, {p}")
    finished = [cell for cell in cells if cell["status"] == "finished"]
    for what, of in (("commits", _commit), ("machines", _machine)):
        counts = Counter(of(cell["provenance"]) for cell in finished)
        if len(counts) > 1:
            shown = "; ".join(f"{name} ({count})" for name, count in counts.items())
            table.notes.append(f"The runs are of several {what} (number of runs): {shown}.")
    if found:
        table.notes.append(
            f"Differences with {100 * found[0]['confidence']:.4g} % bootstrap intervals over users (together "
            f"95 % for {len(found)} metrics), seeds averaged; Wilcoxon signed-rank test paired by user, "
            f"Holm-corrected for {len(found)} metrics: * p < 0.05, ** p < 0.01, *** p < 0.001, where "
            "interval and signed ranks both name the model with the higher mean."
        )
    return table


def _commit(made: dict | None) -> str:
    if not made or not made["commit"]:
        return "not known"
    return made["commit"] + (" with changes" if made["dirty"] else "")


def _machine(made: dict | None) -> str:
    if not made:
        return "not known"
    one = made["machine"]
    return f"{one['processor']}, {one['cores']} cores, {one['gpu'] or 'no GPU'}"


def _ranks(scores: dict, datasets: dict) -> pd.DataFrame:
    parts = []
    for (name, model, seed), one in scores.items():
        tokens = datasets[name].field2id_token[datasets[name].uid_field][one["test_user"]]
        parts.append(
            pd.DataFrame(
                {"dataset": name, "model": model, "seed": seed, "user": tokens, "rank": one["test_rank"]}
            )
        )
    return pd.concat(parts, ignore_index=True)


def _write_frame(frame: pd.DataFrame, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    if path.suffix == ".csv":
        frame.to_csv(temporary, index=False)
    else:
        frame.to_parquet(temporary, index=False)
    os.replace(temporary, path)


def _examples(scores: dict, datasets: dict) -> dict:
    """A few users of each dataset, what they liked, their candidates and each model's scores (first seed)."""
    examples = {}
    for name, dataset in datasets.items():
        first = {}
        for (of, model, _), one in scores.items():
            if of == name:
                first.setdefault(model, one["test_score"])
        evaluation = dataset.evaluation_set("test")
        items, users = (dataset.field2id_token[field] for field in (dataset.iid_field, dataset.uid_field))
        # Evenly over the users of the file: the same ones every time.
        rows = np.unique(np.linspace(0, len(evaluation) - 1, EXAMPLES).astype(int))
        examples[name] = [
            {
                "user": str(users[evaluation.users[row]]),
                "history": [
                    dataset.titles[item] for item in evaluation.histories[row, : evaluation.lengths[row]]
                ],
                "candidates": [
                    {"item": str(items[item]), "title": dataset.titles[item], "target": column == 0}
                    for column, item in enumerate(evaluation.candidates[row])
                ],
                "scores": {model: score[row].tolist() for model, score in first.items()},
            }
            for row in rows
        ]
    return examples
