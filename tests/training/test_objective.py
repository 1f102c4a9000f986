"""The loss of a batch against its formulas written out: label smoothing, MixUp, CutMix, and when they are drawn."""

import pytest
import torch
from torch import nn

from spvit_mini.recipes import Recipe
from spvit_mini.training.objective import Objective

CLASSES, SIDE = 3, 8


class Flat(nn.Module):
    """A linear classifier that remembers the images it saw."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(CLASSES, 3 * SIDE * SIDE, dtype=torch.float64) / 10)

    def forward(self, images):
        self.seen = images
        return images.flatten(1) @ self.weight.T


def objective(**changes):
    recipe = Recipe().override(changes)
    return Objective(recipe, CLASSES, precision=torch.float32)


@pytest.fixture
def batch():
    """Images of one value each, 1, 2, 4, …: whatever they are mixed of can be read from any pixel."""
    values = 2.0 ** torch.arange(5, dtype=torch.float64)
    return [values[:, None, None, None].expand(5, 3, SIDE, SIDE).clone(), torch.tensor([0, 1, 2, 2, 1])]


def written_out(logits, targets, smoothing=0.0):
    """Compute the mean cross-entropy with soft targets (B, classes), smoothed towards all classes alike."""
    targets = (1 - smoothing) * targets + smoothing / CLASSES
    return -(targets * logits.double().log_softmax(-1)).sum(-1).mean()


def one_hot(labels):
    return torch.eye(CLASSES, dtype=torch.float64)[labels]


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_plain_and_smoothed_labels(batch, smoothing):
    model = Flat()
    loss, logits = objective(label_smoothing=smoothing)(model, *batch, seeds=(0, 1))
    assert torch.equal(model.seen, batch[0])
    torch.testing.assert_close(loss.double(), written_out(logits, one_hot(batch[1]), smoothing), rtol=1e-6, atol=0)


@pytest.mark.parametrize("seed", range(8))
def test_mixup_adds_neighbours_and_their_labels_in_the_same_share(batch, seed):
    model = Flat()
    loss, logits = objective(**{"augment.mixup": 0.8, "label_smoothing": 0.1})(model, *batch, seeds=(0, seed))
    values, before = model.seen[:, 0, 0, 0], batch[0][:, 0, 0, 0].roll(1)
    own = (model.seen[1, 0, 0, 0] - before[1]) / (batch[0][1, 0, 0, 0] - before[1])
    assert 0 <= own <= 1
    torch.testing.assert_close(values, own * batch[0][:, 0, 0, 0] + (1 - own) * before)
    targets = own * one_hot(batch[1]) + (1 - own) * one_hot(batch[1].roll(1))
    torch.testing.assert_close(loss.double(), written_out(logits, targets, 0.1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", range(8))
def test_cutmix_weighs_labels_by_the_area_that_was_really_cut(batch, seed):
    model = Flat()
    loss, logits = objective(**{"augment.cutmix": 1.0})(model, *batch, seeds=(1, seed))
    cut = model.seen[1, 0] == batch[0][0, 0]
    rows, columns = cut.any(1).sum(), cut.any(0).sum()
    assert cut.sum() == rows * columns  # a rectangle
    assert torch.equal(model.seen[1, 0][~cut], batch[0][1, 0][~cut])
    area = cut.double().mean()
    targets = (1 - area) * one_hot(batch[1]) + area * one_hot(batch[1].roll(1))
    torch.testing.assert_close(loss.double(), written_out(logits, targets), rtol=1e-5, atol=1e-6)


def test_of_both_either_is_drawn_half_the_time_and_of_all_batches_the_wished_part(batch):
    model = Flat()
    compute = objective(**{"augment.mixup": 1.0, "augment.cutmix": 1.0, "augment.mix_prob": 0.6})
    kinds = []
    for step in range(400):
        compute(model, *batch, seeds=(0, step))
        if torch.equal(model.seen, batch[0]):
            kinds.append("none")
        else:
            kinds.append("mixup" if model.seen[1].unique().numel() == 1 else "cutmix")
    counts = {kind: kinds.count(kind) / 400 for kind in ("none", "mixup", "cutmix")}
    # A box may also be empty, which looks like none, or fill the image, which looks like MixUp.
    assert counts["none"] == pytest.approx(0.4, abs=0.1)
    assert counts["mixup"] == pytest.approx(0.3, abs=0.1)
    assert counts["cutmix"] == pytest.approx(0.3, abs=0.1)


def test_the_same_seeds_mix_the_same_and_leave_the_global_generator_alone(batch):
    model, compute = Flat(), objective(**{"augment.mixup": 1.0})
    state = torch.get_rng_state()
    first = compute(model, *batch, seeds=(0, 1, 2))[0]
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    assert torch.equal(compute(model, *batch, seeds=(0, 1, 2))[0], first)
    assert not torch.equal(compute(model, *batch, seeds=(0, 1, 3))[0], first)
