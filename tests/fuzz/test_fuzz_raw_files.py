"""Any raw dump through the command: two sound atomic files, or one sentence and nothing."""

import contextlib
import gzip
import io
import json
import shutil

import pytest
from broken_bytes import ANYTHING, DEADLINE, damaged
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recbole_ganprompt.data.amazon import main
from recbole_ganprompt.data.atomic_files import AtomicFile

OLD = {"reviewerID": "A1", "asin": "B1", "overall": 5.0, "unixReviewTime": 1252800000}
OLD_ITEM = {
    "asin": "B1",
    "title": 'A "soap" &amp; \u00e9',
    "categories": [["Beauty", "Soap"]],
    "brand": "Dove",
}
RELEASES = {
    "2014": ([OLD, {**OLD, "asin": "B2", "reviewTime": "09 13, 2009"}], [OLD_ITEM, {"asin": "B2"}]),
    "2018": ([{**OLD, "verified": True}], [{"asin": "B1", "title": "<i>Soap</i>", "category": ["Beauty"]}]),
    "2023": (
        [{"user_id": "A1", "parent_asin": "P1", "asin": "B1", "rating": 5.0, "timestamp": 1588615855070}],
        [{"parent_asin": "P1", "title": "Soap", "categories": ["Beauty"], "details": {"Brand": "D"}}],
    ),
}


def lines(records, write=json.dumps) -> bytes:
    return "".join(f"{write(record)}\n" for record in records).encode()


PAIRS = [(lines(reviews), lines(items)) for reviews, items in RELEASES.values()]
PAIRS += [
    (lines(RELEASES["2014"][0]), lines(RELEASES["2014"][1], repr))
]  # no JSON, as that release's metadata
CSV = b'user,item,stars,when\n7,1,5,10\n7,"2",4.5,2015-03-01T10:00:01Z\n8,1,5,964982703000\n'
CSV_ITEMS = b'item,name,genre\n1,"Alien, ""the"" film",Horror|Sci-Fi\n2,"Two\nlines",\n'
COLUMNS = "--columns=user_id=user,item_id=item,rating=stars,timestamp=when"
META_COLUMNS = "--meta-columns=item_id=item,title=name,categories=genre"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("raw")


def convert(folder, reviews: bytes, meta: bytes, *options: str) -> None:
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    (folder / "reviews").write_bytes(reviews)
    (folder / "meta").write_bytes(meta)
    said = io.StringIO()
    arguments = [f"--reviews={folder / 'reviews'}", f"--meta={folder / 'meta'}", f"--out={out / 'shop'}"]
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = main([*arguments, *options])
    assert status in (0, 2) and "Traceback" not in said.getvalue()
    if status == 2:
        assert said.getvalue().strip().splitlines()[-1].startswith("error: ")
        assert not list(out.rglob("*"))
        return
    for suffix in ("inter", "item"):
        file = AtomicFile(out / "shop" / f"shop.{suffix}")  # every line has its fields
        frame = file.frame(file.types)
        assert len(frame) and not frame["item_id"].isna().any() and not file.counts


@settings(deadline=DEADLINE)
@given(
    reviews=damaged(*(pair[0] for pair in PAIRS)) | ANYTHING,
    meta=damaged(*(pair[1] for pair in PAIRS)) | ANYTHING,
    compress=st.booleans(),
)
def test_any_dump_is_a_dataset_or_one_sentence(folder, reviews, meta, compress):
    convert(folder, gzip.compress(reviews, 1) if compress else reviews, meta)


@settings(deadline=DEADLINE)
@given(pair=st.sampled_from(PAIRS), data=st.data())
def test_any_damage_to_a_compressed_dump_is_one_sentence(folder, pair, data):
    reviews = data.draw(damaged(gzip.compress(pair[0], mtime=0)))
    convert(folder, reviews, pair[1])


@settings(deadline=DEADLINE)
@given(reviews=damaged(CSV) | ANYTHING, meta=damaged(CSV_ITEMS) | ANYTHING)
@example(reviews=CSV, meta=b"\x0b")
def test_any_csv_is_a_dataset_or_one_sentence(folder, reviews, meta):
    convert(folder, reviews, meta, COLUMNS, META_COLUMNS)
