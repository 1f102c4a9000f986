"""The program that records what models look at: its parts against what is known without training."""

import dataclasses

import pytest
import torch

from spvit_experiments import explanations, read_records
from spvit_experiments.explanations import (
    AS_TABLE,
    FAITHFULNESS_KINDS,
    KINDS,
    LARGER,
    LOOKING,
    SIZES,
    bake_priors,
    build_initial_model,
    find_decoys,
    fine_tune,
    measure_run,
    scenes,
    score_grids,
    score_maps,
)
from spvit_experiments.records import six_digits, write_rows
from spvit_mini import create_model
from spvit_mini.data.synthetic import Compass

SMALL = {
    "model.dim": 16,
    "data.train_images": 40,
    "data.val_images": 20,
    "batch_size": 20,
    "duration": "2 steps",
    "device": "cpu",
}


@pytest.fixture(scope="module")
def study():
    return dataclasses.replace(LOOKING, changes=LOOKING.changes | SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["spsa", "spsa-late"])
def test_rows_of_a_run(study, arm, tmp_path, monkeypatch):
    monkeypatch.setattr(explanations, "TUNING_STEPS", (0, 3, 6))
    found = measure_run(study, arm, 0)
    layers = study.recipe(arm, 0).model.depth
    assert [(row["layer"], row["head"]) for row in found["looking_heads"]] == [(i, h) for i in range(layers) for h in range(4)]
    arms = [arm, arm + AS_TABLE] if arm == "spsa" else [arm]
    assert [(r["arm"], (r["rows"], r["cols"], r["reach"])) for r in found["resolution"]] == [(a, s) for a in arms for s in SIZES]
    (row,) = found["looking"]
    assert {f"{part}_{kind}" for part in ("hit", "lighthouse", "ship", "decoys") for kind in KINDS} <= set(row)
    assert {f"{part}_{kind}" for part in ("deletion", "insertion") for kind in FAITHFULNESS_KINDS} <= set(row)
    assert [(r["arm"], r["step"]) for r in found["fine_tuned"]] == [(a, step) for a in arms for step in (0, 3, 6)]
    at_first = {r["arm"]: r["val_top1"] for r in found["fine_tuned"] if r["step"] == 0}
    assert at_first == {r["arm"]: r["val_top1"] for r in found["resolution"] if (r["rows"], r["cols"], r["reach"]) == LARGER}
    for name, rows in found.items():
        write_rows(tmp_path / f"{name}.csv", rows)
        for before, read in zip(rows, read_records(name, tmp_path), strict=True):
            assert read == {key: value if key == "arm" else six_digits(value) for key, value in before.items()}


def test_decoys_are_the_blue_patches():
    made = Compass(50, seed=3, rows=6, cols=6, reach=3, noise=0.0)
    for image, places in zip(made.images, find_decoys(made.images, (6, 6)), strict=True):
        blue = (image[2, ::4, ::4] > 1).nonzero()
        assert sorted(places.tolist()) == blue.tolist()


def test_scenes_are_the_same_for_all_arms_and_others_than_in_training():
    assert torch.equal(scenes(5, 1).images, scenes(5, 1).images)
    assert not torch.equal(scenes(5, 1).images, Compass(5, seed=1, rows=6, cols=6, reach=3).images)


def stirred(**options):
    torch.manual_seed(0)
    model = create_model("spvit_mini", image_size=24, num_classes=8, dim=16, depth=2, **options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("positions", [True, False])
def test_a_baked_table_answers_alike_on_its_own_grid_and_not_elsewhere(positions):
    model = stirred(positions=positions)
    baked = bake_priors(model)
    own, larger = scenes(8, 0).images, scenes(8, 0, 9, 7).images
    with torch.no_grad():
        torch.testing.assert_close(model(own), baked(own), rtol=1e-5, atol=1e-5)
        assert (model(larger) - baked(larger)).abs().max() > 1e-2


@pytest.mark.slow
def test_a_model_that_looks_evenly_is_at_chance(study):
    """With q = 0 each token averages all: the untrained class of a blank model, and one score for each map."""
    model = build_initial_model(study.recipe("spsa", 0)).eval()
    with torch.no_grad():
        for block in model.blocks:
            block.attention.qkv.weight.zero_()
        model.head.weight.zero_()
    row = score_maps(model, model, seed=0, images=40, faithfulness_images=4)
    assert row["deletion_rollout"] == row["insertion_random"] == pytest.approx(1)  # the answer is the same whatever is seen
    assert row["hit_rollout"] == row["hit_untrained_rollout"] and row["decoys_contrast"] > 0.3
    assert len({round(r["val_top1"]) for r in score_grids(model, seed=0, images=100)}) <= 3


def test_untrained_models_are_the_recipe_s_start(study):
    one, other = (build_initial_model(study.recipe("psa", seed)) for seed in (0, 1))
    assert torch.equal(one.head.weight, build_initial_model(study.recipe("psa", 0)).head.weight)
    assert not torch.equal(one.head.weight, other.head.weight)


@pytest.mark.slow
def test_fine_tuning_begins_where_the_model_is_and_leaves_it_as_it_was(monkeypatch):
    monkeypatch.setattr(explanations, "TUNING_STEPS", (0, 3, 6))
    model, val = stirred(), scenes(20, 0, *LARGER)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rows, again = (fine_tune(model, seed=0, train_images=50, images=20) for _ in range(2))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [row["step"] for row in rows] == [0, 3, 6] and rows == again
    assert rows[0]["val_top1"] == 100 * (model(val.images).argmax(-1) == val.labels).double().mean().item()
