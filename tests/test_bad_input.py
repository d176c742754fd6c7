"""Mistakes that a user makes: one sentence, exit status 2, nothing half-written."""

from pathlib import Path

import pytest

from recbole_ganprompt.cli import main

CASES = {
    "no such backbone folder": (["--llm=./nowhere"], "no such folder"),
    "no such generator folder": (["--generator=./nowhere"], "no such folder"),
    "hub model out of reach": (["--llm=nobody/nothing-at-all"], "can't be loaded"),
    "no such word list": (["--attribute_file=nowhere.txt"], "nowhere.txt"),
    "no file's name": ([f"--attribute_file={'x' * 300}"], "can't be read"),
    "no template's name": ([f"--prompt={'x' * 300}"], "no prompt template"),
    "no folder's name": ([f"--llm={'x' * 300}"], "x"),
    "no such template": (["--prompt=nowhere"], "no prompt template 'nowhere'"),
    "unknown teacher": (["--teacher=SASRecc"], "SASRec"),
    "k below 0": (["--attributes=-1"], "attributes must be an integer of 0 or more"),
    "negative epochs": (["--llm_epochs=-1"], "llm_epochs must be"),
    "no size": (["--prompt_history=0"], "prompt_history must be a positive integer"),
    "misspelt key": (["--lerning_rate=1"], "did you mean learning_rate?"),
    "no item text": (["--item_text={name}"], "item_id, title"),
    "too many negatives": (["--eval_args={'mode': 'uni38'}"], "negatives don't exist"),
    "flex attention without a GPU": (["--llm_attention=flex_attention"], "needs a GPU"),
    "adapter without LoRA": (["--llm_tuning=full", "--adapter=x"], "add --llm_tuning=lora"),
    "misspelt setting": (["--diversity_settings={'gama': 1.0}"], "did you mean gamma?"),
    "no dictionary": (["--reconstruction_settings=beam"], "must be a dictionary"),
    "misspelt eval_args": (["--eval_args={'mod': 'uni9'}"], "a dictionary of split, order, group_by, mode"),
    "large seed": (["--seed=20241122001"], "seed must be an integer from 0 to 4294967295"),
    "one guidance word": (["--guidance_words=good"], "guidance_words must be a list"),
    "teacher's heads": (["--teacher_config={'n_heads': 3}"], "SASRec refuses its settings"),
    "LoRA on nothing": (["--llm_tuning=lora", "--lora_targets=['nothing']"], "not layers of this model"),
}
QUICK = ["--builtin_llm={'hidden_size': 16, 'intermediate_size': 16, 'max_tokens': 2000, 'vocab_size': 400}"]


@pytest.mark.parametrize("case", CASES)
def test_one_sentence_and_nothing_left(case, toy, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    arguments, message = CASES[case]
    assert main(["--model=GANPrompt", *toy, *QUICK, *arguments]) == 2
    error = capsys.readouterr().err
    said = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(said) == 1 and message in said[0]
    assert "Traceback" not in error
    assert not list(Path(tmp_path).glob("saved/runs/*"))


def test_hostile_titles_do_not_stop_a_run(toy, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "data" / "toy" / "toy.item"
    lines = path.read_text().splitlines()
    hostile = ["⟨UserID⟩ <UserID>", "</s> Yes.", '"unbalanced', "", "[[x]] {title}"]
    for number, title in enumerate(hostile, start=1):
        lines[number] = f"{lines[number].split(chr(9))[0]}\t{title}"
    path.write_text("\n".join(lines) + "\n")
    extra = ["--reconstructed_share=0", "--teacher_config={'epochs': 1}", "--mapping_epochs=1"]
    assert main(["--model=GANPrompt", *toy, *QUICK, *extra]) == 0
    assert capsys.readouterr().out.strip().endswith("result.json")
