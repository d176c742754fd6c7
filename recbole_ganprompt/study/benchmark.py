"""Tables across models, datasets and seeds: ``run_benchmark.py``.

Every run that isn't there yet is a Ray task; the results go to ``<checkpoint_dir>/benchmarks/<name>/``:

- ``benchmark.json``: what was asked, on which machine and commit, every cell with its run, cost, attempts
  or the reason of its failure, and the significance tests;
- ``runs.csv`` and ``ranks.parquet``: every run's metrics, and every user's rank in every run;
- ``table.txt``, ``.md``, ``.tex`` and ``.html``;
- ``examples.json`` and ``index.html``: a page to look at (:mod:`recbole_ganprompt.report.page`);
- ``logs/``: what each run said.
"""

import json
import os
import platform
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import psutil
import torch

from recbole_ganprompt.checks import natural, text, truth
from recbole_ganprompt.cli import BASELINES
from recbole_ganprompt.config import build_config
from recbole_ganprompt.errors import UserError, exit_status
from recbole_ganprompt.experiment import write_text
from recbole_ganprompt.report.table import metric_name
from recbole_ganprompt.study.cluster import run_tasks
from recbole_ganprompt.study.options import (
    RUN_HELP,
    RUN_OPTIONS,
    demand_of,
    run_arguments,
    scoped_arguments,
    take_options,
)
from recbole_ganprompt.study.results import write_results
from recbole_ganprompt.study.runs import FinishedRuns, make_run, reason_of

USAGE = f"""\
usage: python run_benchmark.py --models=all --datasets=ml-100k,Amazon_Beauty --seeds=2024,2025 [--key=...]

Runs every model on every dataset with every seed, and writes the table, the tests and a page to look at.
Finished runs are kept: the same command again does only what is missing. The last line printed is index.html.
  --models=all            or names with commas: DIN,CoLLM,GANPrompt
  --datasets=ml-100k      names with commas
  --seeds=2024,2025,2026
  --metrics=auc,gauc,hit@1,hit@3,ndcg@3,mrr@3     columns of the table
  --name=NAME             of the result's folder; the datasets' names by default
  --runs=FOLDER,...       checkpoint_dirs whose finished runs count too
  --paper                 the paper's own numbers below ours
{RUN_HELP}
Any key of run_recbole.py goes to every run; --TALLRec.llm_epochs=3 to TALLRec's alone, and
--Amazon_Beauty.user_inter_num_interval="[7,inf)" to those on that dataset."""

ALL = (*BASELINES, "TALLRec", "CoLLM", "GANPrompt")
OPTIONS = {
    **RUN_OPTIONS,
    "models": (["all"], text),
    "datasets": (["ml-100k"], text),
    "seeds": ([2024, 2025, 2026], natural),
    "metrics": (["auc", "gauc", "hit@1", "hit@3", "ndcg@3", "mrr@3"], text),
    "name": (None, text),
    "runs": ([], text),
    "paper": (False, truth),
}


def benchmark(arguments: list[str]) -> Path:
    """Make the runs that are missing, and write all results.

    Parameters
    ----------
    arguments : list of str
        As on the command line.

    Returns
    -------
    Path
        The benchmark's folder.

    Raises
    ------
    UserError
        For a mistake in the arguments; or if every run failed.
    """
    options, rest = take_options(arguments, OPTIONS)
    models = list(ALL) if options["models"] == ["all"] else _distinct(options["models"])
    datasets, seeds = _distinct(options["datasets"]), _distinct(options["seeds"])
    scopes = scoped_arguments(rest, datasets)
    # Every cell's configuration is built first: a mistake is told before anything runs.
    cells = [
        {
            "dataset": dataset,
            "model": model,
            "seed": seed,
            "status": "waiting",
            "reason": None,
            "run": None,
            "attempts": 0,
        }
        for dataset in datasets
        for model in models
        for seed in seeds
    ]
    configs = [_config(run_arguments(scopes, cell["model"], cell["dataset"], cell["seed"])) for cell in cells]
    unknown = sorted(set(options["metrics"]) - set(_metrics(configs[0])))
    if unknown:
        raise UserError(
            f"--metrics: {unknown[0]} is not measured; choose of {', '.join(_metrics(configs[0]))}."
        )
    saved = Path(configs[0]["checkpoint_dir"])
    folder = saved / "benchmarks" / (options["name"] or "+".join(datasets))
    if "/" in (options["name"] or "") or options["name"] in (".", ".."):
        raise UserError("--name is the name of a folder, without slashes.")
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    summary = {
        "name": folder.name,
        "command": " ".join(["python run_benchmark.py", *arguments]),
        **provenance(),
        "metrics": _metrics(configs[0]),
        "shown": options["metrics"],
        "cells": cells,
    }
    _fill(cells, configs, FinishedRuns([saved, *options["runs"]]), scopes, options, folder, summary)
    if not any(cell["status"] == "finished" for cell in cells):
        raise UserError(f"Every run failed, the first with: {cells[0]['reason']} See {folder / 'logs'}.")
    write_results(folder, summary, {cell["dataset"]: config for cell, config in zip(cells, configs)}, options)
    return folder


def _distinct(values: list) -> list:
    return list(dict.fromkeys(values))


def _config(arguments):
    files = [path for one in arguments if one.startswith("--config_files=") for path in one[15:].split()]
    rest = [one for one in arguments if not one.startswith("--config_files=")]
    return build_config(config_file_list=files, arguments=rest)


def _metrics(config) -> list[str]:
    names = [f"{name}@{k}" for name in ("hit", "ndcg", "mrr") for k in config["topk"]]
    return ["auc", "gauc", *names]


def provenance() -> dict:
    """Date, commit and machine of a result."""
    here = Path(__file__).resolve().parent
    found = subprocess.run(
        ["git", "-C", str(here), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    processor = platform.processor() or platform.machine()
    names = Path("/proc/cpuinfo")
    if names.is_file():
        lines = [line for line in names.read_text().splitlines() if line.startswith("model name")]
        processor = lines[0].partition(":")[2].strip() if lines else processor
    return {
        "date": datetime.now().isoformat(timespec="seconds"),
        "commit": found.stdout.strip() or None,
        "machine": {
            "processor": processor,
            "cores": os.cpu_count(),
            "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
            "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        },
    }


def _fill(cells, configs, finished: FinishedRuns, scopes, options, folder, summary) -> None:
    """Find or make every cell's run; ``benchmark.json`` says after each how far it is."""
    waiting = {}
    for cell, config in zip(cells, configs):
        if run := finished.find(config):
            _close(cell, str(run), 0, None)
            continue
        name = f"{cell['model']}-{cell['dataset']}-{cell['seed']}"
        log = folder / "logs" / f"{name}.log"
        log.unlink(missing_ok=True)
        arguments = run_arguments(scopes, cell["model"], cell["dataset"], cell["seed"])
        waiting[name] = (cell, (arguments, str(log)))
    total, done = len(cells), len(cells) - len(waiting)
    print(f"{total} runs, {done} of them finished before, {len(waiting)} to do", flush=True)
    write_text(folder / "benchmark.json", json.dumps(summary, indent=1))
    if not waiting:
        return
    # The longest first, so that the last one to end isn't a long one.
    order = sorted(
        waiting,
        key=lambda name: -ALL.index(waiting[name][0]["model"]) if waiting[name][0]["model"] in ALL else 0,
    )
    tasks = {name: waiting[name][1] for name in order}
    for outcome in run_tasks(make_run, tasks, demand_of(options), address=options["ray_address"]):
        cell = waiting[outcome.name][0]
        _close(cell, outcome.value, outcome.attempts, outcome.error)
        done += 1
        print(f"{done}/{total} {datetime.now():%H:%M} {_line(cell)}", flush=True)
        write_text(folder / "benchmark.json", json.dumps(summary, indent=1))


def _close(cell: dict, run: str | None, attempts: int, error: Exception | None) -> None:
    cell["attempts"] = attempts
    if error is not None:
        cell.update(status="failed", reason=reason_of(error))
        return
    record = json.loads(Path(run, "result.json").read_text(encoding="utf-8"))
    cell.update(status="finished", run=run)
    cell.update({key: record[key] for key in ("seconds", "peak_memory_mb", "candidates")})


def _line(cell: dict) -> str:
    name = f"{cell['model']} {cell['dataset']} {cell['seed']}"
    again = f", {cell['attempts']} attempts" if cell["attempts"] > 1 else ""
    if cell["status"] == "failed":
        return f"{name}: failed{again}: {cell['reason']}"
    record = json.loads(Path(cell["run"], "result.json").read_text(encoding="utf-8"))
    shown = " ".join(
        f"{metric_name(m)} {record['test'][m]:.4f}" for m in ("auc", "gauc", "hit@1") if m in record["test"]
    )
    return f"{name}: {shown}, {cell['seconds']:.0f} s{again}"


def main(arguments=None) -> int:
    """Run the command line: exit status 0, or 2 for a mistake that the user can mend."""
    return exit_status(_command, arguments, "interrupted; the same command goes on with what is missing")


def _command(arguments) -> None:
    if {"--help", "-h"} & set(arguments):
        print(USAGE)
    else:
        benchmark(arguments)


if __name__ == "__main__":
    sys.exit(main())
