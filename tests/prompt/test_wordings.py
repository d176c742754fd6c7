"""The wordings that robustness is measured with are wordings that nothing was trained on."""

import re

import pytest

from recbole_ganprompt.model.collm import CoLLM
from recbole_ganprompt.model.ganprompt import GANPrompt
from recbole_ganprompt.model.tallrec import TALLRec
from recbole_ganprompt.prompt.template import HISTORY, TITLE, Slot, parse_template, read_template
from recbole_ganprompt.prompt.wordings import load_wordings

TRAINED = [read_template(name) for name in ("recommendation", "collm", "tallrec")]
TRAINED += load_wordings("training").values()


def words(source):
    text = source.get("text") or f"{source['instruction']} {source['input']}"
    return re.findall(r"\w+", re.sub("⟨.*?⟩", " ", text).lower())


def runs_of(source, length):
    found = words(source)
    return {tuple(found[start : start + length]) for start in range(len(found) - length + 1)}


def test_there_are_enough_of_them():
    assert len(load_wordings("held_out")) >= 12 and len(load_wordings("training")) >= 5
    answers = {(one["positive"], one["negative"]) for one in load_wordings("held_out").values()}
    assert len(answers) >= 3
    assert {(one["positive"], one["negative"]) for one in load_wordings("training").values()} == {
        ("Yes.", "No.")
    }


@pytest.mark.parametrize("name", load_wordings("held_out"))
def test_a_held_out_wording_shares_no_six_words_with_a_trained_one(name):
    seen = set().union(*(runs_of(source, 6) for source in TRAINED))
    assert not runs_of(load_wordings("held_out")[name], 6) & seen


@pytest.mark.parametrize("kind", ["held_out", "training"])
@pytest.mark.parametrize("model", [GANPrompt, CoLLM, TALLRec], ids=lambda model: model.__name__)
def test_every_model_can_be_asked_in_all_wordings(kind, model):
    for source in load_wordings(kind).values():
        template = parse_template(source, model.slots)
        slots = [part.name for part in template.parts if isinstance(part, Slot)]
        assert sorted(slots) == sorted(set(slots)) and set(slots) == set(model.slots)
        alone = parse_template(source, (HISTORY, TITLE))
        assert not re.search(r"[\[\]⟨⟩]", "".join(getattr(part, "text", "") for part in alone.parts))
