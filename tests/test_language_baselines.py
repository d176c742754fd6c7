"""TALLRec and CoLLM: whole runs, and what tells each of them from GANPrompt."""

import json

import numpy as np
import pytest
import torch
from recbole.data import create_dataset, data_preparation
from safetensors.torch import load_file
from test_run import SMALL
from toy_dataset import toy_arguments, write_toy

from recbole_ganprompt.config import build_config
from recbole_ganprompt.errors import UserError
from recbole_ganprompt.evaluation.evaluator import score_candidates
from recbole_ganprompt.experiment import run
from recbole_ganprompt.model.collm import CoLLM
from recbole_ganprompt.model.tallrec import TALLRec
from recbole_ganprompt.trainer.collm import CoLLMTrainer
from recbole_ganprompt.trainer.tallrec import TALLRecTrainer

TEACHER = "--teacher_config={'epochs': 3, 'train_batch_size': 64}"
FAST = [one for one in SMALL if "teacher_config" not in one]


@pytest.fixture
def rated(tmp_path):
    """The toy data with ratings: every user's third item was a disappointment."""
    write_toy(tmp_path / "data")
    path = tmp_path / "data" / "toy" / "toy.inter"
    head, *lines = path.read_text().splitlines()
    rows = [f"{line}\t{1 if line.endswith(chr(9) + '2') else 5}" for line in lines]
    path.write_text("\n".join([f"{head}\trating:float", *rows]) + "\n")
    return toy_arguments(tmp_path)


def build(model_class, arguments):
    config = build_config(model_class.__name__, arguments=[*arguments, *FAST])
    train, valid, test = data_preparation(config, create_dataset(config))
    return config, train, valid, test, model_class(config, train._dataset)


def prompt_of(model, evaluation, config, monkeypatch):
    """The text that the model reads for the first user's first candidate."""
    seen = []

    def listen(batch, soft=None, trunks=None):
        seen.append(batch)
        return torch.zeros(len(batch.answers))

    monkeypatch.setattr(model.reader, "logits", listen)
    score_candidates(model, evaluation, config)
    batch = next(batch for batch in seen if (0, 0) in batch.references)
    branch, column = batch.answers[batch.references.index((0, 0))].tolist()
    whole = torch.cat([batch.trunks[batch.row[branch]], batch.ids[branch]])
    return model.tokenizer.decode(whole[batch.allowed[branch, 0, column]])


def test_tallrec_names_what_the_user_disliked_before(rated, monkeypatch):
    config, train, _, _, model = build(TALLRec, rated)
    dataset = train._dataset
    evaluation = dataset.evaluation_set("test")
    user = int(evaluation.users[0])
    low = dataset.dislikes.sequences.of(user)
    assert len(low) == 1 and low[0] not in dataset.sequences.of(user)
    assert evaluation.dislikes[0].tolist() == [low[0], 0, 0, 0, 0]
    # Positions of the sequence: two liked items came before the disliked one.
    known = dataset.dislikes_before(np.full(4, user), np.arange(4))
    assert known[:, 0].tolist() == [0, 0, low[0], low[0]]

    liked = "; ".join(dataset.titles[item] for item in evaluation.histories[0] if item)
    assert prompt_of(model, evaluation, config, monkeypatch).endswith(
        f"User Preference: {liked}\nUser Unpreference: {dataset.titles[low[0]]}\n"
        f"Whether the user will like the target item {dataset.titles[evaluation.candidates[0, 0]]}?\nOutput:"
    )


def test_without_low_ratings_the_sentence_vanishes(toy):
    model = build(TALLRec, toy)[-1]
    prompt = model.prompts["text"]
    assert "UserUnpreference" not in [*prompt.middle, *prompt.tail]


@pytest.mark.smoke
def test_tallrec_runs_and_saves_no_mapping(rated):
    result = run(build_config("TALLRec", arguments=[*rated, *FAST]))
    record = json.loads((result.directory / "result.json").read_text())
    assert "step one" in record["stages"] and "teacher" not in record
    curve = json.loads((result.directory / "curves.json").read_text())["step one"]
    assert curve[-1]["loss"] < curve[0]["loss"]
    assert not (result.directory / "adapter" / "mapping.safetensors").exists()


def test_few_shot_trains_on_the_same_few_samples_for_the_asked_steps(toy):
    arguments = [*toy, "--few_shot=16", "--few_shot_steps=7"]
    config, train, valid, _, model = build(TALLRec, arguments)
    trainer = TALLRecTrainer(config, model)
    draws = [trainer.text_positions(train._dataset, [], np.random.default_rng(seed)) for seed in (1, 2)]
    assert draws[0].candidates.size == 16
    assert np.array_equal(draws[0].candidates, draws[1].candidates)
    before = model.llm.get_input_embeddings().weight.detach().clone()
    steps = []
    original = torch.optim.AdamW.step
    torch.optim.AdamW.step = lambda self, *rest: steps.append(1) or original(self, *rest)
    try:
        trainer.fit(train, valid, saved=False, verbose=False)
    finally:
        torch.optim.AdamW.step = original
    assert len(steps) == 7
    assert not torch.equal(before, model.llm.get_input_embeddings().weight)


def test_few_shot_of_a_wrong_size_is_one_sentence(toy):
    for wrong in (15, 4000):
        with pytest.raises(UserError, match="multiple of 4 .* and at most"):
            build(TALLRec, [*toy, f"--few_shot={wrong}"])


@pytest.mark.parametrize("teacher", ["MF", "LightGCN", "SASRec", "DIN"])
def test_collm_runs_with_each_kind_of_teacher(toy, teacher):
    result = run(build_config("CoLLM", arguments=[*toy, *FAST, TEACHER, f"--teacher={teacher}"]))
    record = json.loads((result.directory / "result.json").read_text())
    assert record["teacher"]["model"] == teacher and 0 < record["teacher"]["test"]["auc"] < 1
    assert "diversity" not in record["stages"]
    curves = json.loads((result.directory / "curves.json").read_text())
    losses = [epoch["loss"] for epoch in curves["step two"]]
    assert losses[-1] < losses[0]
    mapping = load_file(result.directory / "adapter" / "mapping.safetensors")
    assert not any(name.startswith("opinion") for name in mapping)


@pytest.mark.parametrize(
    "tuning, step_two, moved",
    [
        ("full", "mapping", {"mapping", "stage_index"}),
        ("lora", "mapping", {"mapping", "stage_index"}),  # as published
        ("full", "lora+mapping", {"llm", "mapping", "stage_index"}),
    ],
)
def test_collms_second_step_trains_what_it_says(toy, tuning, step_two, moved):
    arguments = [*toy, TEACHER, f"--llm_tuning={tuning}", f"--step_two={step_two}"]
    config, train, valid, test, model = build(CoLLM, arguments)
    trainer = CoLLMTrainer(config, model)
    states = []
    original = trainer.tune_mapping

    def watched(*arguments):
        states.append({name: value.clone() for name, value in model.state_dict().items()})
        return original(*arguments)

    trainer.tune_mapping = watched
    trainer.fit(train, valid, saved=False, verbose=False)
    learnt = [value for name, value in states[0].items() if "lora_B" in name]
    assert bool(learnt) == (tuning == "lora") and all(value.any() for value in learnt)  # by step one
    changed = {
        name.split(".")[0]
        for name, value in model.state_dict().items()
        if not torch.equal(value, states[0][name])
    }
    assert changed == moved
    # The vectors matter: another user's e_u gives another score for the same titles.
    evaluation = train._dataset.evaluation_set("test")
    with_ids = score_candidates(model, evaluation, config)
    model.mapping.user[0].weight.data.zero_()
    assert not torch.allclose(with_ids, score_candidates(model, evaluation, config))


def test_the_prompts_are_the_published_ones(toy):
    collm = build(CoLLM, toy)[-1]
    words = {
        stage: collm.tokenizer.decode(
            [token for token in [*prompt.head, *prompt.middle, *prompt.tail] if isinstance(token, int)]
        )
        for stage, prompt in collm.prompts.items()
    }
    assert "encoded in the feature" in words["mapped"] and "feature" not in words["text"]
    assert words["text"].endswith('Answer with "Yes" or "No".\n#Answer:')
    soft = {
        stage: len([t for t in one.middle if not isinstance(t, int)]) for stage, one in collm.prompts.items()
    }
    assert soft == {"text": 0, "guided": 0, "vectors": 1, "mapped": 1}


def test_a_graph_teacher_sees_training_pairs_only(toy):
    _, train, _, _, model = build(CoLLM, [*toy, "--teacher=LightGCN", TEACHER])
    sequences = train._dataset.training_sequences()
    matrix = model.teacher_model.interaction_matrix
    assert matrix.nnz == len(sequences.items)
    early = train._dataset.early(2)
    model.teacher.know_only(early)
    assert model.teacher_model.interaction_matrix.nnz == len(early.training_sequences().items) < matrix.nnz


def test_a_general_model_is_a_teacher_and_nothing_else(toy):
    with pytest.raises(UserError, match="no sequential model called LightGCN"):
        build_config("LightGCN", arguments=toy)
