"""Binarised priors: what a mask does to a model, against attention written out, and what is written down of it."""

import math

import pytest
import torch

from spvit_experiments import read_records
from spvit_experiments.records import write_rows
from spvit_experiments.sparsity import COLUMNS, DRAWS, SPARSITY, binarise, mask_priors, measure_run, priors, top1
from spvit_experiments.study import Arm, Study
from spvit_mini import create_model
from spvit_mini.geometry import spread

SMALL = {
    "model.depth": 2,
    "model.dim": 16,
    "model.heads": 2,
    "data.train_images": 40,
    "data.val_images": 30,
    "batch_size": 20,
    "duration": "2 steps",
    "evaluate_every": "2 steps",
    "device": "cpu",
}


@pytest.fixture
def model():
    """A model of two blocks on 4 × 4 patches whose priors are no constants."""
    torch.manual_seed(0)
    made = create_model("spvit_mini", num_classes=8, image_size=16, dim=16, depth=2, heads=2)
    with torch.no_grad():
        for block in made.blocks:
            block.attention.spatial.w2.normal_()
            block.attention.qkv.weight.mul_(4)  # scores that a mask or a product makes a difference to
    return made.eval()


@pytest.fixture
def images():
    return torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def kept_of(model, seed):
    draw = torch.Generator().manual_seed(seed)
    kept = [torch.rand(table.shape, generator=draw) < 0.5 for _, table in priors(model)]
    for own in kept:
        own[:, 3, 3] = True
    return kept


@pytest.mark.parametrize("product", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_a_masked_model_attends_by_the_kept_offsets_alone(model, images, product, seed):
    kept, seen = kept_of(model, seed), []

    def look(layer, own):
        def written_out(module, inputs, output):
            q, k, v = module.project(inputs[0])
            scores = q @ k.mT / math.sqrt(q.shape[-1])
            if product:
                scores = scores * module.spatial((4, 4))
            weights = scores.masked_fill(~spread(own, (4, 4)), -math.inf).softmax(-1)
            expected = module.proj((weights @ v).transpose(1, 2).flatten(2))
            torch.testing.assert_close(output, expected)
            seen.append(layer)

        return written_out

    for (layer, _), own in zip(priors(model), kept, strict=True):
        layer.register_forward_hook(look(layer, own))
    with mask_priors(model, kept, product=product), torch.no_grad():
        model(images)
    assert len(seen) == 2


@torch.no_grad()
def test_everything_kept_is_the_model_itself_or_plain_attention_and_all_is_undone(model, images):
    whole = model(images)
    everything = [torch.ones_like(table, dtype=torch.bool) for _, table in priors(model)]
    with mask_priors(model, everything, product=True):
        torch.testing.assert_close(model(images), whole)
    with mask_priors(model, everything, product=False):
        plain = model(images)
    assert not torch.allclose(plain, whole)
    with pytest.raises(ZeroDivisionError), mask_priors(model, everything, product=False):
        raise ZeroDivisionError
    torch.testing.assert_close(model(images), whole, rtol=0, atol=0)
    for block in model.blocks:  # where f is 1 everywhere, SP-SA is plain attention
        block.attention.spatial.w2.zero_()
    torch.testing.assert_close(model(images), plain)


def test_rows_are_those_of_every_density_ranking_and_draw(model, images):
    labels = model(images).argmax(-1)
    rows = binarise(model, images, labels, seed=3, densities=(1.0, 0.25))
    counts = {arm: sum(row["arm"] == arm for row in rows) for arm in dict.fromkeys(row["arm"] for row in rows)}
    once = {"largest": 2, "largest+product": 2, "farthest": 2, "farthest+product": 2}
    assert counts == once | {"random": 2 * DRAWS, "random+product": 2 * DRAWS}
    assert {row["offsets"] for row in rows if row["density"] == 1} == {49}
    assert {row["offsets"] for row in rows if row["density"] == 0.25} == {13}
    assert all(row["pairs"] == 1 for row in rows if row["density"] == 1)
    assert all(row["val_top1"] == 100 for row in rows if row["density"] == 1 and "product" in row["arm"])
    assert top1(model, images, (labels + 1) % 8) == 0
    again = binarise(model, images, labels, seed=3, densities=(1.0, 0.25))
    assert again == rows


def test_each_arm_keeps_what_its_name_says(model, images, monkeypatch):
    found = {}

    def remember(values, density):
        kept = torch.zeros_like(values, dtype=torch.bool)
        kept[:, 3, 3] = True
        found.setdefault(len(found), values)
        return kept

    monkeypatch.setattr("spvit_experiments.sparsity.sparsify", remember)
    binarise(model, images, torch.zeros(6), seed=0, densities=(0.5,))
    (_, first), (_, second) = priors(model)
    for place, table in ((0, first), (1, second), (2, (first - 1).abs()), (3, (second - 1).abs())):
        torch.testing.assert_close(found[place], table)
    drawn = [found[place] for place in range(4, 4 + 2 * DRAWS)]
    assert all(not torch.equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i])


def test_a_run_is_trained_scored_and_written(tmp_path):
    study = Study("small", "?", {"spsa": Arm("spvit_mini_compass6", {"optim.lr": 1e-3})}, seeds=(1,), changes=SMALL)
    rows = measure_run(study, "spsa", 1)
    write_rows(tmp_path / "small.csv", rows)
    read = read_records("small", tmp_path)
    assert read == rows and tuple(read[0]) == COLUMNS
    assert {row["seed"] for row in rows} == {1}


def test_the_record_holds_every_row():
    rows = read_records("sparse")
    arms = dict.fromkeys(row["arm"] for row in rows)
    assert [sum(row["arm"] == arm for row in rows) for arm in arms] == [30, 30, 30, 30, 150, 150]
    assert {row["seed"] for row in rows} == set(SPARSITY.seeds)
    whole = [row["val_top1"] for row in rows if (row["arm"], row["density"]) == ("largest+product", 1)]
    assert whole == [row["val_top1"] for row in rows if (row["arm"], row["density"]) == ("farthest+product", 1)]
