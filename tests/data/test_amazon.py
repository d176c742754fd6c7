"""Raw dumps of every release, made here, through the command to atomic files."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from recbole_ganprompt.config import build_config
from recbole_ganprompt.data.amazon import main
from recbole_ganprompt.data.atomic_writer import Source, write_atomic_files
from recbole_ganprompt.data.dataset import TextSequentialDataset
from recbole_ganprompt.data.item_text import UNTITLED

INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
ITEM = "item_id:token\ttitle:token_seq\tcategories:token_seq\tbrand:token"


def old_review(user, item, rating=5.0, time=1252800000, **more):
    """A review of 2014, which has no `verified`, or of 2018, which has."""
    fields = {"reviewerID": user, "asin": item, "overall": rating, "unixReviewTime": time}
    return {**fields, "reviewTime": "09 13, 2009", "reviewText": "Fine.", **more}


def new_review(user, item, rating=5.0, time=1252800000123, **more):
    fields = {"user_id": user, "parent_asin": item, "asin": f"{item}-red", "rating": rating}
    return {**fields, "timestamp": time, "title": "Not the product's", **more}


def dump(path: Path, records, write=json.dumps) -> Path:
    """Compress records, one a line; a text stands for itself."""
    lines = [record if isinstance(record, str) else write(record) for record in records]
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("".join(f"{line}\n" for line in lines))
    return path


def run(tmp_path, reviews, meta, *more):
    return main([f"--reviews={reviews}", f"--meta={meta}", f"--out={tmp_path / 'out' / 'Shop'}", *more])


def rows(tmp_path, suffix):
    text = (tmp_path / "out" / "Shop" / f"Shop.{suffix}").read_bytes().decode()
    assert text.endswith("\n")
    return text[:-1].split("\n")


def left(tmp_path):
    """Whatever a failed command left in the folder of its dataset."""
    return sorted((tmp_path / "out").rglob("*")) if (tmp_path / "out").exists() else []


# -- the releases -------------------------------------------------------------------------------


def test_2014_with_metadata_that_is_no_json(tmp_path, capsys):
    reviews = [old_review("A1", "B1"), old_review("A2", "B2", 3.0, 1252800001), old_review("A1", "B3", 4.0)]
    meta = [
        {"asin": "B1", "title": 'Kid\'s "Best" soap', "categories": [["Beauty", "Soap"], ["Beauty", "Kids"]]},
        {"asin": "B2", "title": '12" mirror', "brand": "L'Oréal", "categories": [["Beauty"]]},
        r"{'asin': 'B3', 'title': 'Pr45&quot; Wht \/ \xe9t\xe9', 'salesRank': {'Beauty': 7}, 'price': 3.5}",
        {"asin": "B4", "title": "Nobody wrote about it"},
    ]
    reviews = dump(tmp_path / "reviews_Shop_5.json.gz", reviews)
    assert run(tmp_path, reviews, dump(tmp_path / "meta_Shop.json.gz", meta, repr)) == 0
    assert rows(tmp_path, "inter") == [
        INTER,
        "A1\tB1\t5.0\t1252800000",
        "A2\tB2\t3.0\t1252800001",
        "A1\tB3\t4.0\t1252800000",
    ]
    assert rows(tmp_path, "item") == [
        ITEM,
        'B1\tKid\'s "Best" soap\tBeauty, Soap, Kids\t',
        "B2\t12\" mirror\tBeauty\tL'Oréal",
        'B3\tPr45" Wht \\/ été\t\t',
    ]
    captured = capsys.readouterr()
    assert captured.out.count("(2014 release)") == 2
    assert "1  dropped: item that no kept review mentions" in captured.out
    assert "Warning" not in captured.err and "reviews_Shop_5.json.gz: 100%" in captured.err


def test_2018_with_page_code_for_a_title(tmp_path, capsys):
    reviews = [old_review("A1", item, verified=True) for item in ("B1", "B2", "B3")]
    meta = [
        {
            "asin": "B1",
            "title": "Soap",
            "category": ["Beauty", "Soap &amp; Bath", "</span>"],
            "brand": "Dove",
        },
        {"asin": "B2", "title": "var aPageStart = (new Date()).getTime();\nvar ue_t0=1;", "category": []},
        {"asin": "B3", "title": '<span id="productTitle" class="a-size">\n  Shampoo<br/>2 pack </span>'},
    ]
    reviews = dump(tmp_path / "Shop_5.json.gz", reviews)
    assert run(tmp_path, reviews, dump(tmp_path / "meta_Shop.json.gz", meta)) == 0
    assert rows(tmp_path, "item")[1:] == [
        "B1\tSoap\tBeauty, Soap & Bath\tDove",
        "B2\t\t\t",
        "B3\tShampoo 2 pack\t\t",
    ]
    out = capsys.readouterr().out
    assert out.count("(2018 release)") == 2
    assert "1  kept without its title, which was the code of a page" in out


def test_2023_by_parent_and_in_whole_seconds(tmp_path, capsys):
    reviews = [
        new_review("AE1", "P1", 5.0, 1588615855070),
        new_review("AE1", "P1", 1.0, 1588615855999),
        {**new_review("AE2", "P1"), "parent_asin": None, "asin": "P2"},
    ]
    meta = [
        {
            "parent_asin": "P1",
            "title": "Lamp",
            "categories": ["Home"],
            "store": "S",
            "details": {"Brand": "B"},
        },
        {"parent_asin": "P2", "title": "Cord", "categories": [], "store": "Shop", "details": {}},
    ]
    reviews = dump(tmp_path / "Shop.jsonl.gz", reviews)
    assert run(tmp_path, reviews, dump(tmp_path / "meta_Shop.jsonl.gz", meta)) == 0
    assert rows(tmp_path, "inter")[1:] == ["AE1\tP1\t5.0\t1588615855", "AE2\tP2\t5.0\t1252800000"]
    assert rows(tmp_path, "item")[1:] == ["P1\tLamp\tHome\tB", "P2\tCord\t\tShop"]
    out = capsys.readouterr().out
    assert out.count("(2023 release)") == 2
    assert "1  dropped: same user, item and second as an earlier line" in out
    assert "1  duplicates with another rating than the line kept" in out


def test_plain_files_and_a_day_for_a_time(tmp_path):
    review = old_review("A1", "B1", time=None)
    reviews, meta = tmp_path / "reviews.json", tmp_path / "meta.json"
    reviews.write_text("\ufeff" + json.dumps(review) + "\r\n", encoding="utf-8")
    meta.write_text("{'asin': 'B1', 'title': 'Soap'}", encoding="utf-8")
    assert run(tmp_path, reviews, meta) == 0
    assert rows(tmp_path, "inter")[1:] == ["A1\tB1\t5.0\t1252800000"]


# -- text ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Crème ★ 香水 👩‍🔬", "Crème ★ 香水 👩‍🔬"),
        ("a\tb\r\nc\u2028d\x00e\u0085f", "a b c d e f"),
        ("Salt &amp;amp; pepper&nbsp;&lt;b&gt;x&lt;/b&gt; &#9;y", "Salt & pepper x y"),
        ("H<sub>2</sub>O<br>1 < 2 <3 <!-- no --> you", "H2O 1 < 2 <3 you"),
        ('"Big" 7" pan', '“Big” 7" pan'),
        ('"unbalanced', "“unbalanced"),
        ("half \ud83d surrogate", "half surrogate"),
        ("&#" + "9" * 5000 + ";", "#" + "9" * 5000 + ";"),
        ("x" * 20_000, "x" * 10_000),
    ],
)
def test_titles_are_one_clean_field(title, expected, tmp_path):
    reviews = dump(tmp_path / "r.gz", [old_review("A1", "B1")])
    meta = dump(tmp_path / "m.gz", [{"asin": "B1", "title": title, "categories": []}])
    assert run(tmp_path, reviews, meta) == 0
    assert rows(tmp_path, "item")[1:] == [f"B1\t{expected}\t\t"]


def test_a_line_of_ten_megabytes_is_a_line(tmp_path):
    reviews = dump(tmp_path / "r.gz", [old_review("A1", "B1", reviewText="ä" * 1_600_000)])
    meta = dump(tmp_path / "m.gz", [{"asin": "B1", "title": "Soap", "description": "x'" * 5_000_000}], repr)
    assert run(tmp_path, reviews, meta) == 0
    assert rows(tmp_path, "item")[1:] == ["B1\tSoap\t\t"]


# -- counting and merging -----------------------------------------------------------------------


def test_every_line_is_accounted_for(tmp_path, capsys):
    good = old_review("A1", "B1")
    reviews = [
        good,
        '{"reviewerID": "A1", "asin"',
        "",
        "null",
        "[" * 100_000,
        {**good, "reviewerID": " \t"},
        {**good, "asin": None},
        {**good, "asin": "B" * 1001},
        {**good, "overall": "five"},
        {**good, "overall": float("nan")},
        {**good, "unixReviewTime": -1, "reviewTime": "13 45, 2009"},
        {**good, "unixReviewTime": 1252800001},
        good,
        "x" * (17 << 20),
        old_review("A1", "B2"),
    ]
    meta = [
        {"asin": "B1", "title": "Soap"},
        {"asin": "B1", "title": "Another soap"},
        {"asin": "", "title": "Nothing"},
        {"asin": "B3", "title": "Unread"},
        "{'asin': 'B1', 'title': ",
        "{'asin': 'B1', 'related': [" + "[]," * 200_000 + "]}",
    ]
    assert run(tmp_path, dump(tmp_path / "r.gz", reviews), dump(tmp_path / "m.gz", meta, repr)) == 0
    assert len(rows(tmp_path, "inter")) == 1 + 3
    assert rows(tmp_path, "item")[1:] == ["B1\tSoap\t\t", "B2\t\t\t"]
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert sorted(lines[1:11]) == sorted(
        [
            "15 lines read",
            "3 kept",
            "3 dropped: broken line",
            "1 dropped: blank line",
            "1 dropped: no user",
            "1 dropped: no item",
            "1 dropped: id longer than 1,000 characters",
            "2 dropped: no rating",
            "1 dropped: no time",
            "1 dropped: line longer than 16 MiB",
        ]
    )
    assert lines[11] == "1 dropped: same user, item and second as an earlier line"
    assert sorted(lines[13:20]) == sorted(
        [
            "6 lines read",
            "1 kept",
            "1 dropped: broken line",
            "1 dropped: line of too many values",
            "1 dropped: no item",
            "1 dropped: same item as an earlier line",
            "1 dropped: item that no kept review mentions",
        ]
    )
    assert lines[20] == "1 added without a title: reviewed, but not in the metadata"


def test_bytes_that_are_not_utf8_are_counted_not_fatal(tmp_path, capsys):
    reviews = tmp_path / "r.json"
    reviews.write_bytes(
        json.dumps(old_review("A1", "B1", reviewText="caf?")).encode().replace(b"f?", b"f\xe9")
    )
    assert run(tmp_path, reviews, dump(tmp_path / "m.gz", [{"asin": "B1", "title": "Soap"}])) == 0
    assert len(rows(tmp_path, "inter")) == 2
    assert "1  with bytes that are not UTF-8" in capsys.readouterr().out


@pytest.mark.parametrize("keys_in_memory", [1, 7, 1 << 20])
def test_merging_keeps_the_first_and_the_order_however_little_memory(keys_in_memory, tmp_path):
    reviews, expected, first_ratings = [], [], {}
    for number in range(1500):
        key = (f"A{number * 7 % 11}", f"B{number * 5 % 13}", 10 + number % 3)
        reviews.append(old_review(key[0], key[1], float(number % 5), key[2]))
        if key not in first_ratings:
            first_ratings[key] = float(number % 5)
            expected.append(f"{key[0]}\t{key[1]}\t{float(number % 5)}\t{key[2]}")
    other = sum(
        first_ratings[review["reviewerID"], review["asin"], review["unixReviewTime"]] != review["overall"]
        for review in reviews
    )
    meta = [{"asin": f"B{number % 17}", "title": f"Title {number}"} for number in range(12, 0, -1)]
    source = Source(dump(tmp_path / "r.gz", reviews))
    items = Source(dump(tmp_path / "m.gz", meta))
    write_atomic_files(source, items, tmp_path / "out" / "Shop", keys_in_memory=keys_in_memory)
    assert rows(tmp_path, "inter")[1:] == expected
    assert source.tally.kept == len(expected) < source.tally.read == 1500
    assert sorted(source.tally.notes.values()) == [other]
    assert rows(tmp_path, "item")[1:] == [f"B{n}\tTitle {n}\t\t" for n in range(12, 0, -1)] + ["B0\t\t\t"]
    assert list((tmp_path / "out").iterdir()) == [tmp_path / "out" / "Shop"]


# -- mistakes -----------------------------------------------------------------------------------


def truncated(tmp_path):
    path = dump(tmp_path / "cut.gz", [old_review(f"A{n * n}", "B1") for n in range(5000)])
    path.write_bytes(path.read_bytes()[:-3000])
    return path


def damaged(tmp_path):
    path = dump(tmp_path / "bad.gz", [old_review(f"A{n * n}", "B1") for n in range(5000)])
    body = bytearray(path.read_bytes())
    body[3000:3200] = b"\xff" * 200
    path.write_bytes(body)
    return path


def written(name, text):
    def write(tmp_path):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


MISTAKES = {
    "truncated": (truncated, "is truncated, its gzip stream ends too early: download it again."),
    "damaged": (damaged, "is damaged"),
    "missing": (lambda tmp_path: tmp_path / "none.gz", "There is no file"),
    "a folder": (lambda tmp_path: tmp_path, "can't be read (Is a directory)"),
    "empty": (written("empty.json", ""), "is empty"),
    "not gzip": (written("page.json.gz", "<html>404</html>"), "is not gzip though its name ends in .gz"),
    "not Amazon's": (
        written("yelp.json", '{"user_id": "u", "business_id": "b"}'),
        "has user_id, business_id",
    ),
    "a CSV file": (written("x.csv", "user,item\n" * 3000), "1000 lines hold no record (1000 broken line)"),
    "the metadata": (written("m.json", '{"asin": "B1", "title": "Soap"}'), "exchange --reviews and --meta"),
    "nothing usable": (
        lambda tmp_path: dump(tmp_path / "r.gz", [old_review("", "B1"), old_review("A1", "B1", None)]),
        "has no usable interaction (1 no user, 1 no rating)",
    ),
    "other items": (
        lambda tmp_path: dump(tmp_path / "r.gz", [old_review("A1", "B9")]),
        "mentions no item of",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_one_sentence_and_leave_nothing(case, tmp_path, capsys):
    make, message = MISTAKES[case]
    meta = dump(tmp_path / "m.gz", [{"asin": "B1", "title": "Soap"}])
    assert run(tmp_path, make(tmp_path), meta) == 2
    captured = capsys.readouterr()
    said = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert len(said) == 1 and message in said[0] and captured.err.endswith(said[0] + "\n")
    assert "Traceback" not in captured.err and captured.out == ""
    assert left(tmp_path) == []


def test_truncated_metadata_leaves_nothing_either(tmp_path, capsys):
    meta = dump(tmp_path / "m.gz", [{"asin": f"B{n * n}", "title": "Soap"} for n in range(5000)])
    meta.write_bytes(meta.read_bytes()[:-3000])
    assert run(tmp_path, dump(tmp_path / "r.gz", [old_review("A1", "B1")]), meta) == 2
    assert "is truncated" in capsys.readouterr().err
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--reviews and --meta and --out must be given"),
        (["--reviews=r", "--meta=m"], "--out must be given"),
        (["--reviews=r", "--meta=m", "--out=o", "--overwite"], "--overwite is not an option"),
        (["--reviews=r", "--meta=m", "--out=o", "--separator=::"], "--separator must be one character"),
        (
            ["--reviews=r", "--meta=m", "--out=o", "--columns=user=u"],
            "--columns must name the file's columns",
        ),
        (["--reviews=r", "--meta=m", "--out=o", "--meta-columns=item_id=i"], "--meta-columns must name"),
        (["--stats"], "expected at least one argument"),
        (["--stats", "nowhere"], "has no nowhere.inter"),
        (["--stats", "nowhere", "--reviews=r", "--meta=m", "--out=o"], "run --stats alone"),
    ],
)
def test_arguments_that_make_no_sense(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_files_is_only_replaced_when_told(tmp_path, capsys):
    reviews = dump(tmp_path / "r.gz", [old_review("A1", "B1")])
    meta = dump(tmp_path / "m.gz", [{"asin": "B1", "title": "Soap"}])
    folder = tmp_path / "out" / "Shop"
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    assert run(tmp_path, reviews, meta) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    assert run(tmp_path, reviews, meta, "--overwrite") == 0
    assert sorted(path.name for path in folder.iterdir()) == ["Shop.inter", "Shop.item", "notes.txt"]
    before = rows(tmp_path, "inter")
    assert run(tmp_path, truncated(tmp_path), meta, "--overwrite") == 2
    assert rows(tmp_path, "inter") == before
    assert [path.name for path in folder.parent.iterdir()] == ["Shop"]


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    reviews = dump(tmp_path / "r.gz", [old_review("A1", "B1")])
    for out in (tmp_path / "file", tmp_path / "file" / "Shop"):
        assert main([f"--reviews={reviews}", f"--meta={reviews}", f"--out={out}"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1
        assert "is a file" in error or "can't be written" in error


# -- what comes of it ---------------------------------------------------------------------------


@pytest.fixture
def shop(tmp_path):
    """A converted dataset of 12 users with 6 interactions each; returns its folder."""
    reviews = [
        old_review(f"A{user}", f"B{(user + step) % 14}", 5.0, 1_400_000_000 + step)
        for user in range(12)
        for step in range(6)
    ]
    reviews += [old_review("A1", "B99", 1.0), old_review("A1", "B98", 2.0)]
    reviews += [old_review("A" * length, "B1", 5.0) for length in (1000, 1001)]  # the second is too long
    meta = [
        {"asin": f"B{n}", "title": f'"Soap" no. {n}, "5 oz', "categories": [["Beauty"]]} for n in range(14)
    ]
    meta[3].update(title="", brand="Dove")
    assert run(tmp_path, dump(tmp_path / "r.gz", reviews), dump(tmp_path / "m.gz", meta, repr)) == 0
    return tmp_path / "out" / "Shop"


def test_our_dataset_and_stock_recbole_load_it(shop, tmp_path):
    values = {
        "data_path": str(shop.parent),
        "checkpoint_dir": str(tmp_path / "saved"),
        "item_inter_num_interval": "[1,inf)",
        "gpu_id": "",
    }
    dataset = TextSequentialDataset(build_config("SASRec", "Shop", config_dict=values))
    titles = dict(zip(dataset.field2id_token["item_id"], dataset.titles))
    assert len(titles) == 15
    assert titles["B4"] == '“Soap” no. 4, "5 oz' and titles["B3"] == UNTITLED
    stock = subprocess.run(
        [
            sys.executable,
            "-c",
            "import recbole_ganprompt.compat as compat; compat.apply()\n"
            "from recbole.config import Config\n"
            "from recbole.data.dataset import Dataset\n"
            f"values = {{'data_path': {str(shop.parent)!r}, 'load_col': None, 'gpu_id': ''}}\n"
            "dataset = Dataset(Config('BPR', 'Shop', config_dict=values))\n"
            "print(dataset.inter_num, dataset.item_num - 1, len(dataset.item_feat))\n",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert stock.stdout.split() == ["75", "16", "17"], stock.stderr


def test_statistics_are_those_of_a_run_and_of_the_paper(shop, tmp_path, capsys):
    shop.rename(shop.parent / "Amazon_Beauty")
    for path in (shop.parent / "Amazon_Beauty").iterdir():
        path.rename(path.with_stem("Amazon_Beauty"))
    capsys.readouterr()
    assert main(["--stats", str(shop.parent / "Amazon_Beauty"), "--item_inter_num_interval=[1,inf)"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["Dataset", "Users", "Items", "Interactions", "Sparsity"]
    assert lines[2] == ["Amazon_Beauty", "12", "14", "72", "57.14%"]
    assert lines[3] == ["in", "the", "paper", "2267", "1557", "19119", "99.46%"]


def test_statistics_take_no_misspelt_key(shop, capsys):
    assert main(["--stats", str(shop), "--item_inter_num_intervall=[1,inf)"]) == 2
    assert "did you mean item_inter_num_interval?" in capsys.readouterr().err


def test_help_and_the_module_as_a_command(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0 and "--meta-columns" in capsys.readouterr().out
    command = [sys.executable, "-m", "recbole_ganprompt.data.amazon", "--reviews=nowhere"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: --meta and --out must be given")


def test_a_command_that_is_broken_off_leaves_nothing(tmp_path, capsys, monkeypatch):
    def break_off(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("recbole_ganprompt.data.keyed_rows.KeyedRows.copy", break_off)
    reviews = dump(tmp_path / "r.gz", [old_review("A1", "B1")])
    assert run(tmp_path, reviews, dump(tmp_path / "m.gz", [{"asin": "B1", "title": "Soap"}])) == 130
    assert capsys.readouterr().err.endswith("interrupted\n")
    assert left(tmp_path) == []
