"""Lesson 13 says of its records, and of what it counts, what they hold."""

import re

import torch

from spvit_mini.course.lessons import lesson_files, read
from spvit_mini.geometry import spread
from spvit_mini.sparse import blocks_left, sparsify, visible
from spvit_mini.spatial import Quadratic
from spvit_mini.studies.speed import GRIDS, MODELS, layers, read_speed

RECORDS = read_speed()
LAYERS = {(row["name"], row["rows"]): row for row in RECORDS if row["kind"] == "layer"}
SIDES = [grid[0] for grid in GRIDS]


def text():
    (path,) = (path for path in lesson_files() if path.name.startswith("13"))
    return " ".join(" ".join(cell.source for cell in read(path).cells).split())


def test_the_record_has_every_layer_on_every_grid_and_every_model():
    assert set(LAYERS) == {(name, side) for name in layers((2, 2)) for side in SIDES}
    assert [row["name"] for row in RECORDS if row["kind"] == "model"] == list(MODELS)


def test_all_pairs_takes_five_times_as_long_at_196_patches_and_falls_behind_with_every_size():
    ratios = [LAYERS["SPSA, all pairs", side]["ratio"] for side in SIDES]
    assert ratios == sorted(ratios) and ratios[0] > 1.3
    assert round(LAYERS["SPSA, all pairs", 14]["ratio"]) == 5 and "took five times as long" in text()


def test_the_quartiles_of_spsa_hold_1_at_each_size():
    for side in SIDES:
        row = LAYERS["SPSA", side]
        assert row["ratio_low"] <= 1 <= row["ratio_high"], side


def test_the_other_orders_that_are_told():
    for side in (14, 20):
        assert LAYERS["GPSA", side]["ratio"] > LAYERS["SPSA", side]["ratio"]
        assert 1 < LAYERS["MHSA, written out", side]["ratio"] < 1.15
    kept = {key: row["kept_bytes"] for key, row in LAYERS.items()}
    assert kept["SPSA", 14] > 2 * kept["MHSA", 14] and kept["SPSA", 20] > 3 * kept["MHSA", 20]
    assert all(kept["added table", side] == kept["MHSA, written out", side] for side in SIDES)


def test_models_differ_as_is_told():
    found = {row["name"]: row for row in RECORDS if row["kind"] == "model"}
    counts = [row["multiply_adds"] for row in found.values()]
    assert 1.004 < max(counts) / min(counts) < 1.006
    said = re.search(r"their steps by (\d+) to (\d+) %", text())
    slower = sorted(100 * (row["ratio"] - 1) for name, row in found.items() if name != "vit_mini")
    assert [int(number) for number in said.groups()] == [round(slower[0]), round(slower[-1])]


def test_the_shares_of_a_sparse_prior_are_those_told():
    mask = visible(sparsify(Quadratic(4).table((16, 16)), 0.05), (16, 16))
    pairs, blocks = mask.float().mean(), blocks_left(mask, 16).float().mean()
    said = re.search(r"5 % of the offsets were (\d+) % of the pairs and (\d+) % of the blocks of 16", text())
    assert [int(number) for number in said.groups()] == [round(100 * pairs.item()), round(100 * blocks.item())]
    assert blocks_left(mask, 128).all()


def test_the_gradients_that_meet_at_an_entry():
    table = torch.zeros(1, 27, 27, requires_grad=True)
    (8 * spread(table, (14, 14))).sum().backward()
    assert (table.grad[0, 13, 13], table.grad[0, 26, 26]) == (1568, 8)
    assert "8 · 196 = 1,568 for (0, 0), 8 for (13, 13)" in text()
