"""Search for a model's settings on validation: ``run_hyper.py``.

A seeded random search over ``properties/search/<Model>.yaml``, its trials run by Ray Tune, those that lag
stopped early. The test split is never scored. Each trial that finished or was stopped is one line of
``<checkpoint_dir>/search/<Model>-<dataset>.jsonl``; a trial that stands there for the same data is not run
again, so a search that was interrupted, or killed, goes on where it was. A trial that failed is tried again
next time.
"""

import itertools
import json
import random
import statistics
import time
from pathlib import Path

import yaml
from recbole.data import data_preparation
from recbole.utils import get_trainer, init_seed
from tabulate import tabulate

from recbole_ganprompt.checks import choice, non_negative, positive_integer
from recbole_ganprompt.config import build_config
from recbole_ganprompt.data.dataset import TextSequentialDataset
from recbole_ganprompt.errors import UserError, exit_status
from recbole_ganprompt.experiment import content_fingerprint, files_fingerprint
from recbole_ganprompt.keys import check_keys, load_yaml, parse_arguments, properties_path, split_files
from recbole_ganprompt.model.registry import model_class
from recbole_ganprompt.plugin import MODELS
from recbole_ganprompt.study.options import GPUS, demand_of, take_options
from recbole_ganprompt.study.runs import given_gpus, planned_config
from recbole_ganprompt.study.trials import run_trials
from recbole_ganprompt.trainer.sequential import SequentialTrainer
from recbole_ganprompt.writing import write_text

USAGE = """\
usage: python run_hyper.py --model=DIN --dataset=ml-100k --trials=12 [--key=value ...]

Draws trials from properties/search/<Model>.yaml and compares them on validation; a key given here is
fixed and not drawn. The last line printed is the path of the best values, a file for --config_files=.
  --trials=10             how many to draw; those of an earlier call are not run again
  --scheduler=asha        stop trials that lag behind at a ninth or a third of their training, or after
                          step one of a language model; none: train all to their end
  --cpus_per_run=1        processors of each trial; as many trials run at once as there is room for
  --gpus_per_run=1        GPUs of each trial, of those that --gpu_id= names (all by default); 0.5: two share
                          one; 0 where there are none
  --memory_per_run=0      memory of each trial in GB; 0: don't count it
  --ray_address=          a Ray cluster's address, or auto; left out: this machine"""

_OPTIONS = {
    "trials": (10, positive_integer),
    "scheduler": ("asha", choice("asha", "none")),
    "cpus_per_run": (1, positive_integer),
    "gpus_per_run": (None, GPUS),
    "memory_per_run": (0, non_negative),
}
# Keys that change no result, and so don't tell trials apart.
_PRESENTATION = {"model", "dataset", "checkpoint_dir", "data_path", "show_progress", "gpu_id", "state"}
_PRESENTATION |= {"ray_address"}


def search_space(model: str) -> dict[str, list]:
    """Read ``properties/search/<model>.yaml``: the values to choose from, for each key.

    Raises
    ------
    UserError
        If there is none, or one of its keys is unknown or has no list.
    """
    path = properties_path("search", f"{model}.yaml")
    if not path.is_file():
        names = sorted(file.stem for file in properties_path("search").glob("*.yaml"))
        raise UserError(f"There is no search space for {model}, only for {', '.join(names)}; write {path}.")
    space = load_yaml(path)
    check_keys(space, f"{path}: ")
    for key, choices in space.items():
        if not isinstance(choices, list) or not choices:
            raise UserError(f"{path}: {key} must have a list of values to choose from.")
    return space


def draw_trials(space: dict[str, list], count: int, seed: int) -> list[dict]:
    """``count`` different combinations in random order, or all there are; a larger count adds to them."""
    combinations = list(itertools.product(*space.values()))
    random.Random(seed).shuffle(combinations)
    return [dict(zip(space, combination)) for combination in combinations[:count]]


def run_trial(config, report) -> dict:
    """Train one model and validate it.

    Parameters
    ----------
    config : recbole Config
    report : callable
        Takes, after each epoch but the last, the steps of training done (a sequential model has one step,
        a language model one or two), the best ``valid_metric`` of the step so far, and what would be
        returned if this were all.

    Returns
    -------
    dict
        ``valid`` (metrics of the best epoch, at the end those of all users), ``score`` (the metric of that
        epoch as training saw it: a language model's, on the sample of ``valid_users``), ``epochs`` trained,
        ``seconds``, ``cpu_seconds`` and ``curve`` (what was reported: progress and score).
    """
    wall, cpu = time.perf_counter(), time.process_time()
    init_seed(config["seed"], config["reproducibility"])
    train_data, valid_data, _ = data_preparation(config, TextSequentialDataset(config))
    init_seed(config["seed"], config["reproducibility"])
    model = model_class(config["model"])(config, train_data._dataset).to(config["device"])
    ours = config["model"] in MODELS
    trainer_class = get_trainer(config["MODEL_TYPE"], config["model"]) if ours else SequentialTrainer
    trainer = trainer_class(config, model)
    metric, epochs, curve, best, steps = config["valid_metric"].lower(), 0, [], None, []

    def record(valid) -> dict:
        return {
            "valid": dict(valid),
            "score": best[metric],
            "epochs": epochs,
            "seconds": round(time.perf_counter() - wall, 1),
            "cpu_seconds": round(time.process_time() - cpu, 1),
            "curve": curve,
        }

    def epoch_ended(progress, total, valid) -> None:
        nonlocal epochs, best
        epochs += 1
        best = valid if best is None or valid[metric] > best[metric] else best
        if progress < total:
            curve.append([round(progress, 4), best[metric]])
            report(*curve[-1], record(best))

    def step_epoch_ended(step, epoch, valid) -> None:
        nonlocal best
        if step.name not in steps:
            steps.append(step.name)
            best = None  # the model that is kept is the last step's
        total = 1 if config["step_two"] in (None, "no_collaborative") else 2
        epoch_ended(len(steps) - 1 + (epoch + 1) / step.epochs, total, valid)

    callback = None
    if ours:
        trainer.epoch_ended = step_epoch_ended
    else:

        def callback(epoch, score):
            epoch_ended((epoch + 1) / config["epochs"], 1, trainer.best_valid_result)

    trainer.fit(
        train_data,
        valid_data,
        verbose=False,
        saved=False,
        show_progress=config["show_progress"],
        callback_fn=callback,
    )
    return record(trainer.best_valid_result)


def _trial(values: dict, on_gpu: bool, report) -> dict:
    """A trial on its worker, where Ray has said in the environment which GPUs are the trial's."""
    gpus = given_gpus() if on_gpu else ""
    return run_trial(build_config(config_dict={**values, "gpu_id": gpus, "show_progress": False}), report)


def search(arguments) -> Path:
    """Run the trials that aren't in the journal yet, print all, and write the best one's values.

    Parameters
    ----------
    arguments : list of str
        ``--model``, ``--dataset``, ``--config_files``, the options of :data:`USAGE` and any key of ours as
        ``--key=value``.

    Returns
    -------
    Path
        The best trial's values as YAML.

    Raises
    ------
    UserError
        For a mistake in the arguments or the data, and if there is no trial but such as failed.
    """
    options, rest = take_options(arguments, _OPTIONS)
    files, rest = split_files(rest)
    fixed = {}
    for path in files:
        values = load_yaml(path)
        check_keys(values, f"{path}: ")
        fixed.update(values)
    fixed.update(parse_arguments(rest))
    config = planned_config(config_dict=fixed)
    if config["protocol"] == "paper":
        raise UserError("protocol paper has no validation split to search on; set protocol to leave_one_out.")
    model, dataset, metric = config["model"], config["dataset"], config["valid_metric"].lower()
    given = {key: value for key, value in fixed.items() if key not in _PRESENTATION}
    space = search_space(model)
    drawn = {key: choices for key, choices in space.items() if key not in fixed}
    # Only what differs in nothing but the space's keys can be compared.
    same = {key: value for key, value in given.items() if key not in space}

    folder = Path(config["checkpoint_dir"]) / "search"
    journal = folder / f"{model}-{dataset}.jsonl"
    # What is missing is downloaded, or said, once for all trials.
    data = "-".join([content_fingerprint(TextSequentialDataset(config)), *files_fingerprint(config).values()])
    lines = [
        line
        for line in _read(journal)
        if line.get("data") == data and _outside(line["values"], space) == same
    ]
    wanted, failed = {}, []
    for number, values in enumerate(draw_trials(drawn, options["trials"], config["seed"]), start=1):
        values = {**given, **values}
        if all(line["values"] != values for line in lines):
            wanted[f"trial {number}"] = values

    def ended(outcome) -> None:
        values = wanted[outcome.name]
        shown = ", ".join(f"{key} {values[key]}" for key in drawn)
        if outcome.error is not None:
            reason = " ".join(str(outcome.error).split())
            failed.append({"values": values, "reason": reason})
            print(f"{outcome.name} failed: {reason} ({shown})", flush=True)
            return
        status = "stopped" if outcome.stopped else "finished"
        line = {"values": values, "data": data, "status": status, **outcome.value}
        lines.append(line)
        # Unbuffered: a line is written whole or, where the process is killed, not at all.
        with journal.open("ab", buffering=0) as stream:
            stream.write(json.dumps(line).encode() + b"\n")
        done = f"{line['status']} after {line['epochs']} epochs, {metric} {line['valid'][metric]:.4f}"
        print(f"{outcome.name} {done} ({shown})", flush=True)

    if wanted:
        print(f"{len(wanted)} trials to run, {len(lines)} in {journal}", flush=True)
        demand = demand_of(options, config["ray_address"])
        run_trials(
            _trial,
            {name: ({**fixed, **values}, demand.gpus != 0) for name, values in wanted.items()},
            demand,
            ended,
            folder,
            halving=options["scheduler"] == "asha",
            past=[line["curve"] for line in lines if "curve" in line],
            address=config["ray_address"],
        )
    if not lines:
        raise UserError(f"Every trial failed, the first one so: {failed[0]['reason']}")

    lines = _ranked(lines, metric)
    print(_table(lines, failed, space, metric))
    best = folder / f"{model}-{dataset}.yaml"
    write_text(best, yaml.safe_dump(lines[0]["values"], sort_keys=False))
    print(best)
    return best


def _outside(values: dict, space) -> dict:
    return {key: value for key, value in values.items() if key not in space}


def _read(journal: Path) -> list[dict]:
    if not journal.is_file():
        return []
    lines = journal.read_text(encoding="utf-8").splitlines()
    try:
        return [json.loads(line) for line in lines]
    except json.JSONDecodeError as error:
        raise UserError(f"{journal} has a line that is no trial: delete that line.") from error


def _ranked(lines: list[dict], metric: str) -> list[dict]:
    """Lines by their metric, from the best.

    A language model's trial that was stopped knows its metric on a sample of the users only, so it is the
    best one only if it also leads on that sample.
    """
    lines = sorted(lines, key=lambda line: -line["valid"][metric])
    score = [line.get("score", line["valid"][metric]) for line in lines]
    leads = [line.get("status") != "stopped" or own == max(score) for line, own in zip(lines, score)]
    return [lines.pop(leads.index(True)), *lines]


def _table(lines: list[dict], failed: list[dict], space, metric: str) -> str:
    def row(score, line, *rest):
        return [score, *(line["values"].get(key, "default") for key in space), *rest]

    rows = []
    for line in lines:
        status = line.get("status", "finished")
        rows.append(row(line["valid"][metric], line, line["epochs"], round(line["seconds"]), status))
    rows += [row(None, line, None, None, "failed") for line in failed]
    median = statistics.median(line["valid"][metric] for line in lines)
    minutes = sum(line["seconds"] for line in lines) / 60
    cores = sum(line["cpu_seconds"] for line in lines) / 60
    table = tabulate(rows, headers=[f"valid {metric}", *space, "epochs", "seconds", "status"])
    summary = f"{len(lines)} trials, {minutes:.1f} minutes ({cores:.1f} of processor time)"
    return f"{table}\n{summary}: best {lines[0]['valid'][metric]:.4f}, median {median:.4f}"


def main(arguments=None) -> int:
    """Run the command line: exit status 0, or 2 for a mistake that the user can mend."""
    return exit_status(
        search, arguments, "interrupted; the same command goes on with the next trial", usage=USAGE
    )
