"""Checkpoints as files: whole or not there, verified, of one computation; and the way back to them."""

import errno
import logging
import os

import numpy as np
import pytest
import torch

from recbole_ganprompt.checkpoints import Checkpoints, NotFinite, checkpointing, pack, rolling_back, unpack
from recbole_ganprompt.errors import UserError

KEY = {"llm_epochs": 2, "texts": "0123456789abcdef"}


def names(folder):
    return sorted(path.name[:8] for path in folder.iterdir())


@pytest.mark.smoke
def test_a_state_comes_back_as_it_was():
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    generator = np.random.default_rng(3)
    generator.random()
    state = {
        "optimizer": optimizer.state_dict(),
        "generator": generator.bit_generator.state,
        "numpy": np.random.get_state(),
        "half": torch.ones(3, dtype=torch.bfloat16)[::2],
        "texts": ["⟨Title⟩", None, True, -np.inf, 2**70],
        "nothing": np.zeros((0, 3), dtype=np.float32),
        "counts": {1: 2, "a": (1, "b")},
    }
    back = unpack(pack(state))
    assert back["counts"] == {1: 2, "a": (1, "b")} and back["texts"] == state["texts"]
    assert back["generator"] == state["generator"] and back["nothing"].shape == (0, 3)
    assert back["half"].dtype == torch.bfloat16 and back["half"].tolist() == [1, 1]
    np.testing.assert_array_equal(back["numpy"][1], state["numpy"][1])
    assert back["numpy"][1].dtype == np.uint32
    again = torch.optim.AdamW(model.parameters())
    again.load_state_dict(back["optimizer"])
    first = next(iter(optimizer.state.values()))["exp_avg"]
    assert torch.equal(next(iter(again.state.values()))["exp_avg"], first)


def test_the_last_two_are_kept_and_the_newest_is_loaded(tmp_path):
    checkpoints = Checkpoints(tmp_path, KEY)
    assert checkpoints.load() is None
    for number in range(4):
        checkpoints.save({"number": number})
    assert names(tmp_path) == ["00000003", "00000004"]
    assert Checkpoints(tmp_path, KEY).load() == {"number": 3}


@pytest.mark.parametrize("damage", ["truncated", "changed", "empty"])
def test_a_damaged_one_is_named_and_the_one_before_it_used(tmp_path, caplog, damage):
    for number in range(2):
        Checkpoints(tmp_path, KEY).save({"number": number})
    newest = max(tmp_path.iterdir())
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes({"truncated": data[:-7], "changed": data, "empty": b""}[damage])
    checkpoints = Checkpoints(tmp_path, KEY)
    with caplog.at_level(logging.WARNING):
        assert checkpoints.load() == {"number": 0}
    assert str(newest) in caplog.text
    checkpoints.save({"number": 2})
    assert newest not in tmp_path.iterdir()
    assert names(tmp_path) == ["00000001", "00000003"]
    assert Checkpoints(tmp_path, KEY).load() == {"number": 2}


def test_one_of_another_run_is_refused_with_what_differs(tmp_path):
    Checkpoints(tmp_path, KEY).save({})
    other = {"llm_epochs": 3, "texts": "fedcba9876543210"}
    with pytest.raises(UserError, match="llm_epochs was 2 and is 3, texts changed"):
        Checkpoints(tmp_path, other).load()


def test_a_full_disk_leaves_the_older_ones(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, KEY)
    checkpoints.save({"number": 0})

    def full(*paths):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="No space"):
            checkpoints.save({"number": 1})
    assert len(list(tmp_path.iterdir())) == 1
    assert checkpoints.load() == {"number": 0}


def test_they_are_written_as_often_as_asked(tmp_path):
    checkpoints = Checkpoints(tmp_path, KEY)
    asked = []

    def state():
        asked.append(1)
        return {}

    for every, times in (("3 steps", 3), (3, 3), ("0.0000001min", 9), ("none", 0), ("10min", 0)):
        asked.clear()
        with checkpointing(every):
            for _ in range(9):
                checkpoints.reached(state)
        assert len(asked) == times, every


def test_back_to_the_last_checkpoint_with_half_the_rate(tmp_path):
    checkpoints, rates = Checkpoints(tmp_path, KEY), []

    def train(state, halvings):
        rates.append((None if state is None else state["done"], 0.5**halvings))
        if state is None:
            checkpoints.save({"done": 5, "halvings": halvings})
        if len(rates) < 3:
            raise NotFinite("batch 7: the loss is not finite")
        checkpoints.save({"done": 9, "halvings": halvings})
        return "trained"

    assert rolling_back(train, checkpoints) == "trained"
    assert rates == [(None, 1), (5, 0.5), (5, 0.25)]
    # A killed training goes on with the rate that it had come down to.
    assert checkpoints.load()["halvings"] == 2
    assert rolling_back(train, checkpoints) == "trained" and rates[-1] == (9, 0.25)


def test_three_times_and_no_more():
    tried = []

    def train(state, halvings):
        tried.append(halvings)
        raise NotFinite("step one, batch 7: the loss is not finite")

    with pytest.raises(UserError, match="batch 7.*lower the learning rate"):
        rolling_back(train, Checkpoints())
    assert tried == [0, 1, 2, 3]
