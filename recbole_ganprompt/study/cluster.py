"""A Ray cluster, or Ray on this machine: the connection, what a task takes of it, how it ended.

:mod:`~recbole_ganprompt.study.tasks` and :mod:`~recbole_ganprompt.study.trials` run many models on it, each
in a process of its own, :mod:`~recbole_ganprompt.study.distributed` one model in many processes; nothing else
knows Ray.
"""

import os
import re
import socket
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from logging import ERROR

from recbole_ganprompt.errors import UserError


@dataclass(frozen=True)
class Demand:
    """What one task takes of the cluster.

    Attributes
    ----------
    cpus : int
        Processors, and threads of the task.
    gpus : float or None
        Such as 0.5 where two tasks share a GPU; None: one where the cluster has any.
    memory_gb : float
        Resident memory in 10^9 bytes; Ray starts no more tasks on a machine than its memory holds.
    """

    cpus: int = 1
    gpus: float | None = 0.0
    memory_gb: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """How a task ended.

    Attributes
    ----------
    name : str
    value : object
        What the function returned; None if it failed.
    error : Exception or None
        What it raised, or why its worker was lost for the last time.
    attempts : int
        How often it was started: more than one after the loss of a worker or a machine.
    stopped : bool
        Whether a search stopped it before its end; ``value`` is then what it had reported last.
    """

    name: str
    value: object
    error: Exception | None
    attempts: int
    stopped: bool = False


def settled(ray, demand: Demand) -> Demand:
    """The demand with its GPUs settled.

    Raises
    ------
    UserError
        If no machine has room for it.
    """
    if demand.gpus is None:
        demand = replace(demand, gpus=int(ray.cluster_resources().get("GPU", 0) >= 1))
    needed = {"CPU": demand.cpus, "GPU": demand.gpus, "memory": demand.memory_gb * 1e9}
    for node in ray.nodes():
        have = node["Resources"]
        if node["Alive"] and all(have.get(name, 0) >= amount for name, amount in needed.items()):
            return demand
    raise UserError(
        f"No machine has room for one run: {demand.cpus} processors, {demand.gpus:g} GPUs and "
        f"{demand.memory_gb:g} GB of memory; lower cpus_per_run, gpus_per_run or memory_per_run."
    )


@contextmanager
def connected(address: str | None, cpus: int, threads: int, show: bool = True):
    """Be connected to a Ray cluster inside the ``with`` block; to a new one on this machine without address.

    Parameters
    ----------
    address : str or None
        ``host:port``, ``ray://host:port`` or ``auto``.
    cpus : int
        Processors that a new one counts.
    threads : int
        Of each worker.
    show : bool
        Show here what the workers print.

    Raises
    ------
    UserError
        If no cluster answers.
    """
    import ray
    from ray.exceptions import RayError

    if ray.is_initialized():
        yield
        return
    # Workers import this package from where the caller has it.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports its use over the network otherwise
    variables = {"PYTHONPATH": os.pathsep.join([path for path in sys.path if path])}
    try:
        _reach(address)
        ray.init(
            address=address or "local",  # without it Ray would join a cluster that runs on this machine
            log_to_driver=show,
            logging_level=ERROR,
            include_dashboard=False,
            runtime_env={"env_vars": {**variables, "OMP_NUM_THREADS": str(threads)}},
            **({} if address else {"num_cpus": cpus}),
        )
    except (OSError, RayError, ValueError) as error:
        raise UserError(
            f"No Ray cluster answers at ray_address={address}: start one with 'ray start "
            "--head', or leave ray_address out to use this machine."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _reach(address: str | None) -> None:
    """Fail at once where nothing listens at ``host:port``: Ray would try for a minute."""
    match = re.fullmatch(r"(?:ray://)?([^:/]+):(\d+)", address or "")
    if match:
        socket.create_connection((match[1], int(match[2])), timeout=10).close()


def in_directory(directory: str, function, arguments: tuple):
    """Call a function where the caller stands: Ray starts workers in a folder of its own."""
    os.chdir(directory)
    return function(*arguments)
