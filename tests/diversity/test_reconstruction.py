"""Reconstructed texts: what is accepted, what falls back, what is counted."""

import dataclasses

import pytest

from recbole_ganprompt.diversity.encoder import DiversityEncoder, DiversitySettings
from recbole_ganprompt.diversity.reconstruction import (
    ReconstructionSettings,
    reconstruct,
    refusal,
)
from recbole_ganprompt.errors import UserError
from recbole_ganprompt.prompt.document import load_document

SETTINGS = DiversitySettings(max_tokens=48)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("-- 12 ,", "empty"),
        ("Dove shampoo shampoo shampoo", "looping"),
        ("Dove hair oil Dove hair oil Dove hair oil", "looping"),
        ("Olay face cream", "unrelated"),
        ("Dove hair conditioner", None),
        ("DOVE Hair Shampoo, 12 oz", None),
    ],
)
def test_refusal(text, reason):
    assert refusal(text, "Dove hair shampoo 12 oz", {"face"}, 0.25) == reason


def test_titles_without_words_are_compared_by_what_they_have():
    assert refusal("1984 film", "1984", set(), 0.25) is None
    assert refusal("film", "1984", set(), 0.25) == "unrelated"
    assert refusal("anything", "★", set(), 0.25) is None


@pytest.fixture(scope="module")
def encoder(seq2seq):
    template = load_document("encoder")
    return DiversityEncoder(seq2seq.model, seq2seq.tokenizer, None, ["hair", "nail"], template, SETTINGS, [])


def run(toy, encoder, **changes):
    return reconstruct(
        encoder,
        titles=toy.titles,
        excluded={"oz"},
        settings=ReconstructionSettings(**changes),
        seed=1,
        progress=False,
    )


def test_every_item_gets_a_related_text_for_each_class(toy, encoder):
    result = run(toy, encoder)
    assert [len(row) for row in result.texts] == [len(toy.titles)] * 3
    assert all(row[0] == "" and all(row[1:]) for row in result.texts)
    assert result.measures["texts"] == 300
    assert sum(result.fallbacks.values()) < 150
    assert 0 < result.measures["unchanged_share"] <= 1
    assert result.measures["embedding_cosine"] > result.measures["embedding_cosine_shuffled"] + 0.2


def test_fallbacks_are_counted_and_hold_the_title(toy, encoder):
    strict = run(toy, encoder, overlap=2.0, classes=1)
    assert strict.texts == [toy.titles]
    assert sum(strict.fallbacks.values()) == len(toy.titles) - 1
    assert strict.measures["fallback_share"] == 1


@pytest.mark.parametrize("decoding", ["beam", "sample"])
def test_decodings_repeat_with_the_seed(toy, encoder, decoding):
    first = run(toy, encoder, decoding=decoding, classes=1)
    assert first == run(toy, encoder, decoding=decoding, classes=1)


def test_the_decoder_may_see_all_vectors(toy, encoder):
    other = DiversityEncoder(
        encoder.seq2seq,
        encoder.tokenizer,
        None,
        [],
        encoder.template,
        dataclasses.replace(SETTINGS, memory="tokens"),
        [],
    )
    assert run(toy, other).texts != run(toy, encoder, classes=1).texts


def test_mistakes_are_told(toy, encoder):
    with pytest.raises(UserError, match="k"):
        run(toy, encoder, classes=4)
    with pytest.raises(UserError, match="decoding"):
        ReconstructionSettings(decoding="best")
