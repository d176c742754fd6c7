"""What the built-in language models share: one pre-training loop."""

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

import numpy as np
import torch
from tqdm import tqdm

from recbole_ganprompt.checkpoints import Checkpoints, NotFinite, rolling_back
from recbole_ganprompt.seeding import random_states, restore_random


def pretrain(
    model: torch.nn.Module,
    batches: Callable[[], Iterable[dict[str, torch.Tensor]]],
    checkpoints: Checkpoints,
    *,
    steps: int,
    learning_rate: float,
    warmup: float = 0.05,
    description: str = "pre-training",
    generators: Sequence[np.random.Generator] = (),
    device: str = "cpu",
    progress: bool = True,
) -> list[float]:
    """Train a transformers model on batches that hold ``labels``: AdamW, warm-up, cosine decay.

    Parameters
    ----------
    model : transformers model
        Returns an output with ``loss``. It is left in evaluation mode, on the CPU.
    batches : callable
        Starts an iterable of at least ``steps`` dicts of tensors, the same at each call; each is passed to
        the model as keyword arguments.
    checkpoints : Checkpoints
        Where a killed training left its state, and this one leaves its own.
    steps : int
    learning_rate : float
        The peak, reached after ``warmup * steps`` steps; the last step is near zero. Halved where the loss
        is not finite.
    generators : sequence of numpy Generator
        Those that the model itself draws from.

    Returns
    -------
    list of float
        The loss of each step (nats).
    """
    model.to(device).train()
    start = copy.deepcopy(model.state_dict()), [generator.bit_generator.state for generator in generators]
    rise = max(1, round(warmup * steps))

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))

    def train(state: dict | None, halvings: int) -> list[float]:
        decayed = [p for p in model.parameters() if p.ndim >= 2]
        others = [p for p in model.parameters() if p.ndim < 2]
        optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}],
            lr=learning_rate,
            betas=(0.9, 0.98),
        )
        losses = []
        weights, drawn = start
        if state is not None:
            weights, drawn, losses = state["model"], state["generators"], state["losses"]
            optimizer.load_state_dict(state["optimizer"])
            restore_random(state["random"])
        model.load_state_dict(weights)
        for generator, value in zip(generators, drawn):
            generator.bit_generator.state = value

        def now() -> dict:
            return {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "generators": [generator.bit_generator.state for generator in generators],
                "random": random_states(),
                "losses": losses,
                "halvings": halvings,
            }

        with tqdm(
            total=steps, initial=len(losses), desc=description, disable=not progress, leave=False
        ) as bar:
            for batch in islice(batches(), len(losses), steps):
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate * factor(len(losses)) * 0.5**halvings
                loss = model(**{name: tensor.to(device) for name, tensor in batch.items()}).loss
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                if not torch.isfinite(loss) or not torch.isfinite(norm):
                    raise NotFinite(f"{description}: the loss of batch {len(losses)} is not finite")
                optimizer.step()
                losses.append(loss.item())
                bar.update()
                bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
                checkpoints.reached(now)
        return losses

    losses = rolling_back(train, checkpoints)
    model.to("cpu").eval()
    return losses
