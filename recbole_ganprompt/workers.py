"""Several processes that train one model together: what each does of the work, and adding it up.

Every worker runs the same program on the same data and random numbers; only the language model's forward and
backward passes are divided, and their sums are what one worker alone would have got (up to the order of
summation). Without a ``torch.distributed`` process group there is one worker, and nothing here does anything.
"""

from contextlib import contextmanager

import torch
from torch import distributed


def rank() -> int:
    """This worker's number, from 0."""
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


def count() -> int:
    """How many workers there are."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def share(things: list) -> list:
    """This worker's part of a list: every ``count()``-th, so that a sorted list is shared fairly."""
    return things[rank() :: count()]


def add_up(tensors: list[torch.Tensor]) -> None:
    """Replace each tensor by its sum over all workers."""
    if count() == 1 or not tensors:
        return
    flat = torch.cat([tensor.reshape(-1).double() for tensor in tensors])
    if distributed.get_backend() == "nccl":
        flat = flat.cuda()
    distributed.all_reduce(flat)
    for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors])):
        tensor.copy_(total.view_as(tensor))


@contextmanager
def one_after_the_other():
    """The first worker does what is inside the ``with`` block, and when it is done all others do."""
    if count() > 1 and rank() > 0:
        distributed.barrier()
    try:
        yield
    finally:
        if count() > 1 and rank() == 0:
            distributed.barrier()
