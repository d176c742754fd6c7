"""Search for a sequential model's settings on validation: ``run_hyper.py``.

A seeded random search over ``properties/search/<Model>.yaml``. The test split is never scored. Each
finished trial is one line of ``<checkpoint_dir>/search/<Model>-<dataset>.jsonl``; a trial that stands
there is not run again, so an interrupted search goes on where it was.
"""

import itertools
import json
import random
import statistics
import time
from pathlib import Path

import yaml
from recbole.data import data_preparation
from recbole.utils import init_seed
from tabulate import tabulate

from recbole_ganprompt.checks import positive_integer
from recbole_ganprompt.config import build_config
from recbole_ganprompt.data.dataset import TextSequentialDataset
from recbole_ganprompt.errors import UserError, exit_status
from recbole_ganprompt.experiment import write_text
from recbole_ganprompt.keys import check_keys, load_yaml, parse_arguments, properties_path
from recbole_ganprompt.model.registry import model_class
from recbole_ganprompt.trainer.sequential import SequentialTrainer

USAGE = """\
usage: python run_hyper.py --model=DIN --dataset=ml-100k --trials=12 [--key=value ...]

Draws trials from properties/search/<Model>.yaml and compares them on validation; a key given here is
fixed and not drawn. The last line printed is the path of the best values, a file for --config_files=."""

# Keys that change no result, and so don't tell trials apart.
_PRESENTATION = {"model", "dataset", "checkpoint_dir", "data_path", "show_progress", "gpu_id", "state"}


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


def run_trial(config) -> dict:
    """Train one model and validate it.

    Returns
    -------
    dict
        ``valid`` (metrics of the best epoch), ``epochs`` trained, ``seconds`` and ``cpu_seconds``.
    """
    wall, cpu = time.perf_counter(), time.process_time()
    init_seed(config["seed"], config["reproducibility"])
    train_data, valid_data, _ = data_preparation(config, TextSequentialDataset(config))
    init_seed(config["seed"], config["reproducibility"])
    model = model_class(config["model"])(config, train_data._dataset).to(config["device"])
    trainer = SequentialTrainer(config, model)
    trainer.write_checkpoints = False
    epochs = []
    trainer.fit(
        train_data,
        valid_data,
        verbose=False,
        show_progress=config["show_progress"],
        callback_fn=lambda epoch, score: epochs.append(epoch),
    )
    return {
        "valid": dict(trainer.best_valid_result),
        "epochs": len(epochs),
        "seconds": round(time.perf_counter() - wall, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
    }


def search(arguments) -> Path:
    """Run the trials that aren't in the journal yet, print all, and write the best one's values.

    Parameters
    ----------
    arguments : list of str
        ``--model``, ``--dataset``, ``--trials``, ``--config_files`` and any key of ours as ``--key=value``.

    Returns
    -------
    Path
        The best trial's values as YAML.

    Raises
    ------
    UserError
    """
    trials, fixed, rest = 10, {}, []
    for argument in arguments:
        key, _, text = argument.partition("=")
        if key == "--trials":
            if not text.isdigit() or not int(text):
                raise UserError(f"trials must be {positive_integer[0]}, not {text!r}.")
            trials = int(text)
        elif key == "--config_files":
            for path in text.split():
                values = load_yaml(path)
                check_keys(values, f"{path}: ")
                fixed.update(values)
        else:
            rest.append(argument)
    fixed.update(parse_arguments(rest))
    config = build_config(config_dict=fixed)
    if config["protocol"] == "paper":
        raise UserError("protocol paper has no validation split to search on; set protocol to leave_one_out.")
    model, dataset, metric = config["model"], config["dataset"], config["valid_metric"].lower()
    given = {key: value for key, value in fixed.items() if key not in _PRESENTATION}
    space = search_space(model)
    drawn = {key: choices for key, choices in space.items() if key not in fixed}

    folder = Path(config["checkpoint_dir"]) / "search"
    folder.mkdir(parents=True, exist_ok=True)
    journal = folder / f"{model}-{dataset}.jsonl"
    done = _read(journal)
    for number, values in enumerate(draw_trials(drawn, trials, config["seed"]), start=1):
        values = {**given, **values}
        if any(line["values"] == values for line in done):
            continue
        print(f"trial {number}: {values}", flush=True)
        line = {"values": values, **run_trial(build_config(config_dict={**fixed, **values}))}
        done.append(line)
        with journal.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")

    # Only what differs in nothing but the space's keys can be compared.
    same = {key: value for key, value in given.items() if key not in space}
    lines = [line for line in done if _outside(line["values"], space) == same]
    lines.sort(key=lambda line: -line["valid"][metric])
    print(_table(lines, space, metric))
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


def _table(lines: list[dict], space, metric: str) -> str:
    rows = [
        [line["valid"][metric], *(line["values"].get(key, "default") for key in space)]
        + [line["epochs"], round(line["seconds"])]
        for line in lines
    ]
    median = statistics.median(line["valid"][metric] for line in lines)
    minutes = sum(line["seconds"] for line in lines) / 60
    cores = sum(line["cpu_seconds"] for line in lines) / 60
    table = tabulate(rows, headers=[f"valid {metric}", *space, "epochs", "seconds"])
    summary = f"{len(lines)} trials, {minutes:.1f} minutes ({cores:.1f} of processor time)"
    return f"{table}\n{summary}: best {lines[0]['valid'][metric]:.4f}, median {median:.4f}"


def main(arguments=None) -> int:
    """Run the command line: exit status 0, or 2 for a mistake that the user can mend."""
    return exit_status(_command, arguments, "interrupted; the same command goes on with the next trial")


def _command(arguments) -> None:
    if {"--help", "-h"} & set(arguments):
        print(USAGE)
    else:
        search(arguments)
