"""Workers and tasks on one machine or on a Ray cluster: the only file that knows Ray."""

import json
import os
import re
import shutil
import socket
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from logging import ERROR
from pathlib import Path
from types import SimpleNamespace

from recbole_ganprompt import workers
from recbole_ganprompt.config import build_config
from recbole_ganprompt.errors import UserError

_ADDRESS = "ray_address"


def run_on_workers(config, arguments: list[str], files: list[str], values: dict | None = None) -> dict:
    """Train one model on ``num_workers`` workers, data-parallel, and evaluate it there.

    Ray Train starts the processes and their process group (NCCL with ``use_gpu``, else gloo); what they share
    of the work is in :mod:`recbole_ganprompt.workers`. The first worker writes the run's folder, so that
    ``checkpoint_dir`` must be a folder that it and the caller see. When a worker or its machine is lost, all
    of them start again, at most three times in all, and go on from the last checkpoint; ``result.json``
    counts the ``starts``.

    Parameters
    ----------
    config : recbole Config
        Of the run: ``num_workers``, ``ray_address``, ``use_gpu``.
    arguments, files : list of str
    values : dict, optional
        What the configuration was built from; each worker builds its own.

    Returns
    -------
    dict
        The record of ``result.json``.

    Raises
    ------
    UserError
        If the workers can't be had, or one of them meets a mistake of the user's.
    """
    import ray
    from ray.train.torch import TorchConfig, TorchTrainer

    driver, quiet = {}, {}
    try:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
    except ImportError:  # Ray before 2.7, where the trainer itself would take a processor from the workers
        from ray.air.config import FailureConfig, RunConfig, ScalingConfig

        driver, quiet = {"trainer_resources": {"CPU": 0}}, {"verbose": 0}

    use_gpu = config["device"].type == "cuda"
    count, threads = config["num_workers"], _threads(config)
    # One more processor for the trainer itself, which some versions of Ray count.
    with connected(config[_ADDRESS], count * threads + 1, threads):
        have = ray.cluster_resources()
        for name, each in (("CPU", threads), ("GPU", int(use_gpu))):
            if count * each > have.get(name, 0):
                raise UserError(
                    f"num_workers={count} need {count * each} {name}s and there are "
                    f"{have.get(name, 0):g}: lower num_workers."
                )
        folder = Path(config["checkpoint_dir"]).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        meeting = Path(tempfile.mkdtemp(prefix=".workers-", dir=folder))
        try:
            trainer = TorchTrainer(
                _work,
                train_loop_config={
                    "arguments": arguments,
                    "files": files,
                    "values": values,
                    "checkpoint_dir": str(folder),
                    "meeting": str(meeting),
                    "directory": os.getcwd(),
                },
                torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo", timeout_s=24 * 3600),
                scaling_config=ScalingConfig(
                    num_workers=count,
                    use_gpu=use_gpu,
                    **driver,
                    resources_per_worker={"CPU": threads, "GPU": int(use_gpu)},
                ),
                run_config=RunConfig(
                    name="workers",
                    storage_path=str(meeting),
                    failure_config=FailureConfig(max_failures=2),
                    **quiet,
                ),
            )
            result = trainer.fit()
            if result.error is not None:
                raise result.error
            # Not Ray's reports: what they carry differs between its versions.
            mistakes = sorted(meeting.glob("mistake-*.txt"))
            if mistakes:  # the first worker's, where it has one
                raise UserError(mistakes[0].read_text(encoding="utf-8"))
            return json.loads((meeting / "record.json").read_text(encoding="utf-8"))
        finally:
            shutil.rmtree(meeting, ignore_errors=True)


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

    with connected(address, os.cpu_count() or 1, demand.cpus, show=False):
        demand = _settled(ray, demand)
        remote = ray.remote(
            num_cpus=demand.cpus,
            num_gpus=demand.gpus,
            memory=int(demand.memory_gb * 1e9) or None,
            max_calls=1,  # RecBole's and PyTorch's process-wide state ends with the task
            max_retries=0,  # counted below
        )(_in_directory)
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


def run_trials(
    function, trials: dict, demand: Demand, ended, folder, *, halving=True, past=(), address=None, attempts=3
) -> None:
    """Run the trials of a search through Ray Tune, as many at once as there is room for.

    With ``halving`` (ASHA, asynchronous successive halving, Li et al. 2020), a trial that has done a ninth, a
    third or one whole step of its training goes on if its score is among the best third of those that have
    come as far. Who has come as far depends on the order of the reports, and so on how many trials run at
    once: by ASHA's nature, and by nothing else here. Without it no result depends on that.

    Parameters
    ----------
    function : callable
        Importable from where the caller has it. Takes a trial's arguments and ``report(progress, score,
        record)``, to be called after an epoch: steps of training done (0.5 is half of the first), the best
        score so far (the larger, the better) and what a trial that is stopped there has for its value.
        Returns the whole trial's value, a dict.
    trials : dict of str to tuple
        Arguments by the trial's name, in the order in which they should start.
    demand : Demand
        Of each trial.
    ended : callable
        Takes the :class:`Outcome` of each trial, here, as it ends.
    folder : path
        For Tune's own files while it runs, where other machines take part: all must see it.
    halving : bool
    past : sequence of list of (progress, score)
        What earlier trials reported, for these ones to be compared with too.
    address, attempts
        As those of :func:`run_tasks`.

    Raises
    ------
    UserError
        If the cluster can't be reached, or no machine of it will ever hold one trial.
    """
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # no files of Tune's for each trial
    os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")  # a last report has no progress
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new one talks at any verbosity
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C shall interrupt, not end in order
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

    started = dict.fromkeys(trials, 0)

    class Ends(tune.Callback):
        def on_trial_start(self, iteration, trials, trial, **info):
            started[trial.config["name"]] += 1

        def on_trial_complete(self, iteration, trials, trial, **info):
            name, last = trial.config["name"], trial.last_result
            error = RuntimeError(last["error"]) if "error" in last else None
            ended(Outcome(name, last.get("record"), error, started[name], "progress" in last))

        def on_trial_error(self, iteration, trials, trial, **info):
            name = trial.config["name"]
            lost = RuntimeError("its worker was lost, as when memory runs out")
            ended(Outcome(name, None, lost, started[name]))

    scheduler = FIFOScheduler()
    if halving:
        scheduler = ASHAScheduler(
            time_attr="progress",
            metric="score",
            mode="max",
            grace_period=0.11,  # and 0.33, 0.99
            reduction_factor=3,
            max_t=9,  # more steps than any training has
            stop_last_trials=False,
        )
        for number, reports in enumerate(past):
            trial = SimpleNamespace(trial_id=f"past-{number}")
            scheduler.on_trial_add(None, trial)
            for progress, score in reports:
                scheduler.on_trial_result(None, trial, {"progress": progress, "score": score})

    with connected(address, os.cpu_count() or 1, demand.cpus, show=False):
        demand = _settled(ray, demand)
        Path(folder).mkdir(parents=True, exist_ok=True)
        files = tempfile.mkdtemp(prefix=".trials-", dir=folder if address else None)
        try:
            run_config, failure_config, _ = _tune_names()
            room = {"CPU": demand.cpus, "GPU": demand.gpus, "memory": int(demand.memory_gb * 1e9)}
            room = tune.PlacementGroupFactory([{name: amount for name, amount in room.items() if amount}])
            trainable = tune.with_parameters(
                _run_trial, directory=os.getcwd(), function=function, trials=trials
            )
            tune.Tuner(
                tune.with_resources(trainable, room),
                param_space={"name": tune.grid_search(list(trials))},
                tune_config=tune.TuneConfig(scheduler=scheduler, reuse_actors=True),
                run_config=run_config(
                    name="trials",
                    storage_path=str(Path(files).absolute()),
                    callbacks=[Ends()],
                    # Only a lost worker fails in Ray's eyes: a trial that raises reports that.
                    failure_config=failure_config(max_failures=attempts - 1),
                    verbose=0,
                ),
            ).fit()
        finally:
            shutil.rmtree(files, ignore_errors=True)


def _tune_names():
    """``RunConfig``, ``FailureConfig`` and ``report``, where the installed Ray has Tune's."""
    try:
        from ray.tune import FailureConfig, RunConfig, report
    except ImportError:
        from ray.air.config import FailureConfig, RunConfig
        from ray.air.session import report
    return RunConfig, FailureConfig, report


def _run_trial(settings: dict, directory: str, function, trials: dict) -> None:
    """What the worker of a trial does."""
    *_, report = _tune_names()

    def epoch(progress, score, record):
        report({"progress": progress, "score": score, "record": record})

    try:
        record = _in_directory(directory, function, (*trials[settings["name"]], epoch))
    except Exception as error:
        report({"error": str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"})
    else:
        report({"record": record})


def _in_directory(directory: str, function, arguments: tuple):
    """Call a function where the caller stands: Ray starts workers in a folder of its own."""
    os.chdir(directory)
    return function(*arguments)


def _settled(ray, demand: Demand) -> Demand:
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


def _threads(config) -> int:
    """Processor threads for each worker: a fair share of this machine's."""
    return max(1, (os.cpu_count() or 1) // config["num_workers"])


def _work(settings: dict) -> None:
    """What each worker does: the whole run, of which the language model's passes are shared."""
    from recbole_ganprompt.experiment import run
    from recbole_ganprompt.writing import write_text

    meeting = Path(settings["meeting"])
    os.chdir(settings["directory"])  # Ray starts workers in a folder of its own; paths are the caller's
    arguments = [one for one in settings["arguments"] if not one.startswith("--checkpoint_dir=")]
    arguments.append(f"--checkpoint_dir={settings['checkpoint_dir']}")
    begun = meeting / "begun"
    if workers.rank() == 0:
        if begun.is_file():  # a worker was lost: the folder that the first one left goes on
            arguments = [one for one in arguments if not one.startswith("--resume=")] + ["--resume=auto"]
        begun.touch()
    try:
        record = run(build_config(None, None, settings["files"], settings["values"], arguments)).record
    except UserError as error:
        write_text(meeting / f"mistake-{workers.rank():04d}.txt", str(error))
        return
    if workers.rank() == 0:
        write_text(meeting / "record.json", json.dumps(record))
