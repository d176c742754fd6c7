"""Values and configuration files as strangers write them: read as RecBole reads them, never run."""

import pytest
from recbole.config import Config

from recbole_ganprompt.config import build_config
from recbole_ganprompt.errors import UserError
from recbole_ganprompt.keys import load_yaml, parse_value

LEGITIMATE = ["0", "3", "-7", "1_000", "0x1F", "0.5", "-.5", "1.", "1e-4", "1E+3", "True", "False", "true"]
LEGITIMATE += ["FALSE", "None", "SASRec", "a b", "'quoted'", '"x"', "", "../data", "[5,inf)", "(0,10]"]
LEGITIMATE += ["[1, 2]", "[]", "[[1, 2], ['a']]", "(1, 'b')", "()", "{'mode': 'uni9', 'k': {'a': [1]}}", "{}"]
LEGITIMATE += [
    "[None, True, -1.5e3]",
    "1,2",
    "{1, 2}",
    "b'x'",
    "2j",
    "user@host:/x y",
    "ml-100k",
    "cuda:0",
    "[a",
]


@pytest.mark.parametrize("text", LEGITIMATE)
def test_a_value_is_what_recbole_reads(text):
    (stock,) = Config._convert_config_dict(None, {"key": text}).values()
    ours = parse_value("rating_threshold", text)  # a key without a default, which takes anything
    assert ours == stock and type(ours) is type(stock)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch {}')",
        "open('{}', 'w')",
        "[open('{}', 'w')]",
        "{{'a': open('{}', 'w')}}",
        "(lambda: open('{}', 'w'))()",
        "f\"{{open('{}', 'w')}}\"",
        "!!python/object/apply:os.system ['touch {}']",
        "[!!python/object/apply:os.system ['touch {}']]",
    ],
)
def test_code_on_the_command_line_stays_a_text(text, tmp_path):
    text = text.format(tmp_path / "made")
    for key in ("rating_threshold", "topk", "item_domain"):
        assert parse_value(key, text) == text
    config = build_config("SASRec", "ml-100k", arguments=[f"--item_domain={text}", "--gpu_id="])
    assert config["item_domain"] == text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "-" * 100_000 + "1", "(" * 5000 + ")" * 5000, "9" * 5000, "1+" * 9999 + "1"]
)
def test_values_nested_or_long_without_measure_stay_texts(text):
    assert parse_value("rating_threshold", text) == text


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 10)}]\n" for n in range(12)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n + 1}: &a{n + 1} {{<<: [{', '.join([f'*a{n}'] * 10)}]}}\n" for n in range(12)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: !!python/object/apply:os.system ['touch {}']", "line 1: could not determine a constructor"),
        ("seed: 1\nepochs: !!python/name:os.system", "line 2: could not determine a constructor"),
        ("x: !mine {{}}", "values are plain numbers, texts, lists and dictionaries"),
        (BOMB, "more than 100,000 values, aliases resolved"),
        (MERGES, "more than 100,000 values, aliases resolved"),
        ("a: &a [*a]", "more than 100,000 values, aliases resolved"),
        ("[" * 5000, "is not valid YAML"),
        ("a: " + "9" * 5000, "is not valid YAML"),
        ("a: 2024-13-45", "is not valid YAML"),
        ("a: !!bool maybe", "is not valid YAML"),
        ("? [1]\n: 2", "line 1: found unhashable key"),
        ("a: \0", "is not valid YAML"),
        ("- a", "must hold lines of the form 'key: value'"),
    ],
)
def test_hostile_yaml_is_one_sentence(text, message, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace("{}", str(tmp_path / "made")))
    with pytest.raises(UserError) as caught:
        load_yaml(path)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.yaml"]


def test_an_ordinary_alias_is_read(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("topk: &k [1, 3]\nother: *k\nbase: &b {x: 1}\nmore: {<<: *b, y: 1e-4}\n")
    assert load_yaml(path) == {"topk": [1, 3], "other": [1, 3], "base": {"x": 1}, "more": {"x": 1, "y": 1e-4}}
