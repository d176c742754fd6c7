"""A task whose worker dies is started again and counted; one that always dies is given up."""

import os
import signal

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
