"""A cache of whole folders, keyed by all that their content depends on; each is made once, resumably."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from datetime import datetime
from logging import getLogger
from pathlib import Path
from time import perf_counter

import torch
import transformers
from filelock import FileLock, Timeout

from recbole_ganprompt import workers
from recbole_ganprompt.checkpoints import Checkpoints, differences
from recbole_ganprompt.data.fingerprint import file_digest, fingerprint

MADE = "made.json"
_notes: ContextVar[list | None] = ContextVar("notes", default=None)


@contextmanager
def noted() -> Iterator[list[dict]]:
    """What was taken from caches inside the ``with`` block, in order.

    Yields
    ------
    list of dict
        Of each cached folder ``kind``, ``folder`` (its name), ``reused`` (False: made here) and ``seconds``
        that making it took, here or then.
    """
    notes: list[dict] = []
    token = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(token)


def cached_folder(
    cache_dir,
    kind: str,
    key: dict,
    build: Callable[[Path, Checkpoints], None],
    together: bool = False,
) -> Path:
    """Return ``<cache_dir>/<kind>-<fingerprint of key>``, made first where it isn't there or is damaged.

    ``made.json`` in it has the key, when and in how many seconds it was made, and every file's SHA-256. The
    log says whether it was reused or made, and if there is something like it, what differs.

    Parameters
    ----------
    cache_dir : path
    kind : str
        First part of the folder's name.
    key : dict of str
        Everything that the content depends on by name, as :func:`fingerprint` takes it.
    build : callable
        Writes the content into the empty folder that it is given. The folder gets its final name only after
        ``build`` returned, so that an interrupted build is never taken for a finished one. What it keeps in
        the :class:`Checkpoints` that it is given too is there when a killed build is done again.
    together : bool
        Whether all data-parallel workers build; else the first one does while the others wait.
    """
    cache_dir = Path(cache_dir)
    key = {name: _plain(value) for name, value in sorted(key.items())}
    folder = cache_dir / f"{kind}-{fingerprint(key)}"
    with nullcontext() if together else workers.one_after_the_other():  # the others find what the first built
        reused = _agreed(_is_whole(folder), together)
        if reused:
            getLogger().info(f"{kind}: reused from {folder}")
            return _note(folder, kind, reused)
        progress = Checkpoints(cache_dir / ".progress" / folder.name, key, together)
        if together and workers.rank() > 0:
            scratch = Path(tempfile.mkdtemp())
            try:
                build(scratch, progress)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        else:
            _make(folder, kind, key, build, progress, together)
        _agreed(True, together)  # nobody reads it before it is there
    return _note(folder, kind, reused)


def _note(folder: Path, kind: str, reused: bool) -> Path:
    notes = _notes.get()
    if notes is not None:
        seconds = round(made(folder)["seconds"], 1)
        notes.append({"kind": kind, "folder": folder.name, "reused": reused, "seconds": seconds})
    return folder


def made(folder: Path) -> dict:
    """What ``made.json`` of a cached folder says: ``key``, ``date``, ``seconds`` and ``files``."""
    return json.loads((folder / MADE).read_text(encoding="utf-8"))


def made_with(device) -> dict:
    """Parts of a key: the versions and the kind of device that a stage is trained with."""
    versions = [torch.__version__, transformers.__version__]
    return {"versions": versions, "device": torch.device(device).type}


def model_key(name, revision: str | None = None) -> list:
    """A model's identity, for a key: a folder's files (by content if built in), a hub id and revision."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return [str(name), revision]
    if _is_whole(folder):
        return [made(folder)["files"]]
    stats = [(name, (folder / name).stat()) for name in _names(folder)]
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]


def _make(folder: Path, kind: str, key: dict, build, progress: Checkpoints, together: bool) -> None:
    locks = folder.parent / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(locks / folder.name)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        # The operating system frees the lock of a process that died.
        getLogger().info(f"{kind}: another run is making it; waiting")
        lock.acquire()
    try:
        # While workers build together none may turn back alone; what is made twice is made the same.
        if (not together or workers.count() == 1) and _is_whole(folder):
            return
        getLogger().info(f"{kind}: {_why(folder, kind, key, progress)}")
        unfinished = Path(tempfile.mkdtemp(prefix=f".{kind}-", dir=folder.parent))
        try:
            started = perf_counter()
            build(unfinished, progress)
            record = {
                "key": key,
                "date": f"{datetime.now():%Y-%m-%d %H:%M:%S}",
                "seconds": perf_counter() - started,
                "files": {name: file_digest(unfinished / name) for name in _names(unfinished)},
            }
            (unfinished / MADE).write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8")
            unfinished.chmod(0o755)  # mkdtemp makes it private
            shutil.rmtree(folder, ignore_errors=True)  # damaged, or made meanwhile
            os.rename(unfinished, folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        shutil.rmtree(progress.folder, ignore_errors=True)
    finally:
        lock.release()


def _why(folder: Path, kind: str, key: dict, progress: Checkpoints) -> str:
    if folder.is_dir():
        return f"{folder} is damaged, so it is made again"
    if progress.folder.is_dir():
        return "going on from a checkpoint"
    others = []
    for path in folder.parent.glob(f"{kind}-*/{MADE}"):
        try:
            others.append(json.loads(path.read_text(encoding="utf-8"))["key"])
        except (OSError, ValueError, KeyError):
            continue
    if not others:
        return "made for the first time"
    nearest = min(others, key=lambda other: sum(other.get(name) != key.get(name) for name in {*other, *key}))
    return f"made anew, as {differences(nearest, key)}"


def _is_whole(folder: Path) -> bool:
    try:
        files = made(folder)["files"]
        return all(file_digest(folder / name) == digest for name, digest in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _plain(value):
    """A value that stands in the key as it is; anything long or nested by its fingerprint."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return value if isinstance(value, str) and len(value) <= 80 else fingerprint(value)


def _agreed(flag: bool, together: bool) -> bool:
    """The first worker's answer, for all of them."""
    if not together:
        return flag
    return bool(workers.largest([float(flag and workers.rank() == 0)])[0])
