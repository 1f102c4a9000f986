"""The benchmark's sides compute the same, and it prints what it should."""

import pytest
import torch

from spvit_mini import benchmark
from spvit_mini.errors import UserError


@pytest.mark.parametrize("grid", [(3, 3), (2, 5)])
def test_the_official_layout_computes_what_ours_does_in_value_and_gradient(grid):
    options = benchmark.Options(dim=24, heads=3, hidden=8, rows=grid[0], columns=grid[1])
    layers = benchmark.sides(options)
    _, ours, official = (layer.double() for layer in layers.values())
    x = torch.randn(2, grid[0] * grid[1], 24, dtype=torch.float64, requires_grad=True)
    weight = torch.randn_like(x)
    results = []
    for layer in (ours, official):
        y = layer(x, grid)
        results.append((y, *torch.autograd.grad((y * weight).sum(), [x, *layer.parameters()])))
    for mine, other in zip(*results, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("seed", [0, 1])
def test_timm_s_gpsa_computes_what_ours_does_in_value_and_gradient(seed):
    pytest.importorskip("timm")
    options = benchmark.Options(layer="gpsa", dim=36, heads=4, rows=4, columns=4)
    _, ours, theirs = benchmark.sides(options).values()
    torch.manual_seed(seed)
    x = torch.randn(2, 16, 36, requires_grad=True)
    weight = torch.randn_like(x)
    pairs = [(ours.proj.weight, theirs.layer.proj.weight), (ours.gate, theirs.layer.gating_param), (x, x)]
    ours_y, theirs_y = ours(x, (4, 4)), theirs(x, (4, 4))
    torch.testing.assert_close(ours_y, theirs_y)
    for mine, other in zip(
        torch.autograd.grad((ours_y * weight).sum(), [mine for mine, _ in pairs]),
        torch.autograd.grad((theirs_y * weight).sum(), [other for _, other in pairs]),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_every_side_is_timed_every_round():
    calls = []
    seconds = benchmark.interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=4, warm_up=2)
    assert calls == ["a", "b"] * 6
    assert all(len(times) == 4 and min(times) >= 0 for times in seconds.values())


def test_benchmark_prints_ratios(monkeypatch, capsys):
    sizes = {"dim": 24, "heads": 3, "rows": 3, "columns": 3, "batch": 1, "steps": 2}
    arguments = [text for name, value in sizes.items() for text in (f"--{name}", str(value))]
    monkeypatch.setattr("sys.argv", ["benchmark", *arguments])
    benchmark.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[1] for line in lines[2:]] == ["MHSA, fused kernel", "SPSA", "SPSA, all pairs"]
    assert lines[2].endswith("1.00 × MHSA")


def test_no_steps_is_one_clear_line(monkeypatch):
    monkeypatch.setattr("sys.argv", ["benchmark", "--steps", "0"])
    with pytest.raises(UserError, match="at least one step"):
        benchmark.main()
