"""The search: validation only, resumable, and its best values make the same run."""

import json
import sys

import pytest
import yaml
from toy_dataset import toy_arguments, write_toy

from recbole_ganprompt.config import build_config
from recbole_ganprompt.data.dataset import TextSequentialDataset
from recbole_ganprompt.experiment import content_fingerprint, run
from recbole_ganprompt.keys import parse_arguments, properties_path
from recbole_ganprompt.study import tune
from recbole_ganprompt.study.cluster import Outcome, connected

TINY = [
    "--teacher_config={'epochs': 1, 'hidden_size': 16, 'inner_size': 32, 'train_batch_size': 16}",
    "--builtin_llm={'hidden_size': 16, 'intermediate_size': 32, 'vocab_size': 500, 'max_tokens': 2000}",
    "--reconstructed_share=0",
    "--llm_steps=2",
    "--llm_batch_size=32",
    "--opinion_items=2",
    "--train_negatives=1",
    "--mapping_epochs=2",
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Arguments of tiny language models on the toy dataset; they share what they build."""
    folder = tmp_path_factory.mktemp("tiny")
    write_toy(folder / "data", users=20)
    return folder, [*toy_arguments(folder), *TINY]


def data_of(config) -> str:
    return content_fingerprint(TextSequentialDataset(config))


@pytest.mark.smoke
def test_a_search_stops_what_lags_and_goes_on_where_it_was(toy, tmp_path, monkeypatch, capsys):
    saved = tmp_path / "saved"
    fixed = {"epochs": 9, "seed": 5, "n_layers": 2, "hidden_dropout_prob": 0.2, "attn_dropout_prob": 0.5}
    fixed |= {"inner_size": 16, "n_heads": 128}  # a hidden size of 64 is drawn too, and can't be divided so
    arguments = [*toy, *(f"--{key}={value}" for key, value in fixed.items())]
    command = [*arguments, "--model=SASRec", "--trials=4"]
    # Before it was interrupted, the search had finished one trial.
    values = {"user_inter_num_interval": "[3,inf)", "item_inter_num_interval": "[2,inf)", **fixed}
    values |= {"hidden_size": 128, "learning_rate": 0.002}
    config = build_config("SASRec", config_dict=values, arguments=toy)
    first = {"values": values, "data": data_of(config), "status": "finished"}
    first |= tune.run_trial(config, lambda *report: None)
    elsewhere = {**first, "data": "of other data", "valid": {"gauc": 1.0}, "curve": [[0.1, 1.0]]}
    (saved / "search").mkdir()
    (saved / "search/SASRec-toy.jsonl").write_text(json.dumps(elsewhere) + "\n" + json.dumps(first) + "\n")
    with connected(None, 1, 1, show=False):
        assert tune.main([*command, "--cpus_per_run=2"]) == 2
        assert "No machine has room for one run" in capsys.readouterr().err
        assert tune.main(command) == 0
    lines = [json.loads(line) for line in (saved / "search/SASRec-toy.jsonl").read_text().splitlines()]
    assert lines.pop(0) == elsewhere  # neither counted nor lost
    rates = [line["values"]["learning_rate"] for line in lines]
    assert lines[0] == first and list(zip(rates, (line["status"] for line in lines))) == [
        (0.002, "finished"),
        (0.001, "stopped"),  # after an epoch, as it lagged behind the one in the journal
        (0.004, "finished"),
    ]
    assert lines[1]["epochs"] == 1 and lines[1]["valid"]["gauc"] < first["curve"][0][1]
    shown = capsys.readouterr().out.splitlines()
    assert sum("failed: ValueError: The hidden size (64) is not a multiple" in line for line in shown) == 2
    assert not list((saved / "candidates").glob("toy-test-*"))  # never ranked

    best = lines[2]
    assert f"best {best['valid']['gauc']:.4f}" in shown[-2]
    config = build_config("SASRec", config_file_list=[shown[-1]], arguments=toy)
    assert all(config[key] == value for key, value in best["values"].items())
    assert run(config).valid["gauc"] == pytest.approx(best["valid"]["gauc"], abs=1e-5)
    # Values of a file are fixed like those of the command line: this trial stands in the journal.
    monkeypatch.setattr(tune, "run_trials", lambda *args, **kwargs: pytest.fail("a trial ran twice"))
    assert tune.main([*toy, "--model=SASRec", f"--config_files={shown[-1]}", "--trials=1"]) == 0


@pytest.mark.parametrize(
    ("second", "best"),
    [
        ({"valid": 0.6, "score": 0.6, "status": "stopped"}, 0.002),
        ({"valid": 0.8, "score": 0.8, "status": "stopped"}, 0.004),
        # A language model's: not so good on the users that both were seen on.
        ({"valid": 0.8, "score": 0.71, "status": "stopped"}, 0.002),
        ({"valid": 0.9, "score": 0.9, "candidate_seed": 5}, 0.002),  # another search's, of other candidates
    ],
)
def test_the_best_trial_has_the_best_metric(toy, tmp_path, monkeypatch, second, best):
    fixed = {key: choices[0] for key, choices in tune.search_space("SASRec").items()}
    arguments = [f"--{key}={value}" for key, value in fixed.items() if key != "learning_rate"]
    lines = [{"valid": 0.7, "score": 0.72}, second]
    others = {"user_inter_num_interval": "[3,inf)", "item_inter_num_interval": "[2,inf)", **fixed}
    text, data = "", data_of(build_config("SASRec", arguments=toy))
    for rate, line in zip((0.002, 0.004), lines):
        seed = {"candidate_seed": line["candidate_seed"]} if "candidate_seed" in line else {}
        values = {**others, **seed, "learning_rate": rate}
        entry = {**line, "values": values, "data": data, "valid": {"gauc": line["valid"]}}
        text += json.dumps({**entry, "epochs": 3, "seconds": 1, "cpu_seconds": 1}) + "\n"
    folder = tmp_path / "saved/search"
    folder.mkdir(parents=True)
    (folder / "SASRec-toy.jsonl").write_text(text)
    monkeypatch.setattr(tune, "run_trials", lambda *args, **kwargs: None)  # the third rate is not tried
    assert tune.main([*toy, *arguments, "--model=SASRec"]) == 0
    assert yaml.safe_load((folder / "SASRec-toy.yaml").read_text())["learning_rate"] == best


def test_a_language_model_reports_each_epoch_and_validates_at_the_end(tiny):
    folder, arguments = tiny
    reports = []
    trial = tune.run_trial(build_config("CoLLM", arguments=arguments), lambda *report: reports.append(report))
    assert [progress for progress, *_ in reports] == [1.0, 1.5]  # one of step one, two of step two
    assert trial["epochs"] == 3 and trial["curve"] == [[p, score] for p, score, _ in reports]
    assert [record["valid"]["gauc"] for *_, record in reports] == [score for _, score, _ in reports]
    assert trial["score"] == trial["valid"]["gauc"]  # so few users that all are in the sample
    assert not list((folder / "saved/candidates").glob("toy-test-*"))  # never ranked
    assert not list((folder / "saved").glob("*.pth"))


@pytest.mark.smoke
def test_recboles_own_search_runs_on_our_models(tiny, tmp_path, monkeypatch):
    from recbole.quick_start import objective_function
    from recbole.trainer import HyperTuning

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["test"])
    (tmp_path / "fixed.yaml").write_text(yaml.safe_dump(parse_arguments(tiny[1])))
    names = ["GANPrompt", "CoLLM", "TALLRec"]
    search = HyperTuning(
        objective_function,
        params_dict={"choice": {"model": names}},
        fixed_config_file_list=[str(tmp_path / "fixed.yaml")],
    )
    search.run()
    found = {name: search.params2result[f"model:{name}"]["best_valid_score"] for name in names}
    assert search.best_params["model"] == max(found, key=found.get)


def test_a_search_whose_trials_all_fail_says_why(toy, tmp_path, monkeypatch, capsys):
    def fail(function, trials, demand, ended, *rest, **options):
        for name in trials:
            ended(Outcome(name, None, RuntimeError(f"out of memory\nin {name}"), 3))

    monkeypatch.setattr(tune, "run_trials", fail)
    assert tune.main([*toy, "--model=SASRec", "--trials=2"]) == 2
    assert capsys.readouterr().err.endswith("failed, the first one so: out of memory in trial 1\n")
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize("path", sorted(properties_path("search").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_value_of_our_search_spaces_is_valid(path):
    space = tune.search_space(path.stem)
    for key, choices in space.items():
        for value in choices:
            assert build_config(path.stem, "ml-100k", config_dict={key: value})[key] == value


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model=NARM"], "There is no search space for NARM, only for BERT4Rec, Caser, CoLLM, DIN"),
        (["--model=SASRec", "--trials=0"], "trials must be a positive integer, not '0'."),
        (["--model=SASRec", "--gpus_per_run=1.5"], "gpus_per_run must be a share of one GPU or a number of"),
        (["--model=SASRec", "--scheduler=pbt"], "scheduler must be one of asha, none, not 'pbt'."),
        (["--model=CoLLM", "--num_workers=2"], "leave num_workers out"),
        (["--model=SASRec", "--protocol=paper"], "no validation split"),
        (["--model=SASRec", "--lerning_rate=1"], "did you mean learning_rate"),
    ],
)
def test_mistakes_are_one_sentence(toy, arguments, message, capsys, tmp_path):
    assert tune.main([*toy, *arguments]) == 2
    shown = capsys.readouterr()
    assert message in shown.err and shown.err.count("\n") == 1 and shown.out == ""
    assert not (tmp_path / "saved").exists()
