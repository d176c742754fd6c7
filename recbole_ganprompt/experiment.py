"""One run, from a configuration to a result: the only place that wires everything."""

import json
import os
import platform
import shutil
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from logging import FileHandler, Formatter, getLogger
from pathlib import Path

import numpy as np
import torch
import yaml
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_trainer, init_logger, init_seed
from safetensors.numpy import save_file
from tabulate import tabulate
from transformers.utils.logging import disable_progress_bar

from recbole_ganprompt import __version__, workers
from recbole_ganprompt.data.candidates import candidates_fingerprint
from recbole_ganprompt.data.dataset import TextSequentialDataset
from recbole_ganprompt.errors import UserError
from recbole_ganprompt.evaluation.metrics import expected_ranks, ranking_metrics
from recbole_ganprompt.model.registry import model_class
from recbole_ganprompt.plugin import MODELS
from recbole_ganprompt.trainer.sequential import SequentialTrainer
from recbole_ganprompt.trainer.stages import Stages

PACKAGES = ("recbole", "torch", "transformers", "peft", "numpy", "pandas")


@dataclass(frozen=True)
class Result:
    """What a run leaves behind.

    Attributes
    ----------
    directory : Path
        ``<checkpoint_dir>/runs/<model>-<dataset>-<time>``.
    valid, test : dict or None
        Metrics by name; ``valid`` is None under ``protocol: paper``.
    record : dict
        All of ``result.json``.
    """

    directory: Path
    valid: dict | None
    test: dict
    record: dict


def run(config) -> Result:
    """Train and evaluate one model on one dataset.

    Parameters
    ----------
    config : recbole Config
        From :func:`recbole_ganprompt.config.build_config`.

    Returns
    -------
    Result

    Raises
    ------
    UserError
        For any mistake in the data or the configuration.
    """
    disable_progress_bar()  # transformers' own; the stages have theirs
    init_seed(config["seed"], config["reproducibility"])
    ours = config["model"] in MODELS
    dataset = create_dataset(config) if ours else TextSequentialDataset(config)
    directory = _new_directory(config) if workers.rank() == 0 else Path(tempfile.mkdtemp())
    _start_log(config, directory)
    try:
        # RecBole's SINE turns autograd's search for NaN on for the whole process when it is imported;
        # our trainers look at every loss instead.
        with torch.autograd.set_detect_anomaly(False):
            return _run(config, dataset, directory, ours)
    except UserError:
        # Nothing half-written: a run that could not start leaves no folder.
        shutil.rmtree(directory, ignore_errors=True)
        raise
    finally:
        _close_log()
        if workers.rank():  # the first worker's folder is the run's
            shutil.rmtree(directory, ignore_errors=True)


def _run(config, dataset, directory: Path, ours: bool) -> Result:
    if workers.rank() == 0:
        print(_statistics(dataset))
    stages = Stages()
    with stages.stage("preparation"):
        train_data, valid_data, test_data = data_preparation(config, dataset)
        init_seed(config["seed"], config["reproducibility"])
        model = model_class(config["model"])(config, train_data._dataset).to(config["device"])
        trainer_class = get_trainer(config["MODEL_TYPE"], config["model"])
        trainer = (trainer_class if ours else SequentialTrainer)(config, model)
    trainer.directory = directory
    trainer.stages = stages
    with stages.stage("training") if not ours else nullcontext():
        trainer.fit(train_data, valid_data, verbose=False, show_progress=config["show_progress"])

    metrics, scores = {}, {}
    with stages.stage("evaluation"):
        for phase, data in (("valid", valid_data), ("test", test_data)):
            # Our own trainers end with validating the final model: no need to do it twice.
            if not (ours and phase == "valid"):
                trainer.scores = None
                trainer.evaluate(data, load_best_model=True)
            if trainer.scores is not None:
                scores[phase] = trainer.scores
                metrics[phase] = ranking_metrics(trainer.scores, ks=config["topk"])
    sets = [dataset.evaluation_set(phase) for phase in ("valid", "test")]
    record = {
        "model": config["model"],
        "dataset": config["dataset"],
        "seed": config["seed"],
        "valid": metrics.get("valid"),
        "test": metrics["test"],
        **stages.summary(),
        **trainer.findings,
        "candidates": candidates_fingerprint(*sets),
        "statistics": dataset.statistics(),
        "versions": _versions(),
        "config": plain_values(config.final_config_dict),
    }
    ranks = {f"{phase}_rank": expected_ranks(value) for phase, value in scores.items()}
    ranks |= {f"{phase}_score": value for phase, value in scores.items()}
    ranks |= {f"{name}_user": part.users for name, part in zip(("valid", "test"), sets) if part}
    save_file(ranks, directory / "ranks.safetensors")
    write_text(directory / "config.yaml", yaml.safe_dump(record["config"], sort_keys=True))
    write_text(directory / "result.json", json.dumps(record, indent=2) + "\n")
    if workers.rank() == 0:
        print(_table(config["model"], metrics))
        print(directory / "result.json")
    return Result(directory, metrics.get("valid"), metrics["test"], record)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)


def _new_directory(config) -> Path:
    base = Path(config["checkpoint_dir"]) / "runs"
    name = f"{config['model']}-{config['dataset']}-{datetime.now():%Y%m%d-%H%M%S}"
    for number in range(1000):
        directory = base / (name if not number else f"{name}-{number}")
        try:
            directory.mkdir(parents=True)
            return directory
        except FileExistsError:
            continue
    raise FileExistsError(base / name)


def _start_log(config, directory: Path) -> None:
    _close_log()
    init_logger(config)
    handler = FileHandler(directory / "run.log", encoding="utf-8")
    handler.setFormatter(Formatter("%(asctime)s %(levelname)s %(message)s"))
    getLogger().addHandler(handler)


def _close_log() -> None:
    """Take every handler off the root logger, as RecBole's next run needs it."""
    logger = getLogger()
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
        handler.close()


def _statistics(dataset) -> str:
    numbers = dataset.statistics()
    rows = [
        [
            dataset.dataset_name,
            numbers["users"],
            numbers["items"],
            numbers["interactions"],
            f"{numbers['sparsity']:.2f}%",
        ]
    ]
    return tabulate(rows, headers=["Dataset", "Users", "Items", "Interactions", "Sparsity"])


def _table(model: str, metrics: dict[str, dict]) -> str:
    names = list(metrics["test"])
    rows = [
        [f"{model} ({phase})", *(f"{values[name]:.4f}" for name in names)]
        for phase, values in metrics.items()
    ]
    return tabulate(rows, headers=["", *(name.upper() for name in names)], disable_numparse=True)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "recbole_ganprompt": __version__}
    for package in PACKAGES:
        found[package] = version(package)
    return found


def plain_values(value):
    """Configuration values as JSON and YAML can hold them."""
    if isinstance(value, dict):
        return {str(key): plain_values(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_values(inner) for inner in value]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)
