"""Keys and values: which keys there are, and how files and the command line are read.

Nothing that a user writes is ever evaluated: values are YAML by the safe loader, or Python literals.
"""

import ast
import os
import re
from functools import cache
from pathlib import Path

import recbole
import yaml
from recbole.utils.argument_list import (
    dataset_arguments,
    evaluation_arguments,
    general_arguments,
    training_arguments,
)
from yaml.constructor import ConstructorError

from recbole_ganprompt.checks import listed, nearest, shown
from recbole_ganprompt.errors import UserError

# Keys that RecBole reads though no file of its own has them.
_UNLISTED = {"model", "dataset", "config_files", "local_rank", "world_size", "nproc", "ip", "port"}
_UNLISTED |= {"offset", "cin", "contrast", "encoding", "eta", "has_residual", "norm", "sim"}
_UNLISTED |= {"tail_ratio", "token_num_threshold", "use_filter", "xgb_early_stopping_rounds"}
# Nodes of a YAML file once every alias stands for what it repeats; aliases of aliases grow without end.
NODES = 100_000
# What a literal may be: as RecBole reads values, anything else stays a text.
_PLAIN = (str, int, float, list, tuple, dict, bool, type(None))
WORDS = {"true": True, "false": False, "none": None, "null": None, "~": None}


class Loader(yaml.SafeLoader):
    """The safe loader that also reads ``1e-4`` as a number, as RecBole's does."""


Loader.add_implicit_resolver(
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
        If it isn't there, isn't YAML, has a tag that would build an object, repeats itself without
        end, or holds anything but keys and values.
    """
    try:
        values = _plain_yaml(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The configuration file {path} can't be read: {error}.") from error
    except ConstructorError as error:
        line = error.problem_mark.line + 1
        raise UserError(
            f"{path}, line {line}: {error.problem}; values are plain numbers, texts, lists and dictionaries."
        ) from error
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" (line {where.line + 1})" if where else ""
        raise UserError(f"{path} is not valid YAML{line}: quote texts such as '[5,inf)'.") from error
    if not isinstance(values or {}, dict):
        raise UserError(f"{path} must hold lines of the form 'key: value'.")
    return values or {}


def _plain_yaml(text: str):
    """Read YAML by the safe loader, however strange it is; all that fails is a ``YAMLError``."""
    try:
        loader = Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _count_nodes(node, {})
        return loader.construct_document(node)
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        # PyYAML's own constructors fail so on a value that is not of its tag, or nested too deep.
        raise yaml.YAMLError(str(error)) from error


def _count_nodes(node, known: dict[int, int]) -> int:
    """Nodes below and with one, aliases resolved."""
    if id(node) not in known:
        known[id(node)] = NODES  # an alias to a node above it has no end
        inner = node.value if isinstance(node, yaml.CollectionNode) else []
        if isinstance(node, yaml.MappingNode):
            inner = [part for pair in inner for part in pair]
        known[id(node)] = 1 + sum(_count_nodes(part, known) for part in inner)
        if known[id(node)] > NODES:
            raise ConstructorError(
                None, None, f"more than {NODES:,} values, aliases resolved", node.start_mark
            )
    return known[id(node)]


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
            raise UserError(f"{prefix}{listed([key])}: {remedy}")


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
    if not isinstance(value, _PLAIN):
        value = text
    if isinstance(_defaults().get(key), str):
        return value if isinstance(value, (str, dict)) else text
    if not isinstance(value, str):
        return value
    if value.strip().lower() in WORDS:
        return WORDS[value.strip().lower()]
    if value.strip().startswith("["):
        try:
            parsed = _plain_yaml(value)
            return parsed if isinstance(parsed, list) else value
        except yaml.YAMLError:
            return value
    return value


def split_files(arguments) -> tuple[list[str], list[str]]:
    """The paths of all ``--config_files="a.yaml b.yaml"``, and the other arguments."""
    start = "--config_files="
    given = [one[len(start) :] for one in arguments if one.startswith(start)]
    # RecBole parts them at blanks, which a single path may have too.
    files = [path for text in given for path in ([text] if os.path.isfile(text) else text.split())]
    return files, [one for one in arguments if not one.startswith(start)]


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
            raise UserError(f"Arguments are written --key=value, not {shown(argument)}.")
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
