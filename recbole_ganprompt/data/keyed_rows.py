"""Rows with keys that are too many for memory: find equal keys, copy the rows that stay.

Rows go to a temporary file at once. Of each key only a 128-bit BLAKE2b digest is kept (among
10^9 different keys, two share one with probability 10^-21), 32 bytes with the row's number, and
every ``keys_in_memory`` of them go to 256 temporary files, split by the digest's first byte, so that
equal keys meet in one of them. Each of those is then sorted alone.

Memory for n rows: about 100 bytes for each of ``keys_in_memory`` keys, then about 110 bytes for each of the
n / 256 keys of one part while it is sorted, and the caller's selection of a byte a row. By that 100 million
rows take 0.15 GB beside the 0.1 GB of the default ``keys_in_memory``; 20 million took 0.1 GB in all when
they were measured.
"""

import hashlib
from array import array
from collections.abc import Iterator
from itertools import compress, islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

KEYS_IN_MEMORY = 1 << 20
PARTS = 256
BLOCK = 1 << 16  # rows copied at a time

KEY = np.dtype([("high", "<u8"), ("low", "<u8"), ("row", "<u8"), ("value", "<f8")])


class KeyedRows:
    """Rows of text in a temporary file, each with a key and a number.

    Parameters
    ----------
    folder : Path
        An empty folder for the temporary files; the caller removes it.
    keys_in_memory : int
        So many keys are held before they go to disk.

    Attributes
    ----------
    count : int
        Rows so far.
    """

    def __init__(self, folder: Path, keys_in_memory: int = KEYS_IN_MEMORY):
        self.count = 0
        self._folder = folder
        self._keys_in_memory = keys_in_memory
        self._spilled = False
        self._file = (folder / "rows").open("wb", buffering=1 << 20)
        self._clear()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def add(self, key: str, row: str, value: float = 0.0) -> None:
        """Append one row, without its line break, and its key; ``value`` comes back in `groups`."""
        self._file.write(row.encode() + b"\n")
        self._digests += hashlib.blake2b(key.encode(), digest_size=16).digest()
        self._values.append(value)
        self.count += 1
        if len(self._values) >= self._keys_in_memory:
            self._spill()

    def groups(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the keys in parts; equal ones stand side by side, in the order they came.

        Yields
        ------
        keys : structured array `KEY` [n]
            ``row`` counts from 0, ``value`` is what `add` got.
        starts : int64 [groups]
            Where each group of equal keys begins.
        """
        if not self._spilled:
            yield _grouped(self._held())
            return
        self._spill()
        for part in range(PARTS):
            path = self._part(part)
            if path.is_file():
                yield _grouped(np.fromfile(path, dtype=KEY))

    def copy(self, keep: np.ndarray, path: Path, header: str) -> None:
        """Write a file of the rows that are to stay, in their order, under a header.

        Parameters
        ----------
        keep : bool [count]
        path : Path
        header : str
            First line, without its line break.
        """
        self._file.flush()
        with (
            (self._folder / "rows").open("rb", buffering=1 << 20) as source,
            path.open("wb", buffering=1 << 20) as target,
            tqdm(total=self.count, unit=" rows", unit_scale=True, desc=path.name) as bar,
        ):
            target.write(header.encode() + b"\n")
            for start in range(0, self.count, BLOCK):
                part = keep[start : start + BLOCK]
                target.writelines(compress(islice(source, len(part)), part.tolist()))
                bar.update(len(part))

    def _clear(self) -> None:
        self._digests = bytearray()
        self._values = array("d")

    def _held(self) -> np.ndarray:
        """The keys in memory, as an array."""
        digests = np.frombuffer(self._digests, dtype="<u8").reshape(-1, 2)
        keys = np.empty(len(digests), dtype=KEY)
        keys["high"], keys["low"] = digests[:, 0], digests[:, 1]
        keys["row"] = np.arange(self.count - len(keys), self.count)
        keys["value"] = self._values
        return keys

    def _part(self, number: int) -> Path:
        return self._folder / f"keys-{number}"

    def _spill(self) -> None:
        """Append the keys in memory to the parts they belong to."""
        keys = self._held()
        self._clear()
        part = keys["high"] >> np.uint64(56)
        order = np.argsort(part, kind="stable")
        edges = np.searchsorted(part[order], np.arange(PARTS + 1))
        keys = keys[order]
        for number in range(PARTS):
            if edges[number] < edges[number + 1]:
                with self._part(number).open("ab") as file:
                    keys[edges[number] : edges[number + 1]].tofile(file)
        self._spilled = True


def _grouped(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # lexsort is stable: equal keys keep the order of their rows.
    keys = keys[np.lexsort((keys["low"], keys["high"]))]
    new = np.ones(len(keys), dtype=bool)
    new[1:] = (keys["high"][1:] != keys["high"][:-1]) | (keys["low"][1:] != keys["low"][:-1])
    return keys, np.flatnonzero(new)
