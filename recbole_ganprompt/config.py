"""Configuration: RecBole's, with the protocol layered in and mistakes refused.

From weakest to strongest: RecBole's defaults, its model file, ``properties/overall.yaml``,
``properties/language_models.yaml`` (our models only), ``properties/model/<Model>.yaml``,
``properties/dataset/<dataset>.yaml``, ``properties/backbone/<backbone>.yaml`` (our models only), the
model file's own ``backbones: {<backbone>: ...}`` and ``datasets: {<dataset>: ...}``, the user's files,
dictionary and command line.
"""

import ast
import re
import sys
from functools import cache
from pathlib import Path

import recbole
import yaml
from recbole.config import Config
from recbole.utils import EvaluatorType, ModelType, get_model
from recbole.utils.argument_list import (
    dataset_arguments,
    evaluation_arguments,
    general_arguments,
    training_arguments,
)

from recbole_ganprompt.checks import CHECKS, nearest
from recbole_ganprompt.errors import UserError
from recbole_ganprompt.plugin import MODELS

METRICS = ("AUC", "GAUC", "Hit", "NDCG", "MRR")
GENERAL_TEACHERS = {"MF": "BPR", "LightGCN": "LightGCN"}
"""Models without histories that can teach a language model, and RecBole's names for them."""
SPLITS = {"leave_one_out": {"LS": "valid_and_test"}, "paper": {"LS": "test_only"}}

# Keys that RecBole reads though no file of its own has them.
_UNLISTED = {"model", "dataset", "config_files", "local_rank", "world_size", "nproc", "ip", "port"}
_UNLISTED |= {"offset", "cin", "contrast", "encoding", "eta", "has_residual", "norm", "sim"}
_UNLISTED |= {"tail_ratio", "token_num_threshold", "use_filter", "xgb_early_stopping_rounds"}
_WORDS = {"true": True, "false": False, "none": None, "null": None, "~": None}


class _Loader(yaml.SafeLoader):
    """The safe loader that also reads ``1e-4`` as a number, as RecBole's does."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+0123456789."),
)


def properties_path(*parts: str) -> Path:
    """Path of a file or folder of ``properties/``, in a checkout as in an installed wheel.

    Parameters
    ----------
    *parts : str
        Such as ``"prompt", "paper.yaml"``; none gives the folder itself.

    Returns
    -------
    pathlib.Path
        Whether or not such a file is there.
    """
    package = Path(__file__).resolve().parent
    installed = package / "properties"
    return (installed if installed.is_dir() else package.parent / "properties").joinpath(*parts)


def load_yaml(path) -> dict:
    """Read one YAML file of keys and values with a safe loader.

    Raises
    ------
    UserError
        If it isn't there, isn't YAML, or holds anything but keys and values.
    """
    try:
        values = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The configuration file {path} can't be read: {error}.") from error
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" (line {where.line + 1})" if where else ""
        raise UserError(f"{path} is not valid YAML{line}: quote texts such as '[5,inf)'.") from error
    if not isinstance(values or {}, dict):
        raise UserError(f"{path} must hold lines of the form 'key: value'.")
    return values or {}


@cache
def recbole_properties() -> Path:
    """RecBole's own ``properties`` folder."""
    return Path(recbole.__file__).parent / "properties"


@cache
def _defaults() -> dict:
    """Every key that RecBole's files or ours know, with one default value each."""
    theirs = recbole_properties()
    names = general_arguments + training_arguments + evaluation_arguments + dataset_arguments
    known = dict.fromkeys([*names, *sorted(_UNLISTED)])
    skip = {"url.yaml", "kg_url.yaml"}
    files = [path for path in sorted(theirs.rglob("*.yaml")) if path.name not in skip]
    files += [properties_path("overall.yaml"), properties_path("language_models.yaml")]
    for folder in ("dataset", "backbone", "model"):
        files += sorted(properties_path(folder).glob("*.yaml"))
    # The overall files come last: theirs is the default of a key that a model file has too.
    for path in [*files, theirs / "overall.yaml", properties_path("overall.yaml")]:
        for key, value in load_yaml(path).items():
            if value is not None or key not in known:
                known[key] = value
    for block in ("backbones", "datasets"):
        known.pop(block, None)
    return known


def known_keys() -> set[str]:
    """All keys that a user may set: RecBole's, for any of its models, and ours."""
    return set(_defaults())


def check_keys(keys, prefix: str = "") -> None:
    """Refuse the first key that nothing knows, naming the nearest one.

    Raises
    ------
    UserError
        Such as ``--lerning_rate: did you mean learning_rate?``
    """
    for key in keys:
        if key not in known_keys():
            close = nearest(str(key), known_keys())
            remedy = f"did you mean {close}?" if close else "no such key; --help lists ours."
            raise UserError(f"{prefix}{key}: {remedy}")


def parse_value(key: str, text: str):
    """Read a value from text: Python literals, ``true``, ``false``, ``none`` and lists of words.

    Nothing is ever evaluated. Where the key's default is a text, the value stays one (so
    ``none`` is a word there and ``[5,100]`` an interval) unless it is written as a dictionary.

    Parameters
    ----------
    key : str
    text : str

    Returns
    -------
    object
    """
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        value = text
    if isinstance(_defaults().get(key), str):
        return value if isinstance(value, (str, dict)) else text
    if not isinstance(value, str):
        return value
    if value.strip().lower() in _WORDS:
        return _WORDS[value.strip().lower()]
    if value.strip().startswith("["):
        try:
            parsed = yaml.load(value, Loader=_Loader)
            return parsed if isinstance(parsed, list) else value
        except yaml.YAMLError:
            return value
    return value


def parse_arguments(arguments) -> dict:
    """Read ``--key=value`` arguments; ``--key`` alone means true.

    Raises
    ------
    UserError
        If one is written otherwise, or a key comes twice with two values.
    """
    values: dict = {}
    for argument in arguments:
        match = re.fullmatch(r"--([^=\s]+)(?:=(.*))?", argument, re.DOTALL)
        if not match:
            raise UserError(f"Arguments are written --key=value, not '{argument}'.")
        key, text = match.groups()
        if text is None:
            check_keys([key], "--")
            if not isinstance(_defaults()[key], bool):
                raise UserError(f"--{key} needs a value: --{key}=...")
            text = "true"
        value = parse_value(key, text)
        if values.get(key, value) != value:
            raise UserError(f"--{key} is given twice, with different values.")
        values[key] = value
    return values


def check_values(values: dict) -> None:
    """Refuse values that can't work, by the table of :mod:`recbole_ganprompt.checks`.

    Raises
    ------
    UserError
    """
    for key, (meaning, accepts) in CHECKS.items():
        if key in values and not accepts(values[key]):
            raise UserError(f"{key} must be {meaning}, not {values[key]!r}.")


class ProtocolConfig(Config):
    """RecBole's ``Config`` under our protocol.

    RecBole's own functions get one wherever they ask for a ``Config`` of one of our models; the
    command line builds one for RecBole's models too (:func:`build_config`).

    Parameters
    ----------
    model, dataset, config_file_list, config_dict
        As RecBole's.
    arguments : list of str, optional
        Command line, ``--key=value``. Where it is None, ``sys.argv`` is read as RecBole does:
        what isn't ours to know is left to the program that runs us.
    teacher : bool
        Whether the model is a language model's teacher, which may be a general model.

    Raises
    ------
    UserError
    """

    def __init__(
        self,
        model=None,
        dataset=None,
        config_file_list=None,
        config_dict=None,
        arguments=None,
        teacher=False,
    ):
        self.__dict__["_arguments"] = arguments
        self.__dict__["_teacher"] = teacher
        super().__init__(model, dataset, config_file_list, config_dict)

    def _build_yaml_loader(self):
        return _Loader

    def _load_config_files(self, file_list):
        values = {}
        for path in file_list or []:
            loaded = load_yaml(path)
            check_keys(loaded, f"{path}: ")
            values.update(loaded)
        return values

    def _convert_config_dict(self, config_dict):
        return {
            key: parse_value(key, value) if isinstance(value, str) else value
            for key, value in config_dict.items()
        }

    def _load_variable_config_dict(self, config_dict):
        check_keys(config_dict or {})
        return self._convert_config_dict(config_dict or {})

    def _load_cmd_line(self):
        if self._arguments is not None:
            values = parse_arguments(self._arguments)
            check_keys(values, "--")
            return values
        found = [re.fullmatch(r"--(\w+)=(.*)", text, re.DOTALL) for text in sys.argv[1:]]
        pairs = [match.groups() for match in found if match]
        return {key: parse_value(key, text) for key, text in pairs if key in known_keys()}

    def _get_model_and_dataset(self, model, dataset):
        external = self.external_config_dict
        model = external.get("model") if model is None else model
        dataset = external.get("dataset") if dataset is None else dataset
        if model is None or dataset is None:
            raise UserError("Name a model and a dataset: --model=GANPrompt --dataset=ml-100k.")
        if not isinstance(model, str):
            return model.__name__, model, str(dataset)
        if self._teacher and model in GENERAL_TEACHERS:
            return GENERAL_TEACHERS[model], get_model(GENERAL_TEACHERS[model]), str(dataset)
        if model not in MODELS and model not in sequential_models():
            close = nearest(model, [*MODELS, *sequential_models()])
            hint = f"did you mean {close}?" if close else "--list shows those there are."
            raise UserError(f"There is no sequential model called {model}: {hint}")
        return model, get_model(model), str(dataset)

    def _load_internal_config_dict(self, model, model_class, dataset):
        super()._load_internal_config_dict(model, model_class, dataset)
        if model_class.type != ModelType.SEQUENTIAL and not self._teacher:
            raise UserError(f"{model} is not a sequential model; --list shows those that are.")
        layers = self.internal_config_dict
        layers.update(load_yaml(properties_path("overall.yaml")))
        if model in MODELS:
            layers.update(load_yaml(properties_path("language_models.yaml")))
        model_file = properties_path("model", f"{model}.yaml")
        of_model = load_yaml(model_file) if model_file.is_file() else {}
        of_dataset = of_model.pop("datasets", None) or {}
        of_backbone = of_model.pop("backbones", None) or {}
        layers.update(of_model)
        dataset_file = properties_path("dataset", f"{dataset}.yaml")
        if dataset_file.is_file():
            layers.update(load_yaml(dataset_file))
        if model in MODELS:
            backbone = self.external_config_dict.get("backbone", layers.get("backbone"))
            layers.update(_backbone(backbone))
            layers.update(of_backbone.get(backbone) or {})
        layers.update(of_dataset.get(dataset) or {})

    def _get_final_config_dict(self):
        final = super()._get_final_config_dict()
        check_values(final)
        final["train_neg_sample_args"] = self._training_negatives(final)
        final["eval_args"], final["protocol"] = self._evaluation(final)
        return final

    def _training_negatives(self, final):
        """What RecBole's loader shall sample: nothing for a softmax over all items."""
        choosable = not hasattr(self.model_class, "input_type")
        if choosable and final.get("loss_type") not in (None, "CE", "BPR"):
            raise UserError(f"{self.model}'s loss_type must be CE or BPR, not {final['loss_type']!r}.")
        value = final["train_neg_sample_args"]
        if value != "auto":
            return _WORDS.get(str(value).lower(), value)
        softmax = choosable and final.get("loss_type") == "CE"
        if softmax or self.model in MODELS:
            return None
        return {"distribution": "uniform", "sample_num": 1}

    def _evaluation(self, final):
        """Complete a partial ``eval_args`` and bring it in line with ``protocol``."""
        asked = self.external_config_dict.get("eval_args") or {}
        if not isinstance(asked, dict):
            raise UserError("eval_args must be a dictionary, such as {'mode': 'uni9'}.")
        settings = {**self.internal_config_dict["eval_args"], **asked}
        protocol = final["protocol"]
        if "split" in asked and "protocol" not in self.external_config_dict:
            matching = [name for name, split in SPLITS.items() if split == asked["split"]]
            protocol = matching[0] if matching else protocol
        elif "split" not in asked:
            settings["split"] = SPLITS[protocol]
        if settings["split"] != SPLITS[protocol]:
            raise UserError(
                f"protocol {protocol} splits by {SPLITS[protocol]}; set protocol to leave_one_out "
                "or paper and leave eval_args.split out."
            )
        if (settings["order"], settings["group_by"]) != ("TO", "user"):
            raise UserError("The protocol needs eval_args with order TO and group_by user.")
        modes = settings["mode"]
        for mode in modes.values() if isinstance(modes, dict) else [modes]:
            if not re.fullmatch(r"uni[1-9]\d*", str(mode)):
                raise UserError(
                    f"eval_args mode {mode} is not ours: candidates are frozen and uniform, so "
                    "write uniN, such as uni9 for the positive and 9 negatives."
                )
        return settings, protocol

    def _set_default_parameters(self):
        final = self.final_config_dict
        metrics = final["metrics"]
        metrics = [metrics] if isinstance(metrics, str) else list(metrics or [])
        names = {name.lower(): name for name in METRICS}
        for metric in metrics:
            if str(metric).lower() not in names:
                raise UserError(f"metric {metric} is not one of {', '.join(METRICS)}.")
        if not metrics:
            raise UserError(f"metrics is empty; choose from {', '.join(METRICS)}.")
        # RecBole refuses ranking and value metrics in one run; our evaluator takes both from one
        # pass, so its check sees ranking metrics only.
        final["metrics"] = ["GAUC"]
        try:
            super()._set_default_parameters()
        except (ValueError, TypeError, NotImplementedError, RuntimeError) as error:
            raise UserError(f"RecBole refuses the configuration: {error}") from error
        final["metrics"] = [names[str(metric).lower()] for metric in metrics]
        final["eval_type"] = EvaluatorType.RANKING
        final["valid_metric_bigger"] = True
        lower = [name.lower() for name in final["metrics"]]
        measured = [name for name in lower if "auc" in name]
        measured += [f"{name}@{k}" for name in lower if "auc" not in name for k in final["topk"]]
        if final["valid_metric"].lower() not in measured:
            raise UserError(
                f"valid_metric {final['valid_metric']} is not measured: choose one of "
                f"{', '.join(measured)}, or change metrics and topk."
            )


def _backbone(name) -> dict:
    if name is None:
        return {}
    path = properties_path("backbone", f"{name}.yaml")
    if not re.fullmatch(r"\w[\w-]*", str(name)) or not path.is_file():
        names = sorted(file.stem for file in properties_path("backbone").glob("*.yaml"))
        raise UserError(f"backbone must be one of {', '.join(names)}, not {name!r}.")
    return load_yaml(path)


@cache
def sequential_models() -> tuple[str, ...]:
    """Names of RecBole's sequential models."""
    modules = recbole_properties().parent / "model" / "sequential_recommender"
    names = [path.stem for path in sorted((recbole_properties() / "model").glob("*.yaml"))]
    return tuple(name for name in names if (modules / f"{name.lower()}.py").is_file())


def build_config(
    model=None, dataset=None, config_file_list=None, config_dict=None, arguments=()
) -> ProtocolConfig:
    """Build the configuration of one run of one of our models or RecBole's sequential ones.

    Parameters
    ----------
    model, dataset : str, optional
        May also come from the other sources.
    config_file_list : list of path, optional
        YAML files, the last one strongest.
    config_dict : dict, optional
    arguments : sequence of str
        Command line, ``--key=value``; strongest. ``sys.argv`` is never read.

    Returns
    -------
    ProtocolConfig

    Raises
    ------
    UserError
        At an unknown key, model or metric, and at a value that can't work.
    """
    return ProtocolConfig(model, dataset, config_file_list, config_dict, list(arguments or ()))


def build_teacher_config(teacher: str, dataset: str, values: dict) -> ProtocolConfig:
    """Build a teacher's configuration: as :func:`build_config`, general models allowed."""
    return ProtocolConfig(teacher, dataset, None, values, [], teacher=True)
