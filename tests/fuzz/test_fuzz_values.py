"""Any template, YAML file or value: what it says, or one sentence."""

import pytest
from broken_bytes import ANYTHING, DEADLINE, NASTY, damaged, is_one_sentence
from hypothesis import example, given, settings
from hypothesis import strategies as st
from toy_dataset import write_toy

from recbole_ganprompt.config import build_config
from recbole_ganprompt.data.dataset import TextSequentialDataset
from recbole_ganprompt.errors import UserError
from recbole_ganprompt.keys import known_keys, load_yaml, parse_value, properties_path
from recbole_ganprompt.prompt.template import SLOTS, TITLE, Slot, Text, load_template

PROMPTS = [path.read_bytes() for path in sorted(properties_path("prompt").glob("*.yaml"))]
FILES = [path.read_bytes() for path in sorted(properties_path().glob("*.yaml"))]
MARKS = [
    "[",
    "]",
    "{",
    "}",
    "(",
    ")",
    ": ",
    "- ",
    "&a ",
    "*a",
    "!!int ",
    "!!python/name:os ",
    "<<: ",
    "? ",
    "| ",
]
MARKS += [
    "[[",
    "]]",
    "⟨",
    "⟩",
    "⟨TargetTitle⟩",
    "⟨UserHistory⟩",
    "#",
    "1e-4",
    "true",
    "none",
    "~",
    "2024-13-45",
]
TEXTS = st.lists(st.sampled_from(NASTY + MARKS) | st.text(max_size=4), max_size=20).map("".join)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A folder with a dataset of that name."""
    folder = tmp_path_factory.mktemp("data")
    write_toy(folder, "shop")
    return folder


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("values") / "any.yaml"


@settings(deadline=DEADLINE)
@given(damaged(*PROMPTS) | ANYTHING, st.sets(st.sampled_from(SLOTS)))
def test_any_file_is_a_template_or_one_sentence(path, content, slots):
    path.write_bytes(content)
    try:
        template = load_template(str(path), slots)
    except UserError as error:
        assert is_one_sentence(error)
        return
    assert Slot(TITLE) in template.parts
    assert {part.name for part in template.parts if isinstance(part, Slot)} <= slots
    assert all(part.text for part in template.parts if isinstance(part, Text))


@settings(deadline=DEADLINE)
@given(TEXTS, TEXTS, st.sampled_from(["text", "input"]))
@example("⟨\x1b", "Yes.", "text")
@example("[[" * 9000, "Yes.", "text")
def test_any_text_is_a_template_or_one_sentence(path, text, answer, frame):
    source = {"instruction": text, frame: f"{text}⟨TargetTitle⟩{text}", "positive": answer, "negative": "No."}
    path.write_text("".join(f"{key}: {_quoted(value)}\n" for key, value in source.items()), encoding="utf-8")
    try:
        assert Slot(TITLE) in load_template(str(path), {TITLE}).parts
    except UserError as error:
        assert is_one_sentence(error)


def _quoted(text: str) -> str:
    return '"' + "".join(f"\\U{ord(char):08x}" for char in text) + '"'


@settings(deadline=DEADLINE)
@given(damaged(*FILES) | ANYTHING | TEXTS.map(lambda text: text.encode("utf-8", "replace")))
@example(b"a: !!int ''")
@example(b"a: !!timestamp never")
@example(b"a: !!float x")
@example(b"a: 0b_")
@example(b"? {a: 1}\n: b")
def test_any_yaml_is_keys_and_values_or_one_sentence(path, content):
    path.write_bytes(content)
    try:
        assert isinstance(load_yaml(path), dict)
    except UserError as error:
        assert is_one_sentence(error)


@settings(deadline=DEADLINE)
@given(st.sampled_from(sorted(known_keys())), TEXTS)
def test_any_text_is_a_value(key, text):
    value = parse_value(key, text)
    assert value is None or isinstance(value, (str, int, float, list, tuple, dict))


READING = ["field_separator", "seq_separator", "encoding", "item_text", "rating_threshold", "load_col"]
READING += ["USER_ID_FIELD", "TIME_FIELD", "RATING_FIELD", "user_inter_num_interval", "unpreference_rating"]
LIKELY = [
    "item_id",
    "{title}",
    "{title} {brand}",
    "latin-1",
    "utf-16",
    "timestamp",
    "rating",
    "[1,3]",
    "(,)",
    "5",
]
LIKELY += ["{'inter': '*'}", "{'inter': ['user_id'], 'item': '*'}"]


@settings(deadline=DEADLINE)
@given(
    # local_rank makes RecBole wait for other processes.
    st.sampled_from(sorted(known_keys() - {"local_rank"})) | st.sampled_from(READING),
    TEXTS | st.sampled_from(LIKELY),
)
@example("load_col", "5")
@example("load_col", "item_id")
@example("load_col", "")
@example("USER_ID_FIELD", "{'inter': '*'}")
@example("USER_ID_FIELD", "item_id")
@example("USER_ID_FIELD", "timestamp")
@example("encoding", '\t"')
@example("metrics", "\t")
@example("user_inter_num_interval", "")
@example("model", "3")
def test_any_value_of_any_key_is_a_configuration_or_one_sentence(shop, key, text):
    arguments = [f"--data_path={shop}", "--gpu_id="]
    try:
        named = [] if key == "model" else ["--model=SASRec"]
        config = build_config(dataset="shop", arguments=[*arguments, *named, f"--{key}={text}"])
        if key in READING:
            TextSequentialDataset(config)
    except UserError as error:
        assert is_one_sentence(error)
