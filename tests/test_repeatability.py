"""A run's numbers come from its data, its configuration and its seed, and from nothing else."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from recbole.data import data_preparation
from test_run import SMALL
from toy_dataset import toy_arguments, write_toy

from recbole_ganprompt.config import build_config
from recbole_ganprompt.data.dataset import TextSequentialDataset
from recbole_ganprompt.evaluation.evaluator import score_candidates
from recbole_ganprompt.evaluation.metrics import ranking_metrics
from recbole_ganprompt.experiment import run
from recbole_ganprompt.seeding import SeededBatches, reproducibility_switches
from recbole_ganprompt.study.robustness import open_run

MODELS = {
    "TALLRec": [one for one in SMALL if "teacher" not in one],
    "GRU4Rec": ["--epochs=3"],
    "NARM": [
        "--epochs=3",
        "--train_batch_size=64",
        "--loss_type=BPR",
    ],  # trained on RecBole's rows, by its own loader
}
ELSEWHERE = """
import json, sys
from recbole_ganprompt.config import build_config
from recbole_ganprompt.experiment import run
import torch
torch.set_num_threads(1)
runs = json.loads(sys.argv[1]).items()
print(json.dumps({name: run(build_config(name, arguments=given)).test for name, given in runs}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("repeat")
    write_toy(folder / "data")
    return folder


@pytest.fixture(scope="module")
def runs(folder):
    """A run of each model, one after the other in this process."""
    return {name: run(config_of(folder, name)) for name in MODELS}


def config_of(folder, name, *more):
    return build_config(name, arguments=[*toy_arguments(folder), *MODELS[name], *more])


def test_what_ran_before_does_not_matter(runs, folder):
    given = [one for one in toy_arguments(folder) if "checkpoint_dir" not in one]
    given.append(f"--checkpoint_dir={folder / 'elsewhere'}")
    backwards = {name: [*given, *MODELS[name]] for name in reversed(MODELS)}
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, json.dumps(backwards)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {name: one.test for name, one in runs.items()}
    # Different models, so that equal numbers mean something.
    assert len({json.dumps(one.test) for one in runs.values()}) == len(MODELS)


@pytest.mark.parametrize("name", ["GRU4Rec", "NARM"])
@pytest.mark.parametrize("changed", ["--eval_batch_size=70", "--worker=2"])
def test_batches_of_evaluation_and_loaders_do_not_matter(runs, folder, name, changed):
    again = run(config_of(folder, name, changed))
    assert again.valid == runs[name].valid and again.test == runs[name].test


@pytest.mark.parametrize("eval_batch_size, token_budget", [(4096, 500), (70, 3000)])
def test_batches_of_prompts_do_not_matter(runs, eval_batch_size, token_budget):
    model, _, evaluation, _ = open_run(runs["TALLRec"].directory)
    model.config["eval_batch_size"], model.reader.token_budget = eval_batch_size, token_budget
    scores = score_candidates(model, evaluation, model.config).numpy()
    assert ranking_metrics(scores) == pytest.approx(runs["TALLRec"].test, abs=1e-9)


def test_rows_have_the_same_negatives_in_every_process(folder):
    def batches(workers):
        values = ["--loss_type=BPR", "--train_batch_size=64", f"--worker={workers}"]
        config = build_config("NARM", arguments=[*toy_arguments(folder), *values])
        loader = data_preparation(config, TextSequentialDataset(config))[0]
        loader.collate_fn = SeededBatches(loader.collate_fn, config["seed"])
        np.random.seed(workers)  # what a process has drawn before is its own affair
        epochs = [[batch["neg_item_id"].tolist() for batch in loader] for _ in range(2)]
        return epochs, np.random.random()

    (epochs, _), (again, after) = batches(0), batches(2)
    assert again == epochs and epochs[0] != epochs[1]
    np.random.seed(2)
    assert after == np.random.random()  # nor does a batch leave anything behind


def test_switches_say_how_the_process_is_set(folder, monkeypatch):
    config = config_of(folder, "GRU4Rec", "--worker=2", "--seed=5")
    run(config)
    found = reproducibility_switches(config)
    assert json.loads(json.dumps(found)) == found
    assert found["seed"] == 5 and found["dataloader_workers"] == 2 and found["data_parallel_workers"] == 1
    assert found["reproducibility"] and found["cudnn_deterministic"] and not found["cudnn_benchmark"]
    assert found["device"] == "cpu" and found["cpu_threads"] == torch.get_num_threads()
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    torch.set_float32_matmul_precision("high")
    try:
        changed = reproducibility_switches(config)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert changed["cudnn_benchmark"] and changed["tf32_matmul"] and not found["tf32_matmul"]
    assert (found["float32_matmul_precision"], changed["float32_matmul_precision"]) == ("highest", "high")
