"""The study commands' own options, told apart from the configuration keys of the runs that they start."""

from pathlib import Path

import torch

from recbole_ganprompt.checks import CHECKS, non_negative, positive_integer
from recbole_ganprompt.config import sequential_models
from recbole_ganprompt.errors import UserError
from recbole_ganprompt.keys import check_keys, load_yaml, parse_arguments, parse_value, split_files
from recbole_ganprompt.plugin import MODELS
from recbole_ganprompt.study.cluster import Demand

folder_name = (
    "the name of a folder, without slashes",
    lambda value: isinstance(value, str) and value not in ("", ".", "..") and not set(value) & set("/\\"),
)

GPUS = (
    "a share of one GPU or a number of whole ones",
    lambda value: non_negative[1](value) and (value <= 1 or value % 1 == 0),
)
FINISHED = (
    "folders that hold a folder runs, such as another checkout's saved",
    lambda value: isinstance(value, str) and Path(value, "runs").is_dir(),
)
"""Of ``--runs=``."""

RUN_OPTIONS = {
    "cpus_per_run": (1, positive_integer),
    "gpus_per_run": (None, GPUS),
    "memory_per_run": (3, non_negative),
    "ray_address": (None, CHECKS["ray_address"]),
}
"""What a run takes of the cluster: processors, GPUs (0.5: two share one), GB of memory; see ``Demand``."""

RUN_HELP = """\
  --cpus_per_run=1        processors of each run
  --gpus_per_run=1        GPUs of each run, of those that --gpu_id= names (all by default); 0.5: two share
                          one; 0 where there are none
  --memory_per_run=3      GB of memory that a run may need; fewer start at once where there is less
  --ray_address=ADDRESS   a Ray cluster (or auto), whose machines must share the folders that are read and
                          written (data_path, checkpoint_dir); none: Ray starts on this machine"""


def take_options(arguments, options: dict) -> tuple[dict, list[str]]:
    """Divide ``--key=value`` arguments into a command's own and the rest.

    Parameters
    ----------
    arguments : list of str
    options : dict
        (default, check of :mod:`recbole_ganprompt.checks`) by name. A default that is a list takes
        ``a,b,c``, one that is a boolean ``--name`` alone as true, one that is a text whatever stands there.

    Returns
    -------
    (dict, list of str)
        Every option's value, and the arguments that are none of them.

    Raises
    ------
    UserError
    """
    values = {name: default for name, (default, _) in options.items()}
    rest = []
    for argument in arguments:
        name, equals, given = argument.removeprefix("--").partition("=")
        if name not in options or not argument.startswith("--"):
            rest.append(argument)
            continue
        default, (meaning, accepts) = options[name]
        if isinstance(default, list):
            value = [parse_value("", part.strip()) for part in given.split(",") if part.strip()]
        elif isinstance(default, bool) and not equals:
            value = True
        elif isinstance(default, str):
            value = given
        else:
            value = parse_value("", given)
        each = value if isinstance(default, list) else [value]
        if not each or not all(accepts(one) for one in each):
            raise UserError(f"--{name} must be {meaning}, not {given!r}.")
        values[name] = value
    return values, rest


def demand_of(options: dict, address: str | None) -> Demand:
    """What ``RUN_OPTIONS`` ask for each run; without ``gpus_per_run`` one GPU where there are any.

    Parameters
    ----------
    options : dict
    address : str or None
        A Ray cluster's, which is asked for its GPUs when it is reached; None for this machine.
    """
    gpus = options["gpus_per_run"]
    if gpus is None and address is None:
        gpus = int(torch.cuda.is_available())
    return Demand(options["cpus_per_run"], gpus, options["memory_per_run"])


def scoped_arguments(arguments, datasets) -> dict[str | None, list[str]]:
    """Arguments by what they are for: ``--TALLRec.llm_epochs=3`` is for TALLRec alone.

    Parameters
    ----------
    arguments : list of str
        ``--key=value`` or ``--<model or dataset>.key=value``, and ``--config_files="a.yaml b.yaml"``.
    datasets : list of str
        Those that may be named.

    Returns
    -------
    dict
        Lists of ``--key=value`` by model or dataset; under None those for every run, files among them.

    Raises
    ------
    UserError
        At an unknown key or name, at a key with two values, and at what the command itself says of each run.
    """
    scopes: dict[str | None, list[str]] = {None: []}
    files, arguments = split_files(arguments)
    for path in files:
        check_keys(load_yaml(path), f"{path}: ")
    names = {*MODELS, *sequential_models(), *datasets}
    for argument in arguments:
        key, equals, given = argument.removeprefix("--").partition("=")
        if not argument.startswith("--"):
            raise UserError(f"Arguments are written --key=value, not '{argument}'.")
        scope, dot, inner = key.rpartition(".")
        if dot and scope not in names:
            raise UserError(f"--{key}: {scope} is none of the models and datasets of this command.")
        check_keys([inner], "--")
        if inner in ("model", "dataset", "seed"):
            raise UserError(f"--{key} is for a single run: --help shows what this command takes instead.")
        scopes.setdefault(scope if dot else None, []).append(f"--{inner}{equals}{given}")
    for part in scopes.values():
        parse_arguments(part)  # none twice with two values
    scopes[None] += [f"--config_files={path}" for path in files]
    return scopes


def run_arguments(scopes, model: str, dataset: str, seed: int) -> list[str]:
    """The arguments of one run; what is for its model is stronger than what is for its dataset."""
    chosen: dict[str, str] = {}
    for part in (None, dataset, model):
        for argument in scopes.get(part, []):
            # All files count, as in run_recbole.py.
            name = argument if argument.startswith("--config_files=") else argument.partition("=")[0]
            chosen[name] = argument
    own = {"--model": f"--model={model}", "--dataset": f"--dataset={dataset}", "--seed": f"--seed={seed}"}
    return list({"--show_progress": "--show_progress=false", **chosen, **own}.values())
