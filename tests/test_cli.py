"""What a user sees on the command line, and how datasets are found."""

import http.server
import subprocess
import sys
import threading
import zipfile

import pytest

from recbole_ganprompt import cli
from recbole_ganprompt.config import build_config
from recbole_ganprompt.data import download
from recbole_ganprompt.errors import UserError

MODULE = [sys.executable, "-m", "recbole_ganprompt.cli"]


def test_help_lists_our_keys_with_defaults(capsys):
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert "--candidate_seed=2024\n      (int) Draws the frozen candidates" in text
    assert "--rating_threshold=5" in text and "Keys of GANPrompt:" in text


def test_list_names_models_and_datasets(toy, tmp_path, capsys):
    assert cli.main(["--list", f"--data_path={tmp_path / 'data'}"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for line in ("GANPrompt", "SASRec", "ml-100k comes with RecBole", "toy there"):
        assert line in lines
    assert "Amazon_Books not there yet" in lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model=GANPromt"], "did you mean GANPrompt?"),
        (["--model=SASRec", "--lerning_rate=1"], "--lerning_rate: did you mean learning_rate?"),
        (["--model=SASRec", "--dataset=Amazon_Beuty"], "did you mean Amazon_Beauty?"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset = [] if any("--dataset" in one for one in arguments) else ["--dataset=ml-100k"]
    assert cli.main([*arguments, *dataset, "--gpu_id="]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    assert message in captured.err and captured.out == ""
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_where_a_mistake_was_found(capsys):
    assert cli.main(["--debug", "--model=SASRec", "--dataset=ml-100k", "--epochs=0"]) == 2
    error = capsys.readouterr().err
    assert "Traceback" in error and error.endswith("error: epochs must be a positive integer, not 0.\n")


def test_a_closed_pipe_ends_quietly():
    command = " ".join([*MODULE, "--help"])
    result = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} | head -n 1"], capture_output=True, text=True
    )
    assert result.returncode == 0
    assert result.stdout.startswith("usage:") and "BrokenPipe" not in result.stderr


def test_a_run_without_a_terminal_has_no_colours(toy, tmp_path, monkeypatch):
    command = [*MODULE, *toy, "--model=SASRec", "--epochs=1"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "\x1b" not in result.stdout + result.stderr
    assert result.stdout.splitlines()[-1].endswith("result.json")


@pytest.fixture
def server(tmp_path, monkeypatch):
    """RecBole's download list pointing at an archive of ours, whose bytes a test may set."""
    archive = tmp_path / "shop.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("shop/shop.inter", "user_id:token\titem_id:token\ttimestamp:float\n")
        file.writestr("../../escaped/shop.item", "item_id:token\ttitle:token_seq\n")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = archive.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as service:
        threading.Thread(target=service.serve_forever, daemon=True).start()
        monkeypatch.setattr(download, "download_list", lambda: {"shop": "https://host/shop.zip"})
        fetch = download._fetch
        local = f"http://127.0.0.1:{service.server_port}/shop.zip"
        monkeypatch.setattr(download, "_fetch", lambda url, path: fetch(local, path))
        yield archive
        service.shutdown()


def shop(folder):
    values = {"data_path": str(folder), "download_name": "shop", "gpu_id": ""}
    return build_config("SASRec", "My_Shop", config_dict=values)


def test_a_missing_dataset_is_downloaded_under_its_own_name(server, tmp_path):
    folder = download.locate(shop(tmp_path / "data"))
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["My_Shop.inter", "My_Shop.item"]
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["My_Shop"]
    assert not list(tmp_path.rglob("escaped"))


def test_a_failed_download_leaves_nothing_and_says_what_to_put_where(server, tmp_path):
    server.write_bytes(b"no zip")
    with pytest.raises(UserError) as caught:
        download.locate(shop(tmp_path / "data"))
    assert f"put My_Shop.inter and My_Shop.item into {tmp_path / 'data' / 'My_Shop'}" in str(caught.value)
    assert str(caught.value).endswith("ml-100k needs no download.")
    assert list((tmp_path / "data").iterdir()) == []


def test_a_folder_without_interactions_is_not_overwritten(tmp_path):
    (tmp_path / "My_Shop").mkdir()
    (tmp_path / "My_Shop" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="has no My_Shop.inter"):
        download.locate(shop(tmp_path))
