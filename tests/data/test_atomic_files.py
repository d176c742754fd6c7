"""Atomic files as strangers write them: one sentence with file and line, or handled and counted."""

import logging
from pathlib import Path

import pytest
from pandas.testing import assert_frame_equal
from recbole.data.dataset import Dataset
from recbole.utils import FeatureSource

from recbole_ganprompt.config import build_config
from recbole_ganprompt.data.dataset import TextSequentialDataset
from recbole_ganprompt.data.item_text import UNTITLED
from recbole_ganprompt.errors import UserError

HEADER = b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
ROWS = [f"u{user}\ti{item}\t5\t{10 * item + user}\n".encode() for user in range(3) for item in range(3)]
INTER = HEADER + b"".join(ROWS)
ITEM = b"item_id:token\ttitle:token_seq\ni0\tSoap\ni1\tLamp\ni2\tBrush\n"


@pytest.fixture
def load(tmp_path):
    """Load a dataset of the given two files."""
    (tmp_path / "shop").mkdir()

    def read(inter=INTER, item=ITEM, **values):
        for suffix, content in (("inter", inter), ("item", item)):
            (tmp_path / "shop" / f"shop.{suffix}").write_bytes(content)
        everybody = {"user_inter_num_interval": "[1,inf)", "item_inter_num_interval": "[1,inf)"}
        values = {**everybody, "data_path": str(tmp_path), "gpu_id": "", **values}
        return TextSequentialDataset(build_config("SASRec", "shop", config_dict=values))

    return read


def titles(dataset):
    return dict(zip(dataset.field2id_token["item_id"][1:].tolist(), dataset.titles[1:]))


def histories(dataset):
    items, users = dataset.field2id_token["item_id"], dataset.field2id_token["user_id"]
    return {str(users[u]): items[dataset.sequences.of(u)].tolist() for u in range(1, dataset.user_num)}


def with_line(line):
    """The interactions with one line more, the fourth of the file."""
    return HEADER + ROWS[0] + ROWS[1] + line + b"\n" + b"".join(ROWS[2:])


REFUSED = {
    "empty": (b"", "is empty"),
    "blank": (b"\n \n", "is empty"),
    "no rows": (HEADER, "has a header but no rows"),
    "no header": (b"".join(ROWS), "line 1: the header must name each column once, with its type"),
    "unknown type": (INTER.replace(b"rating:float", b"rating:int"), "line 1: the header must name"),
    "column twice": (INTER.replace(b"rating:float", b"item_id:token"), "line 1: the header must name"),
    "other separator": (INTER.replace(b"\t", b","), "separated by ',' and not by '\\t': set field_separator"),
    "no time": (INTER.replace(b"timestamp:", b"time:"), "has no column 'timestamp' (found: user_id, item_id"),
    "no user": (INTER.replace(b"user_id:", b"user:"), "has no column 'user_id'"),
    "time is a token": (INTER.replace(b"stamp:float", b"stamp:token"), "timestamp must be of the type float"),
    "user is a number": (INTER.replace(b"user_id:token", b"user_id:float"), "user_id must be of the type"),
    "too few fields": (with_line(b"u1\ti1"), "line 4: 2 fields where the header names 4: mend the line"),
    "too many fields": (with_line(b"u1\ti1\t5\t7\t8"), "line 4: 5 fields where the header names 4"),
    "mixed separators": (with_line(b"u1,i1,5,7"), "line 4: 1 field where the header names 4"),
    "cut off": (INTER[:-5], "line 10: 3 fields where the header names 4"),
    "zero byte": (with_line(b"u1\ti\0001\t5\t7"), "line 4: a zero byte"),
    "latin-1": (with_line(b"u1\ti\xe9\t5\t7"), "line 4: bytes that are not UTF-8: set encoding"),
    "utf-16": (INTER.decode().encode("utf-16"), "line 1: a zero byte: set encoding to the file's"),
    "word for a time": (with_line(b"u1\ti1\t5\tnever"), "line 4: timestamp is 'never', which is no number"),
    "infinite time": (with_line(b"u1\ti1\t5\t-inf"), "line 4: timestamp is '-inf', which is no number"),
    "time out of range": (with_line(b"u1\ti1\t5\t1e999"), "line 4: timestamp is '1e999'"),
    "quoted time": (with_line(b'u1\ti1\t5\t"7"'), "line 4: timestamp is '\"7\"', which is no number"),
    "word for a rating": (with_line(b"u1\ti1\tgood\t7"), "line 4: rating is 'good', which is no number"),
    "word after blank lines": (with_line(b"\n\nu1\ti1\t5\tx"), "line 6: timestamp is 'x'"),
    "control characters": (with_line(b"u1\ti1\t5\t\x1b[2J"), "timestamp is '\\x1b[2J'"),
    "endless id": (with_line(b"u" * 5000 + b"\ti1\t5\t7"), "line 4: user_id has 5,000 characters"),
    "nobody": (HEADER + b"\ti1\t5\t7\n\ti2\t5\t8\n", "has no interaction with a user, an item and a time"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_interactions_that_cant_be_read_are_one_sentence(case, load):
    content, message = REFUSED[case]
    with pytest.raises(UserError) as caught:
        load(content)
    said = str(caught.value)
    assert message in said and "shop.inter" in said
    assert "\n" not in said and said.isprintable() and len(said) < 500


REFUSED_ITEMS = {
    "empty": (b"", "is empty"),
    "no rows": (b"item_id:token\ttitle:token_seq\n", "has a header but no rows"),
    "no header": (b"i0\tSoap\n", "line 1: the header must name"),
    "no title": (ITEM.replace(b"title:", b"name:"), "has no column title (found: item_id, name)"),
    "a tab in a title": (ITEM.replace(b"Lamp", b"La\tmp"), "line 3: 3 fields where the header names 2"),
    "another dataset's": (b"item_id:token\ttitle:token_seq\nx\tSoap\n", "none of the interactions' items"),
}


@pytest.mark.parametrize("case", REFUSED_ITEMS)
def test_items_that_cant_be_read_are_one_sentence(case, load):
    content, message = REFUSED_ITEMS[case]
    with pytest.raises(UserError) as caught:
        load(item=content)
    assert message in str(caught.value) and "shop.item" in str(caught.value)


UNCHANGED = {
    "byte order mark": lambda text: b"\xef\xbb\xbf" + text,
    "line ends of Windows": lambda text: text.replace(b"\n", b"\r\n"),
    "line ends of old Macs": lambda text: text.replace(b"\n", b"\r"),
    "no last line end": lambda text: text[:-1],
    "blank lines": lambda text: text.replace(b"\n", b"\n\n  \n"),
}


@pytest.mark.parametrize("case", UNCHANGED)
def test_the_same_lines_written_otherwise_are_the_same_dataset(case, load):
    plain, other = load(), load(UNCHANGED[case](INTER), UNCHANGED[case](ITEM))
    assert histories(other) == histories(plain) and titles(other) == titles(plain)
    assert other.read_counts == ({"blank_lines": 28} if case == "blank lines" else {})


def test_other_encodings_are_read_where_they_are_named(load):
    item = ITEM.decode().replace("Lamp", "Lämpchen")
    for encoding in ("latin-1", "utf-16"):
        dataset = load(INTER.decode().encode(encoding), item.encode(encoding), encoding=encoding)
        assert titles(dataset)["i1"] == "Lämpchen" and dataset.read_counts == {}
    with pytest.raises(UserError, match="shop.inter is not utf-16 text"):
        load(INTER + b"\n" * (len(INTER) % 2 == 0), encoding="utf-16")
    with pytest.raises(UserError, match="shop.inter is not klingon text"):
        load(encoding="klingon")


def test_quotes_and_words_for_nothing_are_ids_like_others(load):
    odd = ['"i0"', "NA", '"', "null", "[PAD]"]
    lines = [f"nan\t{item}\t5\t{time}\n" for time, item in enumerate(odd)]
    text = "item_id:token\ttitle:token_seq\n" + "".join(f'{item}\t"{item}\n' for item in odd)
    dataset = load(HEADER + "".join(lines).encode(), text.encode())
    assert histories(dataset) == {"nan": odd}
    assert dataset.titles[1:] == [f'"{item}' for item in odd]
    assert dataset.read_counts == {}


def test_unusable_interactions_are_left_out_and_counted(load, caplog):
    broken = b"\ti1\t5\t1\nu1\t\t5\t2\nu1\ti1\t5\t\nu1\ti1\t5\tNaN\nu1\ti2\t\t3\n"
    with caplog.at_level(logging.WARNING):
        dataset = load(INTER + broken + ROWS[0] + ROWS[0] + ROWS[4].replace(b"\t5\t", b"\t1\t"))
    assert histories(dataset) == histories(load())
    assert dataset.read_counts == {
        "interactions_without_ids": 2,
        "interactions_without_time": 2,
        "interactions_without_rating": 1,
        "repeated_interactions": 3,
    }
    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("shop: ")]
    assert len(said) == 1 and "without a user or an item left out: 2; " in said[0] and "\n" not in said[0]


def test_the_same_item_at_another_time_is_no_repetition(load):
    dataset = load(INTER + b"u0\ti0\t5\t99\n")
    assert histories(dataset)["u0"] == ["i0", "i1", "i2", "i0"] and dataset.read_counts == {}


def test_titles_of_strangers_become_one_short_printable_line(load):
    lines = [
        b"item_id:token\ttitle:token_seq",
        b"i0\tCaf\xe9 \0creme",
        "i1\t\u202eevil\u202c \u200b\u2066שָׁלוֹם\u2069\u00a0עולם \x1b[31m".encode(),
        b"i2\t" + b"long " * (2 << 20),
        "i3\t\u200b\u200d\ufeff".encode(),
        b"i0\tanother line of i0",
        b"never bought\tSomething",
    ]
    more = b"".join(f"u0\ti{item}\t5\t{item}\n".encode() for item in (3, 4))
    dataset = load(INTER + more, b"\n".join(lines) + b"\n")
    found = titles(dataset)
    assert found["i0"] == "Caf\ufffd creme"
    assert found["i1"] == "evil שָׁלוֹם עולם [31m"
    assert found["i2"] == ("long " * 2000).strip()
    assert found["i3"] == found["i4"] == UNTITLED and dataset.untitled == 2
    assert dataset.read_counts == {
        "mended_lines": 1,
        "repeated_items": 1,
        "unlisted_items": 1,
        "untitled_items": 2,
        "cut_texts": 1,
        "invisible_texts": 2,
    }


def test_item_columns_as_features_are_read_by_the_same_reader(load):
    item = (
        b"item_id:token\ttitle:token_seq\tbrand:token\tsizes:float_seq\n"
        b'i0\t"Soap\tDove\t1 2.5\ni1\tRed lamp\t\t\n\tNobody\tX\t1\ni2\tBrush\t' + b"B" * 3000 + b"\t3\n"
    )
    columns = {"inter": "*", "item": "*"}
    dataset = load(item=item, load_col=columns)
    dataset.build()
    feature = dataset.get_item_feature()
    brands = dataset.field2id_token["brand"][feature["brand"].numpy()].tolist()
    assert brands == ["[PAD]", "Dove", "[PAD]", "B" * 1000]
    assert feature["sizes"].tolist()[1:] == [[1.0, 2.5], [0.0, 0.0], [3.0, 0.0]]
    with pytest.raises(UserError, match="shop.item, line 2: sizes is '1 2,5', which are no numbers"):
        load(item=item.replace(b"2.5", b"2,5"), load_col=columns)


@pytest.mark.parametrize("interval", ["", "5", "[5", "[a,b]", "[9,5]"])
def test_an_interval_that_is_none_is_one_sentence(interval, load):
    with pytest.raises(UserError, match="is no interval: write one such as"):
        load(user_inter_num_interval=interval)


def test_a_sound_file_is_read_as_recbole_reads_it(tmp_path):
    dataset = TextSequentialDataset(build_config("SASRec", "ml-100k", config_dict={"gpu_id": ""}))
    path = Path(dataset.dataset_path) / "ml-100k.inter"
    ours = dataset._load_feat(path, FeatureSource.INTERACTION)
    assert_frame_equal(ours, Dataset._load_feat(dataset, path, FeatureSource.INTERACTION), check_dtype=False)
    assert dataset.read_counts == {}
