"""The cells of a study: runs that are wanted, found if they were made before, made if not."""

import json
from datetime import datetime
from pathlib import Path

from recbole.utils.argument_list import dataset_arguments

from recbole_ganprompt.data.dataset import TextSequentialDataset
from recbole_ganprompt.errors import UserError
from recbole_ganprompt.experiment import data_fingerprints, files_fingerprint
from recbole_ganprompt.keys import load_yaml, properties_path
from recbole_ganprompt.report.names import metric_name
from recbole_ganprompt.run_folder import identity, is_finished, plain_values, same_data
from recbole_ganprompt.study.options import demand_of
from recbole_ganprompt.study.runs import FinishedRuns, configuration, make_run, reason_of
from recbole_ganprompt.study.tasks import run_tasks

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
    data : dict
        Fingerprints of what the run is to be measured on, from :func:`check_datasets`.
    record : dict
        ``dataset``, ``model``, ``seed``, ``status`` (waiting, finished or failed), ``reason`` of a
        failure, ``run`` (the run's folder), ``attempts`` (0 for a run that was there before),
        ``seconds``, ``peak_memory_mb``, ``candidates`` and ``provenance``.
    """

    def __init__(self, name: str, arguments: list[str]):
        self.name, self.arguments = name, arguments
        self.config, self.data = configuration(arguments), {}
        self.record = {key: self.config[key] for key in ("dataset", "model", "seed")}
        self.record |= {"status": "waiting", "reason": None, "run": None, "attempts": 0}
        self.record |= {"seconds": None, "peak_memory_mb": None, "candidates": None, "provenance": None}

    @property
    def model(self) -> str:
        return self.record["model"]

    @property
    def dataset(self) -> str:
        return self.record["dataset"]

    def finish(self, run, attempts: int = 0) -> None:
        """Take a finished run's folder.

        Raises
        ------
        UserError
            If it isn't here, or was measured on other data.
        """
        if not is_finished(Path(run)):
            raise UserError(f"{run} isn't here: a cluster's machines must share the checkpoint_dir.")
        result = json.loads(Path(run, "result.json").read_text(encoding="utf-8"))
        if not same_data(result, self.data):
            raise UserError(
                f"{run} was measured on other data: {self.dataset} or a file that the run reads changed, or "
                "differs over there."
            )
        self.record |= {"status": "finished", "run": str(run), "attempts": attempts}
        self.record |= {key: result[key] for key in ("seconds", "peak_memory_mb", "candidates")}
        self.record["provenance"] = result.get("provenance")  # older runs have none

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
    """Read each dataset once: what is missing is downloaded, or said, before anything runs.

    Raises
    ------
    UserError
        If it can't be read, or models are to rank different candidates of one dataset.
    """
    # Models of a dataset share one reading unless one of them was given data settings of its own.
    keys = {*dataset_arguments, *load_yaml(properties_path("overall.yaml"))} - {
        "seed",
        "train_neg_sample_args",
    }
    known, first = {}, {}
    for cell in cells:
        values = identity(plain_values(cell.config.final_config_dict))
        reading = json.dumps([cell.dataset, {key: values.get(key) for key in sorted(keys)}])
        if reading not in known:
            known[reading] = data_fingerprints(TextSequentialDataset(cell.config))
        cell.data = {**known[reading], **files_fingerprint(cell.config)}
        other = first.setdefault(cell.dataset, cell)
        if cell.data["candidates"] != other.data["candidates"]:
            raise UserError(
                f"{cell.model} and {other.model} would rank other candidates, or behind other histories, of "
                f"{cell.dataset}: give their data's keys to all models, or make two benchmarks of them."
            )


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
        if run := finished.find(cell.config, cell.data):
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
    address = options["ray_address"]
    if tasks:
        for outcome in run_tasks(make_run, tasks, demand_of(options, address), address=address):
            cell = waiting[outcome.name]
            try:
                if outcome.error is not None:
                    raise outcome.error
                cell.finish(outcome.value, outcome.attempts)
            except Exception as error:  # whatever it is, the other cells go on
                cell.fail(error, outcome.attempts)
            done += 1
            print(f"{done}/{total} {datetime.now():%H:%M} {cell.line()}", flush=True)
            save([cell.record for cell in cells])
    if not any(cell.record["status"] == "finished" for cell in cells):
        raise UserError(f"Every run failed, the first with: {cells[0].record['reason']} See {logs}.")
