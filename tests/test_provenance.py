"""What a result says of the code that made it."""

import shutil
import subprocess

import pytest

from recbole_ganprompt import provenance


@pytest.fixture
def repository(tmp_path):
    if not shutil.which("git"):
        pytest.skip("needs git")
    (tmp_path / "package").mkdir()
    (tmp_path / "package/file").write_text("as committed")
    author = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", tmp_path, *command], check=True)
    return tmp_path


def test_the_commit_is_that_of_our_own_repository(repository, monkeypatch):
    monkeypatch.setattr(provenance, "ROOT", repository)
    clean = provenance.provenance()
    assert len(clean["commit"]) >= 7 and clean["dirty"] is False
    (repository / "package/file").write_text("changed")
    changed = provenance.provenance()
    assert (changed["commit"], changed["dirty"]) == (clean["commit"], True)
    # Installed somewhere inside another project, or where there is no git at all.
    monkeypatch.setattr(provenance, "ROOT", repository / "package")
    assert provenance.provenance()["commit"] is None
    monkeypatch.setattr(provenance, "ROOT", repository)
    monkeypatch.setenv("PATH", "")
    without = provenance.provenance()
    assert (without["commit"], without["dirty"]) == (None, None) and without["machine"]["cores"] >= 1
