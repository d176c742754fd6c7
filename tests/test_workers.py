"""Two workers give what one gives."""

import json
import threading
import time

import numpy as np
import psutil
import pytest
import torch
from safetensors.numpy import load_file
from toy_dataset import toy_arguments, write_toy
from transformers import LlamaConfig, LlamaForCausalLM

from recbole_ganprompt import workers
from recbole_ganprompt.cli import main
from recbole_ganprompt.config import build_config
from recbole_ganprompt.experiment import run
from recbole_ganprompt.language.backbone import shard

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
    if any(one.startswith("--data_path") for one in more):
        given = [one for one in given if "data_path" not in one]
    assert main(["--model=CoLLM", *given, *SMALL, f"--checkpoint_dir={folder / saved}", *more]) == 0
    (run,) = (folder / saved / "runs").iterdir()
    return json.loads((run / "result.json").read_text()), load_file(run / "ranks.safetensors")


@pytest.mark.smoke
def test_two_workers_give_what_one_gives(folder, monkeypatch):
    alone, scores = result(folder, "one")
    monkeypatch.chdir(folder)  # relative paths are the caller's, wherever Ray starts a worker
    together, shared_scores = result(folder, "two", "--num_workers=2", "--data_path=data")
    assert together["config"]["num_workers"] == 2
    assert np.abs(scores["test_score"] - shared_scores["test_score"]).max() < 1e-3
    assert np.std(scores["test_score"]) > 0.02  # it learnt something that could differ
    assert together["test"]["gauc"] == pytest.approx(alone["test"]["gauc"], abs=1e-3)
    assert len(list((folder / "two").rglob("*.pth"))) == 1


def test_a_lost_worker_is_replaced_and_counted(folder):
    _, scores = result(folder, "undisturbed", "--num_workers=2")
    killed = []

    def kill_one():
        for _ in range(6000):
            time.sleep(0.02)
            if list((folder / "lost").glob("stages/.progress/step_one-*/*.safetensors")):
                workers = [one for one in psutil.process_iter(["name"]) if "TrainWorker" in one.info["name"]]
                killed.append(max(workers, key=lambda one: one.pid))
                killed[0].kill()
                return

    watcher = threading.Thread(target=kill_one)
    watcher.start()
    record, again = result(folder, "lost", "--num_workers=2", "--checkpoint_every=1")
    watcher.join()
    assert killed and record["starts"] == 2
    assert np.array_equal(scores["test_score"], again["test_score"])


def test_a_sharded_model_gives_what_a_whole_one_gives(folder):
    _, scores = result(folder, "whole")
    _, sharded = result(folder, "sharded", "--num_workers=2", "--llm_sharding=true")
    assert np.abs(scores["test_score"] - sharded["test_score"]).max() < 1e-3
    assert main(["--model=CoLLM", *toy_arguments(folder), *SMALL, "--llm_sharding=true"]) == 2


def _weights_held(rank, folder):
    """One of two processes: how many of a layer's frozen weights it holds."""
    address = f"file://{folder}/meeting"
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=50, **sizes)).requires_grad_(False)
    layer = model.base_model.layers[0]
    whole = sum(parameter.numel() for parameter in layer.parameters())
    shard(model, torch.device("cpu"))
    held = sum(parameter.to_local().numel() for parameter in layer.parameters())
    (folder / f"held-{rank}").write_text(f"{held / whole}")
    torch.distributed.destroy_process_group()


def _gradients_added(rank, folder):
    """One of two processes, of which the second had nothing to do in this step."""
    address = f"file://{folder}/meeting"
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    used, unused = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(3))
    if rank == 0:
        used.grad = torch.ones(2)
    workers.add_up_gradients([used, unused])
    (folder / f"sum-{rank}").write_text(f"{used.grad.tolist()} {unused.grad}")
    torch.distributed.destroy_process_group()


def test_a_worker_without_work_still_takes_part(tmp_path):
    torch.multiprocessing.spawn(_gradients_added, args=(tmp_path,), nprocs=2)
    assert [(tmp_path / f"sum-{rank}").read_text() for rank in (0, 1)] == ["[1.0, 1.0] None"] * 2


def test_a_sharded_layer_is_halved_between_two_workers(tmp_path):
    torch.multiprocessing.spawn(_weights_held, args=(tmp_path,), nprocs=2)
    assert [float((tmp_path / f"held-{rank}").read_text()) for rank in (0, 1)] == [0.5, 0.5]


def test_mistakes_of_a_cluster_get_one_sentence(folder, capsys):
    given = [*toy_arguments(folder), *SMALL]
    assert main(["--model=SASRec", *toy_arguments(folder), "--num_workers=2"]) == 2
    assert "leave num_workers out" in capsys.readouterr().err
    assert main(["--model=CoLLM", *given, "--num_workers=2", "--prompt=nowhere"]) == 2
    assert "no prompt template 'nowhere'" in capsys.readouterr().err
    run(build_config("GRU4Rec", arguments=[*toy_arguments(folder), "--epochs=1"]))
    (finished,) = (folder / "saved" / "runs").glob("GRU4Rec-*")
    arguments = ["--model=CoLLM", "--num_workers=2", f"--resume={finished}", "--gpu_id="]
    assert main(arguments) == 2  # found by one of them, which must not leave the other waiting
    assert "is another run (model was" in capsys.readouterr().err
    assert main(["--model=CoLLM", *given, "--num_workers=2", "--ray_address=127.0.0.1:1"]) == 2
    assert "No Ray cluster answers" in capsys.readouterr().err
