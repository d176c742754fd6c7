"""Attributes: whole words of the domain that follow from the histories."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from recbole_ganprompt.data.dataset import Sequences
from recbole_ganprompt.diversity.attributes import (
    count_attributes,
    excluded_words,
    most_frequent,
    read_words,
    whole_words,
    write_words,
)
from recbole_ganprompt.errors import UserError
from recbole_ganprompt.prompt.document import load_document


def count(toy, masked_lm, sequences=None, **changes):
    settings = {"domain": "beauty products", "excluded": excluded_words(), "top": 3, **changes}
    return count_attributes(
        masked_lm.model,
        masked_lm.tokenizer,
        titles=toy.titles,
        sequences=sequences or toy.sequences,
        template=load_document("attributes"),
        progress=False,
        **settings,
    )


def of_users(toy, users) -> Sequences:
    rows = [toy.sequences.of(user) for user in users]
    offsets = np.concatenate([[0, 0], np.cumsum([len(row) for row in rows])])
    return Sequences(np.concatenate(rows), offsets)


def test_attributes_follow_from_the_histories(toy, masked_lm):
    of_hair = count(toy, masked_lm, of_users(toy, range(1, 60, 2)))
    of_nails = count(toy, masked_lm, of_users(toy, range(2, 60, 2)))
    assert min(of_hair["hair"], of_nails["nail"]) > 25
    assert max(of_hair["nail"], of_nails["hair"]) < 5


def test_attributes_are_whole_words_of_the_catalogue(toy, masked_lm):
    known = {word.strip(",").lower() for title in toy.titles for word in title.split()}
    counts = count(toy, masked_lm)
    assert counts.total() == 3 * 60
    assert set(counts) <= known | set(load_document("attributes").lower().split())
    assert all(word.isalpha() and len(word) > 2 for word in counts)


def test_excluded_words_never_come_out(toy, masked_lm, tmp_path):
    own = tmp_path / "own.txt"
    own.write_text("# mine\nHair\nnail # both\n")
    words = set(count(toy, masked_lm, excluded=excluded_words(own)))
    assert words and not words & {"hair", "nail"}
    assert {"the", "ounce", "pack", "new"} <= excluded_words()


def test_histories_beyond_the_models_length_still_find_their_mask(toy, masked_lm):
    long = Sequences(np.tile(toy.sequences.of(1), 20), np.array([0, 0, 160]))
    assert count(toy, masked_lm, long, history=160, max_tokens=10_000).total() == 3


def test_users_without_history_and_samples(toy, masked_lm):
    assert count(toy, masked_lm, max_users=10).total() == 30
    empty = Sequences(np.array([], dtype=np.int64), np.array([0, 0, 0]))
    assert count(toy, masked_lm, empty) == Counter()


@pytest.mark.parametrize(
    ("vocabulary", "expected"),
    [
        ({"skin": 0, "##skin": 1, "b5x": 2, "it": 3, "[MASK]": 4, "Ġ": 5}, {0: "skin"}),
        ({"Ġskin": 0, "skin": 1, "Ġb5": 2, "ĠSkin": 3, "[MASK]": 4}, {0: "skin", 3: "skin"}),
        ({"▁skin": 0, "skin": 1, "▁": 2, "▁créme": 3, "[MASK]": 4}, {0: "skin", 3: "créme"}),
    ],
    ids=["wordpiece", "byte-level", "sentencepiece"],
)
def test_fragments_are_told_from_words(vocabulary, expected):
    tokenizer = SimpleNamespace(get_vocab=lambda: vocabulary, all_special_ids=[4])
    assert whole_words(tokenizer) == expected


def test_most_frequent_breaks_ties_by_name_and_allows_none():
    counts = Counter({"skin": 2, "nail": 3, "hair": 2})
    assert most_frequent(counts, 2) == ["nail", "hair"]
    assert most_frequent(counts, 0) == []


def test_the_list_can_be_edited(tmp_path):
    path = tmp_path / "attributes.txt"
    write_words(path, ["skin", "hair"], "one a line")
    path.write_text(path.read_text() + "Nail\n\nskin\n")
    assert read_words(path) == ["skin", "hair", "nail"]
    with pytest.raises(UserError, match="nowhere"):
        read_words(tmp_path / "nowhere.txt")
    path.write_text("skin\nhair\n", encoding="utf-8-sig")
    assert read_words(path) == ["skin", "hair"]
    path.write_bytes("créme".encode("latin-1"))
    with pytest.raises(UserError, match="not UTF-8"):
        read_words(path)
