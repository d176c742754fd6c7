"""Random numbers that don't depend on what drew before, and that go on where they were."""

import random
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
