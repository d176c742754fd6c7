"""Checkpoints: the state of a long computation on disk, so that a killed one goes on where it was.

A checkpoint is one safetensors file: tensors and arrays as they are, all else as JSON beside them; nothing is
ever unpickled. Its name carries the number and the SHA-256 of its content, so that renaming it into place
makes it complete and verifiable at once. The last two are kept.
"""

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from logging import getLogger
from pathlib import Path
from time import monotonic

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from recbole_ganprompt import interruption, workers
from recbole_ganprompt.data.fingerprint import file_digest
from recbole_ganprompt.errors import UserError

KEPT = 2
ROLLBACKS = 3
_NAME = re.compile(r"(\d{8})-([0-9a-f]{16})\.safetensors")
_every: ContextVar[tuple[str, float] | None] = ContextVar("every", default=("minutes", 5.0))


def parse_every(value) -> tuple[str, float] | None:
    """``checkpoint_every`` as (unit, number): ``10min``, ``500`` or ``500 steps``; None for ``none``."""
    if value in (None, "none"):
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(min|minutes|steps)?", str(value).strip())
    unit = "minutes" if (match[2] or "steps").startswith("min") else "steps"
    return unit, float(match[1])


@contextmanager
def checkpointing(value) -> Iterator[None]:
    """Write all checkpoints inside the ``with`` block every so often, as :func:`parse_every` reads it."""
    token = _every.set(parse_every(value))
    try:
        yield
    finally:
        _every.reset(token)


class NotFinite(UserError):
    """A loss, gradient or score that is NaN or infinite; the message names the batch."""


class Checkpoints:
    """The progress of one computation.

    Parameters
    ----------
    folder : path or None
        None keeps nothing.
    key : dict
        What the computation depends on: a checkpoint of another one is refused.
    together : bool
        Whether all data-parallel workers take part; the first one then writes for all.
    """

    def __init__(self, folder=None, key: dict | None = None, together: bool = False):
        self.folder = None if folder is None else Path(folder)
        self.key = key or {}
        self.together = together
        self._damaged: set[Path] = set()
        self._steps, self._last = 0, monotonic()

    def part(self, name: str) -> "Checkpoints":
        """The progress of one of several parts of the computation."""
        folder = None if self.folder is None else self.folder / name
        return Checkpoints(folder, {**self.key, "part": name}, self.together)

    def _files(self) -> list[Path]:
        if self.folder is None or not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if _NAME.fullmatch(path.name))

    def load(self) -> dict | None:
        """The state of the newest whole checkpoint, None where there is none; a damaged one is named.

        Raises
        ------
        UserError
            If it belongs to another computation: the message says what differs.
        """
        for path in reversed(self._files()):
            if file_digest(path)[:16] != _NAME.fullmatch(path.name)[2]:
                getLogger().warning(f"The checkpoint {path} is damaged: going on from the one before it.")
                self._damaged.add(path)
                continue
            state = unpack(load_file(path))
            if state["key"] != self.key:
                raise UserError(
                    f"The checkpoint {path} is of another run ({differences(state['key'], self.key)}): "
                    f"remove {self.folder}, or give the values that it was made with."
                )
            return state["state"]
        return None

    def save(self, state: dict) -> None:
        """Write a checkpoint, whole or not at all, and keep the last two.

        Parameters
        ----------
        state : dict
            Tensors, arrays, numbers, texts, and lists, tuples and dicts of them.
        """
        self._steps, self._last = 0, monotonic()
        if self.folder is None or (self.together and workers.rank() > 0):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        whole = [path for path in self._files() if path not in self._damaged]
        number = 1 + max((int(path.name[:8]) for path in self._files()), default=0)
        handle, temporary = tempfile.mkstemp(dir=self.folder, suffix=".tmp")
        os.close(handle)
        try:
            save_file(pack({"key": self.key, "state": state}), temporary)
            with open(temporary, "rb+") as stream:
                os.fsync(stream.fileno())
            os.replace(temporary, self.folder / f"{number:08d}-{file_digest(temporary)[:16]}.safetensors")
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        for old in [*whole[: len(whole) + 1 - KEPT], *self._damaged]:
            old.unlink(missing_ok=True)
        for leftover in self.folder.glob("*.tmp"):  # of a process that was killed while it wrote
            leftover.unlink(missing_ok=True)
        self._damaged.clear()

    def reached(self, state: Callable[[], dict]) -> None:
        """A place where nothing is half-done: write a checkpoint if it is time, end if a signal came.

        Raises
        ------
        Interrupted
            After writing a checkpoint.
        """
        self._steps += 1
        every, number = _every.get(), interruption.pending()
        due = False
        if every is not None:
            unit, amount = every
            due = self._steps >= amount if unit == "steps" else monotonic() - self._last >= 60 * amount
        if self.together:  # all workers, or none
            due, number = (int(value) for value in workers.largest([float(due), float(number)]))
        if due or number:
            self.save(state())
        if number:
            raise interruption.Interrupted(number)


def rolling_back(train: Callable, checkpoints: Checkpoints):
    """Train; where a loss isn't finite go back to the last checkpoint and on with half the learning rate.

    Parameters
    ----------
    train : callable
        Takes a state (None: from the start) and how often the learning rate is halved, which it keeps in its
        states as ``"halvings"``; raises :class:`NotFinite`.
    checkpoints : Checkpoints

    Returns
    -------
    object
        What ``train`` returns.

    Raises
    ------
    UserError
        After three times.
    """
    state, halvings = checkpoints.load(), 0
    while True:
        halvings = max(halvings, 0 if state is None else state["halvings"])
        try:
            return train(state, halvings)
        except NotFinite as error:
            if halvings == ROLLBACKS:
                raise UserError(
                    f"{error}, also with an eighth of the learning rate: lower the learning rate, or look at "
                    "the data of that batch."
                ) from error
            halvings += 1
            state = checkpoints.load()
            where = "the start" if state is None else "the last checkpoint"
            getLogger().warning(f"{error}: back to {where} with {0.5**halvings:g} of the learning rate.")


def differences(old: dict, new: dict, limit: int = 6) -> str:
    """How two keys differ: ``llm_epochs was 2 and is 3, texts changed``."""
    missing = object()
    names = [name for name in {**old, **new} if old.get(name, missing) != new.get(name, missing)]
    parts = []
    for name in names[:limit]:
        values = [json.dumps(part.get(name), ensure_ascii=False) for part in (old, new)]
        short = max(map(len, values)) <= 40 and not re.fullmatch(r'"[0-9a-f]{16}"', values[0])
        parts.append(f"{name} was {values[0]} and is {values[1]}" if short else f"{name} changed")
    return ", ".join(parts + (["..."] if len(names) > limit else []))


def pack(value) -> dict[str, torch.Tensor]:
    """Nested values as tensors by name: their structure is the bytes of JSON in one of them."""
    tensors: dict[str, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> str:
        name = str(len(tensors))
        tensors[name] = tensor
        return name

    def encode(value):
        if isinstance(value, torch.Tensor):
            return {"tensor": keep(value.detach().to("cpu", copy=True).contiguous())}
        if isinstance(value, np.ndarray):
            # As bytes: older versions of torch lack some of numpy's types.
            data = torch.from_numpy(value.copy(order="C").reshape(-1).view(np.uint8))
            return {"array": keep(data), "dtype": value.dtype.str, "shape": list(value.shape)}
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, dict):
            return {"dict": [[encode(key), encode(inner)] for key, inner in value.items()]}
        if isinstance(value, tuple):
            return {"tuple": [encode(inner) for inner in value]}
        if isinstance(value, list):
            return [encode(inner) for inner in value]
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        raise TypeError(f"a checkpoint can't hold a {type(value).__name__}")

    text = json.dumps(encode(value)).encode()
    tensors["structure"] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    return tensors


def unpack(tensors: dict[str, torch.Tensor]):
    """What :func:`pack` was given."""

    def decode(value):
        if isinstance(value, list):
            return [decode(inner) for inner in value]
        if not isinstance(value, dict):
            return value
        if "tensor" in value:
            return tensors[value["tensor"]]
        if "array" in value:
            return tensors[value["array"]].numpy().view(value["dtype"]).reshape(value["shape"])
        if "tuple" in value:
            return tuple(decode(inner) for inner in value["tuple"])
        return {decode(key): decode(inner) for key, inner in value["dict"]}

    return decode(json.loads(tensors["structure"].numpy().tobytes()))
