"""A benchmark that is killed and goes on, and the studies of its runs: all for real on a small dataset."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from toy_dataset import toy_arguments, write_toy

from recbole_ganprompt.report.figure import curves_figure
from recbole_ganprompt.study import ablation, benchmark, robustness
from recbole_ganprompt.study.cluster import connected
from recbole_ganprompt.study.runs import configuration

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    "--seeds=3",
    "--memory_per_run=1",
    "--epochs=2",
    "--hidden_size=16",
    "--inner_size=16",
    "--stopping_step=3",
    "--teacher_config={'epochs': 3, 'hidden_size': 16, 'inner_size': 32, 'train_batch_size': 16}",
    "--builtin_llm={'hidden_size': 48, 'intermediate_size': 96, 'vocab_size': 500, 'max_tokens': 10000}",
    "--GANPrompt.builtin_attribute_lm={'hidden_size': 32, 'intermediate_size': 64, 'steps': 30}",
    "--GANPrompt.builtin_generator={'hidden_size': 32, 'intermediate_size': 64, 'steps': 30}",
    "--GANPrompt.diversity_settings={'max_epochs': 1}",
    "--GANPrompt.attributes=2",
    "--llm_steps=5",
    "--mapping_epochs=1",
]
MODELS = ["GRU4Rec", "SASRec", "GANPrompt"]


def command(folder, *more):
    instead = ("--dataset", *(one.partition("=")[0] for one in more))
    given = [one for one in toy_arguments(folder) if not one.startswith(instead)]
    return ["--datasets=toy", f"--models={','.join(MODELS)}", "--name=study", *given, *TINY, *more]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studies")
    write_toy(folder / "data")
    return folder


@pytest.fixture(scope="module")
def killed(folder):
    """The same benchmark, killed with SIGKILL when its first run is finished, and what was there then."""

    def finished():
        return sorted(path.parent.name for path in (folder / "saved/runs").glob("*/result.json"))

    with open(folder / "killed.log", "w") as log:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "run_benchmark.py"), *command(folder, "--SASRec.n_heads=3")],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        try:
            while not finished() and process.poll() is None:
                time.sleep(0.2)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    return finished()


@pytest.fixture(scope="module")
def cluster():
    with connected(None, 2, 1, show=False):
        yield


@pytest.fixture(scope="module")
def broken(folder, killed, cluster):
    """The benchmark to its end; one model can't be built."""
    return benchmark.benchmark(command(folder, "--SASRec.n_heads=3"))


@pytest.fixture(scope="module")
def whole(folder, broken):
    """A copy of what stood there, and the benchmark with the mistake mended."""
    shutil.copytree(broken, folder / "broken")
    return benchmark.benchmark(command(folder, "--SASRec.n_heads=2"))


def cells(folder):
    return {cell["model"]: cell for cell in json.loads((folder / "benchmark.json").read_text())["cells"]}


def test_a_killed_benchmark_goes_on_and_a_failed_cell_says_why(folder, killed, broken, whole):
    before, after = cells(folder / "broken"), cells(whole)
    assert killed and all(Path(cell["run"]).name != "" for cell in after.values())
    for name in killed:  # what was finished is not made again
        (kept,) = (cell for cell in before.values() if cell["run"] and Path(cell["run"]).name == name)
        assert kept["attempts"] == 0
    assert before["SASRec"]["status"] == "failed" and "hidden size (16)" in before["SASRec"]["reason"]
    assert "SASRec, seed 3: failed" not in (whole / "table.txt").read_text()
    assert "failed" in (folder / "broken" / "table.txt").read_text()
    assert "Traceback" in (folder / "broken" / "logs" / "SASRec-toy-3.log").read_text()
    # Only the failed one is made again; every other cell keeps its run.
    assert after["SASRec"]["status"] == "finished" and after["SASRec"]["attempts"] == 1
    assert all(after[model]["run"] == before[model]["run"] for model in MODELS if model != "SASRec")


def test_a_killed_benchmark_ends_as_one_that_was_not(folder, whole):
    again = folder / "uninterrupted"
    for model in ("GRU4Rec", "SASRec"):  # not made again, for time: the kill hits the long run
        run = Path(cells(whole)[model]["run"])
        copy = shutil.copytree(run, again / "runs" / run.name)
    record = json.loads((copy / "result.json").read_text())
    record["provenance"] |= {"commit": "0123456", "dirty": False}  # SASRec's code was another
    (copy / "result.json").write_text(json.dumps(record))
    uninterrupted = benchmark.benchmark(command(folder, "--SASRec.n_heads=2", f"--checkpoint_dir={again}"))
    assert cells(uninterrupted)["GANPrompt"]["attempts"] == 1
    lines, resumed = ((one / "table.txt").read_text().splitlines() for one in (uninterrupted, whole))
    (note,) = (line for line in lines if line.startswith("The runs are of several commits"))
    assert "0123456 (1)" in note and [line for line in lines if line != note] == resumed
    ranks = [pd.read_parquet(one / "ranks.parquet") for one in (uninterrupted, whole)]
    pd.testing.assert_frame_equal(*ranks, check_exact=True)


def test_results_are_those_of_the_runs(folder, whole):
    runs = pd.read_csv(whole / "runs.csv")
    ranks = pd.read_parquet(whole / "ranks.parquet")
    found = cells(whole)
    assert {cell["candidates"] for cell in found.values()} == set(runs["candidates"])
    for model, cell in found.items():
        record = json.loads((Path(cell["run"]) / "result.json").read_text())
        mine = runs[(runs["model"] == model) & (runs["split"] == "test")].set_index("metric")["value"]
        assert mine.to_dict() == pytest.approx(record["test"])
        of_users = ranks[ranks["model"] == model]
        assert len(of_users) == 60 and set(of_users["user"]) == {f"u{index}" for index in range(60)}
        assert (10 - of_users["rank"]).mean() / 9 == pytest.approx(record["test"]["gauc"])
    examples = json.loads((whole / "examples.json").read_text())["toy"]
    assert len(examples) == 5 and set(examples[0]["scores"]) == set(MODELS)
    assert sum(one["target"] for one in examples[0]["candidates"]) == 1
    text = (whole / "table.txt").read_text()
    best = max(
        found, key=lambda model: runs[(runs.model == model) & (runs.metric == "gauc")]["value"].iloc[-1]
    )
    assert f"GAUC: {best} over " in text and "Impr. (%) of GANPrompt" in text
    figures = {path.stem for path in (whole / "figures").glob("*.svg")}
    assert figures >= {"toy-GANPrompt-curves", "toy-GANPrompt-classes"}
    assert (whole / "index.html").read_text().count("data:image/svg+xml") >= len(figures)


def test_robustness_asks_the_language_models_of_a_benchmark(whole):
    path = robustness.study([f"--run={whole}", "--memory_per_run=1"])
    record = json.loads(path.read_text())
    assert path.parent == whole and [run["model"] for run in record["runs"]] == ["GANPrompt"]
    for run in record["runs"]:
        # Under the training wording the model says what its own run measured.
        kept = json.loads((Path(run["run"]) / "result.json").read_text())["test"]
        assert run["baseline"] == pytest.approx({name: kept[name] for name in record["metrics"]}, abs=1e-6)
        groups = [variant["group"] for variant in record["variants"]]
        assert groups.count("wording") >= 12 and groups.count("perturbation") >= 8
        assert len(run["variants"]) + len(run["skipped"]) == len(groups)
        wording = run["summary"]["wording"]
        assert wording["metrics"]["auc"]["worst"] <= wording["metrics"]["auc"]["mean"]
        assert 0 < wording["top1_changed"]["mean"] <= 1 and wording["kendall_tau"]["mean"] < 1
        assert (
            wording["top1_changed"]["low"]
            <= wording["top1_changed"]["mean"]
            <= wording["top1_changed"]["high"]
        )
    (label,) = record["labels"]
    assert label["seeds"] == [3] and label["summary"] == record["runs"][0]["summary"]
    assert record["comparisons"] == record["failed"] == []
    assert "under each wording, seed 3" in (whole / "index.html").read_text()
    listed = (whole / "robustness.md").read_text()
    assert listed.count("- not asked in ") == len(record["runs"][0]["skipped"])
    assert "the worst wording for GAUC is" in (whole / "figures" / "robustness.svg").read_text()


ROWS = {"reconstructed": ["0", "0.5"], "guidance": ["vector", "both"], "attributes": ["k = 0", "k = 2"]}


@pytest.fixture(scope="module")
def ablated(folder, whole):
    with pytest.MonkeyPatch.context() as patch:
        for group, labels in ROWS.items():  # not all of them, for time
            kept = {label: ablation.GROUPS[group]["rows"][label] for label in labels}
            patch.setitem(ablation.GROUPS[group], "rows", kept)
        given = [
            one for one in command(folder) if one.split("=")[0] not in ("--datasets", "--models", "--name")
        ]
        return ablation.ablation(["--dataset=toy", f"--groups={','.join(ROWS)}", *given])


def test_ablation_shares_the_unchanged_run(whole, ablated):
    record = json.loads(ablated.read_text())
    found = {row["label"]: row for group in record["groups"] for row in group["rows"]}
    assert list(found) == [label for labels in ROWS.values() for label in labels]
    assert all(row["status"] == "finished" and 0 < row["values"]["auc"]["mean"] < 1 for row in found.values())
    # The unchanged method is one run in all groups, and here the benchmark's.
    unchanged = [label for label, row in found.items() if row["default"]]
    assert unchanged == ["0.5", "both", "k = 2"]
    assert all(found[label]["runs"] == [cells(whole)["GANPrompt"]["run"]] for label in unchanged)
    assert found["k = 0"]["runs"] == found["0"]["runs"]  # neither reconstructs a text
    assert len({row["runs"][0] for row in found.values()}) == 3
    table = (ablated.parent / "ablation.md").read_text()
    assert "| **both** (default)" in table and "`attributes: 2`" in table
    assert "Share of reconstructed texts in training: AUC is best with" in (
        (ablated.parent / "figures" / "ablation.svg").read_text()
    )


def test_models_are_compared_on_a_sample_of_users(folder, whole, ablated, capsys):
    groups = {group["name"]: group["rows"] for group in json.loads(ablated.read_text())["groups"]}
    runs = {row["label"]: row["runs"][0] for row in groups["guidance"]}
    unfinished = folder / "unfinished"
    unfinished.mkdir()
    summary = json.loads((whole / "benchmark.json").read_text())
    summary.pop("datasets")  # as while its runs are made
    (unfinished / "benchmark.json").write_text(json.dumps(summary))
    given = [*(f"--run={run}" for run in runs.values()), "--users=20", f"--out={unfinished}"]
    record = json.loads(robustness.study([*given, "--memory_per_run=1"]).read_text())
    # Runs of other settings are no seeds of the same model.
    labels = [f"GANPrompt, guidance={guidance}" for guidance in runs]
    assert [one["label"] for one in record["labels"]] == labels
    assert [one["users"] for one in record["runs"]] == [20, 20]
    pairs = {(one["first"], one["second"], one["group"]) for one in record["comparisons"]}
    assert pairs == {(*labels, "wording"), (*labels, "perturbation")}
    for one in record["comparisons"]:
        means = [each["summary"][one["group"]]["kendall_tau"]["mean"] for each in record["labels"]]
        found = one["kendall_tau"]
        assert found["low"] < found["difference"] < found["high"]
        assert found["difference"] == pytest.approx(means[0] - means[1])
    # The benchmark's users are asked too, in the sample or not.
    users = {one["user"] for one in json.loads((whole / "examples.json").read_text())["toy"]}
    for label in labels:
        assert {one["user"] for one in record["examples"] if one["model"] == label} == users
    printed = capsys.readouterr().out
    assert f"{labels[0]} − {labels[1]}" in printed and "index.html is not written: " in printed
    assert not (unfinished / "index.html").exists()


def test_a_model_without_a_prompt_has_curves_too(whole):
    run = Path(cells(whole)["SASRec"]["run"])
    curve = json.loads((run / "curves.json").read_text())["training"]
    assert [entry["epoch"] for entry in curve] == [0, 1] and curve[0]["loss"] > curve[1]["loss"]
    # The better epoch's weights are what the run keeps.
    best = max(entry["valid"]["gauc"] for entry in curve)
    assert json.loads((run / "result.json").read_text())["valid"]["gauc"] == pytest.approx(best, abs=1e-6)
    panels = [axes.get_ylabel() for axes in curves_figure(run).axes]
    assert panels == ["loss (nats)", "AUC", "GAUC", "HR@1", "NDCG@3"]


def test_every_variant_of_an_ablation_is_a_valid_configuration():
    for group in ablation.GROUPS.values():
        for values in group["rows"].values():
            given = [f"--{key}={value}" for key, value in values.items()]
            config = configuration(["--model=GANPrompt", "--dataset=ml-100k", *given])
            assert {key: config[key] for key in values} == values


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (benchmark.main, ["--models=GANPromt"], "did you mean GANPrompt?"),
        (benchmark.main, ["--models=SASRec", "--TALLRek.epochs=3"], "TALLRek is none of the models"),
        (benchmark.main, ["--models=SASRec", "--metrics=hit@7"], "hit@7 is not measured"),
        (benchmark.main, ["--models=SASRec", "--name=../x"], "without slashes"),
        (benchmark.main, ["--models=SASRec", "--gpus_per_run=1.5"], "must be a share of one GPU or a number"),
        (benchmark.main, ["--models=SASRec", "--seeds=one"], "--seeds must be"),
        (benchmark.main, ["--datasets=ml100k", "--models=SASRec"], "did you mean ml-100k?"),
        (benchmark.main, ["--model=DIN"], "--model is for a single run"),
        (benchmark.main, ["--models=SASRec", "--SASRec.seed=3"], "--SASRec.seed is for a single run"),
        (benchmark.main, ["--epochs=1", "--epochs=2"], "--epochs is given twice"),
        (benchmark.main, ["--runs=nowhere"], "--runs must be folders that hold a folder runs"),
        (benchmark.main, ["--models=CoLLM", "--num_workers=2"], "leave num_workers out"),
        (ablation.main, ["--dataset=ml100k"], "did you mean ml-100k?"),
        (ablation.main, [], "Name a dataset"),
        (
            ablation.main,
            ["--dataset=ml-100k", "--groups=colour"],
            "--groups must be one or more of diversity",
        ),
        (robustness.main, [], "Name a finished run"),
        (robustness.main, ["--run=nowhere"], "nowhere is no finished run of GANPrompt"),
    ],
)
def test_mistakes_are_one_sentence(main, arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert message in shown.err and shown.err.count("\n") == 1 and shown.out == ""
    assert list(tmp_path.iterdir()) == []
