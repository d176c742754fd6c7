"""What an optimizer step and an epoch of a language model's training are made of."""

import numpy as np
import pytest
import torch
from recbole.data import create_dataset, data_preparation
from test_run import SMALL

from recbole_ganprompt.config import build_config
from recbole_ganprompt.model.collm import CoLLM
from recbole_ganprompt.model.ganprompt import GANPrompt
from recbole_ganprompt.model.tallrec import TALLRec
from recbole_ganprompt.trainer.collm import CoLLMTrainer
from recbole_ganprompt.trainer.ganprompt import GANPromptTrainer
from recbole_ganprompt.trainer.steps import _StepTraining
from recbole_ganprompt.trainer.tallrec import TALLRecTrainer


def build(model_class, trainer_class, arguments):
    given = {argument.partition("=")[0] for argument in arguments}
    small = [one for one in SMALL if one.partition("=")[0] not in given]
    config = build_config(model_class.__name__, arguments=[*small, *arguments])
    train, valid, _ = data_preparation(config, create_dataset(config))
    return trainer_class(config, model_class(config, train._dataset)), train, valid


@pytest.fixture
def sizes(monkeypatch):
    """Samples of every optimizer step from now on."""
    found = []
    original = _StepTraining._accumulate

    def watched(self, rows):
        found.append(sum(len(row.answers) for row in rows))
        return original(self, rows)

    monkeypatch.setattr(_StepTraining, "_accumulate", watched)
    return found


@pytest.mark.parametrize("batch_size", [40, 100])
def test_a_step_has_the_samples_that_its_key_asks_for(toy, sizes, batch_size):
    arguments = [*toy, f"--llm_batch_size={batch_size}", "--llm_epochs=1"]
    trainer, train, valid = build(TALLRec, TALLRecTrainer, arguments)
    trainer.fit(train, valid, saved=False, verbose=False)
    positions = trainer.text_positions(train._dataset, [], np.random.default_rng(0))
    assert sum(sizes) == positions.candidates.size
    assert np.mean(sizes) == pytest.approx(batch_size, rel=0.2)


def test_few_shot_takes_as_many_steps_as_asked_however_rows_fall(toy, sizes):
    arguments = [*toy, "--few_shot=100", "--few_shot_steps=23"]
    trainer, train, valid = build(TALLRec, TALLRecTrainer, arguments)
    trainer.fit(train, valid, saved=False, verbose=False)
    assert len(sizes) == 23 and max(sizes) < 60


@pytest.mark.parametrize(
    "model_class, trainer_class, arguments",
    [(CoLLM, CoLLMTrainer, []), (GANPrompt, GANPromptTrainer, ["--mapping_positions=all", "--attributes=0"])],
)
def test_step_two_draws_fresh_negatives_where_no_opinion_hangs_on_them(
    toy, model_class, trainer_class, arguments
):
    trainer, train, valid = build(model_class, trainer_class, [*toy, *arguments])
    seen = []
    rows = trainer.rows

    def watched(dataset, positions, stage, *rest):
        if stage in ("mapped", "vectors"):
            at = rest[2] if len(rest) > 2 and rest[2] is not None else slice(None)
            seen.append((stage, positions.candidates[at].copy()))
        return rows(dataset, positions, stage, *rest)

    trainer.rows = watched
    trainer.fit(train, valid, saved=False, verbose=False)
    fresh = "mapped" if model_class is CoLLM else "vectors"
    first, second = [candidates for stage, candidates in seen if stage == fresh][:2]
    assert np.array_equal(first[:, 0], second[:, 0]) and (first[:, 1:] != second[:, 1:]).any()
    if model_class is GANPrompt:
        first, second = [candidates for stage, candidates in seen if stage == "mapped"][:2]
        assert np.array_equal(first, second)
    assert all(torch.isfinite(parameter).all() for parameter in trainer.model.mapping.parameters())
