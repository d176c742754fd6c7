"""A benchmark folder as one HTML file that needs neither a server nor a network.

:func:`page_context` turns the folder's files into plain values, ``page.html`` lays them out. All that the
files hold is untrusted (titles come from the data): the template escapes every value, figures are embedded
as images, which run no script, and a Content-Security-Policy forbids any other script and all network.
"""

import csv
import json
import math
import os
import shlex
from base64 import b64encode
from collections import Counter, defaultdict
from functools import partial
from hashlib import sha256
from pathlib import Path
from string import ascii_uppercase
from urllib.parse import quote
from xml.etree import ElementTree

import numpy as np
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from scipy.stats import rankdata

from recbole_ganprompt.errors import UserError
from recbole_ganprompt.evaluation.robustness import decided
from recbole_ganprompt.keys import load_yaml, parse_value, properties_path
from recbole_ganprompt.report.names import metric_name
from recbole_ganprompt.report.robustness_table import SHOWN
from recbole_ganprompt.report.table import improvement, improvement_label
from recbole_ganprompt.writing import write_text

HERE = Path(__file__).parent
MINUS, DASH = "\u2212", "\u2013"


def write_page(folder: Path) -> Path:
    """Write a benchmark folder's ``index.html``.

    Parameters
    ----------
    folder : Path
        ``saved/benchmarks/<name>`` with ``benchmark.json`` and ``runs.csv``; ``examples.json``,
        ``robustness.json``, ``ablation.json`` and ``figures/*.svg`` are shown where they are. The runs'
        configurations are read from ``runs`` two folders up, or else where ``benchmark.json`` says.

    Returns
    -------
    Path
        The file, which replaces an earlier one.

    Raises
    ------
    UserError
        If the folder holds no finished benchmark, or a file in it is not JSON.
    """
    folder = Path(folder)
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for show in (number, probability, signed, percent, interval, change, metric_name):
        environment.filters[show.__name__] = show
    environment.tests["decided"] = decided
    script = (HERE / "page.js").read_text(encoding="utf-8")
    html = environment.get_template("page.html").render(
        page_context(folder),
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=b64encode(sha256(script.encode()).digest()).decode(),
    )
    path = folder / "index.html"
    # JSON can hold half a surrogate pair, which no encoding can.
    write_text(path, html.encode("utf-8", "replace").decode("utf-8"))
    return path


def write_page_again(folder: Path) -> None:
    """Bring a benchmark's page up to date for a study of it; say so where there can't be one yet."""
    try:
        write_page(folder)
    except UserError as error:
        print(f"index.html is not written: {error}")


def page_context(folder: Path) -> dict:
    """All that the page shows, as plain values: strings, numbers, lists and dicts.

    Parameters
    ----------
    folder : Path
        As for :func:`write_page`.

    Returns
    -------
    dict
        ``benchmark`` (its JSON), ``datasets``, ``figures``, ``robustness`` and ``ablation`` (None where
        there is none), ``runs``, ``users``.
    """
    benchmark = _read_json(folder / "benchmark.json")
    complete = benchmark and {"datasets", "significance"} <= set(benchmark)
    if not complete or not (folder / "runs.csv").is_file():
        raise UserError(
            f"{folder} holds no results of a finished benchmark (benchmark.json, runs.csv): run_benchmark.py "
            "writes them, and the page, at its end."
        )
    runs = {Path(cell["run"]).name for cell in benchmark["cells"] if cell["run"]}
    robustness = _robustness(_read_json(folder / "robustness.json"), runs)
    return {
        "benchmark": benchmark,
        "datasets": _datasets(benchmark, _test_values(folder / "runs.csv")),
        "figures": [_figure(path, runs) for path in sorted((folder / "figures").glob("*.svg"))],
        "robustness": robustness,
        "ablation": _ablation(_read_json(folder / "ablation.json")),
        "runs": _runs(benchmark["cells"], folder),
        "users": _users(_read_json(folder / "examples.json") or {}, robustness),
    }


def number(value, digits: int = 4) -> str:
    """A number with a real minus sign; a dash for None and NaN."""
    if value is None or not math.isfinite(value):
        return DASH
    return f"{value:,.{digits}f}".replace("-", MINUS)


def probability(value) -> str:
    """A p value as it follows the letter p: ``= 0.0120`` or ``< 0.0001``."""
    return "< 0.0001" if value < 0.0001 else f"= {number(value)}"


def signed(value) -> str:
    """A number with its sign, one digit after the point."""
    return ("+" if value >= 0 else "") + number(value, 1)


def percent(value) -> str:
    """A share as a percentage."""
    return DASH if value is None else f"{number(100 * value, 1)} %"


def change(value: dict, share: bool = True) -> str:
    """A difference and its interval, as ``robustness.json`` holds them: in percentage points, or plain."""
    scale, digits = (100, 1) if share else (1, 3)
    found = [value[key] for key in ("difference", "low", "high")]
    shown = [number(None if one is None else scale * one, digits) for one in found]
    return shown[0] if value["low"] is None else f"{shown[0]} ({shown[1]} to {shown[2]})"


def interval(value: dict, key: str = "mean", share: bool = True) -> str:
    """A value and its interval, as ``robustness.json`` holds them: as percentages, or plain."""
    show = percent if share else partial(number, digits=3)
    if value.get("low") is None:
        return show(value[key])
    return f"{show(value[key])} ({show(value['low'])} to {show(value['high'])})"


def _read_json(path: Path):
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); write the benchmark's files again") from None


def _test_values(path: Path) -> dict[tuple, list[float]]:
    """Test metrics of all seeds by dataset, model and metric."""
    values = defaultdict(list)
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            if row["split"] == "test":
                values[row["dataset"], row["model"], row["metric"]].append(float(row["value"]))
    return values


def _datasets(benchmark: dict, values: dict) -> list[dict]:
    paper = _papers_rows(benchmark["command"])
    sections = []
    for dataset, statistics in benchmark["datasets"].items():
        cells = defaultdict(list)
        for cell in benchmark["cells"]:
            if cell["dataset"] == dataset:
                cells[cell["model"]].append(cell)
        tests = {test["metric"]: test for test in benchmark["significance"] if test["dataset"] == dataset}
        columns, improvements = {}, []
        for name in benchmark["metrics"]:
            found = {model: values.get((dataset, model, name)) for model in cells}
            columns[name], improvement = _column(found, tests.get(name))
            improvements.append(improvement)
        rows = []
        for model, runs in cells.items():
            failed = [run for run in runs if run["status"] != "finished"]
            row = {"model": model, "seeds": len(runs), "finished": len(runs) - len(failed)}
            row["failures"] = [f"seed {run['seed']}: {run['reason'] or 'no reason known'}" for run in failed]
            row["cells"] = [columns[name][model] for name in benchmark["metrics"]]
            rows.append(row)
        section = {"name": dataset, "statistics": statistics, "rows": rows, "tests": list(tests.values())}
        section["paper"] = {
            label: [printed.get(metric, DASH) for metric in benchmark["metrics"]]
            for label, printed in paper.get(dataset, {}).items()
        }
        label = improvement_label(cells)
        sections.append(section | {"improvements": improvements, "improvement_label": label})
    return sections


def _papers_rows(command: str) -> dict[str, dict]:
    """By dataset the paper's own numbers, as it prints them; none where the command didn't ask for them."""
    for argument in shlex.split(command):
        name, _, given = argument.partition("=")
        if name == "--paper" and parse_value("", given or "true") is True:
            return load_yaml(properties_path("paper.yaml"))
    return {}


def _column(found: dict[str, list | None], test: dict | None) -> tuple[dict, float | None]:
    """One metric's cells by model, and the improvement of ``report.table``."""
    means = {model: float(np.mean(values)) for model, values in found.items() if values}
    order = sorted(set(means.values()), reverse=True)
    marks = dict(zip(order, ("best", "second")))
    cells = {}
    for model, values in found.items():
        mean = means.get(model)
        sd = float(np.std(values, ddof=1)) if values and len(values) > 1 else None
        mark = marks.get(mean)
        stars = test["stars"] if test and mark == "best" else ""
        cells[model] = {"mean": mean, "sd": sd, "mark": mark, "stars": stars}
    return cells, improvement({model: means.get(model) for model in found})


def _figure(path: Path, runs: set[str]) -> dict:
    """An SVG file as a data URI; its own title and description, or its name in words, as text.

    ``others`` are the runs that it was drawn from and that aren't the table's.
    """
    content = path.read_bytes()
    texts = {}
    try:
        for element in ElementTree.fromstring(content).iter():
            name = str(element.tag).rpartition("}")[2]
            # SVG's own, or Dublin Core's in its metadata.
            if name in ("title", "desc", "description", "source"):
                texts.setdefault(name, " ".join("".join(element.itertext()).split()))
    except ElementTree.ParseError:
        pass  # the browser shows its name in place of the broken image
    return {
        "title": texts.get("title") or path.stem.replace("_", " ").replace("-", " "),
        "description": texts.get("desc") or texts.get("description") or "",
        "others": sorted(set(filter(None, texts.get("source", "").split(", "))) - runs),
        "source": "data:image/svg+xml;base64," + b64encode(content).decode(),
        "file": path.name,
    }


def _robustness(study: dict | None, runs: set[str]) -> dict | None:
    """The study with the metrics of its overview, and which of its runs aren't the table's."""
    if study is None:
        return None
    study["main"] = "gauc" if "gauc" in study["metrics"] else study["metrics"][0]
    study["compared"] = [metric for metric in SHOWN if metric in study["metrics"]]
    study["others"] = sorted({Path(run["run"]).name for run in study["runs"]} - runs)
    return study


def _ablation(study: dict | None) -> dict | None:
    """The study, each row with its cells in the order of the group's measures."""
    if study is None:
        return None
    nothing = {"mean": None, "sd": None}  # where all seeds failed
    for group in study["groups"]:
        for row in group["rows"]:
            row["cells"] = [{**row["values"].get(name, nothing), "mark": None} for name in group["measures"]]
    return study


def _runs(cells: list[dict], folder: Path) -> list[dict]:
    """The cells with their folder and configuration, split into the usual and the particular."""
    directories = [cell["run"] and _run_directory(cell["run"], folder) for cell in cells]
    configs = [_settings(directory) for directory in directories]
    usual = {}
    for key in sorted(set().union(*configs)):
        present = [config for config in configs if config]
        usual[key] = Counter(config.get(key) for config in present).most_common(1)[0][0]
    runs = []
    for cell, directory, config in zip(cells, directories, configs):
        link = directory and Path(os.path.relpath(directory, folder.resolve())).as_posix()
        different = [text for key, text in config.items() if usual[key] != text]
        same = [text for key, text in config.items() if usual[key] == text]
        settings = {"different": "".join(different), "same": "".join(same), "count": len(different)}
        runs.append({**cell, **settings, "folder": link, "address": link and quote(link)})
    return runs


def _run_directory(run: str, folder: Path) -> Path:
    beside = folder.resolve().parent.parent / "runs" / Path(run).name
    return beside if beside.is_dir() else Path(run).resolve()


def _settings(directory: Path | None) -> dict[str, str]:
    """A run's configuration: each key with its lines of YAML."""
    path = directory and directory / "config.yaml"
    if not path or not path.is_file():
        return {}
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {key: yaml.safe_dump({key: value}, allow_unicode=True) for key, value in config.items()}


def _users(examples: dict[str, list], robustness: dict | None) -> list[dict]:
    wordings = defaultdict(list)
    for example in (robustness or {}).get("examples", []):
        wordings[example["dataset"], str(example["user"])].append(example)
    users = []
    for dataset, entries in examples.items():
        for entry in entries:
            ranks = {model: _ranks(scores) for model, scores in entry["scores"].items()}
            candidates = []
            for index, candidate in enumerate(entry["candidates"]):
                label = ascii_uppercase[index] if index < len(ascii_uppercase) else str(index + 1)
                shown = {model: column[index] for model, column in ranks.items()}
                candidates.append({**candidate, "label": label, "ranks": shown})
            moves = [_moves(example) for example in wordings[dataset, str(entry["user"])]]
            user = {"dataset": dataset, "user": str(entry["user"]), "history": entry["history"]}
            user["anchor"] = f"user-{len(users) + 1}"
            users.append({**user, "candidates": candidates, "models": list(ranks), "wordings": moves})
    return users


def _ranks(scores: list) -> list[float]:
    """Rank of each candidate, 1 the highest score; tied candidates share their mean rank."""
    return rankdata(-np.asarray(scores, dtype=np.float64)).tolist()


def _moves(example: dict) -> dict:
    """Rank of each candidate under each wording, and by how many places it rose from the training one."""
    ranks = {}
    for wording, order in example["orders"].items():
        ranks[wording] = [order.index(candidate) + 1 for candidate in range(len(order))]
    trained = ranks.pop("training")
    rows = [{"name": "training", "cells": [{"rank": rank, "rose": 0} for rank in trained]}]
    for wording, found in ranks.items():
        cells = [{"rank": rank, "rose": before - rank} for rank, before in zip(found, trained)]
        rows.append({"name": wording, "cells": cells})
    return {"model": example["model"], "seed": example.get("seed"), "rows": rows}
