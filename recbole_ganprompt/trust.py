"""Which of RecBole's pickles are loaded: what this machine's runs wrote, and what the user trusts.

A pickle can run code when it is loaded, and RecBole keeps its checkpoints (``.pth``), cached datasets and
cached data loaders as pickles. What RecBole writes is therefore recorded, as the SHA-256 of its bytes, in
the user's state folder (``$XDG_STATE_HOME`` or ``~/.local/state``), never beside the file, where a stranger
could bring both. What RecBole loads must be recorded, or the user must say ``--trust_checkpoint`` or call
:func:`trust_checkpoint`. A checkpoint of tensors alone needs neither: torch loads it with
``weights_only=True``. Before torch 2.6 that mode could be escaped (CVE-2025-32434), so there every
checkpoint that isn't recorded needs trust.

The functions that RecBole calls are replaced for calls from RecBole's own modules; everyone else's calls
go where they always went.
"""

import functools
import hashlib
import io
import os
import pickle
import sys
from contextlib import contextmanager
from importlib import import_module
from logging import getLogger
from pathlib import Path
from types import SimpleNamespace

import numpy
import torch

from recbole_ganprompt.errors import UserError

PICKLING_MODULES = ("recbole.data.utils", "recbole.data.dataset.dataset")

_written: set[str] = set()  # by this process: it can load them back where nothing can be recorded


def guard_recbole() -> None:
    """Guard every place where RecBole loads a pickle; a second call changes nothing."""
    restricted = {"weights_only": True} if torch_restricts() else None
    _guard_load(torch, {"weights_only": False}, restricted)
    _guard_write(torch, "save")
    _guard_load(numpy, {}, {"allow_pickle": False})  # LDiffRec's item_emb.npy
    guarded = SimpleNamespace(**vars(pickle))
    _guard_load(guarded, {}, None)
    _guard_write(guarded, "dump")
    for module in map(import_module, PICKLING_MODULES):
        if not hasattr(module.pickle.load, "for_recbole"):
            module.pickle = guarded


def torch_restricts() -> bool:
    """Whether this torch's ``weights_only=True`` keeps code out."""
    return tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 6)


def trust_checkpoint(path) -> None:
    """Let RecBole load this file from now on, as long as its bytes stay the same.

    Parameters
    ----------
    path : path
        A RecBole checkpoint, cached dataset or cached data loaders.

    Raises
    ------
    UserError
        If it can't be read.
    """
    try:
        data = Path(path).expanduser().read_bytes()
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}): name the file to trust.") from error
    _record(_digest(data))


def record_file() -> Path | None:
    """Where trusted files are recorded, one SHA-256 a line; None for a user without a home."""
    base = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(base):
        try:
            base = Path.home() / ".local" / "state"
        except RuntimeError:
            return None
    return Path(base) / "recbole_ganprompt" / "trusted_files"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _record(digest: str) -> None:
    _written.add(digest)
    path = record_file()
    try:
        if path is None:
            raise FileNotFoundError("there is no home folder")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            # One write in append mode: lines of concurrent runs don't mix. The first line break ends what
            # a full disk may have left of an earlier line.
            os.write(handle, f"\n{digest}\n".encode())
        finally:
            os.close(handle)
    except OSError as error:
        _say_unrecorded(str(error))


@functools.cache
def _say_unrecorded(reason: str) -> None:
    getLogger().warning(
        f"Nothing records which checkpoints this run writes ({reason}): another process loads them with "
        "--trust_checkpoint only."
    )


def _permitted(data: bytes, frame) -> bool:
    """Whether these bytes may be unpickled for the RecBole function of ``frame``."""
    digest = _digest(data)
    if digest in _written:
        return True
    path = record_file()
    try:
        recorded = path.read_bytes().split() if path is not None else []
    except OSError:
        recorded = []
    return digest.encode() in recorded or _asked_for(frame)


def _asked_for(frame) -> bool:
    """Whether ``trust_checkpoint`` is set on the command line, or in the caller's configuration."""
    values = [text[2:].partition("=") for text in sys.argv[1:] if text.startswith("--trust_checkpoint")]
    if any(key == "trust_checkpoint" and value.lower() in ("", "true") for key, _, value in values):
        return True
    config = frame.f_locals.get("config", getattr(frame.f_locals.get("self"), "config", None))
    return config is not None and config["trust_checkpoint"] is True


def _from_recbole(frame) -> bool:
    return frame.f_globals.get("__name__", "").startswith("recbole.")


def _guard_load(module, free: dict, restricted: dict | None) -> None:
    """Guard ``module.load``.

    ``free`` are the arguments that let pickles in, ``restricted`` those that keep them out; None where
    nothing does.
    """
    original = module.load
    if hasattr(original, "for_recbole"):
        return

    @functools.wraps(original)
    def load(*args, **kwargs):
        frame = sys._getframe(1)
        if not _from_recbole(frame):
            return original(*args, **kwargs)
        file, *others = args
        is_open = hasattr(file, "read")
        # Read once: what is loaded are the very bytes that were looked at.
        data = file.read() if is_open else Path(file).read_bytes()
        if _permitted(data, frame):
            return original(io.BytesIO(data), *others, **{**kwargs, **free})
        refusal = UserError(
            f"{file.name if is_open else file} is not as a run of this user wrote it, and loading it can run "
            "code that is hidden in it: if you trust where it comes from, add --trust_checkpoint or call "
            "recbole_ganprompt.trust_checkpoint(path) once; else delete it."
        )
        if restricted is None:
            raise refusal
        try:
            return original(io.BytesIO(data), *others, **{**kwargs, **restricted})
        except (pickle.UnpicklingError, EOFError, ValueError, RuntimeError) as error:
            raise refusal from error

    load.for_recbole = True
    module.load = load


def _guard_write(module, name: str) -> None:
    """Record what RecBole writes through ``module.<name>(value, file)``."""
    original = getattr(module, name)
    if hasattr(original, "for_recbole"):
        return

    @functools.wraps(original)
    def write(*args, **kwargs):
        if not _from_recbole(sys._getframe(1)):
            return original(*args, **kwargs)
        value, file, *others = args
        with _recorded(file) as stream:
            return original(value, stream, *others, **kwargs)

    write.for_recbole = True
    setattr(module, name, write)


class _HashedStream:
    """A binary stream that digests what is written through it."""

    def __init__(self, stream):
        self._stream = stream
        self.digest = hashlib.sha256()

    def write(self, data) -> int:
        self.digest.update(data)
        return self._stream.write(data)

    def flush(self) -> None:
        self._stream.flush()


@contextmanager
def _recorded(file):
    """Yield a stream into ``file``, recorded at the end; a path is written whole or not at all."""
    if hasattr(file, "write"):
        stream = _HashedStream(file)
        try:
            yield stream
            stream.flush()
        except BaseException:
            Path(file.name).unlink(missing_ok=True)  # RecBole would take half a dataset for a whole one
            raise
        _record(stream.digest.hexdigest())
        return
    path = Path(file)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as raw:
            stream = _HashedStream(raw)
            yield stream
        _record(stream.digest.hexdigest())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
