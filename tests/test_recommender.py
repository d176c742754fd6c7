"""A finished run answers without its dataset."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from recbole.data import create_dataset
from safetensors.numpy import load_file
from toy_dataset import toy_arguments, write_toy

import recbole_ganprompt
from recbole_ganprompt.config import build_config
from recbole_ganprompt.errors import UserError
from recbole_ganprompt.experiment import run
from recbole_ganprompt.keys import properties_path

SMALL = [
    "--teacher_config={'epochs': 5, 'train_batch_size': 16}",
    "--builtin_llm={'hidden_size': 48, 'intermediate_size': 96, 'vocab_size': 500, 'max_tokens': 20000}",
    "--reconstructed_share=0",
    "--llm_steps=8",
    "--mapping_epochs=1",
]
RUNS = {
    "GANPrompt": [],
    "CoLLM with SASRec": [],
    "CoLLM with MF": ["--teacher=MF"],
    "CoLLM with LightGCN": ["--teacher=LightGCN"],
    "CoLLM with DIN": ["--teacher=DIN", "--load_col={'inter': '*', 'item': ['item_id', 'kind', 'colour']}"],
    "TALLRec": [],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    write_toy(folder / "data")
    items = folder / "data/toy/toy.item"
    first, *lines = items.read_text().splitlines()
    kinds = [f"{line}\t{line.split()[-1]}\t{line.split()[1]}" for line in lines]
    items.write_text("\n".join([first + "\tkind:token\tcolour:token", *kinds]) + "\n")
    return folder


@pytest.fixture(scope="module", params=RUNS)
def finished(request, folder):
    """A run that was moved away from its data, its checkpoint and its built-in model."""
    given = [*toy_arguments(folder), *SMALL, *RUNS[request.param]]
    result = run(build_config(request.param.split()[0], arguments=given))
    elsewhere = folder / "elsewhere" / request.param.replace(" ", "-")
    shutil.copytree(result.directory, elsewhere)
    for backbone in (folder / "saved" / "backbones").glob("*"):
        shutil.rmtree(backbone)
    return result, elsewhere


def test_scores_are_the_runs_own(finished, folder):
    result, elsewhere = finished
    config = build_config(result.record["model"], arguments=toy_arguments(folder))
    candidates = create_dataset(config).evaluation_set("test").candidates
    recommender = recbole_ganprompt.load(elsewhere)
    known, kept = recommender.dataset, load_file(elsewhere / "ranks.safetensors")
    for row, user in list(enumerate(kept["test_user"]))[:5]:
        history = known.sequences.of(user)
        items = candidates[row]
        scores = recommender.score(
            [known.titles[item] for item in history[:-1]],
            [known.titles[item] for item in items],
            user_id=known.users[user],
        )
        assert items[0] == history[-1]
        expected = 1 / (1 + np.exp(-kept["test_score"][row]))
        assert np.abs(scores - expected).max() < 1e-4


def test_recommends_what_is_new_to_the_user(finished):
    _, elsewhere = finished
    recommender = recbole_ganprompt.load(elsewhere)
    found = recommender.recommend("u3", k=5)
    probabilities = [one.probability for one in found]
    assert len(found) == 5 and probabilities == sorted(probabilities, reverse=True)
    history = recommender.dataset.sequences.of(recommender._user("u3"))
    assert not {one.item_id for one in found} & {recommender.dataset.items[item] for item in history}
    assert all(one.title in recommender.dataset.titles and 0 < one.probability < 1 for one in found)
    own = [recommender.dataset.titles[item] for item in history]
    again = recommender.score(own, [one.title for one in found], user_id="u3")
    assert np.abs(again - probabilities).max() < 1e-4


def test_strangers_and_unknown_titles_are_judged_by_words(finished):
    recommender = recbole_ganprompt.load(finished[1])
    scores = recommender.score(["Red lipstick", "Something new"], ["Red soap", "A thing never sold here"])
    assert scores.shape == (2,) and ((scores > 0) & (scores < 1)).all()
    only_new = recommender.score(["Something new"], ["Red soap"])
    assert 0 < only_new[0] < 1
    with pytest.raises(UserError, match="knows no user 'nobody'"):
        recommender.recommend("nobody")
    with pytest.raises(UserError, match="lists"):
        recommender.score("Red lipstick", ["Red soap"])


def test_only_runs_of_language_models_load(folder, tmp_path):
    result = run(build_config("SASRec", arguments=[*toy_arguments(folder), "--epochs=1"]))
    for wrong in (result.directory, tmp_path):
        with pytest.raises(UserError, match="no finished run of GANPrompt, CoLLM, TALLRec"):
            recbole_ganprompt.load(wrong)


def test_a_run_folder_is_small_and_loads_in_a_fresh_process(folder):
    given = [*toy_arguments(folder), *SMALL]
    directory = run(build_config("TALLRec", arguments=given)).directory
    size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    assert size < 5e6
    code = (
        "import json, recbole_ganprompt as g; "
        f"r = g.load({str(directory)!r}); print(json.dumps([one.item_id for one in r.recommend('u1', k=3)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len(json.loads(done.stdout.splitlines()[-1])) == 3


def test_what_training_read_may_be_gone_or_changed(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words, template = tmp_path / "words.txt", tmp_path / "own.yaml"
    words.write_text("red\n", encoding="utf-8")
    template.write_text((properties_path("prompt") / "recommendation.yaml").read_text(encoding="utf-8"))
    given = [*toy_arguments(folder), *SMALL, f"--attribute_file={words}", f"--prompt={template}"]
    directory = run(build_config("GANPrompt", arguments=given)).directory
    before = recbole_ganprompt.load(directory).recommend("u1", k=3)
    words.unlink()
    template.write_text(template.read_text().replace("user", "customer"))
    assert recbole_ganprompt.load(directory).recommend("u1", k=3) == before
