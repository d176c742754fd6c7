"""Whole runs on a small dataset: every stage for real, through each of the doors."""

import json

import numpy as np
import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.numpy import load_file
from toy_dataset import toy_arguments, write_toy
from transformers import AutoModelForCausalLM

from recbole_ganprompt.config import build_config
from recbole_ganprompt.evaluation.metrics import ranking_metrics
from recbole_ganprompt.experiment import run

# Every stage, small enough for a minute.
SMALL = [
    "--teacher_config={'epochs': 10, 'hidden_size': 16, 'inner_size': 32, 'train_batch_size': 16}",
    "--builtin_llm={'hidden_size': 48, 'intermediate_size': 96, 'vocab_size': 500, 'max_tokens': 20000}",
    "--builtin_attribute_lm={'hidden_size': 32, 'intermediate_size': 64, 'steps': 60}",
    "--builtin_generator={'hidden_size': 32, 'intermediate_size': 64, 'vocab_size': 500, 'steps': 60}",
    "--diversity_settings={'max_epochs': 2}",
    "--attributes=2",
    "--llm_epochs=2",
    "--llm_batch_size=32",
    "--llm_learning_rate=0.004",
    "--mapping_epochs=2",
    "--token_budget=3000",
    "--stopping_step=3",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    write_toy(folder / "data")
    return folder


@pytest.fixture(scope="module")
def ganprompt(folder):
    return run(build_config("GANPrompt", arguments=[*toy_arguments(folder), *SMALL]))


@pytest.mark.smoke
def test_result_holds_what_the_docs_say(ganprompt):
    record = json.loads((ganprompt.directory / "result.json").read_text())
    names = ["auc", "gauc", *(f"{m}@{k}" for m in ("hit", "ndcg", "mrr") for k in (1, 3, 5))]
    assert list(record["test"]) == names and list(record["valid"]) == names
    assert record["model"] == "GANPrompt" and record["dataset"] == "toy" and record["seed"] == 2024
    assert record["peak_memory_mb"] > 50 and record["seconds"] > 0
    for stage in ("preparation", "teacher", "attributes", "diversity", "step one", "step two"):
        assert record["stages"][stage]["seconds"] > 0 and record["stages"][stage]["peak_memory_mb"] > 0
    assert len(record["candidates"]) == 16 and record["versions"]["torch"]
    assert record["config"]["attributes"] == 2
    assert yaml.safe_load((ganprompt.directory / "config.yaml").read_text()) == record["config"]
    assert len((ganprompt.directory / "attributes.txt").read_text().splitlines()) == 3
    texts = (ganprompt.directory / "texts.tsv").read_text().splitlines()
    assert len(texts) == 1 + record["statistics"]["items"] and texts[0].count("\t") == 4
    classes = load_file(ganprompt.directory / "classes.safetensors")
    assert classes["before"].shape == classes["after"].shape == (12, 3, 32)  # users, classes, hidden
    assert not np.array_equal(classes["before"], classes["after"])
    assert "step one" in (ganprompt.directory / "run.log").read_text()
    assert list(ganprompt.directory.parent.parent.glob("candidates/toy-test-*.safetensors"))


def test_every_stage_trains(ganprompt):
    # What the stages are worth is measured on real data (docs/results.md); here they must move.
    assert ganprompt.record["teacher"]["test"]["gauc"] > 0.55
    curves = json.loads((ganprompt.directory / "curves.json").read_text())
    assert curves["step one"][-1]["loss"] < curves["step one"][0]["loss"]
    assert len(curves["step two"]) == 2
    encoder = curves["diversity encoder"]
    assert encoder[-1]["d_total"] != encoder[0]["d_total"]
    separability = ganprompt.record["diversity"]["separability"]
    assert separability["before"]["cosine"] != separability["after"]["cosine"]


def test_metrics_can_be_recomputed_from_the_kept_scores(ganprompt):
    kept = load_file(ganprompt.directory / "ranks.safetensors")
    assert ranking_metrics(kept["test_score"]) == pytest.approx(ganprompt.test)
    assert kept["test_rank"].shape == kept["test_user"].shape
    assert np.mean(1 / kept["test_rank"][kept["test_rank"] == 1]) == pytest.approx(1.0)


def test_same_seed_same_numbers_without_any_cache(ganprompt, folder, tmp_path):
    fresh = [a for a in toy_arguments(folder) if "checkpoint_dir" not in a]
    torch.manual_seed(999)  # what ran before must not matter
    again = run(build_config("GANPrompt", arguments=[*fresh, f"--checkpoint_dir={tmp_path}", *SMALL]))
    assert again.valid == ganprompt.valid and again.test == ganprompt.test
    assert again.record["candidates"] == ganprompt.record["candidates"]


def test_scores_do_not_depend_on_batching(ganprompt, folder):
    from recbole.quick_start import load_data_and_model

    checkpoint = ganprompt.directory / "GANPrompt.pth"
    config, model, dataset, _, _, _ = load_data_and_model(str(checkpoint))
    from recbole_ganprompt.evaluation.evaluator import score_candidates

    evaluation = dataset.evaluation_set("test")
    kept = load_file(ganprompt.directory / "ranks.safetensors")["test_score"]
    for eval_batch_size, token_budget in ((4096, 3000), (70, 500)):
        config["eval_batch_size"] = eval_batch_size
        model.reader.token_budget = token_budget
        scores = score_candidates(model, evaluation, config).numpy()
        assert np.abs(scores - kept).max() < 1e-4


@pytest.mark.parametrize("step_two", ["no_collaborative", "lora+mapping", "teacher+mapping", "all"])
def test_variants_of_step_two_run(folder, step_two):
    arguments = [*toy_arguments(folder), *SMALL, f"--step_two={step_two}", "--reconstructed_share=0"]
    arguments = [a for a in arguments if "_epochs=" not in a]
    arguments += ["--llm_epochs=1", "--mapping_epochs=1", "--llm_tuning=lora", "--lora_rank=4"]
    result = run(build_config("GANPrompt", arguments=arguments))
    assert 0 <= result.test["auc"] <= 1
    assert ("step two" in result.record["stages"]) == (step_two != "no_collaborative")
    # The adapter is an ordinary PEFT folder.
    settings = json.loads((result.directory / "adapter" / "adapter_config.json").read_text())
    base = AutoModelForCausalLM.from_pretrained(settings["base_model_name_or_path"])
    adapted = PeftModel.from_pretrained(base, result.directory / "adapter")
    assert any("lora_A" in name for name, _ in adapted.named_parameters())


def test_recboles_own_run_gives_the_same_metrics_as_ours(ganprompt, folder, monkeypatch):
    from recbole.quick_start import run_recbole

    monkeypatch.chdir(folder)
    values = {a[2:].split("=", 1)[0]: a.split("=", 1)[1] for a in [*toy_arguments(folder), *SMALL]}
    result = run_recbole(model="GANPrompt", dataset="toy", config_dict=values)
    for name, value in ganprompt.test.items():
        assert result["test_result"][name] == pytest.approx(value, abs=1e-5)


@pytest.mark.smoke
@pytest.mark.parametrize("model", ["SASRec", "DIN", "BERT4Rec", "Caser"])
def test_recbole_models_rank_the_same_candidates(ganprompt, folder, model):
    result = run(build_config(model, arguments=[*toy_arguments(folder), "--epochs=2"]))
    assert result.record["candidates"] == ganprompt.record["candidates"]
    assert 0.3 < result.test["gauc"] <= 1


def test_paper_protocol_runs_without_validation(folder):
    arguments = [*toy_arguments(folder), "--protocol=paper", "--epochs=2"]
    result = run(build_config("SASRec", arguments=arguments))
    assert result.valid is None and 0 < result.test["auc"] < 1
