"""The one exception for mistakes that a user can make and mend, and how a command ends with it."""

import os
import sys
import traceback
import warnings

# Said by RecBole's and Ray's own code about itself; the user can do nothing about them.
_NOISE = (
    r"`torch\.cuda\.amp\.GradScaler",
    "The given NumPy array is not writable",
    "pkg_resources is deprecated",
    "A value is trying to be set on a copy of a DataFrame",
)


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
    try:
        if usage and {"--help", "-h"} & set(arguments):
            print(usage)
            return 0
        command([argument for argument in arguments if argument != "--debug"])
        sys.stdout.flush()
        return 0
    except UserError as error:
        if debug:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130
