"""A cache of whole folders, keyed by all that their content depends on."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from recbole_ganprompt import workers
from recbole_ganprompt.data.fingerprint import fingerprint


def cached_folder(cache_dir, kind: str, key: list, build: Callable[[Path], None]) -> Path:
    """Return ``<cache_dir>/<kind>-<fingerprint of key>``, built first where it does not exist.

    Parameters
    ----------
    cache_dir : path
    kind : str
        First part of the folder's name.
    key : list
        Everything that the content depends on, as :func:`fingerprint` takes it.
    build : callable
        Writes the content into the empty folder it is given. The folder gets its final name only
        after ``build`` returned, so that an interrupted build is never taken for a finished one.
    """
    with workers.one_after_the_other():  # the others find what the first one built
        return _cached_folder(Path(cache_dir), kind, key, build)


def _cached_folder(cache_dir: Path, kind: str, key: list, build) -> Path:
    folder = cache_dir / f"{kind}-{fingerprint(key)}"
    if folder.is_dir():
        return folder
    cache_dir.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{kind}-", dir=cache_dir))
    try:
        build(unfinished)
        unfinished.chmod(0o755)  # mkdtemp makes it private
        try:
            os.rename(unfinished, folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process finished the same folder first
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder
