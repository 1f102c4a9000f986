"""The program that watches heads while they learn: its rows against what is known without training."""

import pytest
import torch

from spvit_experiments import read_records
from spvit_experiments.heads import measure_run
from spvit_experiments.records import write_rows
from spvit_experiments.study import Arm, Study
from spvit_mini.explain.attribution import nonlocality
from spvit_mini.spatial import Quadratic

SMALL = {
    "model.depth": 2,
    "model.dim": 16,
    "data.train_images": 40,
    "data.val_images": 20,
    "batch_size": 20,
    "duration": "3 steps",
    "evaluate_every": "2 steps",
    "device": "cpu",
}
STILL = {"optim.lr": 0.0, "optim.final_lr": 0.0}  # nothing moves


@pytest.fixture
def study():
    arms = {"vit": Arm("vit_mini_textures6"), "convit": Arm("convit_mini_textures6", STILL)}
    return Study("small", "?", arms, seeds=(0,), changes=SMALL)


def test_rows_are_those_of_every_evaluation_layer_and_head(study, tmp_path):
    rows = [row for arm, seed in study.runs() for row in measure_run(study, arm, seed)]
    places = [(arm, step, layer, head) for arm in study.arms for step in (2, 3) for layer in (0, 1) for head in range(4)]
    assert [(row["arm"], row["step"], row["layer"], row["head"]) for row in rows] == places
    write_rows(tmp_path / "small.csv", rows)
    for row, read in zip(rows, read_records("small", tmp_path), strict=True):
        assert read == {name: None if value == "" else value for name, value in row.items()}


def test_gates_and_distances_of_the_start(study):
    """Content hardly matters at the start, so a head looks as far as its hill and all patches, mixed."""
    hill = nonlocality(Quadratic(4)((6, 6)).softmax(-1), (6, 6))[0].item()
    everywhere = nonlocality(torch.full((1, 36, 36), 1 / 36), (6, 6)).item()
    for row in measure_run(study, "convit", 0):
        assert row["gate"] == pytest.approx(0.731059, abs=1e-6)
        assert row["nonlocality"] == pytest.approx(0.731059 * hill + 0.268941 * everywhere, rel=0.03)
    for row in measure_run(study, "vit", 0):
        assert row["gate"] == "" and row["nonlocality"] == pytest.approx(everywhere, rel=0.06)
