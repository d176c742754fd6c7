"""A wheel carries all that the package needs, away from the checkout."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run(*command, **options):
    result = subprocess.run(command, capture_output=True, text=True, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_an_installed_wheel_works_without_the_checkout(tmp_path):
    # Built from a copy: setuptools leaves build/ behind, and would reuse a stale one.
    source = tmp_path / "source"
    source.mkdir()
    names = ["setup.py", "pyproject.toml", "MANIFEST.in", "LICENSE", "recbole_ganprompt", "properties"]
    run("cp", "-r", *(str(ROOT / name) for name in names), str(source))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    run(*pip, "wheel", "--no-deps", "-w", str(tmp_path), str(source))
    (wheel,) = tmp_path.glob("*.whl")
    expected = {path.relative_to(ROOT).as_posix() for path in (ROOT / "properties").rglob("*.*")}
    with zipfile.ZipFile(wheel) as file:
        expected = {f"recbole_ganprompt/{name}" for name in expected}
        expected |= {f"recbole_ganprompt/report/page.{kind}" for kind in ("html", "css", "js")}
        assert expected <= set(file.namelist())
        (metadata,) = (name for name in file.namelist() if name.endswith("METADATA"))
        text = file.read(metadata).decode()
    assert 'recbole==1.2.1; python_version < "3.12"' in text
    assert "Requires-Dist: torch<2.14,>=2.1" in text

    # An environment of its own that sees this one's third-party packages, but not the checkout.
    run(sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv"))
    python = tmp_path / "venv" / "bin" / "python"
    site = run(str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    run(*pip, "install", "--no-deps", "--target", site, str(wheel))
    outer = run(sys.executable, "-c", "import torch; print(torch.__path__[0])").strip()
    Path(site, "outer.pth").write_text(str(Path(outer).parent) + "\n")
    script = (
        "import recbole_ganprompt, recbole_ganprompt.config as config;"
        "print(recbole_ganprompt.__file__);"
        "print(config.properties_path('overall.yaml').is_file());"
        "print(config.build_config('GANPrompt', 'ml-100k')['topk'])"
    )
    lines = run(str(python), "-E", "-c", script, cwd=tmp_path).splitlines()
    assert lines[0].startswith(site) and lines[1:] == ["True", "[1, 3, 5]"]
