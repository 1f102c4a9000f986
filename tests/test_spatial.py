"""The prior MLP, against its formula written out over all pairs in float64."""

import pytest
import torch

from spvit_mini.geometry import pair_offsets
from spvit_mini.spatial import PriorMLP


def on_all_pairs(prior, grid):
    """f_h(δ) = w2ᵀ ReLU(W1 δ + b1) + b2 for each head and pair, by a loop over heads."""
    delta = pair_offsets(*grid).to(prior.w1.dtype)
    rows = []
    for w1, b1, w2, b2 in zip(prior.w1, prior.b1, prior.w2, prior.b2, strict=True):
        rows.append(torch.relu(delta @ w1.T + b1) @ w2 + b2)
    return torch.stack(rows)


@pytest.mark.parametrize("grid", [(1, 1), (1, 6), (5, 5), (4, 7)])
@pytest.mark.parametrize(("heads", "hidden"), [(1, 1), (3, 8), (12, 64)])
def test_prior_is_its_formula_in_value_and_gradient(grid, heads, hidden):
    torch.manual_seed(heads)
    prior = PriorMLP(heads, hidden).double()
    torch.nn.init.normal_(prior.w2), torch.nn.init.normal_(prior.b2)
    weight = torch.randn(heads, grid[0] * grid[1], grid[0] * grid[1], dtype=torch.float64)
    torch.testing.assert_close(prior(grid), on_all_pairs(prior, grid), rtol=1e-12, atol=1e-12)
    ours = torch.autograd.grad((prior(grid) * weight).sum(), list(prior.parameters()))
    theirs = torch.autograd.grad((on_all_pairs(prior, grid) * weight).sum(), list(prior.parameters()))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("neutral", [0.0, 1.0])
def test_the_start_is_exactly_neutral_however_wide_the_first_layer(neutral):
    for std in (0.0, 0.02, 0.5, 100.0):
        assert (PriorMLP(4, 32, neutral=neutral, weight_std=std)((5, 7)) == neutral).all()


def test_only_the_second_layer_moves_first():
    prior = PriorMLP(2, 16)
    (prior((4, 4)) ** 2).sum().backward()
    assert prior.w1.grad.abs().max() == 0 and prior.b1.grad.abs().max() == 0
    assert prior.w2.grad.abs().min() > 0 and prior.b2.grad.abs().min() > 0


def test_the_width_of_the_start_is_a_parameter():
    torch.manual_seed(0)
    released = PriorMLP(64, 64, weight_std=0.02, bias_std=0.0)
    assert released.b1.abs().max() == 0 and released.w1.abs().max() <= 0.04
    assert released.w1.std().item() == pytest.approx(0.0176, rel=0.05)  # a normal cut at ±2σ has σ·0.8796
    wide = PriorMLP(64, 64)
    assert wide.w1.std().item() == pytest.approx(0.44, rel=0.05)
    assert wide.b1.std().item() == pytest.approx(0.44, rel=0.05)


def test_a_layer_costs_4_hidden_plus_1_numbers_a_head():
    assert sum(p.numel() for p in PriorMLP(6, 64).parameters()) == 4 * 384 + 6


def test_prior_stays_in_full_precision_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert PriorMLP(2)((3, 3)).dtype == torch.float32
