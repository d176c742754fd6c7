"""Killed and resumed, a run ends as if nothing had happened: the same metrics and the same weights."""

import json
import os
import random
import re
import signal
from pathlib import Path

import pytest
from children import TINY, dataset, finish, kill_after, outputs, said, start, wait_for

SWEEP = 20


def starts(folder: Path) -> int:
    (path,) = folder.glob("saved/runs/*/result.json")
    return json.loads(path.read_text())["starts"]


def begun(folder: Path) -> int:
    """How often the run was started, as its folder says."""
    return sum(len(path.read_text().splitlines()) for path in folder.glob("saved/runs/*/starts.txt"))


def stage_at_death(folder: Path) -> str:
    """What a killed run was last at, as its log says."""
    made = re.findall(r"INFO\s+([\w-]+): (?:made|going on)", said(folder))
    reused = re.findall(r"INFO\s+([\w-]+): reused", said(folder))
    return next((name for name in reversed(made) if name not in reused), made[-1] if made else "start")


@pytest.fixture(scope="module")
def uninterrupted(whole_run):
    return outputs(whole_run)


def sweep(folder: Path, kills: int, longest: float, seed: int) -> list[str]:
    """Kill one run after the other until it ends by itself; the stages that were hit."""
    arguments = ["--model=GANPrompt", *dataset(folder), *TINY, "--checkpoint_every=2", "--resume=auto"]
    generator, hit = random.Random(seed), []
    while len(hit) < kills:
        before = begun(folder)
        child = start(folder, arguments)
        if not kill_after(child, generator.uniform(0.3, longest)):
            assert child.exitcode == 0, said(folder)
            return hit
        if begun(folder) > before:  # on a busy machine a kill may come before the run has a folder
            hit.append(stage_at_death(folder))
    assert finish(start(folder, arguments)) == 0, said(folder)
    return hit


@pytest.mark.smoke
def test_killed_three_times_it_ends_the_same(uninterrupted, tmp_path):
    hit = sweep(tmp_path, 3, 6.0, seed=1)
    assert outputs(tmp_path) == uninterrupted
    assert starts(tmp_path) == len(hit) + 1


@pytest.mark.long
def test_killed_at_twenty_random_moments(uninterrupted, tmp_path):
    kills = []
    for number in range(100):
        folder = tmp_path / str(number)
        folder.mkdir()
        kills += sweep(folder, SWEEP, 5.0, seed=number)
        assert outputs(folder) == uninterrupted
        if len(kills) >= SWEEP:
            break
    print(
        f"killed {len(kills)} times: "
        + ", ".join(f"{name} {kills.count(name)}" for name in sorted(set(kills)))
    )
    assert len(kills) >= SWEEP


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_a_checkpoint_and_says_how_to_go_on(uninterrupted, tmp_path, number, status):
    arguments = ["--model=GANPrompt", *dataset(tmp_path), *TINY, "--checkpoint_every=none"]
    child = start(tmp_path, arguments)
    wait_for(lambda: list(tmp_path.glob("saved/diversity/attributes-*")), child)
    os.kill(child.pid, number)
    assert finish(child) == status
    assert list(tmp_path.glob("saved/*/.progress/*/*.safetensors")), "no checkpoint was written"
    (command,) = re.findall(r"run_recbole.py (--resume='.*') goes on", said(tmp_path))
    assert finish(start(tmp_path, [command.replace("'", "")])) == 0, said(tmp_path)
    assert outputs(tmp_path) == uninterrupted


def test_baselines_go_on_too(tmp_path):
    found = {}

    def checkpoints():
        return list(tmp_path.glob("stopped/saved/runs/*/checkpoints/00000003-*"))

    for name in ("whole", "stopped"):
        folder = tmp_path / name
        folder.mkdir()
        arguments = ["--model=NARM", *dataset(folder, 80), "--epochs=6", "--stopping_step=6"]
        arguments += ["--train_batch_size=32", "--checkpoint_every=1"]
        child = start(folder, arguments)
        if name == "stopped":
            wait_for(checkpoints, child)
            assert kill_after(child, 0)
            (run,) = folder.glob("saved/runs/*")
            child = start(folder, [f"--resume={run}"])
        assert finish(child) == 0, said(folder)
        found[name] = outputs(folder)
    assert starts(tmp_path / "stopped") == 2
    assert found["stopped"] == found["whole"]
