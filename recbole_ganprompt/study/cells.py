"""The cells of a study: runs that are wanted, found if they were made before, made if not."""

import json
from datetime import datetime
from pathlib import Path

from recbole_ganprompt.data.dataset import TextSequentialDataset
from recbole_ganprompt.errors import UserError
from recbole_ganprompt.report.names import metric_name
from recbole_ganprompt.study.cluster import run_tasks
from recbole_ganprompt.study.options import demand_of
from recbole_ganprompt.study.runs import FinishedRuns, configuration, make_run, reason_of

SHOWN = ("auc", "gauc", "hit@1")


class Cell:
    """One run that a study wants.

    Parameters
    ----------
    name : str
        Of its log.
    arguments : list of str
        As run_recbole.py takes them. A mistake in them is told here, before anything runs.

    Attributes
    ----------
    config : recbole Config
    record : dict
        ``dataset``, ``model``, ``seed``, ``status`` (waiting, finished or failed), ``reason`` of a
        failure, ``run`` (the run's folder), ``attempts`` (0 for a run that was there before),
        ``seconds``, ``peak_memory_mb`` and ``candidates``.
    """

    def __init__(self, name: str, arguments: list[str]):
        self.name, self.arguments = name, arguments
        self.config = configuration(arguments)
        self.record = {key: self.config[key] for key in ("dataset", "model", "seed")}
        self.record |= {"status": "waiting", "reason": None, "run": None, "attempts": 0}
        self.record |= {"seconds": None, "peak_memory_mb": None, "candidates": None}

    @property
    def model(self) -> str:
        return self.record["model"]

    @property
    def dataset(self) -> str:
        return self.record["dataset"]

    def finish(self, run, attempts: int = 0) -> None:
        """Take a finished run's folder."""
        result = json.loads(Path(run, "result.json").read_text(encoding="utf-8"))
        self.record |= {"status": "finished", "run": str(run), "attempts": attempts}
        self.record |= {key: result[key] for key in ("seconds", "peak_memory_mb", "candidates")}

    def fail(self, error: Exception, attempts: int) -> None:
        self.record |= {"status": "failed", "reason": reason_of(error), "attempts": attempts}

    def line(self) -> str:
        """How it ended, in one line."""
        record = self.record
        again = f", {record['attempts']} attempts" if record["attempts"] > 1 else ""
        if record["status"] == "failed":
            return f"{self.name}: failed{again}: {record['reason']}"
        test = json.loads(Path(record["run"], "result.json").read_text(encoding="utf-8"))["test"]
        shown = " ".join(f"{metric_name(metric)} {test[metric]:.4f}" for metric in SHOWN if metric in test)
        return f"{self.name}: {shown}, {record['seconds']:.0f} s{again}"


def check_datasets(cells: list[Cell]) -> None:
    """Read each dataset once: what is missing is downloaded, or said, before anything is written or run."""
    for config in {cell.dataset: cell.config for cell in cells}.values():
        TextSequentialDataset(config)


def complete(cells: list[Cell], options: dict, logs: Path, save) -> None:
    """Find or make every cell's run.

    Parameters
    ----------
    cells : list of Cell
        In the order in which their runs shall start.
    options : dict
        ``RUN_OPTIONS`` and ``runs``: further ``checkpoint_dir``\\ s with finished runs.
    logs : Path
        Folder for what the runs say.
    save : callable
        Is given all records whenever one has changed.

    Raises
    ------
    UserError
        If every run failed.
    """
    finished = FinishedRuns([cells[0].config["checkpoint_dir"], *options["runs"]])
    waiting = {}
    for cell in cells:
        if run := finished.find(cell.config):
            cell.finish(run)
        else:
            waiting[cell.name] = cell
    total, done = len(cells), len(cells) - len(waiting)
    print(f"{total} runs, {done} of them finished before, {len(waiting)} to do", flush=True)
    save([cell.record for cell in cells])
    logs.mkdir(parents=True, exist_ok=True)
    tasks = {}
    for name, cell in waiting.items():
        log = logs / f"{name}.log"
        log.unlink(missing_ok=True)
        tasks[name] = (cell.arguments, str(log))
    if tasks:
        for outcome in run_tasks(make_run, tasks, demand_of(options), address=options["ray_address"]):
            cell = waiting[outcome.name]
            if outcome.error is None:
                cell.finish(outcome.value, outcome.attempts)
            else:
                cell.fail(outcome.error, outcome.attempts)
            done += 1
            print(f"{done}/{total} {datetime.now():%H:%M} {cell.line()}", flush=True)
            save([cell.record for cell in cells])
    if not any(cell.record["status"] == "finished" for cell in cells):
        raise UserError(f"Every run failed, the first with: {cells[0].record['reason']} See {logs}.")
