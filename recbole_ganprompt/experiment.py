"""One run, from a configuration to a result: the only place that wires everything."""

import json
import os
import platform
import shutil
import sys
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from logging import FileHandler, Formatter, getLogger
from pathlib import Path

import torch
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_logger, init_seed
from safetensors.numpy import save_file
from tabulate import tabulate
from transformers.utils.logging import disable_progress_bar

from recbole_ganprompt import __version__, interruption, workers
from recbole_ganprompt.checkpoints import Checkpoints, checkpointing
from recbole_ganprompt.data.cache import model_key, noted
from recbole_ganprompt.data.candidates import candidates_fingerprint
from recbole_ganprompt.data.dataset import TextSequentialDataset
from recbole_ganprompt.data.fingerprint import file_digest, fingerprint
from recbole_ganprompt.errors import UserError, environment_faults
from recbole_ganprompt.evaluation.metrics import expected_ranks, ranking_metrics
from recbole_ganprompt.keys import properties_path
from recbole_ganprompt.model.registry import recbole_model
from recbole_ganprompt.plugin import MODELS
from recbole_ganprompt.provenance import provenance
from recbole_ganprompt.run_folder import RunFolder, identity, plain_values, result_of
from recbole_ganprompt.seeding import reproducibility_switches
from recbole_ganprompt.trainer.sequential import SequentialTrainer
from recbole_ganprompt.trainer.stages import Stages
from recbole_ganprompt.writing import write_text

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
    folder = RunFolder(config, {**data_fingerprints(dataset), **files_fingerprint(config)})
    if folder.finished:
        folder.close(keep=True)
        if workers.rank():
            return Result(folder.path, None, {}, {})
        print(f"This run is finished already:\n{folder.path / 'result.json'}")
        record = result_of(folder.path)
        return Result(folder.path, record["valid"], record["test"], record)
    if config["resume"] == "auto" and workers.rank() == 0:
        print(f"{'Going on with' if folder.resumed else 'Nothing to resume: starting'} {folder.path}")
    keep = True
    try:
        # RecBole's SINE turns autograd's search for NaN on for the whole process when it is imported;
        # our trainers look at every loss instead.
        anomalies = torch.autograd.set_detect_anomaly(False)
        checkpoints = checkpointing(config["checkpoint_every"])
        with environment_faults(), anomalies, checkpoints, noted() as artefacts:
            _start_log(config, folder.path)
            return _run(config, dataset, folder, ours, artefacts)
    except UserError:
        keep = False  # nothing half-written: finished stages and their checkpoints lie elsewhere
        raise
    except interruption.Interrupted:
        print(f"stopped; what is done is kept: {folder.command()} goes on", file=sys.stderr)
        raise
    finally:
        _close_log()
        folder.close(keep)


def data_fingerprints(dataset: TextSequentialDataset) -> dict[str, str]:
    """What tells runs on other data apart, where their configuration is the same.

    Returns
    -------
    dict
        ``candidates``: of the lists that are ranked, with their histories; ``data``: of
        :func:`content_fingerprint`.
    """
    return {
        "candidates": candidates_fingerprint(*(dataset.evaluation_set(phase) for phase in ("valid", "test"))),
        "data": content_fingerprint(dataset),
    }


def files_fingerprint(config) -> dict[str, str]:
    """What tells runs apart whose configuration names the same files, with other content by now.

    Returns
    -------
    dict
        ``files``: digest of the prompt template, the lists of attributes and the model folders that the user
        gave by path; empty where there are none.
    """
    parts = {}
    for key in ("prompt", "attribute_file", "attribute_exclude"):
        shipped = key == "prompt" and os.path.isfile(properties_path("prompt", f"{config[key]}.yaml"))
        # os.path's functions are false, where Path's fail, at a name that can't be one.
        if config[key] and not shipped and os.path.isfile(config[key]):
            with suppress(OSError):  # whatever reads it for its content will say so
                parts[key] = file_digest(config[key])
    for key in ("llm", "generator", "attribute_lm", "adapter"):
        if config[key] and os.path.isdir(os.path.expanduser(config[key])):
            parts[key] = model_key(config[key])
    return {"files": fingerprint("files-1", parts)} if parts else {}


def content_fingerprint(dataset: TextSequentialDataset) -> str:
    """Digest of all sequences and times, ids, titles and further columns of a dataset."""
    fields = dataset.uid_field, dataset.iid_field
    parts = [["\n".join(map(str, dataset.field2id_token[field])) for field in fields], dataset.titles]
    for sequences, times in (
        (dataset.sequences, dataset.times),
        (dataset.dislikes.sequences, dataset.dislikes.times),
    ):
        parts.append([sequences.items, sequences.offsets, times])
    if features := dataset.features():
        parts.append(features)
    return fingerprint("data-1", parts)


def _run(config, dataset, folder: RunFolder, ours: bool, artefacts: list[dict]) -> Result:
    directory, made = folder.path, provenance()
    if workers.rank() == 0:
        print(_statistics(dataset))
    stages = Stages()
    with stages.stage("preparation"):
        train_data, valid_data, test_data = data_preparation(config, dataset)
        init_seed(config["seed"], config["reproducibility"])
        make = get_model(config["model"]) if ours else partial(recbole_model, config["model"])
        model = make(config, train_data._dataset).to(config["device"])
        trainer_class = get_trainer(config["MODEL_TYPE"], config["model"])
        trainer = (trainer_class if ours else SequentialTrainer)(config, model)
    trainer.directory = directory
    trainer.saved_model_file = str(directory / f"{config['model']}.pth")
    trainer.stages = stages
    if not ours:  # one stage, whose progress is the run's own
        key = {**identity(folder.values), **folder.data}
        trainer.checkpoints = Checkpoints(directory / "checkpoints", key)
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
        "repeatability": reproducibility_switches(config),
        "counts": dataset.read_counts,
        "valid": metrics.get("valid"),
        "test": metrics["test"],
        **stages.summary(),
        "artefacts": artefacts,
        "starts": folder.starts,
        **trainer.findings,
        **folder.data,
        "statistics": dataset.statistics(),
        "versions": _versions(),
        "provenance": made,
        "config": plain_values(config.final_config_dict),
    }
    ranks = {f"{phase}_rank": expected_ranks(value) for phase, value in scores.items()}
    ranks |= {f"{phase}_score": value for phase, value in scores.items()}
    ranks |= {f"{name}_user": part.users for name, part in zip(("valid", "test"), sets) if part}
    save_file(ranks, directory / "ranks.safetensors")
    write_text(directory / "result.json", json.dumps(record, indent=2) + "\n")
    shutil.rmtree(directory / "checkpoints", ignore_errors=True)
    if workers.rank() == 0:
        print(_table(config["model"], metrics))
        print(directory / "result.json")
    return Result(directory, metrics.get("valid"), metrics["test"], record)


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
