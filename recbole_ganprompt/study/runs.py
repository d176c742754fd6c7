"""Finished runs, told by configuration and data, so that what was measured once isn't measured again."""

import os
import traceback
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from recbole_ganprompt.config import build_config
from recbole_ganprompt.errors import UserError
from recbole_ganprompt.experiment import run
from recbole_ganprompt.keys import load_yaml, properties_path, split_files
from recbole_ganprompt.run_folder import identity, is_finished, plain_values, result_of, same_data


class FinishedRuns:
    """All finished runs under some ``checkpoint_dir``\\ s.

    Parameters
    ----------
    folders : list of path
        Each with a folder ``runs``; the last run of a configuration counts. One without the scores that
        tests pair (copied without them) does not.
    """

    def __init__(self, folders):
        self._runs: dict[tuple, list] = {}
        for folder in folders:
            for path in sorted(Path(folder, "runs").glob("*/result.json")):
                if not is_finished(path.parent):
                    continue
                record = result_of(path.parent)
                data = {name: record[name] for name in ("candidates", "data", "files") if name in record}
                key = record["model"], record["dataset"], record["seed"]
                self._runs.setdefault(key, []).append((identity(record["config"]), data, path.parent))

    def find(self, config, data: dict[str, str]) -> Path | None:
        """The folder of a finished run of this configuration on data of these fingerprints, or None.

        A run that was made before a key existed counts as made with the key's default.
        """
        wanted = identity(plain_values(config.final_config_dict))
        for values, measured_on, folder in reversed(
            self._runs.get((config["model"], config["dataset"], config["seed"]), [])
        ):
            if same_data(measured_on, data) and {**new_defaults(config, values), **values} == wanted:
                return folder
        return None


def new_defaults(config, values: dict) -> dict:
    """Defaults of the keys of ours that an older run's configuration doesn't have.

    Parameters
    ----------
    config : recbole Config
        Of the same model and backbone today.
    values : dict
        The older run's, as :func:`~recbole_ganprompt.run_folder.identity` has them.
    """
    files = [properties_path("overall.yaml"), properties_path("language_models.yaml")]
    files += [properties_path("model", f"{config['model']}.yaml")]
    if config["backbone"]:
        files.append(properties_path("backbone", f"{config['backbone']}.yaml"))
    known = {}
    for path in files:
        known.update(load_yaml(path) if path.is_file() else {})
    wanted = identity(plain_values(config.final_config_dict))
    return {key: value for key, value in known.items() if key in wanted and key not in values}


def configuration(arguments: list[str]):
    """The configuration that a command line (``--config_files=`` too) asks for, of a run on one worker.

    Raises
    ------
    UserError
    """
    files, rest = split_files(arguments)
    return planned_config(config_file_list=files, arguments=rest)


def planned_config(**sources):
    """:func:`build_config` for a run that is to be made elsewhere.

    RecBole narrows this process to ``gpu_id``, by default the first GPU, and Ray would start runs on no other
    one: what a user didn't ask for is undone.

    Raises
    ------
    UserError
        At a mistake, and for more than one worker: a study starts many runs, not one run many times.
    """
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    config = build_config(**sources)
    if config["num_workers"] not in (None, 1):
        raise UserError("A study's runs have one worker each: leave num_workers out, and set cpus_per_run.")
    if "gpu_id" not in config.external_config_dict:
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        if before is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = before
    return config


def make_run(arguments: list[str], log: str) -> str:
    """Make one run whose words go to a file.

    Parameters
    ----------
    arguments : list of str
        ``--key=value``, ``--config_files=`` too.
    log : path
        Is appended to.

    Returns
    -------
    str
        The run's folder.
    """
    with (
        open(log, "a", encoding="utf-8", buffering=1) as stream,
        redirect_stdout(stream),
        redirect_stderr(stream),
    ):
        try:
            rest = [one for one in arguments if not one.startswith(("--gpu_id=", "--resume="))]
            # What a lost worker or a killed study has begun goes on.
            own = [f"--gpu_id={given_gpus()}", "--resume=auto"]
            return str(run(configuration([*rest, *own])).directory)
        except Exception:  # whatever it is, the log shall have it whole
            traceback.print_exc()
            raise


def given_gpus() -> str:
    """This task's GPUs, as ``gpu_id``: Ray names them in the environment, RecBole would take the first."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "")


def reason_of(error: Exception) -> str:
    """Why a run failed, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = lines[0] if lines else "no message"
    return first if isinstance(error, UserError) else f"{type(error).__name__}: {first}"
