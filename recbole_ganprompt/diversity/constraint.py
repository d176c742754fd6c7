"""The diversity constraint: how far the classes of one user lie apart.

For two embeddings x, x' of one user under two attributes the paper's constraint is
``D_total = α cos(x, x') + β D_JS(x, x')``, which is minimised. Minimising a divergence pulls the
classes together, the reverse of what it is for, so the divergence is subtracted here.
"""

import math

import torch
from torch.nn.functional import cosine_similarity, kl_div, log_softmax

VARIANTS = ("full", "no_cos", "no_js", "none")


def jensen_shannon(x: torch.Tensor, y: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Jensen-Shannon divergence between softmax(x / temperature) and softmax(y / temperature).

    Parameters
    ----------
    x, y : float tensor [..., hidden]
    temperature : float

    Returns
    -------
    float tensor [...]
        In nats, within [0, ln 2].
    """
    p, q = log_softmax(x / temperature, -1), log_softmax(y / temperature, -1)
    mean = torch.logaddexp(p, q) - math.log(2)
    divergence = 0.5 * (
        kl_div(mean, p, reduction="none", log_target=True).sum(-1)
        + kl_div(mean, q, reduction="none", log_target=True).sum(-1)
    )
    return divergence.clamp(0.0, math.log(2))


def class_pairs(classes: int) -> tuple[list[int], list[int]]:
    """First and second members of all pairs of classes: classes * (classes - 1) / 2 each."""
    pairs = [(first, second) for first in range(classes) for second in range(first + 1, classes)]
    return [first for first, _ in pairs], [second for _, second in pairs]


def diversity_constraint(
    embeddings: torch.Tensor,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    temperature: float = 1.0,
    variant: str = "full",
) -> torch.Tensor:
    """``D_total``: α · cosine − β · Jensen-Shannon, the mean over users and pairs of classes.

    Parameters
    ----------
    embeddings : float tensor [users, classes, hidden]
    alpha, beta : float
        Weights of the two terms.
    temperature : float
        Of the softmax that turns embeddings into distributions.
    variant : {"full", "no_cos", "no_js", "none"}
        The paper's Div-ori, Div-cos, Div-JS and Div-all: which term is left out.

    Returns
    -------
    float tensor, scalar
        0 where nothing is left (variant "none", or a single class).

    Raises
    ------
    ValueError
        For an unknown variant.
    """
    if variant not in VARIANTS:
        raise ValueError(f"diversity is one of {', '.join(VARIANTS)}, not '{variant}'")
    first, second = class_pairs(embeddings.shape[1])
    total = embeddings.new_zeros(())
    if not first:
        return total
    x, y = embeddings[:, first], embeddings[:, second]
    if variant in ("full", "no_js"):
        total = total + alpha * cosine_similarity(x, y, dim=-1).mean()
    if variant in ("full", "no_cos"):
        total = total - beta * jensen_shannon(x, y, temperature).mean()
    return total
