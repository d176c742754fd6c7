"""The trials of a search, run and stopped early by Ray Tune."""

import os
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

from joblib import cpu_count  # of those that this process may use, unlike os.cpu_count

from recbole_ganprompt.errors import UserError
from recbole_ganprompt.study.cluster import Demand, Outcome, connected, in_directory, settled


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
        As those of :func:`~recbole_ganprompt.study.tasks.run_tasks`.

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

    with connected(address, cpu_count(), demand.cpus, show=False):
        demand = settled(ray, demand)
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
        record = in_directory(directory, function, (*trials[settings["name"]], epoch))
    except Exception as error:
        report({"error": str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"})
    else:
        report({"record": record})
