"""RecBole's atomic files as frames: every line is checked, none is parsed one by one.

RecBole reads them through a CSV parser with quoting, which merges lines at a field that starts with a
quotation mark, and takes an id such as ``NA`` for a missing one. Here a field is what stands between two
separators, whatever it holds. What can't be read is one sentence with the file and the line.
"""

import codecs
import csv
import io
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from recbole.utils import FeatureType

from recbole_ganprompt.checks import listed, shown
from recbole_ganprompt.errors import UserError

TYPES = tuple(kind.value for kind in FeatureType)
MISSING = ("", "nan", "NaN", "NAN", "-nan", "-NaN", "NA", "N/A", "n/a", "<NA>", "null", "NULL", "None")
"""What stands for no number in a column of numbers."""


class AtomicFile:
    """One atomic file, whose header and lines are sound.

    Parameters
    ----------
    path : path
    separator : str
        Between the fields, one ASCII character.
    encoding : str, optional
        UTF-8 if None. A byte order mark and the line ends of any system are understood.
    mend : bool
        Replace bytes that are no text and count their lines, instead of refusing the file. For
        texts, where a wrong character is no harm; in an id it would make one of two.

    Attributes
    ----------
    types : dict of str to FeatureType
        The columns.
    counts : Counter
        ``blank_lines`` and ``mended_lines``, where there are any.

    Raises
    ------
    UserError
        If the file can't be read, has no rows, a wrong header, a line of another number of fields
        than the header, or bytes that are no text.
    """

    def __init__(self, path, separator: str = "\t", encoding: str | None = None, mend: bool = False):
        self.path, self.separator, self.counts = Path(path), separator, Counter()
        data = self._text(encoding, mend)
        if not data.strip():
            raise UserError(f"{self.path} is empty: put the dataset's file there again.")
        header, _, self._body = data.partition(b"\n")
        self.types = self._columns(header.decode())
        self._lines: np.ndarray | None = None  # of each row, where blank lines were left out
        self._check_lines()
        if not self._body:
            raise UserError(f"{self.path} has a header but no rows: put the dataset's file there again.")

    def frame(self, names, as_text: bool = False) -> pd.DataFrame:
        """Some columns, in the file's order.

        Parameters
        ----------
        names : collection of str
        as_text : bool
            Give every field as it is written.

        Returns
        -------
        pandas.DataFrame [rows]
            ``float`` columns as float64, NaN where one of `MISSING` stands; ``token`` columns as text, NaN
            where a field is empty; sequences as text.

        Raises
        ------
        UserError
            If a number is none, or not finite.
        """
        kinds = {} if as_text else {name: self.types[name] for name in names}
        numbers = [name for name, kind in kinds.items() if kind == FeatureType.FLOAT]
        missing = {name: [""] for name, kind in kinds.items() if kind == FeatureType.TOKEN}
        missing.update((name, list(MISSING)) for name in numbers)
        try:
            frame = self._parsed(names, numbers, missing)
        except ValueError as error:
            self._refuse_number(numbers)
            raise UserError(f"{self.path} can't be parsed ({error}): write it again.") from error
        if any(np.isinf(frame[name]).any() for name in numbers):
            self._refuse_number(numbers)
        return frame

    def refused(self, row: int, problem: str) -> UserError:
        """The error for one row of a frame, with the file and the line."""
        line = row + 2 if self._lines is None else self._lines[row]
        return UserError(f"{self.path}, line {line}: {problem}: mend the line, or delete it.")

    def _text(self, encoding: str | None, mend: bool) -> bytes:
        """The whole file as UTF-8 with ``\\n`` between its lines and no zero bytes."""
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise UserError(f"{self.path} can't be read ({error.strerror or error}).") from error
        if encoding:
            try:
                data = data.decode(str(encoding)).encode()
            except (LookupError, ValueError) as error:
                # A file that is nearly UTF-8 is looked at by the line below.
                if str(encoding).lower().replace("_", "-") not in ("utf-8", "utf8"):
                    raise UserError(
                        f"{self.path} is not {listed([encoding])} text: set encoding to the one it has."
                    ) from error
        data = data.removeprefix(codecs.BOM_UTF8)
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n").removesuffix(b"\r")
            data = data.replace(b"\r", b" " if b"\n" in data else b"\n")
        return data if b"\0" not in data and _is_utf8(data) else self._mended(data, mend)

    def _mended(self, data: bytes, mend: bool) -> bytes:
        lines = data.split(b"\n")
        for number, line in enumerate(lines, start=1):
            if b"\0" not in line and _is_utf8(line):
                continue
            if not mend:
                what = "a zero byte" if b"\0" in line else "bytes that are not UTF-8"
                raise UserError(
                    f"{self.path}, line {number}: {what}: set encoding to the file's (such as latin-1 or "
                    "utf-16), or put it there again if it is damaged."
                )
            lines[number - 1] = line.replace(b"\0", b" ").decode(errors="replace").encode()
            self.counts["mended_lines"] += 1
        return b"\n".join(lines)

    def _columns(self, header: str) -> dict[str, FeatureType]:
        types = _typed(header, self.separator)
        if types is not None:
            return types
        other = next((mark for mark in "\t,;| " if mark in header and _typed(header, mark)), None)
        if other:
            raise UserError(
                f"{self.path}, line 1: columns are separated by {other!r} and not by {self.separator!r}: "
                "set field_separator."
            )
        raise UserError(
            f"{self.path}, line 1: the header must name each column once, with its type, such as "
            f"user_id:token or timestamp:float ({', '.join(TYPES)} are known), not {shown(header)}."
        )

    def _check_lines(self) -> None:
        """Refuse lines of too few or too many fields and leave blank ones out."""
        body, width = self._body, len(self.types)
        view = np.frombuffer(body, dtype=np.uint8)
        ends = np.flatnonzero(view == ord("\n"))
        if body and not body.endswith(b"\n"):
            ends = np.append(ends, len(body))
        starts = np.concatenate([[0], ends[:-1] + 1])[: len(ends)]
        marks = np.flatnonzero(view == ord(self.separator))
        fields = np.diff(np.searchsorted(marks, ends), prepend=0) + 1
        blank = np.zeros(len(ends), dtype=bool)
        for row in np.flatnonzero((fields != width) | (starts == ends)):
            if body[starts[row] : ends[row]].strip():
                count = "1 field" if fields[row] == 1 else f"{fields[row]} fields"
                raise self.refused(row, f"{count} where the header names {width}")
            blank[row] = True
        if blank.any():
            self.counts["blank_lines"] = int(blank.sum())
            self._lines = np.flatnonzero(~blank) + 2
            lines = body.split(b"\n")
            self._body = b"\n".join(lines[row] for row in self._lines - 2)

    def _parsed(self, names, numbers, missing) -> pd.DataFrame:
        return pd.read_csv(
            io.BytesIO(self._body),
            sep=self.separator,
            header=None,
            names=list(self.types),
            usecols=list(names),
            index_col=False,
            dtype={name: np.float64 if name in numbers else str for name in names},
            na_values=missing,
            keep_default_na=False,
            quoting=csv.QUOTE_NONE,
            skip_blank_lines=False,
            float_precision="round_trip",
            low_memory=False,
            encoding="utf-8",
        )

    def _refuse_number(self, names) -> None:
        for name in names:
            for row, text in enumerate(self._parsed([name], [], {})[name]):
                if text not in MISSING and not _is_number(text):
                    raise self.refused(row, f"{listed([name])} is {shown(text)}, which is no number")


def _typed(header: str, separator: str) -> dict[str, FeatureType] | None:
    types = {}
    for column in header.split(separator):
        name, _, kind = column.partition(":")
        if not name or kind not in TYPES or name in types:
            return None
        types[name] = FeatureType(kind)
    return types


def _is_utf8(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_number(text: str) -> bool:
    try:
        return text.isascii() and "_" not in text and math.isfinite(float(text))
    except ValueError:
        return False
