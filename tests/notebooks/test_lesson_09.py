"""Lesson 09 says of its records, of published sizes and of MixToken what they hold."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from spvit_course.lessons import lesson_files, read
from spvit_experiments import get_study, paired, steps_to
from spvit_experiments.records import read_runs
from spvit_mini.data.token_labels import TokenLabelView
from spvit_mini.flops import multiply_adds
from spvit_mini.training.token_loss import draw_box, targets
from spvit_mini.vit import ViT
from spvit_mini.zoo import MODELS

RESULTS = Path(__file__).parents[2] / "data" / "results"


def words() -> str:
    """Give all text of the lesson, its stored outputs left out, with single spaces."""
    (path,) = (path for path in lesson_files() if path.name.startswith("09"))
    return " ".join(" ".join(cell.source for cell in read(path).cells).split())


def parameters(config) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in ViT(config).parameters())


def test_one_prior_is_the_large_step_and_four_are_the_soonest():
    study, ends, steps = get_study("depth"), {}, {}
    for record in read_runs("depth", RESULTS):
        ends.setdefault(record.arm, []).append(record.final)
        steps.setdefault(record.arm, []).append(steps_to([(row["step"], row["val_top1"]) for row in record.rows], 90))
    assert {arm: len(values) for arm, values in ends.items()} == dict.fromkeys(study.arms, len(study.seeds))
    assert max(ends["0_of_4"]) < 14 and sorted(map(round, ends["1_of_4"]))[0] == 57
    assert sorted(ends["1_of_4"])[1] > 97
    for fewer, more in itertools.combinations(list(study.arms)[1:], 2):
        gain = paired(ends[more], ends[fewer])
        assert gain.low < 0 < gain.high, (more, fewer)
    step = paired(ends["1_of_4"], ends["0_of_4"])
    assert step.low > 0 and f"{step.high:+.1f}" == "+101.2" and "One bound is +101.2 points" in words()
    assert min(min(ends[arm]) for arm in study.arms if arm != "0_of_4") == 57
    assert [sum(end < 90 for end in ends[f"{n}_of_4"]) for n in range(5)] == [5, 1, 2, 1, 0]
    late = {arm: sum(step > 240 for step in steps[arm]) for arm in steps}
    assert late == {"0_of_4": 5, "1_of_4": 1, "2_of_4": 2, "3_of_4": 1, "4_of_4": 0}
    assert max(steps["4_of_4"]) == 120
    assert all(four < one for four, one in zip(steps["4_of_4"], steps["1_of_4"], strict=True))


def outputs(name: str) -> str:
    """Give the stored text of a cell's outputs."""
    (path,) = (path for path in lesson_files() if path.name.startswith("09"))
    (cell,) = (cell for cell in read(path).cells if cell.id == name)
    return "".join(output.get("text", "") for output in cell.outputs)


def test_the_shares_of_the_embedding_are_those_that_are_printed():
    shares = [line.split(": ")[2].split("%")[0] for line in outputs("residual-figure").splitlines()]
    said = ", ".join(f"{share} % with s = {s}" for s, share in enumerate(shares, start=1))
    assert len(shares) == 3 and said in words()


def test_the_target_by_hand_is_what_roi_align_gives():
    """Nothing but the ship in row 2, column 5, of 6 × 6; a crop of 4 × 4 patches from (0.5, 1.5) on, resized."""
    stands = torch.zeros(1, 6, 6, 1, dtype=torch.long)
    stands[0, 2, 5] = 2
    box = torch.tensor([[2, 6, 18, 22]]) / 24
    view = TokenLabelView(torch.full((1, 6, 6, 1), 6.0), stands, box, torch.tensor([False]))
    target = targets(view, (6, 6), 4)[0].reshape(6, 6, 4)[2, 5]
    torch.testing.assert_close(target, torch.tensor([6 * 5 / 9, 0, 6 * 4 / 9, 0]).softmax(0))
    assert f"{target[2]:.2f}" == "0.32" and "The ship's two patches have 0.32" in words()


def test_the_box_of_the_figure_is_one_that_is_drawn():
    side = int(6 * 0.5**0.5) // 2 * 2
    assert (max(0, 1 - side // 2), 4 - side // 2, 1 + side // 2, min(6, 4 + side // 2)) == (0, 2, 3, 6)
    assert "box = (0, 2, 3, 6) # top, left, bottom, right: from λ = ½ and the centre (1, 4)" in words()


@pytest.mark.parametrize(
    ("name", "layers", "count"),
    [
        ("spvit_s", 14, 26_234_468),
        ("spvit_m", 18, 55_969_440),
        ("spvit_m", 10, 55_952_992),
        ("spvit_l", 22, 150_273_368),
        ("spvit_l", 0, 150_205_520),
    ],
)
def test_sizes_are_those_of_the_released_code(name, layers, count):
    assert parameters(dataclasses.replace(MODELS[name], spatial_layers=layers)) == count


def test_what_is_said_of_the_parts_of_the_small_size():
    lv, sp = MODELS["lvvit_s"], MODELS["spvit_s"]
    priors = parameters(sp) - parameters(dataclasses.replace(sp, spatial_layers=0))
    peg = parameters(sp) - parameters(dataclasses.replace(sp, peg=False))
    assert (priors, peg) == (14 * (4 * 384 + 6), 16 * 10 * 384) == (21_588, 61_440)
    assert parameters(sp) - parameters(lv) == priors + peg
    assert "21,588 of them, 0.08 %" in words() and round(100 * priors / parameters(sp), 2) == 0.08
    assert round(100 * multiply_adds(lv)["embed"] / multiply_adds(lv)["total"]) in (20, 21)  # “a fifth”
    late = multiply_adds(dataclasses.replace(sp, class_token_block=0))["total"] - multiply_adds(sp)["total"]
    more = multiply_adds(sp)["map"] + multiply_adds(sp)["peg"]
    assert 0.8 < late / more < 1.2  # “about as much as the priors and PEG need”
    for size in "sml":
        cost = multiply_adds(MODELS[f"spvit_{size}"])
        assert 0.001 < cost["map"] / cost["total"] < 0.0025
    totals = [f"{multiply_adds(MODELS[f'spvit_{size}'])['total'] / 1e9:.2f}" for size in "sml"]
    assert f"{', '.join(totals)} G" in words()


@pytest.mark.parametrize("grid", [(14, 14), (6, 6), (5, 9)])
def test_an_image_keeps_at_least_the_share_that_was_drawn(grid):
    drawn, kept = [], []
    for seed in range(1000):
        drawn.append(np.random.RandomState(seed).beta(1, 1))
        top, left, bottom, right = draw_box(grid, 1.0, random=np.random.RandomState(seed))
        kept.append(1 - (bottom - top) * (right - left) / (grid[0] * grid[1]))
    assert np.all(np.array(kept) >= np.array(drawn) - 1e-12)
    if grid == (14, 14):
        assert 0.70 < np.mean(kept) < 0.76  # “where there is a quarter”
