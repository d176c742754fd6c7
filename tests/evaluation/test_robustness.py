"""Agreement of rankings, perturbations of input, and what a robust model looks like."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from recbole_ganprompt.evaluation.perturbation import PERTURBATIONS
from recbole_ganprompt.evaluation.robustness import (
    TRAINING,
    agreement,
    decided,
    difference,
    movement,
    robustness,
)

GENERATOR = np.random.default_rng(0)
SCORES = GENERATOR.normal(size=(200, 10))


def test_agreement_is_scipys_kendall_tau_and_plain_overlap():
    first = SCORES.round(1)  # ties
    second = (SCORES + GENERATOR.normal(size=SCORES.shape)).round(1)
    found = agreement(first, second)
    for row in range(20):
        assert found.kendall_tau[row] == pytest.approx(kendalltau(first[row], second[row]).statistic)
        tops = [set(np.argsort(-scores[row], kind="stable")[:3]) for scores in (first, second)]
        assert found.overlap_at_3[row] == pytest.approx(len(tops[0] & tops[1]) / 3)
        assert found.top1_changed[row] == (np.argmax(first[row]) != np.argmax(second[row]))
    same = agreement(first, 2 * first + 1)
    assert np.all(same.kendall_tau == 1) and not same.top1_changed.any() and np.all(same.overlap_at_3 == 1)


def test_a_steady_model_drops_less_and_agrees_more():
    good = SCORES.copy()
    good[:, 0] += 1.5
    groups = {f"{kind} {number}": kind for kind in ("wording", "perturbation") for number in range(3)}
    variants = {
        name: good + GENERATOR.normal(scale=0.1 if kind == "wording" else 3, size=good.shape)
        for name, kind in groups.items()
    }
    found = robustness([{TRAINING: good, **variants}], groups)
    steady, shaken = found["summary"]["wording"], found["summary"]["perturbation"]
    assert found["users"] == 200 and len(found["variants"]) == 6
    for metric in ("auc", "gauc", "hit@1"):
        one = shaken["metrics"][metric]
        assert steady["metrics"][metric]["relative_drop"] < one["relative_drop"]
        assert one["worst"] <= one["mean"] < found["baseline"][metric]
        assert one["low"] < one["relative_drop"] < one["high"] and one["low"] > 0
    assert steady["kendall_tau"]["mean"] > 0.8 > shaken["kendall_tau"]["high"]
    assert steady["top1_changed"]["high"] < shaken["top1_changed"]["low"]


def test_two_models_are_compared_on_the_same_users():
    """The noise that both models share falls out of a paired difference, but not of two intervals."""
    shared = 3 * GENERATOR.normal(size=SCORES.shape)
    shared[:100] = 0  # half the users aren't moved at all
    good = SCORES.copy()
    good[:, 0] += 1.5

    def model(scale):
        seeds = [{TRAINING: good, "terse": good + scale * shared} for _ in range(2)]
        for seed in seeds:
            seed["polite"] = seed["terse"] + 0.1 * GENERATOR.normal(size=good.shape)
        return movement(seeds, ["terse", "polite"])

    steady, shaken = model(0.5), model(0.6)
    found = difference(steady, shaken)
    tau = found["kendall_tau"]
    assert tau["low"] > 0 and decided(tau)
    separate = [np.quantile(one["kendall_tau"], (0.025, 0.975)) for one in (steady, shaken)]
    assert separate[0][0] < separate[1][1]  # two intervals alone don't tell them apart
    assert tau["difference"] == pytest.approx(steady["kendall_tau"][0] - shaken["kendall_tau"][0])
    same = difference(steady, steady)
    assert same["relative_drop"]["gauc"] == {"difference": 0, "low": 0, "high": 0}
    assert not decided(same["relative_drop"]["gauc"])


def test_seeds_are_averaged_and_a_drop_from_zero_is_none():
    never = SCORES.copy()
    never[:, 0] = -9  # no user's positive is ever first
    runs = [{TRAINING: never, "terse": scores} for scores in (never, SCORES)]
    found = robustness(runs, {"terse": "wording"})
    alone = [robustness([run], {"terse": "wording"})["variants"][0]["metrics"]["mrr@3"] for run in runs]
    assert found["variants"][0]["metrics"]["mrr@3"] == pytest.approx(np.mean(alone)) != alone[1]
    measured = found["summary"]["wording"]["metrics"]["hit@1"]
    assert found["baseline"]["hit@1"] == 0 < measured["mean"]
    assert [measured[key] for key in ("relative_drop", "low", "high")] == [None] * 3
    assert found["variants"][0]["relative_drop"]["hit@1"] is None


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_perturbed_titles_are_always_the_same_text(title):
    for perturbation in PERTURBATIONS.values():
        assert perturbation.title(title) == perturbation.title(title)


def test_perturbations_change_what_they_say():
    title = "The Great Adventure of Two Children and a Shampoo without Fragrance"
    changed = {name: one.title(title) for name, one in PERTURBATIONS.items()}
    assert changed["lower_case"] == title.lower() and changed["upper_case"] == title.upper()
    assert sorted(changed["word_order"].split()) == sorted(title.split()) != changed["word_order"].split()
    assert "Kids" in changed["synonyms"] and "&" in changed["abbreviations"].split()
    assert changed["spaces_and_punctuation"].replace(",", "").replace("!", "").split() == title.split()
    typed = changed["typos"]
    assert typed != title and abs(len(typed) - len(title)) <= 4
    history = np.arange(9)
    moved = {name: one.history(history).tolist() for name, one in PERTURBATIONS.items()}
    assert moved["reversed_history"] == history[::-1].tolist()
    assert sorted(moved["shuffled_history"]) == history.tolist() != moved["shuffled_history"]
    assert moved["thinned_history"] == [0, 2, 3, 5, 6, 8] and moved["typos"] == history.tolist()
