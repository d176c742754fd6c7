"""A cache of whole folders, keyed by all that their content depends on."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

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
    (cache_dir / ".locks").mkdir(parents=True, exist_ok=True)
    # A run that needs what another one is making waits for it; the operating system frees a dead one's lock.
    with FileLock(cache_dir / ".locks" / folder.name):
        if folder.is_dir():
            return folder
        unfinished = Path(tempfile.mkdtemp(prefix=f".{kind}-", dir=cache_dir))
        try:
            build(unfinished)
            unfinished.chmod(0o755)  # mkdtemp makes it private
            os.rename(unfinished, folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return folder
