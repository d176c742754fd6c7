"""What befalls a training run: losses that aren't finite, changed keys, damaged results, two runs at once."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from children import TINY, dataset, finish, outputs, said, start
from safetensors.numpy import load_file
from toy_dataset import toy_arguments

GANPROMPT = ["--model=GANPrompt", *TINY]


def log(folder) -> str:
    """What the newest run in a folder has logged of its stages."""
    newest = max(folder.glob("saved/runs/*/run.log"), key=lambda path: path.stat().st_mtime)
    return newest.read_text(encoding="utf-8")


def scores(folder):
    (path,) = folder.glob("saved/runs/*/ranks.safetensors")
    return load_file(path)["test_score"]


def reused(folder) -> set[str]:
    return set(re.findall(r"([\w-]+): reused", log(folder)))


@pytest.fixture
def again(whole_run, tmp_path):
    """A copy of a finished run's folder, and the arguments that made it."""
    folder = tmp_path / "again"
    shutil.copytree(whole_run, folder)
    for run in folder.glob("saved/runs/*"):
        shutil.rmtree(run)
    return folder, [*GANPROMPT, *toy_arguments(folder)]


def test_nothing_finished_is_done_again(again, whole_run):
    folder, arguments = again
    assert finish(start(folder, arguments)) == 0, said(folder)
    assert outputs(folder) == outputs(whole_run)
    assert "made" not in re.sub(r"made\.json", "", log(folder))
    (path,) = folder.glob("saved/runs/*/result.json")
    kinds = [note["kind"] for note in json.loads(path.read_text())["artefacts"] if note["reused"]]
    stages = ["llm", "early_teacher", "teacher", "masked-lm", "attributes", "seq2seq", "encoder", "texts"]
    assert kinds == [*stages, "step_one", "step_two"]


def test_a_changed_key_reruns_what_is_behind_it_and_says_why(again):
    folder, arguments = again
    assert finish(start(folder, [*arguments, "--mapping_learning_rate=0.002"])) == 0, said(folder)
    assert "step_one" in reused(folder) and "step_two" not in reused(folder)
    assert "step_two: made anew, as mapping_learning_rate was 0.001 and is 0.002" in log(folder)

    assert finish(start(folder, [*arguments, "--reconstructed_share=0.25"])) == 0, said(folder)
    assert {"teacher", "encoder", "texts"} <= reused(folder)
    assert not {"step_one", "step_two"} & reused(folder)
    assert "step_one: made anew, as reconstructed_share was 0.5 and is 0.25" in log(folder)


def test_a_damaged_result_of_a_stage_is_made_again(again, whole_run):
    folder, arguments = again
    (weights,) = folder.glob("saved/stages/step_one-*/weights.safetensors")
    weights.write_bytes(weights.read_bytes()[:-10])
    assert finish(start(folder, arguments)) == 0, said(folder)
    assert f"{weights.parent.relative_to(folder)} is damaged, so it is made again" in log(folder).replace(
        str(folder) + "/", ""
    )
    assert outputs(folder) == outputs(whole_run)


def test_two_runs_at_once_share_what_both_need(whole_run, tmp_path):
    arguments = [*GANPROMPT, *dataset(tmp_path)]
    children = [start(tmp_path, arguments) for _ in range(2)]
    assert [finish(child) for child in children] == [0, 0], said(tmp_path)
    results = sorted(tmp_path.glob("saved/runs/*/result.json"))
    assert len(results) == 2
    for path in results:
        assert outputs(tmp_path, path) == outputs(whole_run)
    for kind in ("llm", "teacher", "encoder", "step_one", "step_two"):
        assert len(re.findall(rf"INFO\s+{kind}: made", said(tmp_path))) == 1


def _bad_loss_once():
    """Let the loss of the language model's fifth batch be NaN, the first time."""
    from recbole_ganprompt.trainer.language import LanguageTrainer

    original, calls = LanguageTrainer._loss, []

    def loss(self, batch, soft):
        value, count = original(self, batch, soft)
        calls.append(1)
        return (value * torch.nan if len(calls) == 5 else value), count

    LanguageTrainer._loss = loss


def test_a_loss_that_is_nan_once_is_overcome(again):
    folder, arguments = again
    shutil.rmtree(folder / "saved" / "stages")
    child = start(folder, [*arguments, "--checkpoint_every=1"], prepare=_bad_loss_once)
    assert finish(child) == 0, said(folder)
    assert re.search(
        r"step one, epoch \d, batches \d+ to \d+: the loss is not finite \(its first prompts: .*\): "
        r"back to the last checkpoint with 0.5 of the learning rate",
        log(folder),
    )


def test_a_loss_that_stays_nan_is_a_mistake_with_a_remedy(tmp_path):
    arguments = ["--model=GRU4Rec", *dataset(tmp_path), "--learning_rate=1e30", "--epochs=9"]
    assert finish(start(tmp_path, arguments)) == 2
    assert re.search(
        r"error: GRU4Rec, .*epoch \d+.* not finite, also with an eighth of the learning rate: lower the",
        said(tmp_path),
    )
    assert not list(tmp_path.glob("saved/runs/*"))


def _little_memory():
    """Let training run out of memory at batches of more than 900 tokens."""
    from recbole_ganprompt.language.reader import Reader

    original = Reader.logits

    def logits(self, batch, soft_vectors=None, trunks=None):
        if torch.is_grad_enabled() and batch.tokens > 900:
            raise torch.OutOfMemoryError("out of memory")
        return original(self, batch, soft_vectors, trunks)

    Reader.logits = logits


def test_out_of_memory_in_a_step_halves_the_budget_and_repeats_it(again):
    folder, arguments = again
    arguments = [one.replace("lora_dropout=0.1", "lora_dropout=0") for one in arguments]
    assert finish(start(folder, arguments)) == 0, said(folder)
    enough = scores(folder)
    assert "Memory ran out" not in said(folder)
    for made in (*folder.glob("saved/stages"), *folder.glob("saved/runs/*")):
        shutil.rmtree(made)
    assert finish(start(folder, arguments, prepare=_little_memory)) == 0, said(folder)
    assert "Memory ran out: going on with a token_budget of 750" in said(folder)
    assert np.abs(scores(folder) - enough).max() < 1e-3 < np.std(enough)


def test_another_configuration_is_not_resumed(whole_run, tmp_path):
    (run,) = whole_run.glob("saved/runs/*")
    unfinished = tmp_path / "saved" / "runs" / run.name
    shutil.copytree(run, unfinished)
    arguments = [f"--resume={unfinished}", "--gpu_id="]
    assert finish(start(tmp_path, arguments)) == 2
    assert "is finished: its metrics are in" in said(tmp_path)
    (unfinished / "result.json").unlink()
    assert finish(start(tmp_path, [*arguments, "--llm_epochs=5"])) == 2
    assert "is another run (llm_epochs was 2 and is 5): give --resume alone" in said(tmp_path)
    assert finish(start(tmp_path, ["--resume=nowhere"])) == 2
    assert "nowhere is no run's folder" in said(tmp_path)
