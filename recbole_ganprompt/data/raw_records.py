"""Records to interactions and items: the keys of Amazon's three releases, and clean text.

==========  ============================  ============================  ==========================
            2014                          2018                          2023
==========  ============================  ============================  ==========================
user        reviewerID                    reviewerID                    user_id
item        asin                          asin                          parent_asin, else asin
rating      overall                       overall                       rating
time        unixReviewTime (seconds), else reviewTime ("09 13, 2009")   timestamp (milliseconds)
title       title                         title                         title
categories  categories (list of lists)    category (list)               categories (list)
brand       brand                         brand                         details' Brand, else store
==========  ============================  ============================  ==========================

CSV and Parquet columns come under the names of the atomic files.
"""

import html
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timezone
from itertools import chain
from typing import NamedTuple

from recbole_ganprompt.data.raw_files import Dropped

TEXT_LIMIT = 10_000  # characters of a text; RecBole's reader refuses fields of over 131,072
# Characters of an id. RecBole keeps a column's tokens in one array, each as wide as the longest.
TOKEN_LIMIT = 1000
MILLISECONDS_FROM = 1e11  # as seconds this is the year 5138, as milliseconds 1973
SAMPLE = 100  # records looked at to find out the release

NO_USER, NO_ITEM, NO_RATING, NO_TIME = "no user", "no item", "no rating", "no time"
LONG_ID = f"id longer than {TOKEN_LIMIT:,} characters"

# Product pages that were scraped whole: the title starts with the page's script.
_PAGE_CODE = re.compile(r"getTime|(?i:<script|<style)")
# Tags that stand inside words and sentences, whose removal must not part what they joined.
_INLINE_TAG = re.compile(r"</?(?:a|b|big|em|font|i|small|span|strong|sub|sup|u)(?:\s[^<>]*)?/?>", re.I)
_TAG = re.compile(r"<[/!]?[a-z][^<>]*>|<!--[^<>]*-->", re.I)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_DAY = re.compile(r"(\d{1,2}) (\d{1,2}), (\d{4})")


class Interaction(NamedTuple):
    """One review, in the names of the atomic file; ``rating`` is None where the file has none."""

    user_id: str
    item_id: str
    rating: float | None
    timestamp: int


class Item(NamedTuple):
    """One product, in the names of the atomic file.

    Attributes
    ----------
    item_id, title, categories, brand : str
        Empty where there is none.
    page_code : bool
        Its title was the code of a page and is left out.
    cut : bool
        Its title, categories or brand were longer than `TEXT_LIMIT`.
    """

    item_id: str
    title: str
    categories: str
    brand: str
    page_code: bool
    cut: bool


@dataclass(frozen=True)
class ReviewKeys:
    """Where a kind of file keeps an interaction; of several keys the first one filled counts."""

    kind: str
    user: str
    items: tuple[str, ...]
    rating: str
    times: tuple[str, ...]
    mark: str | None = None  # a key that other kinds lack

    def fits(self, record: dict) -> bool:
        named = self.mark is None or self.mark in record
        return named and self.user in record and any(key in record for key in self.items)


@dataclass(frozen=True)
class ItemKeys:
    """Where a kind of file keeps an item; titles and brands have the same keys in all of them."""

    kind: str
    item: str
    categories: tuple[str, ...] = ("categories",)
    mark: str | None = None

    def fits(self, record: dict) -> bool:
        named = self.mark is None or self.mark in record
        return named and self.item in record and not any(keys.fits(record) for keys in REVIEWS)


_OLD_TIMES = ("unixReviewTime", "reviewTime")
REVIEWS = (
    ReviewKeys("2023 release", "user_id", ("parent_asin", "asin"), "rating", ("timestamp", "sort_timestamp")),
    ReviewKeys("2018 release", "reviewerID", ("asin",), "overall", _OLD_TIMES, mark="verified"),
    ReviewKeys("2014 release", "reviewerID", ("asin",), "overall", _OLD_TIMES),
)
_OLD_CATEGORIES = ("category", "categories")
ITEMS = (
    ItemKeys("2023 release", "parent_asin"),
    ItemKeys("2018 release", "asin", _OLD_CATEGORIES, mark="category"),
    ItemKeys("2014 release", "asin", _OLD_CATEGORIES),
)
TABLE_REVIEWS = ReviewKeys("named columns", "user_id", ("item_id",), "rating", ("timestamp",))
TABLE_ITEMS = ItemKeys("named columns", "item_id")


def recognise(
    records: Iterator[dict], known: tuple
) -> tuple[ReviewKeys | ItemKeys | None, Iterator[dict], list[str]]:
    """Find out which release records are of.

    Parameters
    ----------
    records : iterator of dict
    known : tuple
        `REVIEWS` or `ITEMS`.

    Returns
    -------
    keys : ReviewKeys or ItemKeys or None
        None if none of the first records fits a release.
    records : iterator of dict
        All of them, the ones looked at included.
    seen : list of str
        The first record's keys, for a message.
    """
    sample = []
    for record in records:
        sample.append(record)
        keys = next((keys for keys in known if keys.fits(record)), None)
        if keys is not None:
            return keys, chain(sample, records), []
        if len(sample) == SAMPLE:
            break
    return None, iter(()), [str(key) for key in (sample[0] if sample else {})]


def interaction(record: dict, keys: ReviewKeys, rated: bool = True) -> Interaction:
    """Read one review.

    Parameters
    ----------
    record : dict
    keys : ReviewKeys
    rated : bool
        Whether the file has ratings.

    Raises
    ------
    Dropped
        If it has no user, item, rating or time, or an id is longer than `TOKEN_LIMIT`.
    """
    user = identifier(record.get(keys.user))
    name = _first(identifier, record, keys.items)
    rating = number(record.get(keys.rating))
    time = _first(seconds, record, keys.times)
    if not user:
        raise Dropped(NO_USER)
    if not name:
        raise Dropped(NO_ITEM)
    if rated and rating is None:
        raise Dropped(NO_RATING)
    if time is None:
        raise Dropped(NO_TIME)
    return Interaction(user, name, rating, time)


def item(record: dict, keys: ItemKeys) -> Item:
    """Read one product's metadata.

    Raises
    ------
    Dropped
        If it has no id, or one longer than `TOKEN_LIMIT`.
    """
    name = identifier(record.get(keys.item))
    if not name:
        raise Dropped(NO_ITEM)
    title = _text(record.get("title"))
    page_code = _PAGE_CODE.search(title) is not None
    if page_code:
        title = ""
    categories, brand = _first(category_list, record, keys.categories), _brand(record)
    return Item(
        name,
        plain_text(title),
        categories[:TEXT_LIMIT],
        plain_text(brand),
        page_code,
        cut=max(map(len, (title, categories, brand))) > TEXT_LIMIT,
    )


def _brand(record: dict) -> str:
    details = record.get("details")
    places = [details.get("Brand") if isinstance(details, dict) else None]
    places += [record.get("brand"), record.get("store")]
    return next(filter(None, map(_text, places)), "")


def identifier(value) -> str:
    """A user's or item's id as a token; empty if there is none.

    Raises
    ------
    Dropped
        If it is longer than `TOKEN_LIMIT`.
    """
    if isinstance(value, float) and value.is_integer():  # a column of integers with gaps
        value = int(value)
    text = one_line(_text(value))
    if len(text) > TOKEN_LIMIT:
        raise Dropped(LONG_ID)
    return text


def number(value) -> float | None:
    """A finite number, from a number or text; None if it is none."""
    if isinstance(value, bool):
        return None
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def seconds(value) -> int | None:
    """Whole Unix seconds from seconds, milliseconds, a date or a text of one; None if it is none.

    Numbers from 10^11 on are milliseconds. A date without a time zone is in UTC.
    """
    found = number(value)
    if found is not None:
        whole = int(found) // (1000 if found >= MILLISECONDS_FROM else 1)
        return whole if 0 <= whole < MILLISECONDS_FROM else None
    try:
        if isinstance(value, str):
            value = _date(value.strip())
        if isinstance(value, date) and not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day)
        if not isinstance(value, datetime):
            return None
        moment = value if value.tzinfo else value.replace(tzinfo=timezone.utc)
        return math.floor(moment.timestamp())
    except (ValueError, OverflowError, OSError):
        return None


def _date(text: str) -> datetime:
    if match := _DAY.fullmatch(text):  # the old releases' month, day and year
        month, day, year = map(int, match.groups())
        return datetime(year, month, day)
    return datetime.fromisoformat(text.removesuffix("Z"))


def category_list(value) -> str:
    """Categories in their order, each once, with commas; from a text, a list or a list of lists."""
    texts, waiting = [], [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, (list, tuple)):
            waiting.extend(reversed(one))
        else:
            texts.append(plain_text(_text(one)))
    return ", ".join(filter(None, dict.fromkeys(texts)))


def plain_text(text: str) -> str:
    """Text without HTML entities and tags, on one line, of the first `TEXT_LIMIT` characters.

    Entities are resolved twice, as the dumps hold ``&amp;quot;`` too.
    """
    text = text[:TEXT_LIMIT]
    if "&" in text:
        text = _unescape(_unescape(text))
    if "<" in text:
        text = _TAG.sub(" ", _INLINE_TAG.sub("", text))
    return one_line(text)


def _unescape(text: str) -> str:
    try:
        return html.unescape(text)
    except ValueError:  # an entity's number with more digits than Python reads
        return text.replace("&#", "#")


def one_line(text: str) -> str:
    """Text as one field of an atomic file: no tabs, line breaks, control characters or half surrogates.

    A quotation mark in first place, after which RecBole's reader would take the following lines for
    the same field, becomes a typographic one, and so does the next, its partner.
    """
    text = " ".join(_UNPRINTABLE.sub(" ", text).split())
    if text.startswith('"'):
        text = "“" + text[1:].replace('"', "”", 1)
    return text


def _text(value) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):  # a binary column of a Parquet file
        return value.decode(errors="replace")
    # Other numbers than these are no text that anyone wrote: NaN, or integers too long to print.
    return str(value) if number(value) is not None else ""


def _first(read: Callable, record: dict, keys: tuple[str, ...]):
    """The first of some keys' values that can be read; else what the last one gives."""
    found = None
    for key in keys:
        found = read(record.get(key))
        if found not in (None, ""):
            break
    return found
