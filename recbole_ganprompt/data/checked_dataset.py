"""RecBole's sequential dataset over files that a stranger may have written.

What RecBole reads through a CSV parser with quoting is read by
:mod:`recbole_ganprompt.data.atomic_files`, which names the line that can't be read. Rows that no model can
use are left out and counted.
"""

from collections import Counter

import numpy as np
from recbole.data.dataset import SequentialDataset
from recbole.utils import FeatureSource, FeatureType

from recbole_ganprompt.checks import listed, shown
from recbole_ganprompt.data.atomic_files import AtomicFile
from recbole_ganprompt.data.item_text import UNTITLED
from recbole_ganprompt.data.raw_records import TEXT_LIMIT, TOKEN_LIMIT
from recbole_ganprompt.errors import UserError

COUNTED = {
    "blank_lines": "blank lines left out",
    "mended_lines": "lines of .item with bytes that are no text, replaced",
    "interactions_without_ids": "interactions without a user or an item left out",
    "interactions_without_time": "interactions without a time left out",
    "interactions_without_rating": "interactions without a rating left out",
    "repeated_interactions": "interactions of the same user, item and time as an earlier one left out",
    "repeated_items": "lines of .item for an item that has one already",
    "unlisted_items": "items without a line in .item",
    "untitled_items": f"items without text, called '{UNTITLED}'",
    "cut_texts": f"texts cut to {TEXT_LIMIT:,} characters",
    "invisible_texts": "texts without their control and invisible characters",
}
"""What reading counts, by name, in the words of the log."""


class CheckedDataset(SequentialDataset):
    """A sequential dataset whose files are checked.

    Attributes
    ----------
    counted : Counter
        What was left out or mended, by the names of `COUNTED`.

    Raises
    ------
    UserError
        If a column is missing or of the wrong type, or a line can't be read.
    """

    def __init__(self, config):
        self.counted = Counter()
        super().__init__(config)

    def _load_feat(self, filepath, source):
        load_col, unload_col = self._get_load_and_unload_col(source)
        if load_col == set():
            return None
        separator, encoding = self.config["field_separator"], self.config["encoding"]
        file = AtomicFile(filepath, separator, encoding, mend=source == FeatureSource.ITEM)
        types = {
            name: kind
            for name, kind in file.types.items()
            if (load_col is None or name in load_col) and name not in (unload_col or ())
        }
        self._check_columns(file, types, source)
        if not types:
            return None
        for name, kind in types.items() if source != "link" else ():
            self.field2source[name], self.field2type[name] = source, kind
            if not kind.value.endswith("seq"):
                self.field2seqlen[name] = 1
            if "float" in kind.value:
                self.field2bucketnum[name] = 2
        frame = file.frame(types)
        for name, kind in types.items():
            if kind.value.endswith("seq"):
                frame[name] = self._split(file, name, frame[name], kind)
            elif kind == FeatureType.TOKEN:
                frame[name] = self._short(file, name, frame[name])
        if source == FeatureSource.INTERACTION:
            return self._usable(file, frame)
        if source in (FeatureSource.USER, FeatureSource.ITEM):
            owner = self.uid_field if source == FeatureSource.USER else self.iid_field
            return frame.dropna(subset=[owner]).reset_index(drop=True)
        return frame

    def _check_columns(self, file: AtomicFile, types, source) -> None:
        user, item = {self.uid_field: "token"}, {self.iid_field: "token"}
        needed = {FeatureSource.USER: user, FeatureSource.ITEM: item}.get(source, {})
        if source == FeatureSource.INTERACTION:
            needed = {**user, **item, self.time_field: "float"}
            if len(needed) < 3:
                raise UserError("USER_ID_FIELD, ITEM_ID_FIELD and TIME_FIELD must be three columns.")
            if self.config["rating_threshold"] is not None and self.config["RATING_FIELD"] in types:
                needed[self.config["RATING_FIELD"]] = "float"
        for name, kind in needed.items():
            if name not in types:
                raise UserError(
                    f"{file.path.name} has no column {shown(name)} (found: {listed(types)}): set "
                    "USER_ID_FIELD, ITEM_ID_FIELD, TIME_FIELD and load_col to those it has."
                )
            if types[name].value != kind:
                there = f"{listed([name])} must be of the type {kind}, not {types[name].value}"
                raise UserError(f"{file.path}, line 1: {there}.")

    def _split(self, file: AtomicFile, name: str, texts, kind: FeatureType) -> list[np.ndarray]:
        """The values of a column of sequences; the longest one's length becomes the field's."""
        limit = (self.config["seq_len"] or {}).get(name)
        rows = []
        for text in texts:
            values = list(filter(None, text[:TEXT_LIMIT].split(self.config["seq_separator"])))[:limit]
            try:
                rows.append(np.array(list(map(float, values)) if kind == FeatureType.FLOAT_SEQ else values))
            except ValueError:
                raise file.refused(
                    len(rows), f"{listed([name])} is {shown(text)}, which are no numbers"
                ) from None
        self.field2seqlen[name] = max(map(len, rows))
        return rows

    def _short(self, file: AtomicFile, name: str, tokens):
        lengths = tokens.str.len()
        if not lengths.max() > TOKEN_LIMIT:
            return tokens
        if name in (self.uid_field, self.iid_field):
            there = f"{name} has {int(lengths.max()):,} characters, more than {TOKEN_LIMIT:,}"
            raise file.refused(int(np.nanargmax(lengths)), there)
        return tokens.str[:TOKEN_LIMIT]

    def _usable(self, file: AtomicFile, frame):
        """Interactions with a user, an item and a time, each once."""
        named = frame[self.uid_field].notna() & frame[self.iid_field].notna()
        timed = frame[self.time_field].notna()
        usable = frame[named & timed]
        repeated = usable.duplicated([self.uid_field, self.iid_field, self.time_field])
        self.counted.update(file.counts)
        self.counted.update(
            interactions_without_ids=int((~named).sum()),
            interactions_without_time=int((named & ~timed).sum()),
            repeated_interactions=int(repeated.sum()),
        )
        if usable.empty:
            raise UserError(f"{file.path} has no interaction with a user, an item and a time: fill them in.")
        return usable[~repeated].reset_index(drop=True)

    def _parse_intervals_str(self, intervals_str):
        try:
            intervals = super()._parse_intervals_str(intervals_str)
        except (ValueError, IndexError):
            intervals = []
        if intervals_str is not None and not (intervals and all(one[1] <= one[2] for one in intervals)):
            raise UserError(f"{shown(str(intervals_str))} is no interval: write one such as [5,inf).")
        return intervals
