"""The learning rate of each step, the parameters that decay, and the optimiser's step, against numbers by hand."""

import math

import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from spvit_mini import create_model
from spvit_mini.errors import UserError
from spvit_mini.recipes.options import OptimOptions
from spvit_mini.training.optim import freeze, lr_at, make_ema_update, make_optimiser, parameter_groups


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


@pytest.mark.slow
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


def test_parameters_are_frozen_by_a_part_of_their_names():
    model = create_model("convit_mini", depth=2, dim=16, heads=4)
    freeze(model, ("attention.gate", "blocks.1.attention.spatial"))
    still = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert still == {"blocks.0.attention.gate", "blocks.1.attention.gate", "blocks.1.attention.spatial.v"}
    with pytest.raises(UserError, match=r"optim.freeze is 'gates'; expected a part of a parameter's name, such as .*gate"):
        freeze(model, ("gates",))


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


def test_warm_up_from_a_rate_and_a_cool_down_by_hand():
    at = [lr_at(s, peak=1.0, final=0.2, warmup=1, total=6, start=0.5, cooldown=2) for s in range(6)]
    middle = 0.2 + 0.4 * (1 + math.cos(math.pi / 3)), 0.2 + 0.4 * (1 + math.cos(2 * math.pi / 3))
    assert at == pytest.approx([0.75, 1.0, *middle, 0.2, 0.2])


@pytest.mark.parametrize("name", ["spvit_mini", "cait_xxs24"])
def test_layer_decay_by_hand(name):
    options = {"depth": 3, "dim": 16, "heads": 2, "image_size": 32}
    model = create_model(name, **options, **({"pool": "class"} if name == "spvit_mini" else {"class_depth": 2}))
    last = 4 if name == "spvit_mini" else 6
    layers = {"embed": 0, "positions": 0, "class_token": 0, "norm": last, "head": last}
    groups = parameter_groups(model, 0.05, layer_decay=0.5)
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    assert len(scale) == len(list(model.parameters()))
    for parameter_name, parameter in model.named_parameters():
        first, second, *_ = parameter_name.split(".") + [""]
        layer = {"blocks": lambda i: 1 + i, "class_blocks": lambda i: 4 + i}.get(first, lambda _: None)
        expected = layers[first] if first in layers else layer(int(second))
        assert scale[id(parameter)] == 0.5 ** (last - expected), parameter_name
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    for group in parameter_groups(model, 0.05):
        assert group["lr_scale"] == 1.0 and {decays[id(p)] for p in group["params"]} == {group["weight_decay"]}


@pytest.mark.parametrize("seed", [0, 1])
def test_the_average_of_weights_by_hand(seed):
    """Against the definition in float64; also a count, which is copied, and no link to the model's own tensors."""
    generator = torch.Generator().manual_seed(seed)
    model = torch.nn.BatchNorm1d(5).double()
    averaged = AveragedModel(model, multi_avg_fn=make_ema_update(0.9), use_buffers=True)
    expected = None
    for n in range(12):
        for tensor in (model.weight.data, model.running_mean):
            tensor.copy_(torch.randn(5, dtype=torch.float64, generator=generator))
        model.num_batches_tracked += 2
        averaged.update_parameters(model)
        values = torch.stack([model.weight.data, model.running_mean]).clone()
        decay = min(0.9, (1 + n) / (10 + n))
        expected = values if expected is None else decay * expected + (1 - decay) * values
        mine = averaged.module
        torch.testing.assert_close(torch.stack([mine.weight.data, mine.running_mean]), expected, rtol=1e-6, atol=1e-6)
        assert mine.num_batches_tracked == 2 * (n + 1)
    assert decay == pytest.approx(12 / 21)
    model.weight.data.fill_(100.0)
    assert averaged.module.weight.max() < 50


def test_an_average_with_a_long_memory_keeps_its_precision():
    """1 − 0.99996 in single precision is wrong by a thousandth; the change must not be."""
    model = torch.nn.Linear(1, 1, bias=False).double()
    averaged = AveragedModel(model, multi_avg_fn=make_ema_update(0.99996))
    averaged.module.weight.data.zero_()
    model.weight.data.fill_(1.0)
    averaged.n_averaged += 10_000_000
    averaged.update_parameters(model)
    assert averaged.module.weight.item() == pytest.approx(4e-5, rel=1e-6)
