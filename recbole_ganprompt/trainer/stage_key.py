"""What the result of a language model's training step depends on, for the cache of stages."""

from itertools import chain
from pathlib import Path

import numpy as np
import torch

from recbole_ganprompt import collaborative, language, prompt
from recbole_ganprompt.data import batches, dislikes, sequences
from recbole_ganprompt.data.batches import Positions, TextVariants
from recbole_ganprompt.data.cache import made_with, model_key
from recbole_ganprompt.data.fingerprint import class_sources
from recbole_ganprompt.evaluation import evaluator, metrics
from recbole_ganprompt.keys import load_yaml, properties_path
from recbole_ganprompt.prompt.wordings import load_wordings

# Keys of ours that no training step reads, or whose effect is in another part of the key.
_ELSEWHERE = {"checkpoint_dir", "data_path", "download_name", "download_sha256", "candidate_seed"}
_ELSEWHERE |= {"checkpoint_every", "resume", "trust_checkpoint", "ray_address"}
_ELSEWHERE |= {"trust_remote_code", "use_safetensors"}
_ELSEWHERE |= {"adapter", "llm", "builtin_llm", "builtin_attribute_lm", "builtin_generator", "attribute_lm"}
_ELSEWHERE |= {"attributes", "attribute_file", "attribute_exclude", "attribute_users", "generator"}
_ELSEWHERE |= {"adversarial", "diversity", "diversity_settings", "reconstruction_settings", "load_col"}
_ELSEWHERE |= {"teacher", "teacher_config", "opinion_items", "protocol", "eval_args", "repeatable"}


def stage_key(trainer, dataset, valid_data, texts: TextVariants, later=(), **parts) -> dict:
    """The key of a step: settings, code, data, language model and the weights that it starts from.

    Parameters
    ----------
    trainer : LanguageTrainer
    dataset : TextSequentialDataset
    valid_data : RecBole data loader
    texts : TextVariants
    later : tuple of str
        Beginnings of the keys, and of the weights' names, that only later steps read.
    **parts : Positions, int64 array or None
        What else the step is given.

    Returns
    -------
    dict
        For :func:`recbole_ganprompt.data.cache.cached_folder`.
    """
    model, config = trainer.model, trainer.config
    evaluation = trainer.evaluation_set(valid_data) if len(valid_data._dataset) else None
    name = model.llm.config._name_or_path
    return {
        "model": config["model"],
        **_settings(config, later),
        **_data(dataset, evaluation),
        **{name: _positions(part) if isinstance(part, Positions) else part for name, part in parts.items()},
        "texts": _texts(texts),
        "prompt": model.template,
        "other prompts": load_wordings("training") if config["prompt_diversity"] else None,
        "llm": model_key(name, getattr(model.llm.config, "_commit_hash", None) or config["llm_revision"]),
        "weights": _weights(model, later),
        "code": [path.read_text(encoding="utf-8") for path in sources(trainer, model)],
        **made_with(trainer.device),
    }


def _settings(config, later: tuple[str, ...]) -> dict:
    files = [properties_path("overall.yaml"), properties_path("language_models.yaml")]
    files += [
        properties_path("model", f"{config['model']}.yaml"),
        properties_path("backbone", "builtin.yaml"),
    ]
    names = {name for path in files for name in load_yaml(path)} - _ELSEWHERE - {"backbones", "datasets"}
    return {name: _plain(config[name]) for name in sorted(names) if not name.startswith(later)}


def sources(trainer, model) -> list[Path]:
    """The files whose code a step runs through, as far as it bears on the result."""
    files = class_sources(trainer, model, getattr(model, "teacher_model", None))
    for package in (language, prompt):
        files += sorted(Path(package.__file__).parent.glob("*.py"))
    return [*files, Path(batches.__file__), *shared_sources()]


def shared_sources() -> list[Path]:
    """The files whose code the training of any model runs through, its own classes aside."""
    return [Path(module.__file__) for module in (sequences, dislikes, evaluator, metrics, collaborative)]


def _data(dataset, evaluation) -> dict:
    """What a step reads of the data, its texts aside."""
    known, training = dataset.dislikes, dataset.training_sequences()
    return {
        "training sequences": [training.items, training.offsets],
        "dislikes": [known.sequences.items, known.sequences.offsets, known.times],
        "validation": evaluation and [evaluation.users, evaluation.histories, evaluation.candidates],
        "items": dataset.item_num,
    }


def _texts(texts: TextVariants) -> list:
    """The item texts of the training prompts, as their tokens."""
    parts = [texts.share]
    for table in texts.tables:
        parts.append(np.array([len(tokens) for tokens in table.tokens]))
        parts.append(np.fromiter(chain.from_iterable(table.tokens), np.int64))
    return parts


def _positions(positions: Positions) -> list:
    return [positions.users, positions.ends, positions.candidates, positions.opinions]


def _weights(model, later: tuple[str, ...]) -> list:
    """A model's state as a step finds it; the backbone's frozen weights aside."""
    return [
        [name, value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()]
        for name, value in model.state_dict().items()
        if not name.startswith(later)
    ]


def _plain(value):
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
