"""Standard streams that a long run can rely on, whoever listens and whatever the locale."""

import io
import logging
import os
import sys
from contextlib import contextmanager


class _LastingStream:
    """A text stream that goes on writing, to nowhere, once its reader has gone (``| head``)."""

    def __init__(self, stream):
        self._stream = stream

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._attempt(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._attempt(self._stream.flush)

    def _attempt(self, action, *arguments) -> None:
        try:
            action(*arguments)
        except OSError as error:
            # What is still buffered must go somewhere, or Python fails again when it ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            if not isinstance(error, BrokenPipeError):
                error.filename = self._stream.name
                raise


@contextmanager
def lasting_streams():
    """Run a command with a stdout and a stderr that take any text and outlive their readers.

    Streams that were closed (``>&-``) lead nowhere, an ASCII locale's are UTF-8, as in Python's UTF-8 mode,
    and a log that can't be written is no reason to stop. All is as before afterwards, but for closed
    descriptors.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # Else the next file opened would get this number, and what libraries print with it.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    before = sys.stdout, sys.stderr, logging.raiseExceptions
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        sys.stdout, sys.stderr = _lasting(sys.stdout or nowhere), _lasting(sys.stderr or nowhere)
        logging.raiseExceptions = False
        try:
            yield
        finally:
            sys.stdout, sys.stderr, logging.raiseExceptions = before


def _lasting(stream) -> _LastingStream:
    if isinstance(stream, io.TextIOWrapper):
        # Paths may hold bytes of no encoding, which Python carries as lone surrogates.
        if stream.encoding.lower().replace("_", "-") in ("ascii", "us-ascii", "ansi-x3.4-1968", "utf-8"):
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")
        else:
            stream.reconfigure(errors="backslashreplace")
    return _LastingStream(stream)
