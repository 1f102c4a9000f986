"""The learning rate of each step, the parameters that decay, and the optimiser's step, against numbers by hand."""

import math

import pytest
import torch

from spvit_mini import create_model
from spvit_mini.training.optim import OptimOptions, lr_at, make_optimiser, parameter_groups


def test_learning_rates_by_hand():
    at = [lr_at(step, peak=1.0, final=0.1, warmup=3, total=7) for step in range(9)]
    half = 0.1 + 0.9 * 0.5
    low, high = (0.1 + 0.45 * (1 + sign * math.sqrt(0.5)) for sign in (-1, 1))
    assert at == pytest.approx([0.25, 0.5, 0.75, 1.0, high, half, low, 0.1, 0.1])


def test_without_warmup_the_first_step_has_the_peak_and_none_is_wasted():
    at = [lr_at(step, peak=2e-3, final=0.0, warmup=0, total=10) for step in range(10)]
    assert at[0] == 2e-3 and min(at) > 0
    assert at == sorted(at, reverse=True)


def test_a_warmup_as_long_as_the_run_only_rises():
    at = [lr_at(step, peak=1.0, final=0.0, warmup=5, total=5) for step in range(5)]
    assert at == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6])


@pytest.mark.parametrize("pool", ["mean", "class"])
def test_decay_is_for_matrices_and_convolutions_alone(pool):
    model = create_model("spvit_mini", depth=2, dim=16, heads=2, pool=pool)
    decayed, spared = parameter_groups(model, 0.05)
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.05, 0.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    matrices = {
        f"{name}.weight" for name, m in model.named_modules() if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d))
    }
    assert {names[id(p)] for p in decayed["params"]} == matrices
    assert len(decayed["params"]) + len(spared["params"]) == len(names)  # each once
    assert {names[id(p)] for p in spared["params"]} >= {
        "positions", "norm.weight", "head.bias", *(f"blocks.1.attention.spatial.{p}" for p in ("w1", "b1", "w2", "b2"))
    }  # fmt: skip


def test_frozen_parameters_are_left_out():
    model = create_model("vit_mini", depth=1, dim=16, heads=2)
    model.embed.requires_grad_(False)
    decayed, spared = parameter_groups(model, 0.05)
    frozen = {id(p) for p in model.embed.parameters()}
    assert not frozen & {id(p) for group in (decayed, spared) for p in group["params"]}


@pytest.mark.parametrize("seed", [0, 1])
def test_two_steps_of_the_optimiser_by_hand(seed):
    torch.manual_seed(seed)
    model = create_model("spvit_mini", depth=1, dim=16, heads=2).double()
    options = OptimOptions(lr=0.01, weight_decay=0.1, betas=(0.8, 0.9))
    optimiser = make_optimiser(model, options)
    spared = model.no_decay()
    expected = {name: p.detach().clone() for name, p in model.named_parameters()}
    mean = {name: torch.zeros_like(p) for name, p in expected.items()}
    square = {name: torch.zeros_like(p) for name, p in expected.items()}
    for step in (1, 2):
        for name, parameter in model.named_parameters():
            parameter.grad = torch.randn_like(parameter)
            g, p = parameter.grad, expected[name]
            mean[name] = 0.8 * mean[name] + 0.2 * g
            square[name] = 0.9 * square[name] + 0.1 * g**2
            p -= 0.01 * (0.0 if name in spared else 0.1) * p
            p -= 0.01 * (mean[name] / (1 - 0.8**step)) / ((square[name] / (1 - 0.9**step)).sqrt() + 1e-8)
        optimiser.step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), expected[name], rtol=1e-9, atol=1e-12)
