"""The text of every item, from ``<dataset>.item``.

A title is whatever a stranger wrote. Here it becomes one line of printable text of a bounded length;
that it stays plain text in a prompt is the rendering's part.
"""

import contextlib
import html
import re
import unicodedata
from collections import Counter

from recbole_ganprompt.checks import listed
from recbole_ganprompt.data.atomic_files import AtomicFile
from recbole_ganprompt.data.raw_records import TEXT_LIMIT
from recbole_ganprompt.errors import UserError

UNTITLED = "untitled item"
_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn"}


def read_titles(
    file: AtomicFile, id_field: str, template: str, ids: dict[str, int]
) -> tuple[list[str], Counter]:
    """Fill ``item_text`` for the items of a dataset.

    Parameters
    ----------
    file : AtomicFile
    id_field : str
        The column of the items' ids.
    template : str
        Text with columns in braces.
    ids : dict of str to int
        Internal ids; 0 is the padding item's.

    Returns
    -------
    titles : list of str [items]
        Of several lines of one item the first with a text counts. The padding item's is empty; an
        item without text is called "untitled item".
    counts : Counter
        What was mended or is missing.

    Raises
    ------
    UserError
        If a column isn't there, or the file has none of the items.
    """
    fields = re.findall(r"\{(\w+)\}", template)
    missing = [field for field in [id_field, *fields] if field not in file.types]
    if missing or not fields:
        raise UserError(
            f"{file.path.name} has no column {', '.join(missing) or 'named in item_text'} "
            f"(found: {listed(file.types)}); set item_text, such as "
            "--item_text='{title}', to the columns that hold the items' text."
        )
    table = file.frame({id_field, *fields}, as_text=True)
    table = table[table[id_field].isin([token for token, item in ids.items() if item])]
    if table.empty:
        raise UserError(
            f"{file.path} has none of the interactions' items: put the .inter and .item file of one "
            "dataset there."
        )
    counts = Counter(file.counts)
    counts["repeated_items"] = int(table[id_field].duplicated().sum())
    last = max(ids.values())
    counts["unlisted_items"] = last - table[id_field].nunique()
    titles = [""] * (last + 1)
    for row in table.to_dict("records"):
        item = ids[row[id_field]]
        if titles[item]:
            continue
        counts["cut_texts"] += any(len(row[field]) > TEXT_LIMIT for field in fields)
        text = re.sub(r"\{(\w+)\}", lambda match, row=row: row[match.group(1)][:TEXT_LIMIT], template)
        text = text.replace("()", "")  # an empty year leaves empty brackets behind
        titles[item], invisible = _printable(text)
        counts["invisible_texts"] += invisible
    counts["untitled_items"] = sum(not title for title in titles[1:])
    return ["", *(title or UNTITLED for title in titles[1:])], +counts


def _printable(text: str) -> tuple[str, bool]:
    """One line of printable text, and whether it lost invisible characters.

    HTML entities are resolved; control characters, those without width, those that turn the
    direction of reading, and runs of blanks become one blank.
    """
    with contextlib.suppress(ValueError):  # an entity of thousands of digits is no character
        text = html.unescape(text)
    invisible = False
    if not text.isprintable():
        invisible = any(unicodedata.category(char) in _INVISIBLE for char in text)
        text = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(text.split()), invisible
