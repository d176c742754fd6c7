"""Archives from elsewhere: only over https, only what was asked for, whole or not at all."""

import hashlib
import http.server
import stat
import threading
import zipfile

import pytest

from recbole_ganprompt.config import build_config
from recbole_ganprompt.data import download
from recbole_ganprompt.errors import UserError

FILES = {"shop/shop.inter": "user_id:token\n", "shop/shop.item": "item_id:token\n"}


def shop(folder, **values):
    return build_config("SASRec", "shop", config_dict={"data_path": str(folder), "gpu_id": "", **values})


def packed(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A web server; what it answers is ``archive.zip``, or an address to go to in ``redirect``."""
    archive = packed(tmp_path / "archive.zip", FILES.items())
    redirect = tmp_path / "redirect"

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if redirect.exists() and self.path == "/shop.zip":
                self.send_response(302)
                self.send_header("Location", redirect.read_text())
                self.end_headers()
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(archive.read_bytes())

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as service:
        threading.Thread(target=service.serve_forever, daemon=True).start()
        local = f"http://127.0.0.1:{service.server_port}/"
        monkeypatch.setattr(download, "download_list", lambda: {"shop": "https://host/shop.zip"})
        fetch = download._fetch
        # The first address is https; the one it leads to is fetched as it is.
        monkeypatch.setattr(download, "_fetch", lambda url, path: fetch(f"{local}shop.zip", path))
        yield tmp_path, local
        service.shutdown()


def refused(tmp_path, **values):
    """What is said, after nothing was left behind."""
    with pytest.raises(UserError) as caught:
        download.locate(shop(tmp_path / "data", **values))
    assert list((tmp_path / "data").iterdir()) == []
    return str(caught.value)


def test_a_redirect_away_from_https_is_refused(server):
    tmp_path, local = server
    for address in (f"{local}other.zip", "ftp://host/shop.zip"):
        (tmp_path / "redirect").write_text(address)
        assert f"{address} is not https" in refused(tmp_path)
    (tmp_path / "redirect").write_text("file:///etc/passwd")
    assert "could not be downloaded" in refused(tmp_path)


def test_an_address_that_is_not_https_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "download_list", lambda: {"shop": "http://host/shop.zip"})
    with pytest.raises(UserError, match="http://host/shop.zip is not https"):
        download.locate(shop(tmp_path))


def test_a_checksum_is_verified_where_one_is_given(server):
    tmp_path, _ = server
    found = hashlib.sha256((tmp_path / "archive.zip").read_bytes()).hexdigest()
    assert f"its SHA-256 is {found}" in refused(tmp_path, download_sha256="0" * 64)
    folder = download.locate(shop(tmp_path / "data", download_sha256=found.upper()))
    assert sorted(path.name for path in folder.iterdir()) == ["shop.inter", "shop.item"]


def test_a_checksum_that_is_none_is_refused_before_anything_is_fetched(tmp_path):
    with pytest.raises(UserError, match="64 hexadecimal digits"):
        download.locate(shop(tmp_path, download_sha256="abc", download_name="amazon-beauty"))
    assert not list(tmp_path.iterdir())


def test_names_with_folders_end_in_the_datasets_own(server):
    tmp_path, _ = server
    members = [
        ("../../shop.inter", "a"),
        ("/abs/shop.item", "b"),
        ("..\\..\\shop.user", "c"),
        ("C:\\shop.kg", "d"),
        ("deep/..", "e"),
        ("__MACOSX/._shop.inter", "f"),
    ]
    packed(tmp_path / "archive.zip", members)
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    folder = download.locate(shop(tmp_path / "data"))
    after = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert {path.relative_to(folder).as_posix(): path.read_text() for path in after - before} == {
        "shop.inter": "a",
        "shop.item": "b",
        "shop.user": "c",
        "shop.kg": "d",
    }


def link():
    member = zipfile.ZipInfo("shop.item")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


def locked(content: bytes) -> bytes:
    """An archive that says its files need a password."""
    flags = bytearray(content)
    for place in (content.index(b"PK\3\4") + 6, content.index(b"PK\1\2") + 8):
        flags[place] |= 1
    return bytes(flags)


def test_archives_made_to_harm_are_refused_and_leave_nothing(server):
    tmp_path, _ = server
    archive = tmp_path / "archive.zip"
    bomb = b"0" * (download.ALWAYS_FITS + download.CHUNK)
    cases = [
        ([("shop.inter", "x"), (link(), "/etc/passwd")], "holds a link"),
        ([("a/shop.inter", "x"), ("b/SHOP.inter", "y")], "two files called"),
        ([("shop.inter", bomb)], "more than 100 times its size"),
        ([(f"{number}.txt", "") for number in range(200)], "more than 100 files"),
        ([("shop.inter", "x"), ("a\x1b[2J", "y")], "a strange name"),
        ([("readme.txt", "x")], "holds no .inter file"),
    ]
    for members, message in cases:
        packed(archive, members)
        assert message in refused(tmp_path)
    whole = packed(archive, [("shop.inter", bomb)]).read_bytes()
    size = len(bomb).to_bytes(4, "little")
    assert whole.count(size) == 2
    archive.write_bytes(whole.replace(size, (9).to_bytes(4, "little")))  # a header that lies
    assert "could not be downloaded" in refused(tmp_path)
    whole = packed(archive, FILES.items()).read_bytes()
    for broken in (locked(whole), whole[:-30], whole[:40] + b"\xff" * 20 + whole[60:], b""):
        archive.write_bytes(broken)
        assert "could not be downloaded" in refused(tmp_path)
