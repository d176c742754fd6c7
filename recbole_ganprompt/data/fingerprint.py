"""One digest for everything that a cached result depends on."""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np


def fingerprint(*parts, length: int = 16) -> str:
    """Return a hexadecimal SHA-256 digest over nested plain values and arrays.

    Parameters
    ----------
    *parts : str, bytes, number, bool, None, numpy array, or list/tuple/dict of these
        The order counts, the order of a dict's keys does not.
    length : int
        Number of hexadecimal digits kept (at most 64).

    Raises
    ------
    TypeError
        For a value whose text form could differ between two runs (any other object).
    """
    digest = hashlib.sha256()
    for part in parts:
        _update(digest, part)
    return digest.hexdigest()[:length]


def file_digest(path) -> str:
    """SHA-256 of a file's content: 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _update(digest, value) -> None:
    # Each value is preceded by its type and size, so that ["ab"] and ["a", "b"] differ.
    if isinstance(value, np.ndarray):
        digest.update(f"array{value.dtype.str}{value.shape}:".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, bytes):
        digest.update(f"bytes{len(value)}:".encode() + value)
    elif isinstance(value, str):
        data = value.encode("utf-8", "surrogatepass")
        digest.update(f"str{len(data)}:".encode() + data)
    elif value is None or isinstance(value, (bool, int, float)):
        digest.update(f"{type(value).__name__}:{json.dumps(value)};".encode())
    elif isinstance(value, np.generic):
        _update(digest, value.item())
    elif isinstance(value, dict):
        digest.update(f"dict{len(value)}:".encode())
        for key in sorted(value, key=str):
            _update(digest, str(key))
            _update(digest, value[key])
    elif isinstance(value, (list, tuple)):
        digest.update(f"list{len(value)}:".encode())
        for item in value:
            _update(digest, item)
    else:
        raise TypeError(f"a {type(value).__name__} has no stable fingerprint")


def class_sources(*objects) -> list[Path]:
    """The package's files that hold the classes of these objects, with all that they inherit from."""
    names = {one.__module__ for each in objects for one in type(each).__mro__}
    package = __name__.partition(".")[0]
    return [Path(sys.modules[name].__file__) for name in sorted(names) if name.partition(".")[0] == package]
