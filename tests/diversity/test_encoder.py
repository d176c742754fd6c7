"""The diversity encoder: who learns, what comes apart, what is kept."""

import dataclasses

import numpy as np
import pytest
import torch

from recbole_ganprompt.diversity.encoder import (
    DiversityEncoder,
    DiversitySettings,
    Generator,
    Prompts,
    split_users,
    train_diversity_encoder,
)
from recbole_ganprompt.diversity.measure import class_measures
from recbole_ganprompt.errors import UserError
from recbole_ganprompt.prompt.document import load_document

ATTRIBUTES = ["hair", "nail"]
SETTINGS = DiversitySettings(
    batch_size=24, max_epochs=8, learning_rate=3e-3, discriminator_learning_rate=3e-3, max_tokens=48
)


def train(toy, seq2seq, attributes=ATTRIBUTES, **changes):
    return train_diversity_encoder(
        seq2seq.model,
        seq2seq.tokenizer,
        titles=toy.titles,
        sequences=toy.sequences,
        attributes=attributes,
        template=load_document("encoder"),
        settings=dataclasses.replace(SETTINGS, **changes),
        seed=3,
        progress=False,
    )


def measures(toy, encoder):
    histories = [toy.sequences.of(user) for user in range(1, 61)]
    return class_measures(encoder.embed(toy.titles, histories))


@pytest.fixture(scope="module")
def untrained(toy, seq2seq):
    template = load_document("encoder")
    return DiversityEncoder(seq2seq.model, seq2seq.tokenizer, None, ATTRIBUTES, template, SETTINGS, [])


@pytest.fixture(scope="module")
def trained(toy, seq2seq):
    return train(toy, seq2seq)


def test_classes_come_apart(toy, untrained, trained):
    before, after = measures(toy, untrained), measures(toy, trained)
    assert trained.history[-1]["accuracy"] > 0.8 > 2 * before["chance"]
    assert after["cosine"] < before["cosine"] - 0.2
    assert after["js"] > 2 * before["js"]
    assert after["centroid_accuracy"] > before["centroid_accuracy"]


def test_only_the_encoders_own_layers_learn(toy, seq2seq, trained):
    before, after = seq2seq.model.state_dict(), trained.seq2seq.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all(name.startswith("encoder.") and "embed" not in name for name in moved)


def test_same_seed_same_encoder(toy, seq2seq):
    torch.rand(2)
    first = train(toy, seq2seq, max_epochs=1)
    second = train(toy, seq2seq, max_epochs=1)
    assert first.history == second.history
    weights = first.seq2seq.state_dict(), second.seq2seq.state_dict()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_game_and_the_constraint_can_be_switched_off(toy, seq2seq, trained):
    alone = train(toy, seq2seq, adversarial="none", diversity="none", max_epochs=3)
    against = train(toy, seq2seq, adversarial="zero_sum", diversity="none", lam=3.0, max_epochs=3)
    assert alone.history[-1]["adversarial"] == 0
    assert against.history[-1]["adversarial"] < 0
    assert alone.history[-1]["cosine"] > trained.history[-1]["cosine"] + 0.2


def test_padding_does_not_move_an_embedding(toy, seq2seq):
    prompts = Prompts(seq2seq.tokenizer, toy.titles, [], load_document("encoder"), SETTINGS)
    generator = Generator(seq2seq.model)
    alone = generator(*prompts.batch([[1]], [0], "cpu"))[1][0]
    beside = generator(*prompts.batch([[1], [1, 2, 3, 4]], [0, 0], "cpu"))[1][0]
    torch.testing.assert_close(alone, beside, atol=1e-5, rtol=1e-4)


def test_training_stops_when_nothing_moves(toy, seq2seq):
    still = train(toy, seq2seq, learning_rate=1e-9, discriminator_learning_rate=1e-9, max_epochs=9)
    assert len(still.history) == 1 + SETTINGS.patience


def test_a_saved_encoder_is_the_same_one(toy, trained, tmp_path):
    trained.save(tmp_path)
    loaded = DiversityEncoder.load(tmp_path)
    history = [[1, 2, 3]]
    first, second = (e.embed(toy.titles, history) for e in (trained, loaded))
    np.testing.assert_array_equal(first, second)
    x = torch.from_numpy(first)
    torch.testing.assert_close(trained.discriminator(x), loaded.discriminator(x))
    assert (loaded.attributes, loaded.settings) == (ATTRIBUTES, trained.settings)


def test_held_out_users_are_not_trained_on(toy):
    training, held_out = split_users(toy.sequences, 1000, 0)
    assert len(held_out) == 12 and not set(training) & set(held_out)
    assert 0 not in {*training, *held_out}


def test_mistakes_are_told(toy, seq2seq):
    with pytest.raises(UserError, match="attribute"):
        train(toy, seq2seq, attributes=[])
    for wrong in ({"adversarial": "no"}, {"max_epochs": 0}, {"gamma": -1.0}, {"diversity": "js"}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            DiversitySettings(**wrong)
