"""Random numbers that don't depend on what drew before and go on where they were; a run's repeatability."""

import random
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from recbole_ganprompt import workers


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's and numpy's global generators inside the block, and leave them outside as they were."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    state = np.random.get_state()
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(state)


def random_states(together: bool = False) -> dict:
    """States of all global generators, for :func:`restore_random`.

    Parameters
    ----------
    together : bool
        Whether all data-parallel workers ask at once: each has its own state of torch's generator.
    """
    torch_state = torch.get_rng_state()
    return {
        "torch": workers.of_each(torch_state) if together else torch_state[None],
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": np.random.get_state(),
        "python": random.getstate(),
    }


def restore_random(states: dict) -> None:
    """Take what :func:`random_states` gave."""
    each = states["torch"]
    # A copy: torch reads past the end of a row of a larger tensor.
    torch.set_rng_state(each[workers.rank() if len(each) > 1 else 0].clone())
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])
    np.random.set_state(states["numpy"])
    random.setstate(states["python"])


class SeededBatches:
    """A loader's ``collate_fn`` whose random numbers depend on the seed and on the batch's rows alone.

    RecBole's loaders draw negatives, masks and crops from the process's generators while they put a batch
    together, so the batches of ``worker: 2`` are others than those of ``worker: 0``. With this every process
    draws the same for the same rows; from epoch to epoch the rows of a batch are others.

    Parameters
    ----------
    collate : callable
        The loader's own ``collate_fn``: indices of rows to a batch.
    seed : int
    """

    def __init__(self, collate, seed: int):
        self.collate = collate
        self.seed = seed

    def __call__(self, rows):
        seed = zlib.crc32(np.asarray(rows, dtype=np.int64).tobytes(), self.seed % 2**32)
        kept = random.getstate(), np.random.get_state(), torch.get_rng_state()
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)  # not torch.manual_seed: GPUs have no part in this
        try:
            return self.collate(rows)
        finally:
            random.setstate(kept[0])
            np.random.set_state(kept[1])
            torch.set_rng_state(kept[2])


def reproducibility_switches(config) -> dict:
    """What the numbers of a run depend on beside its data and configuration, as this process has it now.

    Parameters
    ----------
    config : recbole Config

    Returns
    -------
    dict
        ``seed``, ``candidate_seed``, ``reproducibility``, ``dataloader_workers`` as configured; ``device``, a
        GPU with its name; ``data_parallel_workers``; and torch's ``deterministic_algorithms``,
        ``cudnn_deterministic``, ``cudnn_benchmark``, ``float32_matmul_precision``, ``tf32_matmul``,
        ``tf32_cudnn`` and ``cpu_threads``.
    """
    device = torch.device(config["device"])
    name = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    return {
        "seed": config["seed"],
        "candidate_seed": config["candidate_seed"],
        "reproducibility": config["reproducibility"],
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "tf32_matmul": torch.backends.cuda.matmul.allow_tf32,
        "tf32_cudnn": torch.backends.cudnn.allow_tf32,
        "device": f"{device}{name}",
        "cpu_threads": torch.get_num_threads(),
        "dataloader_workers": config["worker"],
        "data_parallel_workers": workers.count(),
    }
