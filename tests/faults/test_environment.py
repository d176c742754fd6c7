"""Full and read-only disks, odd locales and folders, closed streams, a clock that runs backwards."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from toy_dataset import toy_arguments, write_toy

from recbole_ganprompt.cli import main
from recbole_ganprompt.errors import UserError, environment_faults

ROOT = Path(__file__).resolve().parents[2]
CLOCK = """\
import itertools, time
real, calls = time.time, itertools.count()
time.time = lambda: real() - 60 * next(calls)
"""


@pytest.fixture
def disk(tmp_path):
    """Mounts a file system of a given size, in which an earlier result lies."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("mounting a file system isn't permitted here")
        (folder / "earlier").write_text("kept")
        return folder

    yield mount
    if folder.is_mount():
        subprocess.run(["umount", str(folder)], check=True)


def run_on(toy, folder):
    given = [one for one in toy if not one.startswith("--checkpoint_dir")]
    return main(["--model=GRU4Rec", *given, f"--checkpoint_dir={folder}", "--epochs=1"])


# Room for the folders only; for the candidates too; for all but the last of the run's files.
@pytest.mark.parametrize("size", ["8k", "200k", None])
def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_written(
    size, disk, toy, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    if size is None:
        folder = disk("size=8m")
        assert run_on(toy, folder) == 0
        space = os.statvfs(folder)
        size = (space.f_blocks - space.f_bfree) * space.f_frsize - 4096
        subprocess.run(["umount", str(folder)], check=True)
    folder = disk(f"size={size}")
    assert run_on(toy, folder) == 2
    error = capsys.readouterr().err
    (said,) = [line for line in error.splitlines() if line.startswith("error: ")]
    assert f"{folder}/" in said and "No space left" in said and "--checkpoint_dir" in said
    assert "Traceback" not in error
    assert (folder / "earlier").read_text() == "kept"
    assert not list(folder.glob("runs/*")) and not list(folder.rglob("*.tmp"))


@pytest.mark.parametrize("where", ["saved", "current folder"])
def test_a_read_only_folder_is_one_sentence(where, disk, toy, tmp_path, capsys, monkeypatch):
    if os.geteuid() == 0:  # whom permissions don't stop
        folder = disk("size=64k")
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    else:
        folder = tmp_path / "locked"
        folder.mkdir(mode=0o500)
    monkeypatch.chdir(folder if where == "current folder" else tmp_path)
    saved = folder if where == "saved" else tmp_path / "saved"
    assert run_on(toy, saved) == 2
    error = capsys.readouterr().err
    (said,) = [line for line in error.splitlines() if line.startswith("error: ")]
    assert ("log" if where == "current folder" else f"{folder}/") in said and "choose another folder" in said
    assert "Traceback" not in error
    assert not list((tmp_path / "saved").glob("runs/*"))


def test_only_faults_of_the_environment_become_sentences(tmp_path):
    with pytest.raises(ZeroDivisionError), environment_faults():
        try:
            (tmp_path / "missing" / "x").write_text("")
        except OSError:
            1 / 0  # noqa: B018 -- a mistake of the program's, while a fault was dealt with
    with pytest.raises(FileNotFoundError), environment_faults():
        (tmp_path / "missing").read_text()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/x can't be opened"), environment_faults():
        (tmp_path / "file" / "x").write_text("")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_stdout_is_told(capsys, monkeypatch):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(["--list"]) == 2
    assert "error: /dev/full can't be written (No space left on device)" in capsys.readouterr().err


def test_a_name_that_the_locale_cannot_read_is_one_sentence(toy, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_on(toy, tmp_path / os.fsdecode(b"F\xfc\xdfe")) == 2
    error = capsys.readouterr().err
    (said,) = [line for line in error.splitlines() if line.startswith("error: ")]
    assert "F\\udcfc" in said and "PYTHONUTF8=1" in said and "Traceback" not in error


def test_runs_end_well_in_odd_environments(tmp_path):
    """In locale C, without a home or stdout, in a folder with a name; and in ASCII, into `head`."""
    inherited = {
        key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG", "XDG_"))
    }
    del inherited["HOME"]
    inherited["LC_ALL"] = "C"
    ascii_only = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONUNBUFFERED": "1", "HOME": "/proc"}
    named, plain = tmp_path / "Ünter 日本", tmp_path / "a b"
    runs = [
        start(named, "{} >&-", inherited),
        start(plain, "set -o pipefail; {} 2>&1 | head -n 1", inherited | ascii_only),
    ]
    ends = [(*run.communicate(), run.returncode) for run in runs]
    assert [end[-1] for end in ends] == [0, 0], ends
    assert "Traceback" not in ends[0][1] and ends[1][0].count("\n") == 1
    for place in (named, plain):
        (result,) = place.glob("saved/runs/*/result.json")
        assert json.loads(result.read_text())["config"]["epochs"] == 1


def start(place, line, environment):
    clock = place / "clock"
    clock.mkdir(parents=True)
    (clock / "sitecustomize.py").write_text(CLOCK)
    write_toy(place / "data")
    (place / f"{place.name[0]}.yaml").write_text("epochs: 1\n")
    arguments = ["--model=GRU4Rec", *toy_arguments(place), f"--config_files={place.name[0]}.yaml"]
    return subprocess.Popen(
        ["bash", "-c", line.format(shlex.join([sys.executable, str(ROOT / "run_recbole.py"), *arguments]))],
        env=environment | {"PYTHONPATH": os.pathsep.join([str(clock), str(ROOT)])},
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
