"""One model trained on several workers: the work of a step is shared, by Ray Train's processes."""

import json
import os
import shutil
import tempfile
from pathlib import Path

from joblib import cpu_count  # of those that this process may use, unlike os.cpu_count

from recbole_ganprompt import workers
from recbole_ganprompt.config import build_config
from recbole_ganprompt.errors import UserError
from recbole_ganprompt.study.cluster import connected


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
    with connected(config["ray_address"], count * threads + 1, threads):
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


def _threads(config) -> int:
    """Processor threads for each worker: a fair share of what this process may use."""
    return max(1, cpu_count() // config["num_workers"])


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
