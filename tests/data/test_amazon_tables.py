"""CSV and Parquet files by the names of their columns, and the readers on whatever a line may hold."""

import datetime
import gzip
import math
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_ganprompt.data.amazon import main
from recbole_ganprompt.data.raw_files import Dropped, parse_record
from recbole_ganprompt.data.raw_records import (
    ITEMS,
    REVIEWS,
    TABLE_ITEMS,
    TABLE_REVIEWS,
    interaction,
    item,
    one_line,
    plain_text,
    seconds,
)

COLUMNS = "--columns=user_id=userId,item_id=movieId,rating=rating,timestamp=when"
META_COLUMNS = "--meta-columns=item_id=movieId,title=name,categories=genres"


def run(tmp_path, reviews, meta, *more):
    return main([f"--reviews={reviews}", f"--meta={meta}", f"--out={tmp_path / 'out' / 'Films'}", *more])


def rows(tmp_path, suffix):
    text = (tmp_path / "out" / "Films" / f"Films.{suffix}").read_text(encoding="utf-8")
    return text[:-1].split("\n")


def written(path, text):
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def films(tmp_path):
    return written(
        tmp_path / "movies.csv",
        'movieId,name,year,genres\n1,"Alien, ""the"" film",1979,Horror|Sci-Fi\n2,"Two\nlines",1999,\n',
    )


def test_csv_by_the_names_of_its_columns(tmp_path, capsys):
    text = (
        "when,userId,movieId,rating\r\n964982703,7,1,4.5\r\n964982703000,7,2,5\r\n"
        '"short\r\nand\r\nbroken",7\r\n\r\n1,,2,5\r\n'
    )
    ratings = written(tmp_path / "ratings.csv.gz", text)
    assert run(tmp_path, ratings, films(tmp_path), COLUMNS, META_COLUMNS) == 0
    assert rows(tmp_path, "inter") == [
        "user_id:token\titem_id:token\trating:float\ttimestamp:float",
        "7\t1\t4.5\t964982703",
        "7\t2\t5.0\t964982703",
    ]
    assert rows(tmp_path, "item") == [
        "item_id:token\ttitle:token_seq\tcategories:token_seq",
        '1\tAlien, "the" film\tHorror|Sci-Fi',
        "2\tTwo lines\t",
    ]
    out = capsys.readouterr().out
    assert "7  lines read" in out and "(named columns)" in out
    assert "3  lines read" in out and out.count("2  kept") == 2 and "1  further lines of rows" in out
    for dropped in ("3  dropped: broken line", "1  dropped: blank line", "1  dropped: no user"):
        assert dropped in out


def test_csv_without_a_header_without_ratings_and_with_tabs(tmp_path):
    ratings = written(
        tmp_path / "clicks.tsv", "u1\tx\tf1\t2015-03-01 10:00:00\nu1\tx\tf2\t2015-03-01T10:00:01Z\n"
    )
    meta = written(tmp_path / "films.tsv", "f1\tFirst\nf2\tSecond\n")
    columns = "--columns=user_id=1,item_id=3,timestamp=4"
    assert run(tmp_path, ratings, meta, columns, "--meta-columns=item_id=1,title=2", "--separator=tab") == 0
    assert rows(tmp_path, "inter") == [
        "user_id:token\titem_id:token\ttimestamp:float",
        "u1\tf1\t1425204000",
        "u1\tf2\t1425204001",
    ]
    assert rows(tmp_path, "item") == ["item_id:token\ttitle:token_seq", "f1\tFirst", "f2\tSecond"]


def test_an_open_quotation_mark_costs_counted_lines(tmp_path, capsys):
    text = 'userId,movieId,rating,when\n7,1,5,10\n7,"2,5,20\n7,1,5,30\n'
    assert run(tmp_path, written(tmp_path / "r.csv", text), films(tmp_path), COLUMNS, META_COLUMNS) == 0
    out = capsys.readouterr().out
    assert "3  lines read" in out and "2  dropped: broken line" in out
    assert rows(tmp_path, "inter")[1:] == ["7\t1\t5.0\t10"]


def test_a_column_that_is_not_there_names_those_that_are(tmp_path, capsys):
    ratings = written(tmp_path / "r.csv", "userId;movieId;rating;when\n7;1;5;10\n")
    assert run(tmp_path, ratings, films(tmp_path), COLUMNS, META_COLUMNS) == 2
    error = capsys.readouterr().err
    assert "no column userId, movieId, rating, when (found: userId;movieId;rating;when)" in error
    assert "--separator" in error and not list((tmp_path / "out").iterdir())


def test_parquet_by_the_names_of_its_columns(tmp_path, capsys):
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow")
    from pyarrow import parquet

    when = [datetime.datetime(2001, 9, 9, 1, 46, 40), None, datetime.datetime(2001, 9, 9, 1, 46, 41)]
    ratings = {"userId": [7, 7, None], "movieId": ["1", "2", "1"], "rating": [5.0, 4.0, 3.0], "when": when}
    genres = [["Horror", "Sci-Fi"], None]
    parquet.write_table(pyarrow.table(ratings), tmp_path / "r.parquet")
    parquet.write_table(
        pyarrow.table({"movieId": [1, 2], "name": ["Alien", "<i>Two</i>"], "genres": genres}),
        tmp_path / "m.parquet",
    )
    files = tmp_path / "r.parquet", tmp_path / "m.parquet"
    assert run(tmp_path, *files, COLUMNS, META_COLUMNS) == 0
    assert rows(tmp_path, "inter")[1:] == ["7\t1\t5.0\t1000000000"]
    assert rows(tmp_path, "item")[1:] == ["1\tAlien\tHorror, Sci-Fi"]
    out = capsys.readouterr().out
    assert "1  dropped: no time" in out and "1  dropped: no user" in out

    assert run(tmp_path, *files, META_COLUMNS, "--overwrite") == 2
    assert "is a Parquet file: name its columns" in capsys.readouterr().err
    whole = files[0].read_bytes()
    files[0].write_bytes(whole[: len(whole) // 2])
    assert run(tmp_path, *files, COLUMNS, META_COLUMNS, "--overwrite") == 2
    assert "is damaged" in capsys.readouterr().err


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert run(tmp_path, written(tmp_path / "r.parquet", "PAR1"), films(tmp_path), COLUMNS, META_COLUMNS) == 2
    assert capsys.readouterr().err.endswith("r.parquet needs pyarrow: pip install pyarrow.\n")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0),
        ("1252800000.0", 1252800000),
        (1588615855070, 1588615855),
        (datetime.date(1970, 1, 2), 86400),
        ("1, 2009", None),
        ("9 3, 2009", 1251936000),
        (True, None),
        (-5, None),
        (1e300, None),
        (math.inf, None),
        ("", None),
    ],
)
def test_times(value, expected):
    assert seconds(value) == expected


# -- whatever a line may hold -------------------------------------------------------------------

KEYS = ["reviewerID", "user_id", "asin", "parent_asin", "item_id", "overall", "rating", "unixReviewTime"]
KEYS += ["reviewTime", "timestamp", "title", "category", "categories", "brand", "store", "details", "Brand"]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.binary(max_size=5)
    | st.text(st.characters() | st.sampled_from("&#x<>/\"'\\\t\n;"))
    | st.datetimes()
    | st.sampled_from([10**400, "&#" + "9" * 5000, "09 13, 2009"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
)


@settings(max_examples=300, deadline=None)
@given(st.text() | st.builds(repr, VALUES) | st.builds("{{{!r}".format, st.text()))
def test_any_line_is_a_record_or_dropped(line):
    try:
        assert isinstance(parse_record(line), dict)
    except Dropped as reason:
        assert str(reason)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), VALUES))
def test_any_record_is_fields_without_breaks_or_dropped(record):
    for read, known in ((interaction, (*REVIEWS, TABLE_REVIEWS)), (item, (*ITEMS, TABLE_ITEMS))):
        for keys in known:
            try:
                found = read(record, keys)
            except Dropped as reason:
                assert str(reason)
                continue
            fields = [field for field in found if isinstance(field, str)]
            text = "\t".join(fields)
            assert text.encode().decode().split("\t") == fields and len(text.splitlines()) <= 1
            assert not any(field.startswith('"') for field in fields)


@settings(max_examples=300, deadline=None)
@given(st.text())
def test_clean_text_is_left_as_it_is(text):
    clean = one_line(text)
    assert one_line(clean) == clean
    if not set(clean) & set("<&"):
        assert plain_text(clean) == clean
