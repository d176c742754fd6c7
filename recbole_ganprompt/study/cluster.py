"""Several workers on one machine or on a Ray cluster: the only file that knows Ray."""

import json
import os
import re
import shutil
import socket
import sys
import tempfile
from pathlib import Path

from recbole_ganprompt import workers
from recbole_ganprompt.config import build_config
from recbole_ganprompt.errors import UserError

_ADDRESS = "ray_address"


def run_on_workers(config, arguments: list[str], files: list[str]) -> dict:
    """Train one model on ``num_workers`` workers, data-parallel, and evaluate it there.

    Ray Train starts the processes and their process group (NCCL with ``use_gpu``, else gloo); what they share
    of the work is in :mod:`recbole_ganprompt.workers`. The first worker writes the run's folder, so that
    ``checkpoint_dir`` must be a folder that it and the caller see.

    Parameters
    ----------
    config : recbole Config
        Of the run: ``num_workers``, ``ray_address``, ``use_gpu``.
    arguments, files : list of str
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
    from ray.exceptions import RayError
    from ray.train.torch import TorchConfig, TorchTrainer

    driver, quiet = {}, {}
    try:
        from ray.train import RunConfig, ScalingConfig
    except ImportError:  # Ray before 2.7, where the trainer itself would take a processor from the workers
        from ray.air.config import RunConfig, ScalingConfig

        driver, quiet = {"trainer_resources": {"CPU": 0}}, {"verbose": 0}

    use_gpu = config["device"].type == "cuda"
    count, threads = config["num_workers"], _threads(config)
    started = not ray.is_initialized()
    if started:
        # Workers import this package from where the caller has it.
        environment = {"PYTHONPATH": os.pathsep.join([path for path in sys.path if path])}
        try:
            _reach(config[_ADDRESS])
            ray.init(
                address=config[_ADDRESS],
                log_to_driver=True,
                include_dashboard=False,
                runtime_env={"env_vars": {**environment, "OMP_NUM_THREADS": str(threads)}},
                # One more for the trainer itself, which some versions of Ray count.
                **({} if config[_ADDRESS] else {"num_cpus": count * threads + 1}),
            )
        except (OSError, RayError, ValueError) as error:
            raise UserError(
                f"No Ray cluster answers at ray_address={config[_ADDRESS]}: start one with 'ray start "
                "--head', or leave ray_address out to use this machine."
            ) from error
    meeting = None
    try:
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
        trainer = TorchTrainer(
            _work,
            train_loop_config={
                "arguments": arguments,
                "files": files,
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
            run_config=RunConfig(name="workers", storage_path=str(meeting), **quiet),
        )
        result = trainer.fit()
        if result.error is not None:
            raise result.error
        # Not Ray's reports: what they carry differs between its versions.
        mistake, record = meeting / "mistake.txt", meeting / "record.json"
        if mistake.is_file():
            raise UserError(mistake.read_text(encoding="utf-8"))
        return json.loads(record.read_text(encoding="utf-8"))
    finally:
        if meeting is not None:
            shutil.rmtree(meeting, ignore_errors=True)
        if started:
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
    from recbole_ganprompt.experiment import run, write_text

    meeting = Path(settings["meeting"])
    os.chdir(settings["directory"])  # Ray starts workers in a folder of its own; paths are the caller's
    arguments = [one for one in settings["arguments"] if not one.startswith("--checkpoint_dir=")]
    arguments.append(f"--checkpoint_dir={settings['checkpoint_dir']}")
    try:
        record = run(build_config(config_file_list=settings["files"], arguments=arguments)).record
    except UserError as error:
        write_text(meeting / "mistake.txt", str(error))
        return
    if workers.rank() == 0:
        write_text(meeting / "record.json", json.dumps(record))
