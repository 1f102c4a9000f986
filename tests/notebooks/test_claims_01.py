"""What lesson 01 says of random queries and keys, measured on other seeds than the lesson's."""

import math

import pytest
import torch

from spvit_mini.explain.attribution import entropy


def median_keys(width, divisor, seed):
    q, k = torch.randn(2, 32, 64, width, generator=torch.Generator().manual_seed(seed))
    return float(entropy((q @ k.mT / divisor).softmax(-1)).exp().median())


def gradient_lengths(width, divisor, seed):
    """Compute (1/d) Σ_j w_j (v_j − o) k_j for each query, as the lesson writes it, and return how long it is."""
    generator = torch.Generator().manual_seed(seed)
    q, k = torch.randn(2, 32, 64, width, generator=generator)
    v = torch.randn(32, 64, 1, generator=generator)
    q.requires_grad_()
    weights = (q @ k.mT / divisor).softmax(-1)
    output = weights @ v
    formula = (weights * (v.mT - output)) @ k / divisor
    torch.testing.assert_close(torch.autograd.grad(output.sum(), q)[0], formula, rtol=1e-3, atol=1e-5)
    return formula.detach().norm(dim=-1).flatten()


@pytest.mark.parametrize("seed", range(4))
def test_divided_the_width_is_gone_and_not_divided_a_query_hears_ever_fewer(seed):
    assert all(38 < median_keys(width, math.sqrt(width), seed) < 46 for width in (4, 16, 64, 256))
    heard = [median_keys(width, 1, seed) for width in (4, 64, 256)]
    assert 16 < heard[0] < 24 and 1.4 < heard[1] < 2.4 and heard[2] < 1.4


@pytest.mark.parametrize("seed", range(4))
def test_gradients_scatter_without_the_division(seed):
    divided, bare = (gradient_lengths(64, divisor, seed) for divisor in (8, 1))
    assert 4 < bare.median() / divided.median() < 6 and 7 < bare.mean() / divided.mean() < 9
    assert bare.quantile(0.05) < 0.004 and divided.quantile(0.05) > 0.1
    wide = gradient_lengths(1024, 1, seed)
    assert wide.median() < 0.01 and wide.mean() > bare.mean()
