"""What the built-in language models share: one pre-training loop."""

import math
from collections.abc import Iterable

import torch
from tqdm import tqdm


def pretrain(
    model: torch.nn.Module,
    batches: Iterable[dict[str, torch.Tensor]],
    *,
    steps: int,
    learning_rate: float,
    warmup: float = 0.05,
    description: str = "pre-training",
    device: str = "cpu",
    progress: bool = True,
) -> list[float]:
    """Train a transformers model on batches that hold ``labels``: AdamW, warm-up, cosine decay.

    Parameters
    ----------
    model : transformers model
        Returns an output with ``loss``. It is left in evaluation mode, on the CPU.
    batches : iterable of dict of tensors
        At least ``steps`` of them; each is passed to the model as keyword arguments.
    steps : int
    learning_rate : float
        The peak, reached after ``warmup * steps`` steps; the last step is near zero.

    Returns
    -------
    list of float
        The loss of each step (nats).
    """
    model.to(device).train()
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}],
        lr=learning_rate,
        betas=(0.9, 0.98),
    )
    rise = max(1, round(warmup * steps))

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    losses = []
    with tqdm(total=steps, desc=description, disable=not progress, leave=False) as bar:
        for _, batch in zip(range(steps), batches):
            loss = model(**{name: tensor.to(device) for name, tensor in batch.items()}).loss
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            bar.update()
            bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
    model.to("cpu").eval()
    return losses
