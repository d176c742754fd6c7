"""The search: validation only, resumable, and its best values make the same run."""

import json

import pytest

from recbole_ganprompt.config import build_config
from recbole_ganprompt.data.dataset import TextSequentialDataset
from recbole_ganprompt.experiment import run
from recbole_ganprompt.keys import properties_path
from recbole_ganprompt.study import tune

FIXED = ["--epochs=2", "--hidden_size=16", "--inner_size=16"]


def journal(tmp_path):
    lines = (tmp_path / "saved/search/SASRec-toy.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_a_search_goes_on_where_it_was_and_its_best_runs_again(toy, tmp_path, monkeypatch, capsys):
    phases = set()
    original = TextSequentialDataset.evaluation_set
    monkeypatch.setattr(
        TextSequentialDataset,
        "evaluation_set",
        lambda self, phase: phases.add(phase) or original(self, phase),
    )
    command = [*toy, *FIXED, "--model=SASRec"]
    assert tune.main([*command, "--trials=1"]) == 0
    first = journal(tmp_path)
    assert len(first) == 1 and set(first[0]["values"]) > {"n_layers", "learning_rate", "epochs"}
    assert tune.main([*command, "--trials=3"]) == 0
    both = journal(tmp_path)
    assert both[0] == first[0] and len(both) == 3
    assert len({json.dumps(line["values"]) for line in both}) == 3
    trained = tune.run_trial
    monkeypatch.setattr(tune, "run_trial", lambda config: pytest.fail("a trial ran twice"))
    assert tune.main([*command, "--trials=3"]) == 0
    monkeypatch.setattr(tune, "run_trial", trained)
    assert journal(tmp_path) == both and phases == {"valid"}

    shown = capsys.readouterr().out.splitlines()
    best = max(both, key=lambda line: line["valid"]["gauc"])
    assert f"best {best['valid']['gauc']:.4f}" in shown[-2]
    config = build_config("SASRec", config_file_list=[shown[-1]], arguments=toy)
    assert all(config[key] == value for key, value in best["values"].items())
    assert run(config).valid["gauc"] == pytest.approx(best["valid"]["gauc"], abs=1e-5)
    # Values of a file are fixed like those of the command line: this trial stands in the journal.
    monkeypatch.setattr(tune, "run_trial", lambda config: pytest.fail("a trial ran twice"))
    assert tune.main([*toy, "--model=SASRec", f"--config_files={shown[-1]}", "--trials=1"]) == 0


def test_other_data_is_another_search(toy, tmp_path, capsys):
    command = [*toy, *FIXED, "--model=SASRec", "--trials=1"]
    assert tune.main(command) == 0
    assert tune.main([*command, "--candidate_seed=5"]) == 0
    assert "1 trials" in capsys.readouterr().out.splitlines()[-2] and len(journal(tmp_path)) == 2


@pytest.mark.parametrize("path", sorted(properties_path("search").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_value_of_our_search_spaces_is_valid(path):
    space = tune.search_space(path.stem)
    for key, choices in space.items():
        for value in choices:
            assert build_config(path.stem, "ml-100k", config_dict={key: value})[key] == value


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model=GANPrompt"], "There is no search space for GANPrompt, only for BERT4Rec, Caser, DIN"),
        (["--model=SASRec", "--trials=0"], "trials must be a positive integer, not '0'."),
        (["--model=SASRec", "--protocol=paper"], "no validation split"),
        (["--model=SASRec", "--lerning_rate=1"], "did you mean learning_rate"),
    ],
)
def test_mistakes_are_one_sentence(toy, arguments, message, capsys, tmp_path):
    assert tune.main([*toy, *arguments]) == 2
    shown = capsys.readouterr()
    assert message in shown.err and shown.err.count("\n") == 1 and shown.out == ""
    assert not (tmp_path / "saved").exists()
