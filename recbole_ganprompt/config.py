"""Configuration: RecBole's, with the protocol layered in and mistakes refused.

From weakest to strongest: RecBole's defaults, its model file, ``properties/overall.yaml``,
``properties/language_models.yaml`` (our models only), ``properties/model/<Model>.yaml``,
``properties/dataset/<dataset>.yaml``, ``properties/backbone/<backbone>.yaml`` (our models only), the
model file's own ``backbones: {<backbone>: ...}`` and ``datasets: {<dataset>: ...}`` (a backbone may have
``datasets`` of its own), the user's files, dictionary and command line.
"""

import os
import re
import sys
from functools import cache

from recbole.config import Config
from recbole.utils import EvaluatorType, ModelType, get_model

from recbole_ganprompt.checks import CHECKS, listed, nearest, shown
from recbole_ganprompt.errors import UserError
from recbole_ganprompt.keys import (
    WORDS,
    Loader,
    check_keys,
    known_keys,
    load_yaml,
    parse_arguments,
    parse_value,
    properties_path,
    recbole_properties,
)
from recbole_ganprompt.plugin import MODELS
from recbole_ganprompt.settings import SETTINGS, check_settings
from recbole_ganprompt.teachers import GENERAL_TEACHERS

METRICS = ("AUC", "GAUC", "Hit", "NDCG", "MRR")
SPLITS = {"leave_one_out": {"LS": "valid_and_test"}, "paper": {"LS": "test_only"}}


TUNING = ("llm_tuning", "llm_epochs", "llm_learning_rate", "llm_batch_size", "mapping_epochs")
TUNING += ("mapping_batch_size", "mapping_learning_rate")
"""Keys whose defaults are backbone/small.yaml's where ``llm`` is a model of the user's own."""


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
        return Loader

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
        if not isinstance(model, (str, type)):
            raise UserError(f"model must be a name, not {shown(str(model))}.")
        if not isinstance(model, str):
            return model.__name__, model, str(dataset)
        if self._teacher and model in GENERAL_TEACHERS:
            return GENERAL_TEACHERS[model], get_model(GENERAL_TEACHERS[model]), str(dataset)
        if model not in MODELS and model not in sequential_models():
            close = nearest(model, [*MODELS, *sequential_models()])
            hint = f"did you mean {close}?" if close else "--list shows those there are."
            raise UserError(f"There is no sequential model called {listed([model])}: {hint}")
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
            if backbone == "builtin" and self.external_config_dict.get("llm", "builtin") != "builtin":
                # A million weights from nothing learn at rates that would ruin a pretrained model.
                backbone, pretrained = "small", _backbone("small")
                layers.update({key: pretrained[key] for key in TUNING})
            chosen = dict(of_backbone.get(backbone) or {})
            both = chosen.pop("datasets", None) or {}
            layers.update(chosen)
            of_dataset = {**of_dataset, dataset: {**of_dataset.get(dataset, {}), **both.get(dataset, {})}}
        layers.update(of_dataset.get(dataset) or {})

    def _get_final_config_dict(self):
        final = super()._get_final_config_dict()
        # What a user says of a dictionary's keys leaves its other ones as they are.
        for key in SETTINGS:
            own, theirs = self.internal_config_dict.get(key), self.external_config_dict.get(key)
            if isinstance(own, dict) and isinstance(theirs, dict):
                final[key] = {**own, **theirs}
        check_values(final)
        if self.model in MODELS:
            check_settings(final)
            if final.get("adapter") and final["llm_tuning"] == "full" and not _has_mapping(final):
                raise UserError(
                    "llm_tuning is full and adapter has nothing for this model: add --llm_tuning=lora, or "
                    "give a model that was tuned whole as --llm=FOLDER --llm_tuning=full."
                )
        final["train_neg_sample_args"] = self._training_negatives(final)
        final["eval_args"], final["protocol"] = self._evaluation(final)
        return final

    def _training_negatives(self, final):
        """What RecBole's loader shall sample: nothing for a softmax over all items."""
        choosable = not hasattr(self.model_class, "input_type")
        if choosable and final.get("loss_type") not in (None, "CE", "BPR"):
            raise UserError(f"{self.model}'s loss_type must be CE or BPR, not {final['loss_type']!r}.")
        value = final["train_neg_sample_args"]
        if isinstance(value, dict) and value.get("distribution") == "none":  # as a run's folder has it
            return None
        if value != "auto":
            return WORDS.get(str(value).lower(), value)
        softmax = choosable and final.get("loss_type") == "CE"
        if softmax or self.model in MODELS:
            return None
        return {"distribution": "uniform", "sample_num": 1}

    def _evaluation(self, final):
        """Complete a partial ``eval_args`` and bring it in line with ``protocol``."""
        asked = self.external_config_dict.get("eval_args") or {}
        known = self.internal_config_dict["eval_args"]
        if not isinstance(asked, dict) or set(asked) - set(known):
            raise UserError(
                f"eval_args must be a dictionary of {', '.join(known)}, such as {{'mode': 'uni9'}}."
            )
        settings = {**known, **asked}
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
                    f"eval_args mode {listed([mode])} is not ours: candidates are frozen and uniform, so "
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
                raise UserError(f"metric {listed([metric])} is not one of {', '.join(METRICS)}.")
        if not metrics:
            raise UserError(f"metrics is empty; choose from {', '.join(METRICS)}.")
        # RecBole refuses ranking and value metrics in one run; our evaluator takes both from one
        # pass, so its check sees ranking metrics only.
        final["metrics"] = ["GAUC"]
        try:
            super()._set_default_parameters()
        except (ValueError, TypeError, NotImplementedError, RuntimeError) as error:
            raise UserError(f"RecBole refuses the configuration: {' '.join(str(error).split())}") from error
        final["metrics"] = [names[str(metric).lower()] for metric in metrics]
        final["eval_type"] = EvaluatorType.RANKING
        final["valid_metric_bigger"] = True
        lower = [name.lower() for name in final["metrics"]]
        measured = [name for name in lower if "auc" in name]
        measured += [f"{name}@{k}" for name in lower if "auc" not in name for k in final["topk"]]
        if final["valid_metric"].lower() not in measured:
            raise UserError(
                f"valid_metric {listed([final['valid_metric']])} is not measured: choose one of "
                f"{', '.join(measured)}, or change metrics and topk."
            )


def _has_mapping(values: dict) -> bool:
    """Whether ``adapter`` has a mapping, and the model one to start from it."""
    folder = os.path.expanduser(values["adapter"])
    return bool(values.get("teacher")) and os.path.isfile(os.path.join(folder, "mapping.safetensors"))


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
    """Build a teacher's configuration: as :func:`build_config`, with the general models of `TEACHERS`."""
    return ProtocolConfig(teacher, dataset, None, values, [], teacher=True)
