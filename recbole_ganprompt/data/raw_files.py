"""Files to records: JSON or Python literals by the line, CSV and Parquet, compressed or not.

Files are streamed, so memory does not grow with them. Every line is counted in a :class:`Tally`, whether
it becomes a record or not.
"""

import ast
import csv
import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from tqdm import tqdm

from recbole_ganprompt.checks import listed
from recbole_ganprompt.errors import UserError

LINE_LIMIT = 16 << 20  # bytes; a longer line is no record, and reading it whole could fill the memory
LITERAL_LIMIT = 200_000  # values of a Python literal, each of which takes up to 1.5 kB while it is parsed
TRIAL_LINES = 1000  # a file whose first so many lines are all broken is of another kind
BROKEN = "broken line"
TOO_LONG = f"line longer than {LINE_LIMIT >> 20} MiB"
BLANK = "blank line"
REPLACED = "with bytes that are not UTF-8, which became �"


class Dropped(Exception):
    """Why a line or record cannot be used, in a few words for the summary."""


class Tally:
    """What became of the lines of one file.

    Attributes
    ----------
    read : int
    joined : int
        Lines that go on with the row of the line before, by a line break in quotes.
    dropped : Counter
        Lines by reason; all others are kept.
    notes : Counter
        What was mended or left out in lines that are not dropped for it.
    """

    def __init__(self):
        self.read = 0
        self.joined = 0
        self.dropped = Counter()
        self.notes = Counter()

    @property
    def kept(self) -> int:
        return self.read - self.joined - self.dropped.total()

    def reasons(self) -> str:
        """Why lines were dropped, for a message."""
        return ", ".join(f"{count} {reason}" for reason, count in self.dropped.most_common())

    def drop(self, reason: str, lines: int = 1) -> None:
        """Count lines that never became a record."""
        self.read += lines
        self.dropped[reason] += lines


def open_records(
    path: Path, tally: Tally, columns: dict[str, str] | None = None, separator: str = ","
) -> Iterator[dict]:
    """Stream the records of a file, with a progress bar; what kind it is, its content tells.

    Parameters
    ----------
    path : Path
        JSON lines, or CSV or Parquet where ``columns`` are given; gzip is recognised.
    tally : Tally
        Counts as the records are taken.
    columns : dict, optional
        Our names to the file's. Where all of the latter are numbers, a CSV file has no header
        and they count its columns from 1.
    separator : str
        Between the columns of a CSV file.

    Returns
    -------
    iterator of dict

    Raises
    ------
    UserError
        If the file is missing, empty, damaged or of another kind, here or while it is read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except FileNotFoundError as error:
        raise UserError(f"There is no file {path}: check its path.") from error
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror or error}): name a file that can.") from error
    if not start:
        raise UserError(f"{path} is empty: download it again.")
    if start == b"PAR1":
        return _parquet_records(path, tally, columns)
    if path.suffix == ".gz" and not start.startswith(b"\x1f\x8b"):
        raise UserError(
            f"{path} is not gzip though its name ends in .gz: download it again, or rename it if "
            "it is plain text."
        )
    lines = _lines(path, tally)
    return (
        _json_records(path, lines, tally) if columns is None else _csv(path, lines, tally, columns, separator)
    )


def parse_record(line: str) -> dict:
    """Read one line: JSON, or a Python literal as in the 2014 release. Nothing is evaluated.

    Raises
    ------
    Dropped
        If it is neither, or not a dictionary.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = _literal(line)
    if not isinstance(record, dict):
        raise Dropped(BROKEN)
    return record


def _literal(line: str):
    # Anything else would be broken JSON, for which building a syntax tree is wasted time.
    if not line.lstrip().startswith(("{'", "{u'")):
        raise Dropped(BROKEN)
    if sum(map(line.count, ",[{(")) > LITERAL_LIMIT:
        raise Dropped("line of too many values")
    try:
        return ast.literal_eval(line.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise Dropped(BROKEN) from error


def _lines(path: Path, tally: Tally) -> Iterator[str]:
    """Lines of a text file with their line breaks; the bar counts bytes of the file as it lies there."""
    size = path.stat().st_size
    try:
        with (
            path.open("rb") as raw,
            _text_bytes(raw) as stream,
            tqdm(total=size, unit="B", unit_scale=True, desc=path.name) as bar,
        ):
            number = 0
            while line := stream.readline(LINE_LIMIT):
                number += 1
                if number % 1000 == 0:
                    bar.update(raw.tell() - bar.n)
                if len(line) == LINE_LIMIT and not line.endswith(b"\n"):
                    while line and not line.endswith(b"\n"):
                        line = stream.readline(LINE_LIMIT)
                    tally.drop(TOO_LONG)
                    continue
                yield _decoded(line, tally) if number > 1 else _decoded(line, tally).removeprefix("\ufeff")
            bar.update(size - bar.n)
    except EOFError as error:
        raise UserError(f"{path} is truncated, its gzip stream ends too early: download it again.") from error
    except (zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is damaged ({error}): download it again.") from error
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror or error}): name a file that can.") from error


def _text_bytes(raw):
    compressed = raw.peek(2).startswith(b"\x1f\x8b")
    return io.BufferedReader(gzip.GzipFile(fileobj=raw) if compressed else raw, 1 << 20)


def _decoded(line: bytes, tally: Tally) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        tally.notes[REPLACED] += 1
        return line.decode(errors="replace")


def _json_records(path: Path, lines: Iterator[str], tally: Tally) -> Iterator[dict]:
    found = False
    with closing(lines):  # ends the progress bar before a message is printed
        for line in lines:
            try:
                if not line.strip():
                    raise Dropped(BLANK)
                record = parse_record(line)
            except Dropped as reason:
                tally.drop(str(reason))
                if not found and tally.read >= TRIAL_LINES:
                    break
                continue
            found = True
            tally.read += 1
            yield record
    if not found:
        raise UserError(
            f"{path} is not one of Amazon's files, {tally.read} lines hold no record ({tally.reasons()}): "
            "if it is CSV or Parquet, name its columns with --columns or --meta-columns."
        )


def _csv(
    path: Path, lines: Iterator[str], tally: Tally, columns: dict[str, str], separator: str
) -> Iterator[dict]:
    old_limit = csv.field_size_limit(LINE_LIMIT)
    try:
        reader = csv.reader(lines, delimiter=separator)
        places = None
        for row, count in _csv_rows(reader, tally):
            if places is None:
                width = len(row)
                numbered = all(name.isascii() and name.isdigit() for name in columns.values())
                header = [str(number + 1) for number in range(width)] if numbered else row
                places = _places(path, columns, header)
                if not numbered:
                    continue
            if len(row) != width:
                tally.drop(BROKEN, count)
                continue
            tally.read += count
            tally.joined += count - 1
            yield {name: row[place] for name, place in places.items()}
    finally:
        csv.field_size_limit(old_limit)
        lines.close()  # ends the progress bar before a message is printed


def _csv_rows(reader, tally: Tally) -> Iterator[tuple[list[str], int]]:
    """Rows, and how many lines each took: more than one where a quoted field has line breaks."""
    while True:
        before = reader.line_num
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error:
            tally.drop(BROKEN, reader.line_num - before)
            continue
        if row:
            yield row, reader.line_num - before
        else:
            tally.drop(BLANK)


def _places(path: Path, columns: dict[str, str], header: list[str]) -> dict[str, int]:
    missing = [name for name in columns.values() if name not in header]
    if missing:
        raise UserError(
            f"{path} has no column {', '.join(missing)} (found: {listed(header)}): name those it "
            "has, and --separator if they are not apart."
        )
    return {ours: header.index(theirs) for ours, theirs in columns.items()}


def _parquet_records(path: Path, tally: Tally, columns: dict[str, str] | None) -> Iterator[dict]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(f"Reading {path} needs pyarrow: pip install pyarrow.") from error
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if columns is None:
                raise UserError(
                    f"{path} is a Parquet file: name its columns with --columns or --meta-columns "
                    f"(it has {listed(names)})."
                )
            _places(path, columns, names)
            wanted = list(dict.fromkeys(columns.values()))
            rows = file.metadata.num_rows
            with tqdm(total=rows, unit=" rows", unit_scale=True, desc=path.name) as bar:
                for batch in file.iter_batches(batch_size=10_000, columns=wanted, use_threads=False):
                    for row in batch.to_pylist():
                        tally.read += 1
                        yield {ours: row[theirs] for ours, theirs in columns.items()}
                    bar.update(batch.num_rows)
    except UserError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise UserError(f"{path} is damaged ({error}): download it again.") from error
