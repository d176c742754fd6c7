"""Many runs side by side, each a Ray task in a process of its own."""

import os

from joblib import cpu_count  # of those that this process may use, unlike os.cpu_count

from recbole_ganprompt.study.cluster import Demand, Outcome, connected, in_directory, settled


def run_tasks(function, tasks: dict, demand: Demand, *, address=None, attempts: int = 3):
    """Run a function once for each task, each in a process of its own, as many at once as there is room for.

    Parameters
    ----------
    function : callable
        Importable from where the caller has it; takes a task's arguments, returns what pickle can carry.
    tasks : dict of str to tuple
        Arguments by the task's name, in the order in which they should start.
    demand : Demand
        Of each task.
    address : str, optional
        A Ray cluster's; None starts Ray on this machine.
    attempts : int
        How often a task whose worker or machine was lost is started at most. A function that raises is not
        tried again.

    Yields
    ------
    Outcome
        As the tasks end.

    Raises
    ------
    UserError
        If the cluster can't be reached, or no machine of it will ever hold one task.
    """
    import ray
    from ray.exceptions import RayError, RayTaskError

    with connected(address, cpu_count(), demand.cpus, show=False):
        demand = settled(ray, demand)
        remote = ray.remote(
            num_cpus=demand.cpus,
            num_gpus=demand.gpus,
            memory=int(demand.memory_gb * 1e9) or None,
            max_calls=1,  # RecBole's and PyTorch's process-wide state ends with the task
            max_retries=0,  # counted below
        )(in_directory)
        running, started = {}, dict.fromkeys(tasks, 0)

        def start(name):
            started[name] += 1
            running[remote.options(name=name).remote(os.getcwd(), function, tasks[name])] = name

        for name in tasks:
            start(name)
        while running:
            (ready,), _ = ray.wait(list(running), num_returns=1)
            name = running.pop(ready)
            try:
                yield Outcome(name, ray.get(ready), None, started[name])
            except RayTaskError as error:  # the function's own
                yield Outcome(name, None, error.cause or error, started[name])
            except RayError as error:  # a lost worker or machine
                if started[name] < attempts:
                    start(name)
                else:
                    yield Outcome(name, None, error, started[name])
