"""Stage 0: train the teacher, and get opinions on training pairs that it had not seen."""

import json
from pathlib import Path

import numpy as np
from recbole.data.utils import get_dataloader
from recbole.sampler import RepeatableSampler, Sampler
from recbole.utils import ModelType
from safetensors.torch import load_file, save_file

from recbole_ganprompt.checkpoints import Checkpoints
from recbole_ganprompt.collaborative import Teacher, training_negatives
from recbole_ganprompt.data.batches import Positions
from recbole_ganprompt.data.cache import cached_folder, made_with
from recbole_ganprompt.data.fingerprint import class_sources
from recbole_ganprompt.data.sequences import histories_before
from recbole_ganprompt.run_folder import identity, plain_values
from recbole_ganprompt.seeding import seeded
from recbole_ganprompt.trainer import sequential
from recbole_ganprompt.trainer.sequential import SequentialTrainer
from recbole_ganprompt.trainer.stage_key import shared_sources


def training_loader(config, dataset):
    """RecBole's training loader over a (partial) training split."""
    sampler = None
    if config["MODEL_TYPE"] == ModelType.GENERAL:
        dataset = dataset.training_pairs()
        sampler = Sampler(["train"], [dataset], "uniform").set_phase("train")
    elif config["train_neg_sample_args"]["distribution"] != "none":
        sampler = RepeatableSampler(["train"], dataset, "uniform").set_phase("train")
    return get_dataloader(config, "train")(config, dataset, sampler, shuffle=True)


def held_out_positions(dataset, early) -> tuple[np.ndarray, np.ndarray]:
    """Users and positions of the training targets that ``early`` keeps from training."""
    kept = early.kept_from_training
    users = np.repeat(np.arange(len(kept)), kept)
    first = dataset.training_sequences().lengths - kept
    offset = np.arange(len(users)) - np.repeat(np.cumsum(kept) - kept, kept)
    return users, first[users] + offset


def train_teacher(teacher: Teacher, train_data, valid_data, settings) -> tuple[Positions, dict]:
    """Train the teacher, first without each user's last training items, then on all.

    Parameters
    ----------
    teacher : Teacher
        Its model is trained in place.
    train_data, valid_data : RecBole data loaders
    settings : recbole Config
        The run's: ``opinion_items`` (how many items are kept back; none without opinions) and
        ``train_negatives``.

    Returns
    -------
    held_out : Positions or None
        The items kept back, with negatives and the early teacher's opinions on both.
    metrics : dict or None
        The final teacher's on validation; None where there is no validation split.
    """
    dataset, config = train_data._dataset, teacher.config
    opinion_items = settings["opinion_items"] or 0
    users, ends = held_out_positions(dataset, dataset.early(opinion_items))
    sequences = dataset.training_sequences()
    generator = np.random.default_rng([settings["seed"], 1])
    negatives = training_negatives(sequences, users, dataset.item_num, settings["train_negatives"], generator)
    targets = sequences.items[sequences.offsets[users] + ends]
    candidates = np.concatenate([targets[:, None], negatives], axis=1)
    histories, lengths = histories_before(sequences, users, ends, settings["MAX_ITEM_LIST_LENGTH"])

    cache = Path(settings["checkpoint_dir"]) / "teachers"
    sources = [Path(__file__), Path(sequential.__file__), *shared_sources(), *class_sources(teacher.model)]
    key = {
        "code": [path.read_text(encoding="utf-8") for path in sources],
        "training sequences": [sequences.items, sequences.offsets],
        "validation": _watched(valid_data),
        "features": dataset.features(),
        **made_with(settings["device"]),
        **identity(plain_values(config.final_config_dict)),
    }
    opinions = None
    if opinion_items:

        def build_early(folder: Path, checkpoints: Checkpoints) -> None:
            early = dataset.early(opinion_items)
            teacher.know_only(early)
            _fit(teacher.model, config, training_loader(config, early), valid_data, checkpoints)
            opinions = teacher.opinions(users, histories, lengths, candidates)
            np.save(folder / "opinions.npy", opinions, allow_pickle=False)
            save_file(teacher.model.state_dict(), folder / "model.safetensors")

        early_key = {**key, "opinion_items": opinion_items, "candidates": candidates}
        folder = cached_folder(cache, "early_teacher", early_key, build_early)
        teacher.know_only(dataset)
        teacher.model.load_state_dict(load_file(folder / "model.safetensors"))
        opinions = np.load(folder / "opinions.npy", allow_pickle=False)
        key["early teacher"] = folder.name

    def build(folder: Path, checkpoints: Checkpoints) -> None:
        metrics = _fit(teacher.model, config, training_loader(config, dataset), valid_data, checkpoints)
        save_file(teacher.model.state_dict(), folder / "model.safetensors")
        (folder / "valid.json").write_text(json.dumps(metrics), encoding="utf-8")

    folder = cached_folder(cache, "teacher", key, build)
    teacher.model.load_state_dict(load_file(folder / "model.safetensors"))
    metrics = json.loads((folder / "valid.json").read_text(encoding="utf-8"))
    if opinions is None:
        return None, metrics
    return Positions(users, ends, candidates, opinions), metrics


def _watched(valid_data) -> list | None:
    part = valid_data._dataset.evaluation_set("valid") if len(valid_data._dataset) else None
    return part and [part.users, part.histories, part.candidates]


def _fit(model, config, train_data, valid_data, checkpoints: Checkpoints):
    trainer = SequentialTrainer(config, model)
    trainer.write_checkpoints = False
    trainer.checkpoints = checkpoints
    with seeded(config["seed"]):
        _, metrics = trainer.fit(train_data, valid_data, verbose=False, show_progress=config["show_progress"])
    model.load_state_dict(trainer.best_state)
    return metrics
