"""Where a dataset's files are, and how they get there."""

import http.client
import logging
import shutil
import tempfile
import urllib.request
import zipfile
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from recbole_ganprompt.checks import nearest
from recbole_ganprompt.errors import UserError
from recbole_ganprompt.keys import load_yaml, properties_path, recbole_properties

TIMEOUT = 30  # seconds without an answer


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
            f"There is no dataset {name}, neither in {folder.parent} nor in RecBole's download list: {hint}"
        )
    _download(name, known[key], folder)
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


def _download(name: str, url: str, folder: Path) -> None:
    """Fetch and unpack beside the final folder, then rename: it is complete or it isn't there."""
    logging.getLogger().info(f"Downloading {name} from {url}.")
    try:
        if not url.startswith("https://"):
            raise OSError("its address is not https")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=folder.parent) as temporary:
            archive, unpacked = Path(temporary, "archive.zip"), Path(temporary, name)
            unpacked.mkdir()
            _fetch(url, archive)
            _unpack(archive, unpacked, PurePosixPath(url).stem, name)
            if not (unpacked / f"{name}.inter").is_file():
                raise OSError("the archive holds no .inter file")
            if folder.is_dir():
                folder.rmdir()  # empty: locate() has looked
            unpacked.rename(folder)
    except (OSError, http.client.HTTPException, zipfile.BadZipFile) as error:
        raise UserError(
            f"{name} could not be downloaded from {url} ({str(error) or type(error).__name__}): put "
            f"{name}.inter and {name}.item into {folder}, or name the folder that holds {name}/ "
            "with --data_path; ml-100k needs no download."
        ) from error


def _fetch(url: str, path: Path) -> None:
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, path.open("wb") as file:
        size = int(answer.headers.get("Content-Length") or 0)
        with tqdm(total=size or None, unit="B", unit_scale=True, desc="download") as bar:
            while chunk := answer.read(1 << 20):
                file.write(chunk)
                bar.update(len(chunk))
    if size and path.stat().st_size != size:
        raise OSError("the connection broke off")


def _unpack(archive: Path, folder: Path, old: str, new: str) -> None:
    """Unpack the files of a zip by their base names alone, the dataset's name put in theirs."""
    with zipfile.ZipFile(archive) as source:
        for member in source.infolist():
            base = member.filename.replace("\\", "/").rpartition("/")[2]
            if base and not base.startswith("."):
                with (
                    source.open(member) as file,
                    (folder / base.replace(old, new)).open("wb") as to,
                ):
                    shutil.copyfileobj(file, to)
