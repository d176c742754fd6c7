"""Runs in processes of their own, which tests may kill: imports done once, by a fork server."""

import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

from toy_dataset import toy_arguments, write_toy

# Every stage, in a few seconds; LoRA, so that its weights are looked at too.
TINY = [
    "--teacher_config={'epochs': 4, 'hidden_size': 16, 'inner_size': 32, 'train_batch_size': 16}",
    "--builtin_llm={'hidden_size': 16, 'intermediate_size': 32, 'vocab_size': 400, 'max_tokens': 20000}",
    "--builtin_attribute_lm={'hidden_size': 16, 'intermediate_size': 32, 'steps': 30}",
    "--builtin_generator={'hidden_size': 16, 'intermediate_size': 32, 'vocab_size': 400, 'steps': 40}",
    "--diversity_settings={'max_epochs': 2, 'users_per_epoch': 24}",
    "--attributes=2",
    "--llm_epochs=2",
    "--llm_batch_size=32",
    "--mapping_batch_size=32",
    "--lora_dropout=0.1",
]

OUTPUTS = (
    "ranks.safetensors",
    "recommender.safetensors",
    "adapter/adapter_model.safetensors",
    "adapter/mapping.safetensors",
    "curves.json",
    "texts.tsv",
)


def outputs(folder: Path, path: Path | None = None) -> dict:
    """All that a finished run's result consists of, but for times and paths."""
    (path,) = list(folder.glob("saved/runs/*/result.json")) if path is None else [path]
    record = json.loads(path.read_text())
    files = {name: (path.parent / name).read_bytes() for name in OUTPUTS if (path.parent / name).is_file()}
    return {"valid": record["valid"], "test": record["test"], "candidates": record["candidates"], **files}


def dataset(folder: Path, users: int = 40) -> list[str]:
    """Write a toy dataset; returns the arguments of runs on it."""
    write_toy(folder / "data", users=users)
    return toy_arguments(folder)


def _work(directory: str, arguments: list[str], environment: dict, prepare) -> None:
    os.setsid()
    os.environ.update(environment)
    os.chdir(directory)
    sys.stdout = sys.stderr = open("said.txt", "a", buffering=1, encoding="utf-8")  # noqa: SIM115 -- till its end
    import torch

    from recbole_ganprompt.cli import main

    torch.set_num_threads(1)
    if prepare is not None:
        prepare()
    sys.argv = ["run_recbole.py", *arguments]
    sys.exit(main(arguments))


def start(directory: Path, arguments: list[str], environment=None, prepare=None):
    """Start ``run_recbole.py`` with these arguments in ``directory``; what it says goes to ``said.txt``.

    Parameters
    ----------
    prepare : callable, optional
        Called in the new process first; for faults that can't be had from outside.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["recbole_ganprompt.experiment", "recbole_ganprompt.trainer.ganprompt"])
    child = context.Process(target=_work, args=(str(directory), arguments, environment or {}, prepare))
    child.start()
    return child


def finish(child, seconds: float = 300) -> int:
    """Wait for a child; its exit status, below 0 for a signal."""
    child.join(seconds)
    if child.exitcode is None:
        os.kill(child.pid, signal.SIGKILL)
        raise TimeoutError("the run hangs")
    return child.exitcode


def kill_after(child, seconds: float) -> bool:
    """SIGKILL a child unless it ends before; whether it was killed."""
    child.join(seconds)
    if child.exitcode is not None:
        return False
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    return True


def wait_for(condition, child, seconds: float = 120) -> None:
    """Wait until something holds that a running child brings about."""
    end = time.monotonic() + seconds
    while not condition():
        if child.exitcode is not None or time.monotonic() > end:
            raise AssertionError("it never came to that")
        time.sleep(0.01)


def said(directory: Path) -> str:
    """What the runs in a directory have printed."""
    return (directory / "said.txt").read_text(encoding="utf-8")
