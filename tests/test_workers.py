"""Two workers give what one gives."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file
from toy_dataset import toy_arguments, write_toy

from recbole_ganprompt.cli import main

SMALL = [
    "--teacher_config={'epochs': 3, 'hidden_size': 16, 'inner_size': 32, 'train_batch_size': 16}",
    "--builtin_llm={'hidden_size': 48, 'intermediate_size': 96, 'vocab_size': 500, 'max_tokens': 20000}",
    "--reconstructed_share=0",
    "--lora_dropout=0",
    "--llm_tuning=lora",
    "--llm_steps=12",
    "--llm_batch_size=32",
    "--mapping_epochs=1",
    "--token_budget=1500",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    write_toy(folder / "data")
    return folder


def result(folder, saved, *more):
    given = [one for one in toy_arguments(folder) if "checkpoint_dir" not in one]
    assert main(["--model=CoLLM", *given, *SMALL, f"--checkpoint_dir={folder / saved}", *more]) == 0
    (run,) = (folder / saved / "runs").iterdir()
    return json.loads((run / "result.json").read_text()), load_file(run / "ranks.safetensors")


def test_two_workers_give_what_one_gives(folder):
    alone, scores = result(folder, "one")
    together, shared_scores = result(folder, "two", "--num_workers=2")
    assert together["config"]["num_workers"] == 2
    assert np.abs(scores["test_score"] - shared_scores["test_score"]).max() < 1e-3
    assert np.std(scores["test_score"]) > 0.05  # it learnt something that could differ
    assert together["test"]["gauc"] == pytest.approx(alone["test"]["gauc"], abs=1e-3)
    assert len(list((folder / "two").glob("*.pth"))) == 1


def test_mistakes_of_a_cluster_get_one_sentence(folder, capsys):
    given = [*toy_arguments(folder), *SMALL]
    assert main(["--model=SASRec", *toy_arguments(folder), "--num_workers=2"]) == 2
    assert "leave num_workers out" in capsys.readouterr().err
    assert main(["--model=CoLLM", *given, "--num_workers=2", "--prompt=nowhere"]) == 2
    assert "no prompt template 'nowhere'" in capsys.readouterr().err
    assert main(["--model=CoLLM", *given, "--num_workers=2", "--ray_address=127.0.0.1:1"]) == 2
    assert "No Ray cluster answers" in capsys.readouterr().err
