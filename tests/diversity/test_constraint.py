"""The diversity constraint against scipy, and its bounds."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax

from recbole_ganprompt.diversity.constraint import diversity_constraint, jensen_shannon

vectors = arrays(np.float64, (2, 6), elements=st.floats(-300, 300))


@settings(max_examples=60, deadline=None)
@given(pair=vectors, temperature=st.floats(0.05, 10))
def test_jensen_shannon_agrees_with_scipy_and_is_bounded(pair, temperature):
    x, y = torch.from_numpy(pair)
    ours = jensen_shannon(x, y, temperature).item()
    p, q = softmax(pair / temperature, axis=1)
    assert ours == pytest.approx(jensenshannon(p, q) ** 2, abs=1e-7)
    assert 0 <= ours <= math.log(2)
    assert ours == pytest.approx(jensen_shannon(y, x, temperature).item(), abs=1e-12)
    assert jensen_shannon(x, x, temperature).item() == pytest.approx(0, abs=1e-12)


def test_gradient_is_finite_where_one_distribution_is_almost_zero():
    x = torch.tensor([1000.0, 0.0, -1000.0], requires_grad=True)
    jensen_shannon(x, torch.tensor([-1000.0, 0.0, 1000.0])).backward()
    assert torch.isfinite(x.grad).all()


def test_total_is_cosine_minus_divergence_over_pairs():
    embeddings = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    cosines, divergences = [], []
    for user in embeddings.double().numpy():
        for i in range(4):
            for j in range(i):
                norms = np.linalg.norm(user[i]) * np.linalg.norm(user[j])
                cosines.append(user[i] @ user[j] / norms)
                p, q = softmax(user[i] / 0.5), softmax(user[j] / 0.5)
                divergences.append(jensenshannon(p, q) ** 2)

    def total(variant):
        settings = {"alpha": 2.0, "beta": 3.0, "temperature": 0.5, "variant": variant}
        return diversity_constraint(embeddings, **settings).item()

    expected = 2 * np.mean(cosines), 3 * np.mean(divergences)
    assert total("full") == pytest.approx(expected[0] - expected[1], abs=1e-5)
    assert total("no_js") == pytest.approx(expected[0], abs=1e-5)
    assert total("no_cos") == pytest.approx(-expected[1], abs=1e-5)
    assert total("none") == 0


def test_minimizing_drives_classes_apart():
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(1, 1, 8, generator=generator)
    embeddings = (start + 0.01 * torch.randn(1, 3, 8, generator=generator)).requires_grad_()
    optimizer = torch.optim.Adam([embeddings], lr=0.05)
    losses = []
    for _ in range(80):
        losses.append(diversity_constraint(embeddings, variant="no_cos"))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[0].item() == pytest.approx(0, abs=1e-3)
    assert losses[-1].item() < -0.2  # the mean divergence of three pairs


def test_one_class_has_nothing_to_keep_apart_and_variants_are_known():
    assert diversity_constraint(torch.ones(2, 1, 3)).item() == 0
    with pytest.raises(ValueError, match="no_cos"):
        diversity_constraint(torch.ones(2, 2, 3), variant="cosine")
