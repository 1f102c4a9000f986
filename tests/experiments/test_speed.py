"""The program that times layers: what it counts against other counts, and its rows written and read."""

import weakref

import pytest
import torch

from spvit_experiments import speed
from spvit_experiments.records import write_rows
from spvit_mini.attention import MHSA, SPSA


def test_what_was_counted_is_let_go():
    made = []

    class Exp(torch.nn.Module):
        def forward(self, x):
            y = x.exp()  # keeps its result
            made.append(weakref.ref(y))
            return 2 * y

    assert speed.count_saved_bytes(Exp(), torch.zeros(5, 4, requires_grad=True)) == 5 * 4 * 4
    assert made[0]() is None


def test_what_is_kept_is_counted_once_and_without_parameters():
    x = torch.randn(5, 4, requires_grad=True)
    assert speed.count_saved_bytes(torch.nn.Linear(4, 3), x) == 5 * 4 * 4  # the input, for the gradient of the weight
    assert speed.count_saved_bytes(torch.nn.ReLU(), x) == 5 * 4 * 4  # its output
    both = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(4, 3))
    assert speed.count_saved_bytes(both, x) == 5 * 4 * 4  # the output of the one is the input of the other


@pytest.mark.parametrize("batch", [1, 3])
def test_written_out_keeps_the_weights_and_spsa_the_scores_too(batch):
    grid, heads, dim = (3, 4), 6, 384
    n, layers = 12, speed.build_layers((3, 4))
    x = torch.randn(batch, n, dim, requires_grad=True)
    tokens, scores = 4 * batch * n * dim, 4 * batch * heads * n * n
    kept = {name: speed.count_saved_bytes(layer, x, grid) for name, layer in layers.items()}
    assert kept["MHSA, written out"] == 5 * tokens + scores  # x; q, k, v; what the last linear layer reads
    assert kept["SPSA"] >= 5 * tokens + 2 * scores
    assert kept["SPSA, all pairs"] >= kept["SPSA"] + 4 * n * n * dim - 4 * 5 * 7 * dim


def test_rows_are_written_and_read_and_their_ratios_are_taken_within_rounds(tmp_path, monkeypatch):
    rounds = {"a": [1.0, 2.0, 4.0], "b": [3.0, 6.0, 12.0]}  # a machine that grows slower
    more = {"a": {"kept_bytes": 7, "multiply_adds": 5}, "b": {"multiply_adds": 6}}
    rows = speed.make_rows("layer", (2, 3), rounds, more)
    assert [(row["ratio"], row["ratio_low"], row["ratio_high"], row["ms"]) for row in rows] == [(1, 1, 1, 2000), (3, 3, 3, 6000)]
    write_rows(tmp_path / "speed.csv", rows)
    read = speed.read_speed(tmp_path)
    assert read == [{name: None if value == "" else value for name, value in row.items()} for row in rows]


def test_utilisation_is_arithmetic_over_the_product_s():
    product = {"kind": "matmul", "name": "matmul", "ratio": 0.5, "multiply_adds": 300}
    model = {"kind": "model", "name": "m", "ratio": 1.0, "ms": 100.0, "batch": 4, "multiply_adds": 20}
    # The product does 600 operations in half a step's time; the step 4 · 3 · 2 · 20 = 480 in all of it.
    assert speed.compute_utilisation([product, model]) == {"m": (40.0, pytest.approx(40.0))}


def test_every_layer_and_model_is_timed(monkeypatch):
    monkeypatch.setattr(speed, "MODELS", ("vit_mini", "spvit_mini"))
    monkeypatch.setattr(speed, "BATCH", {"layer": 1, "model": 1})
    rows = speed.time_layers((2, 2), rounds=2) + speed.time_models(rounds=2)
    names = [*speed.build_layers((2, 2)), "vit_mini", "spvit_mini", "matmul"]
    assert [row["name"] for row in rows] == names
    pairs, table = (next(r["multiply_adds"] for r in rows if r["name"] == n) for n in ("SPSA, all pairs", "SPSA"))
    assert pairs - table == 3 * 6 * 64 * (16 - 9)  # 16 pairs against 9 offsets, three weights a hidden unit
    assert isinstance(speed.build_layers((2, 2))["SPSA"], SPSA) and type(speed.build_layers((2, 2))["MHSA"]) is MHSA
