"""The teacher: honest opinions on pairs that it had not trained on."""

import numpy as np
import pytest
import torch
from recbole.data import data_preparation

from recbole_ganprompt.collaborative import Teacher, build_teacher_model, training_negatives
from recbole_ganprompt.config import build_config
from recbole_ganprompt.data.dataset import TextSequentialDataset
from recbole_ganprompt.errors import UserError
from recbole_ganprompt.evaluation.evaluator import score_candidates
from recbole_ganprompt.trainer.teacher import train_teacher

FAST = "--teacher_config={'epochs': 2}"


@pytest.mark.parametrize("name", ["SASRec", "GRU4Rec", "DIN", "Caser", "NARM", "FOSSIL", "LightGCN", "NGCF"])
def test_teachers_give_opinions_on_what_they_have_not_seen(toy, name):
    config = build_config("GANPrompt", arguments=[*toy, FAST, f"--teacher={name}", "--opinion_items=2"])
    dataset = TextSequentialDataset(config)
    train, valid, _ = data_preparation(config, dataset)
    model, settings = build_teacher_model(config, dataset)
    teacher = Teacher(model, settings, seed=1)
    held_out, metrics = train_teacher(teacher, train, valid, config)
    assert 0 <= metrics["gauc"] <= 1
    assert held_out.opinions.shape == held_out.candidates.shape == (len(held_out), 4)
    assert np.isfinite(held_out.opinions).all()
    for user, end, candidates in zip(held_out.users, held_out.ends, held_out.candidates):
        items = dataset.sequences.of(user)[:-2]
        assert candidates[0] == items[end] and end >= len(items) - 2
        assert not set(candidates[1:]) & set(items)
    early = train._dataset.early(2).training_sequences()
    assert all(end >= early.lengths[user] for user, end in zip(held_out.users, held_out.ends))
    part = dataset.evaluation_set("test")
    vectors = teacher.user_vectors(part.users, part.histories, part.lengths)
    assert vectors.shape == (len(part), teacher.vector_size)
    items = teacher.item_vectors()
    assert items.shape == (dataset.item_num, teacher.vector_size)
    if name != "DIN":  # the one that makes no vector of the user: its scores are no inner products
        products = torch.einsum("bh,bch->bc", vectors, items[torch.from_numpy(part.candidates)])
        assert torch.allclose(products, score_candidates(model, part, settings), atol=1e-4)


def test_a_cached_teacher_is_the_same_teacher(toy):
    config = build_config("GANPrompt", arguments=[*toy, FAST])
    dataset = TextSequentialDataset(config)
    train, valid, _ = data_preparation(config, dataset)
    results = []
    for seed in (0, 1):
        torch.manual_seed(seed)  # the second model starts elsewhere, and is then read from the cache
        model, settings = build_teacher_model(config, dataset)
        held_out, _ = train_teacher(Teacher(model, settings, 1), train, valid, config)
        results.append((held_out.opinions, model.item_embedding.weight.detach().clone()))
    assert (results[0][0] == results[1][0]).all() and torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize("name", ["SASRec", "DIN"])  # DIN scores by probability
def test_opinions_do_not_depend_on_a_users_level(toy, name):
    config = build_config("GANPrompt", arguments=[*toy, f"--teacher={name}"])
    dataset = TextSequentialDataset(config)
    dataset.build()
    model, settings = build_teacher_model(config, dataset)
    teacher = Teacher(model, settings, seed=1)
    part = dataset.evaluation_set("test")
    before = teacher.opinions(part.users, part.histories, part.lengths, part.candidates)
    original = model.score_candidates

    def raised(interaction, items):
        scores = original(interaction, items)
        return torch.sigmoid(torch.logit(scores) + 3.0) if name == "DIN" else scores + 3.0

    model.score_candidates = raised
    after = teacher.opinions(part.users, part.histories, part.lengths, part.candidates)
    assert np.allclose(before, after, atol=1e-4)


def test_training_negatives_avoid_training_items_only(toy):
    dataset = TextSequentialDataset(build_config("SASRec", arguments=toy))
    training = dataset.training_sequences()
    users = np.repeat(np.arange(1, dataset.user_num), 40)
    drawn = training_negatives(training, users, dataset.item_num, 5, np.random.default_rng(0))
    hits = 0
    for user, items in zip(users, drawn):
        assert not set(items) & set(training.of(user))
        hits += int(dataset.sequences.of(user)[-1] in items)
    assert hits > 0  # test targets are drawn like any other item


@pytest.mark.parametrize("name", ["NeuMF", "FPMC", "GRU4RecKG", "FDSA", "CoLLM"])
def test_what_cannot_teach_is_refused_before_anything_is_read(name):
    with pytest.raises(UserError, match=f"teacher must be one of MF, LightGCN, .*, not '{name}'"):
        build_config("CoLLM", "no-such-dataset", arguments=[f"--teacher={name}"])
