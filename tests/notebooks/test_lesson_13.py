"""Lesson 13 says of its records, and of what it counts, what they hold."""

import re

import pytest
import torch

from spvit_course.lessons import lesson_files, read
from spvit_experiments.speed import GRIDS, MODELS, build_layers, compute_utilisation, read_speed
from spvit_mini.block_sparse import blocks_left, sparsify, visible
from spvit_mini.geometry import spread
from spvit_mini.spatial import Quadratic

RECORDS = read_speed()
LAYERS = {(row["name"], row["rows"]): row for row in RECORDS if row["kind"] == "layer"}
SIDES = [grid[0] for grid in GRIDS]


def text():
    (path,) = (path for path in lesson_files() if path.name.startswith("13"))
    return " ".join(" ".join(cell.source for cell in read(path).cells).split())


def test_the_record_has_every_layer_on_every_grid_and_every_model():
    assert set(LAYERS) == {(name, side) for name in build_layers((2, 2)) for side in SIDES}
    assert [row["name"] for row in RECORDS if row["kind"] == "model"] == list(MODELS)


def test_all_pairs_takes_several_times_as_long_and_falls_behind_with_every_size():
    ratios = [LAYERS["SPSA, all pairs", side]["ratio"] for side in SIDES]
    assert ratios == sorted(ratios) and ratios[0] > 1.3
    assert LAYERS["SPSA, all pairs", 14]["ratio"] > 3 and "several times as long" in text()
    for side in SIDES:  # "the same prior cost a small part of that"
        assert LAYERS["SPSA", side]["ratio"] - 1 < (LAYERS["SPSA, all pairs", side]["ratio"] - 1) / 3, side


def test_every_layer_counts_as_much_as_plain_attention_or_more():
    counts = {key: row["multiply_adds"] for key, row in LAYERS.items()}
    assert all(count >= counts["MHSA", side] for (_, side), count in counts.items())
    plain, products = counts["MHSA", 14], 6 * 196**2
    made = counts["SPSA, all pairs", 14] - plain - products  # once for the batch
    assert f"{(made + 8 * products) / (8 * plain):.1%}" == "4.0%" and "counts 4.0 % more arithmetic" in text()


def test_what_is_kept():
    kept = {key: row["kept_bytes"] for key, row in LAYERS.items()}
    assert kept["SPSA", 14] > 2 * kept["MHSA", 14] and kept["SPSA", 20] > 3 * kept["MHSA", 20]
    assert all(kept["added table", side] == kept["MHSA, written out", side] for side in SIDES)
    assert kept["GPSA", 14] > kept["MHSA, written out", 14] and kept["GPSA", 20] < kept["MHSA, written out", 20]
    for side in (14, 20):  # "its time grew by much less"
        assert LAYERS["SPSA", side]["ratio"] - 1 < (kept["SPSA", side] / kept["MHSA", side] - 1) / 2


@pytest.mark.parametrize("side", [7, 14])
def test_gpsa_keeps_three_tensors_of_tokens_and_its_positional_weights(side):
    batch, dim, heads, n = 8, 384, 6, side**2
    more = LAYERS["GPSA", side]["kept_bytes"] - LAYERS["MHSA", side]["kept_bytes"]
    assert more - 4 * (3 * batch * n * dim + heads * n * n) == 4 * (3 * (2 * side - 1) ** 2 + heads)  # features, gates


def test_models_differ_as_is_told():
    found = {row["name"]: row for row in RECORDS if row["kind"] == "model"}
    counts = [row["multiply_adds"] for row in found.values()]
    assert 1.004 < max(counts) / min(counts) < 1.006
    assert max(row["ratio"] for row in found.values()) > max(counts) / min(counts)


def test_the_speeds_of_the_models_are_one_statistic():
    found, rows = compute_utilisation(RECORDS), {row["name"]: row for row in RECORDS if row["kind"] == "model"}
    first = rows["vit_mini"]
    for name, (_, percent) in found.items():
        counted = rows[name]["multiply_adds"] / first["multiply_adds"]
        assert percent == pytest.approx(found["vit_mini"][1] * counted / rows[name]["ratio"])


def test_the_table_is_7_percent_of_what_is_moved():
    (path,) = (path for path in lesson_files() if path.name.startswith("13"))
    (cell,) = (cell for cell in read(path).cells if cell.id == "idea-count")
    names = {"batch": 8, "patches": 196, "dim": 384, "heads": 6, "hidden": 64, "distinct": 27 * 27}
    exec(cell.source, names)
    moved = {name: numbers for name, (_, numbers) in names["steps"].items()}
    assert f"{moved['f by the table'] / sum(moved.values()):.0%}" == "7%" and "and 7 % of what is moved" in text()


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
