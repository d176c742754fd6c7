"""The one exception for mistakes that a user can make and mend, and how a command ends with it."""

import errno
import io
import os
import re
import sys
import traceback
import warnings
from contextlib import contextmanager
from pathlib import Path

from recbole_ganprompt.streams import lasting_streams

# Said by RecBole's and Ray's own code about itself; the user can do nothing about them.
_NOISE = (
    r"`torch\.cuda\.amp\.GradScaler",
    "The given NumPy array is not writable",
    "pkg_resources is deprecated",
    "A value is trying to be set on a copy of a DataFrame",
)


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}
# Locals of this name hold the path where libraries write.
_PATH_NAMES = ("path", "file", "filename", "save_directory")


class UserError(ValueError):
    """A mistake in the input or the configuration: one sentence that says what to do.

    The command line prints it without a traceback and exits with status 2.
    """


def exit_status(command, arguments, interrupted: str = "interrupted", usage: str | None = None) -> int:
    """Run a command of ours.

    Parameters
    ----------
    command : callable
        Takes the list of arguments and prints what it has to say.
    arguments : list of str, optional
        ``sys.argv[1:]`` if None. ``--debug`` among them shows an error's traceback.
    interrupted : str
        What Ctrl-C is answered with.
    usage : str, optional
        What ``--help`` prints; without it the command answers that itself.

    Returns
    -------
    int
        0; 2 for a mistake that the user can mend; 130 for Ctrl-C.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    for message in _NOISE:
        warnings.filterwarnings("ignore", message)
    with lasting_streams():
        try:
            if usage and {"--help", "-h"} & set(arguments):
                print(usage)
                return 0
            with environment_faults():
                command([argument for argument in arguments if argument != "--debug"])
                sys.stdout.flush()
            return 0
        except UserError as error:
            if debug:
                traceback.print_exc()
            print(f"error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print(interrupted, file=sys.stderr)
            return 130


@contextmanager
def environment_faults():
    """Say in one sentence that a disk is full, a file may not be opened, or a name can't be read here.

    Raises
    ------
    UserError
        Instead of such an error, also where safetensors, tokenizers or torch raised it in words of their
        own. Every other error passes as it is.
    """
    try:
        yield
    except UserError:
        raise
    except UnicodeEncodeError as error:
        if (
            error.reason != "surrogates not allowed"
            and not error.encoding == sys.getfilesystemencoding() == "ascii"
        ):
            raise
        near = error.object[max(0, error.start - 30) : error.end + 10]
        raise UserError(
            f"'...{near.encode('ascii', 'backslashreplace').decode()}...' is no text in this locale: set "
            "PYTHONUTF8=1, or rename what is called so."
        ) from error
    except Exception as error:
        number, path = _fault(error)
        if number in _FULL:
            raise UserError(
                f"{path or 'A file'} can't be written ({os.strerror(number)}): make room on its disk, or "
                "choose another one with --checkpoint_dir."
            ) from error
        if number in _FORBIDDEN and path:
            raise UserError(
                f"{path} can't be opened or written ({os.strerror(number)}): change who may, or choose "
                "another folder with --checkpoint_dir, --data_path, or by where you start the command."
            ) from error
        raise


def _fault(error: Exception) -> tuple[int | None, str | None]:
    """The operating system's error number behind an error, and the path that it is about."""
    outer = error
    while error is not None:
        number = getattr(error, "errno", None) if isinstance(error, OSError) else None
        if number is None:
            # Rust's words, in safetensors and tokenizers, and Arrow's.
            found = re.search(r"\(os error (\d+)\)|\[Errno (\d+)\]", str(error))
            number = int(found[1] or found[2]) if found else None
        if number is not None:
            named = getattr(error, "filename", None)
            path = named or _path_behind(error) or _path_behind(outer)
            return number, None if path is None else os.fsdecode(path)
        # torch's writer hides a failed write behind an error of its own; no other error may stand for one
        # that was dealt with before it.
        error = (error.__cause__ or error.__context__) if type(error) is RuntimeError else None
    return None, None


def _path_behind(error: Exception):
    """What was being written: the innermost path, or open file, in the functions that failed."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for frame in reversed(frames):
        for name, value in frame.f_locals.items():
            if isinstance(value, Path) or (name in _PATH_NAMES and isinstance(value, str)):
                return value
            if isinstance(value, io.IOBase) and isinstance(getattr(value, "name", None), str):
                return value.name
    return None
