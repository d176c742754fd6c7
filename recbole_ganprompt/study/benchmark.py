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
import shlex
from pathlib import Path

from recbole_ganprompt.checks import natural, text, truth
from recbole_ganprompt.cli import BASELINES
from recbole_ganprompt.errors import UserError, exit_status
from recbole_ganprompt.provenance import provenance
from recbole_ganprompt.study.cells import Cell, check_datasets, complete
from recbole_ganprompt.study.options import (
    FINISHED,
    RUN_HELP,
    RUN_OPTIONS,
    folder_name,
    run_arguments,
    scoped_arguments,
    take_options,
)
from recbole_ganprompt.study.results import write_results
from recbole_ganprompt.writing import write_text

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
  --paper                 the paper's own numbers below ours, as far as properties/paper.yaml has them: on
                          Amazon_Beauty AUC of SASRec and BERT4Rec, and Impr. (%) in AUC, GAUC and HR@1
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
    "name": (None, folder_name),
    "runs": ([], FINISHED),
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
    wanted = [(dataset, model, seed) for dataset in datasets for model in models for seed in seeds]
    cells = [
        Cell(f"{model}-{dataset}-{seed}", run_arguments(scopes, model, dataset, seed))
        for dataset, model, seed in wanted
    ]
    options["metrics"] = _distinct(options["metrics"])
    unknown = sorted(set(options["metrics"]) - set(_metrics(cells[0].config)))
    if unknown:
        raise UserError(
            f"--metrics: {unknown[0]} is not measured; choose of {', '.join(_metrics(cells[0].config))}."
        )
    saved = Path(cells[0].config["checkpoint_dir"])
    folder = saved / "benchmarks" / (options["name"] or "+".join(datasets))
    check_datasets(cells)
    folder.mkdir(parents=True, exist_ok=True)
    summary = {
        "name": folder.name,
        "command": shlex.join(["python", "run_benchmark.py", *arguments]),
        **provenance(),
        "metrics": _metrics(cells[0].config),
        "shown": options["metrics"],
    }

    def save(records):
        write_text(folder / "benchmark.json", json.dumps({**summary, "cells": records}, indent=1))

    # The longest first, so that the last one to end isn't a long one.
    cells.sort(key=lambda cell: -ALL.index(cell.model) if cell.model in ALL else 0)
    complete(cells, options, folder / "logs", save)
    cells.sort(key=lambda cell: wanted.index((cell.dataset, cell.model, cell.config["seed"])))
    summary["cells"] = [cell.record for cell in cells]
    write_results(folder, summary, {cell.dataset: cell.config for cell in cells}, options)
    return folder


def _distinct(values: list) -> list:
    return list(dict.fromkeys(values))


def _metrics(config) -> list[str]:
    names = [f"{name}@{k}" for name in ("hit", "ndcg", "mrr") for k in config["topk"]]
    same = {"ndcg@1", "mrr@1"}  # as hit@1
    return ["auc", "gauc", *(name for name in names if name not in same)]


def main(arguments=None) -> int:
    """Run the command line: exit status 0, or 2 for a mistake that the user can mend."""
    return exit_status(
        benchmark, arguments, "interrupted; the same command goes on with what is missing", usage=USAGE
    )
