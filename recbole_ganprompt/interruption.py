"""Ctrl-C and SIGTERM: a long computation ends where nothing is lost, not in the middle of a step."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_received: list[int] = []


class Interrupted(SystemExit):
    """The process was asked to end, and stands where it can: exit status 130 (Ctrl-C) or 143 (SIGTERM)."""

    def __init__(self, number: int):
        super().__init__(128 + number)


@contextmanager
def watched() -> Iterator[None]:
    """Inside the ``with`` block the first signal waits for :func:`check`; a second one ends at once.

    Outside the main thread, where Python takes no signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def receive(number, frame):
        if _received:
            raise Interrupted(number)
        _received.append(number)
        print("stopping at the next step; once more to stop at once", file=sys.stderr)

    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        _received.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


def pending() -> int:
    """The signal that was received and not yet followed, or 0."""
    return _received[0] if _received else 0


def check() -> None:
    """End here if a signal was received: for places where nothing is half-done.

    Raises
    ------
    Interrupted
    """
    if _received:
        raise Interrupted(_received[0])
