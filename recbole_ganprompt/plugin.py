"""Put our models, trainers, datasets and properties into RecBole's own look-ups.

RecBole finds a model by importing ``recbole.model.<kind>.<name>``, a trainer as ``<name>Trainer``
in ``recbole.trainer`` and a dataset as ``<name>Dataset`` in ``recbole.data.dataset``. Each of these
places gets our names, resolved only when they are asked for; all else in them stays as it was.
"""

import functools
import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType

MODELS = {
    "GANPrompt": "recbole_ganprompt.model.ganprompt",
    "CoLLM": "recbole_ganprompt.model.collm",
    "TALLRec": "recbole_ganprompt.model.tallrec",
}
TRAINERS = {
    "GANPrompt": "recbole_ganprompt.trainer.ganprompt",
    "CoLLM": "recbole_ganprompt.trainer.collm",
    "TALLRec": "recbole_ganprompt.trainer.tallrec",
}
DATASET = ("recbole_ganprompt.data.dataset", "TextSequentialDataset")


def register() -> None:
    """Make RecBole know our models; a second call changes nothing."""
    for name, module in MODELS.items():
        path = f"recbole.model.sequential_recommender.{name.lower()}"
        if path not in sys.modules:
            sys.modules[path] = ModuleType(path)
            sys.modules[path].__spec__ = ModuleSpec(path, None)
        _offer(sys.modules[path], {name: (module, name)})
    trainers = {f"{name}Trainer": (path, f"{name}Trainer") for name, path in TRAINERS.items()}
    _offer(import_module("recbole.trainer"), trainers)
    _offer(import_module("recbole.data.dataset"), {f"{name}Dataset": DATASET for name in MODELS})
    _layer_properties(import_module("recbole.config").Config)


def _offer(module: ModuleType, attributes: Mapping[str, tuple[str, str]]) -> None:
    """Let a module answer for attributes that live elsewhere and are imported when first used."""
    if hasattr(vars(module).get("__getattr__"), "offers"):
        return
    fallback = vars(module).get("__getattr__")

    def __getattr__(name):
        if name in attributes:
            path, attribute = attributes[name]
            return getattr(import_module(path), attribute)
        if fallback is not None:
            return fallback(name)
        raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

    __getattr__.offers = tuple(attributes)
    module.__getattr__ = __getattr__


def _layer_properties(config_class) -> None:
    """Turn a ``Config`` of one of our models into our own, wherever RecBole builds it.

    The class itself stays the same object, so modules that imported it before us are served too.
    """
    original = config_class.__init__
    if hasattr(original, "for_ganprompt"):
        return

    @functools.wraps(original)
    def __init__(self, model=None, dataset=None, config_file_list=None, config_dict=None):
        if type(self) is config_class and _model_name(model, config_file_list, config_dict) in MODELS:
            from recbole_ganprompt.config import ProtocolConfig

            self.__class__ = ProtocolConfig
            ProtocolConfig.__init__(self, model, dataset, config_file_list, config_dict)
        else:
            original(self, model, dataset, config_file_list, config_dict)

    __init__.for_ganprompt = True
    config_class.__init__ = __init__


def _model_name(model, files, values) -> str | None:
    """The model's name as RecBole would find it: argument, command line, dictionary, files."""
    if model is not None:
        return model if isinstance(model, str) else model.__name__
    for argument in sys.argv[1:]:
        if argument.startswith("--model="):
            return argument.partition("=")[2]
    if values and "model" in values:
        return values["model"]
    from recbole_ganprompt.errors import UserError
    from recbole_ganprompt.keys import load_yaml

    for path in reversed(files or []):
        try:
            found = load_yaml(path).get("model")
        except UserError:  # RecBole's own loader may take it, or says what is wrong
            continue
        if found:
            return found
    return None
