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


def largest(values: list[float]) -> list[float]:
    """The largest of each value over all workers, so that they take one decision."""
    if count() == 1:
        return values
    tensor = torch.tensor(values, dtype=torch.float64)
    if distributed.get_backend() == "nccl":
        tensor = tensor.cuda()
    distributed.all_reduce(tensor, op=distributed.ReduceOp.MAX)
    return tensor.tolist()


def of_each(tensor: torch.Tensor) -> torch.Tensor:
    """Every worker's tensor (bytes, on the CPU): uint8 [workers, bytes]."""
    if count() == 1:
        return tensor[None]
    own = tensor.cuda() if distributed.get_backend() == "nccl" else tensor
    parts = [torch.empty_like(own) for _ in range(count())]
    distributed.all_gather(parts, own)
    return torch.stack(parts).cpu()


def add_up_gradients(parameters) -> None:
    """Sum the gradients over all workers; one that a worker hasn't got counts as zero there.

    A worker whose share of a batch was empty has none at all, and a parameter that no worker used keeps none,
    as it would with one worker.
    """
    if count() == 1:
        return
    used = torch.tensor([float(parameter.grad is not None) for parameter in parameters])
    add_up([used])
    gradients = []
    for parameter, anywhere in zip(parameters, used.tolist()):
        if anywhere:
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            gradients.append(parameter.grad)
    add_up(gradients)


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
