"""The command line: ``python run_recbole.py --model=GANPrompt --dataset=ml-100k --key=value ...``."""

import re
import shutil
import sys
import textwrap
from pathlib import Path

from recbole_ganprompt import interruption
from recbole_ganprompt.config import build_config, sequential_models
from recbole_ganprompt.errors import UserError, exit_status
from recbole_ganprompt.keys import load_yaml, parse_arguments, properties_path, split_files
from recbole_ganprompt.plugin import MODELS
from recbole_ganprompt.run_folder import run_values

USAGE = """\
usage: python run_recbole.py --model=GANPrompt --dataset=ml-100k [--key=value ...]

Trains and evaluates one model on one dataset; the last line printed is the path of result.json.
  --resume=saved/runs/...         go on with a run that was stopped or killed; auto: with this command's own
  --config_files="a.yaml b.yaml"  values from files, the last one strongest; the command line is stronger
  --list                          models and datasets
  --debug                         show the traceback of an error
RecBole's keys (learning_rate, epochs, gpu_id, ...) are accepted too."""

BASELINES = ("SASRec", "GRU4Rec", "DIN", "BERT4Rec", "Caser")


def main(arguments=None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : list of str, optional
        ``sys.argv[1:]`` if None.

    Returns
    -------
    int
        Exit status: 0, or 2 for a mistake that the user can mend.
    """
    return exit_status(_command, arguments)


def _command(arguments) -> None:
    if {"--help", "-h"} & set(arguments):
        print(help_text())
    elif "--list" in arguments:
        print(list_text(arguments))
    else:
        _run(arguments)


def _run(arguments) -> None:
    files, rest = split_files(arguments)
    resumed = [one.partition("=")[2] for one in rest if one.startswith("--resume=")]
    values = None
    if resumed and resumed[-1] not in ("auto", "none"):
        folder = Path(resumed[-1]).expanduser()
        values = {**run_values(folder), "checkpoint_dir": str(folder.absolute().parent.parent)}
    config = build_config(config_file_list=files, config_dict=values, arguments=rest)
    if config["num_workers"] in (None, 1):
        with interruption.watched():
            from recbole_ganprompt.experiment import run  # slow to import, and a typo needs none of it

            run(config)
        return
    if config["model"] not in MODELS:
        raise UserError(f"{config['model']} trains on one worker in minutes: leave num_workers out.")
    from recbole_ganprompt.study.distributed import run_on_workers

    run_on_workers(config, rest, files, values)


def _described(path: Path):
    """Keys of one properties file: (name, default, what its comment says)."""
    values = load_yaml(path)
    for line in path.read_text(encoding="utf-8").splitlines():
        match = re.match(r"(\w+):.*?(?:\s#\s*(.*))?$", line)
        if match and match[1] in values and match[1] not in ("backbones", "datasets"):
            yield match[1], values[match[1]], match[2] or ""


def _instead(values: dict):
    """Defaults of one properties file that hold with a backbone or on a dataset alone: (where, defaults)."""
    for name, own in (values.get("backbones") or {}).items():
        everywhere = {key: own[key] for key in own if key != "datasets"}
        if everywhere:
            yield f"by default with --backbone={name}", everywhere
        for dataset, there in (own.get("datasets") or {}).items():
            yield f"by default with --backbone={name} on {dataset}", there
    for dataset, there in (values.get("datasets") or {}).items():
        yield f"by default on {dataset}", there


def help_text() -> str:
    """Usage, then our keys with their defaults and what their comments say."""
    width = max(60, shutil.get_terminal_size((100, 24)).columns)
    lines = [USAGE]
    files = [("every model", properties_path("overall.yaml"))]
    files += [("our language models", properties_path("language_models.yaml"))]
    for folder in ("model", "backbone"):
        for path in sorted(properties_path(folder).glob("*.yaml")):
            named = f"--backbone={path.stem}" if folder == "backbone" else path.stem
            files.append((named, path))
    for title, path in files:
        lines += ["", f"Keys of {title}:"]
        for key, default, comment in _described(path):
            lines.append(f"  --{key}={default}")
            lines += textwrap.wrap(comment, width, initial_indent=" " * 6, subsequent_indent=" " * 6)
        for where, values in _instead(load_yaml(path)):
            given = " ".join(f"--{key}={value}" for key, value in values.items())
            lines += textwrap.wrap(f"{where}: {given}", width, initial_indent="  ", subsequent_indent=" " * 6)
    return "\n".join(lines)


def list_text(arguments=()) -> str:
    """Models and datasets that the command knows, and which datasets are on disk."""
    from recbole_ganprompt.data.download import download_list

    values = parse_arguments([one for one in arguments if one != "--list"])
    default = load_yaml(properties_path("overall.yaml"))["data_path"]
    folder = Path(values.get("data_path", default))
    lines = ["Models of this package:", *(f"  {name}" for name in MODELS)]
    lines += ["Models of RecBole, under the same protocol:", *(f"  {name}" for name in BASELINES)]
    others = sorted(set(sequential_models()) - set(BASELINES))
    lines += _wrapped("its other sequential models, as they are: ", others)
    names = {path.stem for path in properties_path("dataset").glob("*.yaml")}
    names |= {path.parent.name for path in folder.glob("*/*.inter") if path.stem == path.parent.name}
    lines.append(f"Datasets (in {folder}, else downloaded):")
    for name in sorted(names):
        here = (folder / name / f"{name}.inter").is_file()
        state = "comes with RecBole" if name == "ml-100k" else "there" if here else "not there yet"
        lines.append(f"  {name:<30} {state}")
    lines += _wrapped("others in RecBole's download list: ", sorted(download_list()))
    return "\n".join(lines)


def _wrapped(start: str, names) -> list[str]:
    return textwrap.wrap(start + ", ".join(names), 100, initial_indent="  ", subsequent_indent="    ")


if __name__ == "__main__":
    sys.exit(main())
