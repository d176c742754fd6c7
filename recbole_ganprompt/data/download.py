"""Where a dataset's files are, and how they get there."""

import hashlib
import http.client
import logging
import lzma
import re
import stat
import tempfile
import urllib.request
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from recbole_ganprompt.checks import listed, nearest
from recbole_ganprompt.errors import UserError
from recbole_ganprompt.keys import load_yaml, properties_path, recbole_properties

TIMEOUT = 30  # seconds without an answer
CHUNK = 1 << 20
# Atomic files shrink to a third or a tenth in an archive; one that grows a hundredfold is made to fill disks.
GROWTH, ALWAYS_FITS = 100, 64 << 20  # times the archive's bytes; bytes
MEMBERS = 100  # files in an archive


def locate(config) -> Path:
    """Return the folder that holds a dataset's atomic files, downloading them where absent.

    Parameters
    ----------
    config : recbole Config
        Its ``data_path`` names the dataset's own folder, as RecBole completes it.

    Returns
    -------
    pathlib.Path
        A folder with ``<dataset>.inter``.

    Raises
    ------
    UserError
        If the name is unknown or the download fails; it says what to put where.
    """
    name, folder = config["dataset"], Path(config["data_path"])
    if (folder / f"{name}.inter").is_file():
        return folder
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(
            f"{folder} has no {name}.inter: put {name}.inter and {name}.item there, or name another "
            f"folder that holds {name}/ with --data_path."
        )
    known = download_list()
    key = next((key for key in _listed_names(config) if key in known), None)
    if key is None:
        close = nearest(name, dataset_names())
        hint = f"did you mean {close}?" if close else "--list shows the known ones."
        raise UserError(
            f"There is no dataset {listed([name])}, neither in {folder.parent} nor in RecBole's download "
            f"list: {hint}"
        )
    checksum = str(config["download_sha256"] or "").strip().lower()
    if checksum and not re.fullmatch("[0-9a-f]{64}", checksum):
        raise UserError("download_sha256 must be the 64 hexadecimal digits that sha256sum prints.")
    _download(name, known[key], folder, checksum)
    return folder


def download_list() -> dict[str, str]:
    """RecBole's own dataset list: name to HTTPS address of a zip file."""
    return load_yaml(recbole_properties() / "dataset" / "url.yaml")


def dataset_names() -> list[str]:
    """Datasets that have properties of ours, then those that RecBole can download."""
    ours = sorted(path.stem for path in properties_path("dataset").glob("*.yaml"))
    return ours + sorted(download_list())


def _listed_names(config) -> list[str]:
    name = config["dataset"]
    return [config["download_name"] or name, name, name.lower().replace("_", "-")]


def _download(name: str, url: str, folder: Path, checksum: str) -> None:
    """Fetch and unpack beside the final folder, then rename: it is complete or it isn't there."""
    logging.getLogger().info(f"Downloading {name} from {url}.")
    try:
        _require_https(url)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=folder.parent) as temporary:
            archive, unpacked = Path(temporary, "archive.zip"), Path(temporary, name)
            unpacked.mkdir()
            found = _fetch(url, archive)
            if checksum and found != checksum:
                raise OSError(f"its SHA-256 is {found} and not download_sha256")
            _unpack(archive, unpacked, PurePosixPath(url).stem, name)
            if not (unpacked / f"{name}.inter").is_file():
                raise OSError("the archive holds no .inter file")
            if folder.is_dir():
                folder.rmdir()  # empty: locate() has looked
            unpacked.rename(folder)
    except _BROKEN as error:
        raise UserError(
            f"{name} could not be downloaded from {url} ({str(error) or type(error).__name__}): put "
            f"{name}.inter and {name}.item into {folder}, or name the folder that holds {name}/ "
            "with --data_path; ml-100k needs no download."
        ) from error


# What a server or an archive can do to those who read it: zipfile answers a password with a RuntimeError.
_BROKEN = (OSError, http.client.HTTPException, zipfile.BadZipFile, zlib.error, lzma.LZMAError)
_BROKEN += (EOFError, ValueError, RuntimeError)


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    """Refuse to be led away from https, which urllib follows."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        _require_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _require_https(url: str) -> None:
    if not url.lower().startswith("https://"):
        raise OSError(f"{url} is not https")


def _fetch(url: str, path: Path) -> str:
    """Write what is at an address to a file; returns its SHA-256 in hexadecimal digits."""
    digest = hashlib.sha256()
    opener = urllib.request.build_opener(_HttpsOnly)
    with opener.open(url, timeout=TIMEOUT) as answer, path.open("wb") as file:
        size = int(answer.headers.get("Content-Length") or 0)
        with tqdm(total=size or None, unit="B", unit_scale=True, desc="download") as bar:
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                digest.update(chunk)
                bar.update(len(chunk))
    if size and path.stat().st_size != size:
        raise OSError("the connection broke off")
    return digest.hexdigest()


def _unpack(archive: Path, folder: Path, old: str, new: str) -> None:
    """Unpack the files of a zip by their base names alone, the dataset's name put in theirs."""
    room = max(ALWAYS_FITS, GROWTH * archive.stat().st_size)
    taken: set[str] = set()
    with zipfile.ZipFile(archive) as source:
        for member in source.infolist():
            base = member.filename.replace("\\", "/").rpartition("/")[2].replace(old, new)
            if not base or base.startswith("."):
                continue
            if stat.S_ISLNK(member.external_attr >> 16):
                raise OSError(f"the archive holds a link, {base!r}")
            if not re.fullmatch(r"[\w. ()+-]{1,200}", base):
                raise OSError(f"the archive holds a file of a strange name, {base[:60]!r}")
            if base.casefold() in taken:
                raise OSError(f"the archive holds two files called {base}")
            if len(taken) == MEMBERS:
                raise OSError(f"the archive holds more than {MEMBERS} files")
            taken.add(base.casefold())
            with source.open(member) as file, (folder / base).open("wb") as to:
                while chunk := file.read(CHUNK):
                    room -= len(chunk)  # of the bytes that come, not of those that the header claims
                    if room < 0:
                        raise OSError(f"the archive unpacks to more than {GROWTH} times its size")
                    to.write(chunk)
