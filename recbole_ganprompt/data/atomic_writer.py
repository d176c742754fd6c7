"""Raw files of interactions and items to a dataset's two atomic files, in memory that hardly grows.

Interactions stand in the order of their file; of several with one user, item and second the first stays.
Items stand in the order of the metadata, as far as an interaction mentions them, then those without
metadata in the order of their first interaction.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from recbole_ganprompt.checks import listed
from recbole_ganprompt.data.keyed_rows import KEYS_IN_MEMORY, KeyedRows
from recbole_ganprompt.data.raw_files import Dropped, Tally, open_records
from recbole_ganprompt.data.raw_records import (
    ITEMS,
    REVIEWS,
    TABLE_ITEMS,
    TABLE_REVIEWS,
    TEXT_LIMIT,
    ItemKeys,
    ReviewKeys,
    interaction,
    item,
    recognise,
)
from recbole_ganprompt.errors import UserError

TYPES = {
    "user_id": "token",
    "item_id": "token",
    "rating": "float",
    "timestamp": "float",
    "title": "token_seq",
    "categories": "token_seq",
    "brand": "token",
}
INTER_COLUMNS = ("user_id", "item_id", "rating", "timestamp")
ITEM_COLUMNS = ("item_id", "title", "categories", "brand")

DUPLICATE = "same user, item and second as an earlier line"
REPEATED_ITEM = "same item as an earlier line"
NOT_REVIEWED = "item that no kept review mentions"
ABSENT = "added without a title: reviewed, but not in the metadata"
UNTITLED = "kept with an empty title"
PAGE_CODE = "kept without its title, which was the code of a page"
CUT = f"with a text cut to {TEXT_LIMIT:,} characters"
OTHER_RATING = "duplicates with another rating than the line kept"

# Each item's key carries the place of its note here; 0 is an item with a title.
_ITEM_NOTES = ("", UNTITLED, PAGE_CODE, ABSENT)
# Reviewed items remembered, so that few of them are written to the temporary file more than once.
_RECENT_ITEMS = 1 << 18


@dataclass
class Source:
    """A raw file and, when it has been read, what was found in it.

    Attributes
    ----------
    path : Path
    columns : dict or None
        Of a CSV or Parquet file: our names of columns to the file's.
    separator : str
        Of a CSV file.
    kind : str
        Which release it is.
    tally : Tally
        What became of its lines.
    """

    path: Path
    columns: dict[str, str] | None = None
    separator: str = ","
    kind: str = ""
    tally: Tally = field(default_factory=Tally)

    def names(self, all_names: tuple[str, ...]) -> list[str]:
        """The columns that come out of it."""
        return [name for name in all_names if self.columns is None or name in self.columns]


def write_atomic_files(
    reviews: Source, meta: Source, out: Path, overwrite: bool = False, keys_in_memory: int = KEYS_IN_MEMORY
) -> None:
    """Write ``<out>/<name>.inter`` and ``<name>.item``, both or neither; the sources' tallies say what of.

    Memory doesn't grow with the files but for what :mod:`recbole_ganprompt.data.keyed_rows` states. On the
    disk, beside ``out``, about three times the size of ``<name>.inter`` is needed for a while.

    Parameters
    ----------
    reviews, meta : Source
    out : Path
        The dataset's folder; its last component is the dataset's name.
    overwrite : bool
        Replace the two files where the folder has them; its others stay.
    keys_in_memory : int
        Keys held before they go to disk.

    Raises
    ------
    UserError
        If a file can't be used or nothing is left of it; ``out`` is as it was then.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: name the dataset's folder with --out.")
    try:
        if out.is_dir() and any(out.iterdir()) and not overwrite:
            raise UserError(f"{out} has files already: name another folder with --out, or add --overwrite.")
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
            folders = [Path(temporary, part) for part in ("interactions", "items", "out")]
            for folder in folders:
                folder.mkdir()
            with (
                KeyedRows(folders[0], keys_in_memory) as inter,
                KeyedRows(folders[1], keys_in_memory) as items,
            ):
                _read_items(meta, items)
                listed = items.count
                _read_reviews(reviews, inter, items, len(meta.names(ITEM_COLUMNS)))
                inter.copy(
                    _first_interactions(inter, reviews),
                    folders[2] / f"{out.name}.inter",
                    _header(reviews.names(INTER_COLUMNS)),
                )
                items.copy(
                    _reviewed_items(items, listed, meta, reviews),
                    folders[2] / f"{out.name}.item",
                    _header(meta.names(ITEM_COLUMNS)),
                )
            _place(folders[2], out)
    except OSError as error:
        raise UserError(
            f"{out} can't be written ({error.strerror or error}): make room there, or name another "
            "folder with --out."
        ) from error


def _read_items(meta: Source, rows: KeyedRows) -> None:
    columns = meta.names(ITEM_COLUMNS)
    with closing(open_records(meta.path, meta.tally, meta.columns, meta.separator)) as records:
        keys, records = _keys(meta, records, ITEMS, TABLE_ITEMS, "metadata")
        for record in records:
            try:
                found = item(record, keys)
            except Dropped as reason:
                meta.tally.dropped[str(reason)] += 1
                continue
            if found.cut:
                meta.tally.notes[CUT] += 1
            note = PAGE_CODE if found.page_code else UNTITLED if not found.title else ""
            row = "\t".join(getattr(found, column) for column in columns)
            rows.add(found.item_id, row, _ITEM_NOTES.index(note))


def _read_reviews(reviews: Source, rows: KeyedRows, items: KeyedRows, item_columns: int) -> None:
    """Fill ``rows`` with interactions and append the items they mention, bare, to ``items``."""
    columns = reviews.names(INTER_COLUMNS)
    recent = set()
    with closing(open_records(reviews.path, reviews.tally, reviews.columns, reviews.separator)) as records:
        keys, records = _keys(reviews, records, REVIEWS, TABLE_REVIEWS, "reviews")
        for record in records:
            try:
                found = interaction(record, keys, rated="rating" in columns)
            except Dropped as reason:
                reviews.tally.dropped[str(reason)] += 1
                continue
            row = "\t".join(str(getattr(found, column)) for column in columns)
            key = f"{found.user_id}\t{found.item_id}\t{found.timestamp}"
            rows.add(key, row, found.rating or 0.0)
            if found.item_id not in recent:
                if len(recent) == _RECENT_ITEMS:
                    recent.clear()
                recent.add(found.item_id)
                bare = found.item_id + "\t" * (item_columns - 1)
                items.add(found.item_id, bare, _ITEM_NOTES.index(ABSENT))
    if not rows.count:
        raise UserError(
            f"{reviews.path} has no usable interaction ({reviews.tally.reasons() or 'no line'}): check that "
            "it holds reviews, and its columns if you named them."
        )


def _keys(
    source: Source, records: Iterator[dict], known: tuple, table: ReviewKeys | ItemKeys, what: str
) -> tuple[ReviewKeys | ItemKeys, Iterator[dict]]:
    """Where the source's records keep what is needed, and the records."""
    keys = table
    if source.columns is None:
        keys, records, found = recognise(records, known)
        if keys is None:
            raise UserError(
                f"{source.path} holds no {what} of Amazon's releases of 2014, 2018 or 2023 (its first record "
                f"has {listed(found) or 'nothing'}): exchange --reviews and --meta if they are "
                "swapped, or name the columns of a CSV or Parquet file."
            )
    source.kind = keys.kind
    return keys, records


def _first_interactions(rows: KeyedRows, reviews: Source) -> np.ndarray:
    """Which rows are the first of their user, item and second (bool [rows])."""
    keep = np.zeros(rows.count, dtype=bool)
    other_rating = 0
    for keys, starts in rows.groups():
        keep[keys["row"][starts]] = True
        first = np.repeat(keys["value"][starts], np.diff(starts, append=len(keys)))
        other_rating += np.count_nonzero(keys["value"] != first)
    _count(reviews.tally.dropped, DUPLICATE, rows.count - np.count_nonzero(keep))
    _count(reviews.tally.notes, OTHER_RATING, other_rating)
    return keep


def _reviewed_items(rows: KeyedRows, listed: int, meta: Source, reviews: Source) -> np.ndarray:
    """Which rows are an item's first and of an item that was reviewed (bool [rows]).

    The first ``listed`` rows are the metadata's, all later ones the reviews'.
    """
    keep = np.zeros(rows.count, dtype=bool)
    notes = np.zeros(len(_ITEM_NOTES), dtype=np.int64)
    listed_items = kept_items = 0
    for keys, starts in rows.groups():
        first, last = keys["row"][starts], keys["row"][np.append(starts[1:], len(keys)) - 1]
        reviewed = last >= listed
        keep[first[reviewed]] = True
        notes += np.bincount(keys["value"][starts[reviewed]].astype(np.int64), minlength=len(notes))
        listed_items += np.count_nonzero(first < listed)
        kept_items += np.count_nonzero(reviewed & (first < listed))
    if not kept_items:
        raise UserError(
            f"{reviews.path} mentions no item of {meta.path}: take the two files of one category and release."
        )
    _count(meta.tally.dropped, REPEATED_ITEM, listed - listed_items)
    _count(meta.tally.dropped, NOT_REVIEWED, listed_items - kept_items)
    for note, count in zip(_ITEM_NOTES[1:], notes[1:]):
        _count(meta.tally.notes, note, count)
    return keep


def _count(counter, reason: str, lines) -> None:
    if lines:
        counter[reason] += int(lines)


def _header(names: list[str]) -> str:
    return "\t".join(f"{name}:{TYPES[name]}" for name in names)


def _place(folder: Path, out: Path) -> None:
    if not out.exists():
        folder.rename(out)
        return
    for path in sorted(folder.iterdir()):
        os.replace(path, out / path.name)
