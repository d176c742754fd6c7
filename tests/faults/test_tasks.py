"""Tasks on Ray: one whose worker dies is started again and counted; no more run than processors are there."""

import os
import signal
import time

import pytest

from recbole_ganprompt.study.cluster import Demand
from recbole_ganprompt.study.tasks import run_tasks


def dies(folder: str, times: int) -> int:
    """Kill the worker that this runs in, so many times; returns how often it was begun."""
    begun = len(os.listdir(folder))
    open(os.path.join(folder, str(begun)), "x").close()
    if begun < times:
        os.kill(os.getpid(), signal.SIGKILL)
    return begun + 1


def test_lost_workers_are_replaced_and_counted(tmp_path):
    tasks = {}
    for name, times in (("well", 0), ("lost once", 1), ("always lost", 9)):
        (tmp_path / name).mkdir()
        tasks[name] = (str(tmp_path / name), times)
    ended = {outcome.name: outcome for outcome in run_tasks(dies, tasks, Demand())}
    assert (ended["well"].value, ended["well"].attempts) == (1, 1)
    assert (ended["lost once"].value, ended["lost once"].attempts) == (2, 2)
    assert ended["always lost"].error is not None and ended["always lost"].attempts == 3


def lasts(seconds: float) -> tuple[float, float]:
    """When this began and ended, on the machine's clock."""
    begun = time.monotonic()
    time.sleep(seconds)
    return begun, time.monotonic()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux binds processes to processors")
def test_no_more_tasks_run_than_there_are_processors_for_this_process():
    """A job of a shared machine may use some of its processors; Ray would count them all."""
    given = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(given)})
    try:
        tasks = {"one": (1.0,), "another": (1.0,)}
        first, second = sorted(outcome.value for outcome in run_tasks(lasts, tasks, Demand()))
    finally:
        os.sched_setaffinity(0, given)
    assert first[1] <= second[0]
