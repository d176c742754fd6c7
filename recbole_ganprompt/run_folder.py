"""Where a run's results go: a folder of its own, or that of an unfinished run that goes on."""

import json
import shutil
import sys
import tempfile
from datetime import datetime
from pathlib import Path

import numpy as np
import yaml
from filelock import FileLock, Timeout

from recbole_ganprompt import workers
from recbole_ganprompt.checkpoints import differences
from recbole_ganprompt.errors import UserError
from recbole_ganprompt.keys import known_keys
from recbole_ganprompt.writing import write_text

# Keys that say where a run was made and what it showed, and change no result.
_ELSEWHERE = {"checkpoint_dir", "data_path", "show_progress", "state", "gpu_id", "device", "use_gpu"}
_ELSEWHERE |= {"local_rank", "nproc", "world_size", "offset", "ip", "port", "ray_address", "log_wandb"}
_ELSEWHERE |= {"wandb_project", "save_dataset", "save_dataloaders", "config_files", "worker"}
_ELSEWHERE |= {"resume", "checkpoint_every", "trust_checkpoint"}
# What a configuration derives, or says of the process that a run was: not to be given again.
_DERIVED = {"device", "local_rank", "nproc", "world_size", "offset", "ip", "port", "gpu_id", "resume"}
# What only the user may say: a run's folder may come from a stranger.
_TRUST = {"trust_checkpoint", "trust_remote_code", "use_safetensors"}


def identity(config: dict) -> dict:
    """The values of a configuration that decide a run's result.

    Parameters
    ----------
    config : dict
        As ``result.json`` has it.
    """
    # Some of RecBole's models note things of their own in a configuration: no keys, and not there before.
    return {key: value for key, value in config.items() if key in known_keys() - _ELSEWHERE}


def plain_values(value):
    """Configuration values as JSON and YAML can hold them."""
    if isinstance(value, dict):
        return {str(key): plain_values(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_values(inner) for inner in value]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def run_values(folder) -> dict:
    """The configuration of a run, as values that can be given again, but for whom to trust.

    Raises
    ------
    UserError
        If the folder is none of a run.
    """
    try:
        values = yaml.safe_load((Path(folder) / "config.yaml").read_text(encoding="utf-8"))
        values = {key: value for key, value in values.items() if key in known_keys() - _DERIVED - _TRUST}
        path = Path(values.get("data_path", ""))
        if path.name == values.get("dataset"):  # RecBole puts the dataset's name behind what it is given
            values["data_path"] = str(path.parent)
        return values
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError, TypeError) as error:
        raise UserError(f"{folder} is no run's folder: name one in saved/runs/.") from error


class RunFolder:
    """The folder of one run, this process's alone while it is open.

    Parameters
    ----------
    config : recbole Config
        ``resume`` names an unfinished run's folder; ``auto`` finds the newest one of this configuration, or
        the result of a finished one.
    data : dict
        Fingerprints of the data, and of files that the configuration names; with others it is another run.

    Attributes
    ----------
    path : Path
    resumed : bool
        Whether the folder was there before.
    starts : int
        How often the run was started, this time included.
    finished : bool
        Whether it has a result already.

    Raises
    ------
    UserError
        If the run to be resumed is another one, on other data, finished, or at work.
    """

    def __init__(self, config, data: dict[str, str]):
        self.data = data
        self._lock = mistake = None
        self.resumed, self.finished, self.starts = False, False, 1
        if workers.rank():  # the first worker's folder is the run's
            self.path = Path(tempfile.mkdtemp())
        else:
            try:
                self._open(config)
            except UserError as error:
                mistake = error
            except BaseException:  # a full disk
                if self._lock is not None:
                    self.close(keep=False)
                raise
        # What the first one finds, all of them follow.
        failed, finished = workers.largest([float(mistake is not None), float(self.finished)])
        self.finished = bool(finished)
        if failed:
            raise mistake or UserError("The first worker says why.")

    def _open(self, config) -> None:
        self.values = plain_values(config.final_config_dict)
        wanted = config["resume"]
        if wanted is None:
            self._new(config)
        elif wanted == "auto":
            self._find(config) or self._new(config)
        else:
            self._resume(Path(wanted).expanduser())
        log = self.path / "starts.txt"
        times = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
        self.starts = len(times) + (not self.finished)
        if not self.finished:
            write_text(log, "\n".join([*times, f"{datetime.now():%Y-%m-%d %H:%M:%S}"]) + "\n")
            write_text(self.path / "config.yaml", yaml.safe_dump(self.values, sort_keys=True))
            write_text(self.path / "data.json", json.dumps(self.data))

    def close(self, keep: bool) -> None:
        """Let go of the folder; without ``keep`` a new one is removed."""
        if self._lock is not None:
            self._lock.release()
            (self.path / ".lock").unlink(missing_ok=True)
        if workers.rank() or not (keep or self.resumed):
            shutil.rmtree(self.path, ignore_errors=True)

    def command(self) -> str:
        """What goes on with the run."""
        return f"python {Path(sys.argv[0]).name} --resume='{self.path}'"

    def _take(self, path: Path) -> bool:
        lock = FileLock(path / ".lock")
        try:
            lock.acquire(timeout=0)  # the operating system frees that of a process which died
        except Timeout:
            return False
        self.path, self._lock = path, lock
        return True

    def _new(self, config) -> bool:
        base = Path(config["checkpoint_dir"]) / "runs"
        name = f"{config['model']}-{config['dataset']}-{datetime.now():%Y%m%d-%H%M%S}"
        for number in range(1000):
            path = base / (name if not number else f"{name}-{number}")
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                continue
            return self._take(path)
        raise FileExistsError(base / name)

    def _find(self, config) -> bool:
        base = Path(config["checkpoint_dir"]) / "runs"
        found = sorted(base.glob(f"{config['model']}-{config['dataset']}-*/config.yaml"), reverse=True)
        for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True):
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
            if not isinstance(values, dict) or identity(values) != identity(self.values):
                continue
            if not same_data(_data_of(path.parent), self.data):
                continue
            self.finished = is_finished(path.parent)
            if self.finished:
                self.path, self.resumed = path.parent, True
                return True
            if not (path.parent / "result.json").is_file() and self._take(path.parent):
                self.resumed = True
                return True
        return False

    def _resume(self, path: Path) -> None:
        old = identity(run_values(path))
        new = {key: value for key, value in identity(self.values).items() if key in old}
        if old != new:
            raise UserError(
                f"{path} is another run ({differences(old, new)}): give --resume alone, or leave it out "
                "to start anew."
            )
        if (path / "result.json").is_file():
            raise UserError(f"{path} is finished: its metrics are in {path / 'result.json'}.")
        if not same_data(_data_of(path), self.data):
            raise UserError(
                f"The data, or files that the configuration names, have changed since {path} was begun: "
                "leave --resume out to start anew."
            )
        if not self._take(path):
            raise UserError(f"Another process is at work on {path}: wait for it, or stop it.")
        self.resumed = True


def is_finished(path: Path) -> bool:
    """Whether a run's folder has a result, and the scores behind it."""
    return (path / "result.json").is_file() and (path / "ranks.safetensors").is_file()


def same_data(found: dict, wanted: dict[str, str]) -> bool:
    """Whether fingerprints agree, as far as an older run's record has them."""
    return all(found.get(name, value) == value for name, value in wanted.items())


def _data_of(path: Path) -> dict:
    for name in ("result.json", "data.json"):
        if (path / name).is_file():
            return json.loads((path / name).read_text(encoding="utf-8"))
    return {}  # of a run that was stopped before there were fingerprints


def result_of(path: Path) -> dict:
    """The record of a finished run.

    Raises
    ------
    UserError
        If it can't be read.
    """
    try:
        return json.loads((path / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path / 'result.json'} is damaged: remove its folder.") from error
