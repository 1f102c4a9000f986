"""The sides of each layer's comparison compute the same, and the program times them all."""

import csv

import pytest
import torch

from spvit_experiments.benchmark import attention, baselines, command
from spvit_experiments.benchmark.attention import LAYERS, PLAIN, Options
from spvit_mini.attention import GPSA, SPSA, RelativeBias, WindowAttention
from spvit_mini.attention_registry import build_attention
from spvit_mini.flops import attention_cost

SMALL = Options(dim=24, heads=4, hidden=8)
PEERS = {
    "mhsa": ["timm Attention"],
    "table": ["timm RelPosAttention", "timm Swin"],
    "log_cpb": ["timm RelPosMlp"],
    "gpsa": ["timm GPSA"],
    "window": ["timm Swin, in windows"],
}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", LAYERS)
def test_all_sides_of_a_layer_are_its_equation_in_value_and_gradient(name, seed, monkeypatch):
    """In float64, with all numbers away from their start, where a side could lose a part of them unseen."""
    pytest.importorskip("timm")
    grid, real = (8, 8), attention.build_layer

    def stirred(*args):
        layer = real(*args)
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter += 0.3 * torch.randn_like(parameter)
        return layer

    monkeypatch.setattr(attention, "build_layer", stirred)
    layers = attention.build_layers(name, SMALL, grid)
    ours = layers.get(name, layers[PLAIN]).double()
    others = {key: layer.double() for key, layer in layers.items() if key not in (PLAIN, name)}
    expected = ["written out"] + ["released layout, all pairs"] * (name == "spsa") + PEERS.get(name, [])
    assert list(others) == expected
    x = torch.randn(3, 64, 24, dtype=torch.float64, requires_grad=True)
    q, k, v = ours.project(x)
    y = ours.proj((ours.weights(q, k, grid) @ v).transpose(1, 2).flatten(2))
    weight = torch.randn_like(y)
    (dx,) = torch.autograd.grad((y * weight).sum(), x)
    for key, layer in {name: ours, **others}.items():
        found = layer(x, grid)
        tolerance = 1e-4 if "timm" in key else 1e-9  # timm makes coordinates in float32
        torch.testing.assert_close(found, y, rtol=tolerance, atol=tolerance, msg=lambda text, key=key: f"{key}: {text}")
        (mine,) = torch.autograd.grad((found * weight).sum(), x)
        torch.testing.assert_close(mine, dx, rtol=tolerance, atol=tolerance, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("grid", [(3, 3), (2, 5)])
def test_the_released_layout_has_our_gradients_of_every_parameter(grid):
    ours = SPSA(24, 3, 8)
    torch.nn.init.normal_(ours.spatial.w2), torch.nn.init.normal_(ours.spatial.b2)
    official = baselines.build_all_pairs(ours).double()
    ours = ours.double()
    x = torch.randn(2, grid[0] * grid[1], 24, dtype=torch.float64, requires_grad=True)
    weight, results = torch.randn_like(x), []
    for layer in (ours, official):
        y = layer(x, grid)
        results.append((y, *torch.autograd.grad((y * weight).sum(), [x, *layer.parameters()])))
    for mine, other in zip(*results, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-10)


def test_timm_s_gpsa_has_our_gradient_of_the_gate():
    pytest.importorskip("timm")
    ours = GPSA(36, 4)
    theirs = baselines.build_timm_layers(ours, (4, 4))["timm GPSA"]
    x = torch.randn(2, 16, 36)
    weight = torch.randn_like(x)
    (mine,) = torch.autograd.grad((ours(x, (4, 4)) * weight).sum(), ours.gate)
    (other,) = torch.autograd.grad((theirs(x, (4, 4)) * weight).sum(), theirs.layer.gating_param)
    torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_a_side_that_differs_is_not_timed(monkeypatch):
    monkeypatch.setattr(attention, "build_eager", lambda ours: SPSA(24, 4))
    with pytest.raises(AssertionError, match="written out is not spsa"):
        attention.build_layers("spsa", SMALL, (3, 3))


def test_where_timm_has_none_or_is_not_there_no_peer_stands(monkeypatch):
    assert baselines.build_timm_layers(SPSA(24, 4), (4, 4)) == {}
    assert baselines.build_timm_layers(RelativeBias(24, 4, (3, 4)), (3, 4)) == {}  # not square
    assert baselines.build_timm_layers(WindowAttention(24, 4, 3), (4, 4)) == {}  # cut windows
    assert baselines.build_timm_layers(WindowAttention(24, 4, 2, shift=1), (4, 4)) == {}
    monkeypatch.setattr(baselines, "has_timm", lambda: False)
    assert baselines.build_timm_layers(GPSA(24, 4), (4, 4)) == {}


@pytest.mark.parametrize("name", LAYERS)
def test_what_is_counted_is_what_cost_counts_and_all_pairs_more(name):
    layers = attention.build_layers(name, SMALL, (8, 8))
    ours = layers.get(name, layers[PLAIN])
    own = sum(attention_cost(ours, queries=64, keys=64, grid=(8, 8)).values())
    for key, layer in layers.items():
        counted = attention.count_multiply_adds(layer, layers[PLAIN] if key == PLAIN else ours, (8, 8))
        if key == "released layout, all pairs":
            assert counted - own == 3 * 4 * 8 * (64**2 - 15**2)  # three weights a hidden unit
        elif key != PLAIN:
            assert counted == own


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_steps_do_what_they_say(dtype):
    layer, x = build_attention("spsa", 24, 4, grid=(2, 3)), torch.randn(2, 6, 24, requires_grad=True)
    step = attention.make_training_step(layer, x, (2, 3), dtype=getattr(torch, dtype))
    step()
    assert x.grad is not None and all(parameter.grad is not None for parameter in layer.parameters())
    first = layer.qkv.weight.grad.clone()
    step()
    assert torch.equal(layer.qkv.weight.grad, first)  # made anew, not added up
    y = attention.make_inference_step(layer.eval(), x, (2, 3), dtype=getattr(torch, dtype))()
    assert not y.requires_grad and y.dtype == getattr(torch, dtype)


@pytest.mark.slow
def test_the_program_times_every_side_in_every_way(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda layer, **_: layer)
    more = ["--device", "cpu", "--images", "32", "--dim", "24", "--heads", "4", "--batch-size", "1", "--rounds", "1"]
    more += ["--dtypes", "float32", "bfloat16", "--compile", "no", "yes", "--layers", "spsa", "gpsa"]
    monkeypatch.setattr(attention, "set_backend", lambda layer, backend: backends.append(backend))
    backends = []
    assert command.main(["attention", "--out", str(tmp_path), *more]) == 0
    rows = list(csv.DictReader((tmp_path / "benchmark_attention.csv").open()))
    told = {(row["layer"], row["pass"], row["dtype"], row["compile"]) for row in rows}
    assert len(told) == 2 * 2 * 2 * 2
    # What a CPU can do: recompute in training, flex_attention if compiled and without gradients; in two types each.
    assert backends == ["recompute", "recompute", "flex_attention", "flex_attention"]
    assert all(float(row["ms"]) > 0 and int(row["peak_bytes"]) > 0 for row in rows)
    assert [float(row["ratio"]) for row in rows if row["side"] == PLAIN] == [1.0] * 16
    assert "layer gpsa" in capsys.readouterr().out
