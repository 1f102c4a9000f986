"""Scores of explanations: against loops in plain Python, closed formulas and a model whose answers can be counted."""

import itertools

import pytest
import torch
from torch import nn

from spvit_mini import create_model
from spvit_mini.data.synthetic import Compass
from spvit_mini.errors import UserError
from spvit_mini.explain.faithfulness import area, contrast, deletion, hits, insertion, random_maps, ranks


class Adds(nn.Module):
    """Logit of class 0: the red of all patches, each weighed by a number of its own; of class 1: 0."""

    def __init__(self, weights):
        super().__init__()
        self.weights, self.modes = weights, []

    def forward(self, images):
        self.modes.append(self.training)
        rows, columns = self.weights.shape
        red = images[:, 0].unflatten(2, (columns, -1)).unflatten(1, (rows, -1)).mean((2, 4))
        score = (red * self.weights).sum((1, 2))
        return torch.stack([score, 0 * score], dim=-1)


def test_ranks_and_hits_by_hand():
    maps = torch.tensor([[[0.1, 0.9, 0.5], [0.3, 0.2, 0.8]]])
    places = torch.tensor([[[0, 1], [1, 0]]])
    assert ranks(maps, places).tolist() == [[1, 4]]
    assert [hits(maps, places, top=top).item() for top in (1, 3, 4, 6)] == [0.5, 0.5, 1, 1]


def test_of_equal_numbers_the_first_comes_first():
    places = torch.tensor([[[0, 0], [0, 1], [1, 1]]])
    assert ranks(torch.zeros(1, 2, 2), places).tolist() == [[1, 2, 4]]


@pytest.mark.parametrize("seed", [0, 1])
def test_random_maps_are_at_chance_and_can_be_had_again(seed):
    maps, made = random_maps(4000, (6, 6), seed=seed), Compass(4000, seed=seed, rows=6, cols=6, reach=3)
    places = torch.stack([made.lighthouse, made.ship], dim=1)
    assert hits(maps, places, top=2).mean().item() == pytest.approx(2 / 36, abs=0.01)
    assert ranks(maps, places).double().mean().item() == pytest.approx(37 / 2, abs=0.4)
    assert torch.equal(maps, random_maps(4000, (6, 6), seed=seed))
    assert not torch.equal(maps, random_maps(4000, (6, 6), seed=seed + 1))


@pytest.mark.parametrize("places", [[[0, 3]], [[2, 0]], [[-1, 0]]])
def test_places_outside_the_map_are_refused(places):
    with pytest.raises(UserError, match="outside of the 2 × 3 patches"):
        ranks(torch.zeros(1, 2, 3), torch.tensor([places]))


@pytest.mark.parametrize("top", [0, 7])
def test_more_or_fewer_than_the_patches_are_refused(top):
    with pytest.raises(UserError, match="expected 1 to 6"):
        hits(torch.zeros(1, 2, 3), torch.zeros(1, 1, 2, dtype=torch.int64), top=top)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("grid", "patch"), [((2, 3), (2, 2)), ((3, 1), (1, 3)), ((1, 1), (2, 2))])
def test_curves_are_those_of_a_loop(grid, patch, seed):
    random = torch.Generator().manual_seed(seed)
    model = Adds(torch.randn(grid, generator=random, dtype=torch.float64))
    images = torch.randn(3, 3, grid[0] * patch[0], grid[1] * patch[1], generator=random, dtype=torch.float64) + 0.7
    maps = torch.rand(3, *grid, generator=random, dtype=torch.float64)
    gone, come = deletion(model, images, maps), insertion(model, images, maps)
    for b, image in enumerate(images):
        whole = model(image[None]).softmax(-1)[0]
        label = int(whole.argmax())
        ordered = sorted(itertools.product(*map(range, grid)), key=lambda place, b=b: -maps[b][place])
        for k in range(len(ordered) + 1):
            for curve, blanked in ((gone, ordered[:k]), (come, ordered[k:])):
                holed = image.clone()
                for row, column in blanked:
                    for channel in range(3):
                        here = slice(row * patch[0], (row + 1) * patch[0]), slice(column * patch[1], (column + 1) * patch[1])
                        holed[channel][here] = image[channel].mean()
                p = model(holed[None]).softmax(-1)[0, label] / whole[label]
                assert curve[b, k].item() == pytest.approx(p.item(), abs=1e-12)
    assert (gone[:, 0] == 1).all() and torch.allclose(come[:, -1], torch.ones(3, dtype=torch.float64))


def test_the_right_order_has_the_smallest_area_and_its_reverse_the_largest():
    """Where patches just add up, taking them in the order of what they add can't be bettered."""
    model = Adds(torch.ones(2, 2, dtype=torch.float64))
    images = torch.zeros(1, 3, 2, 2, dtype=torch.float64)
    images[0, 0] = torch.tensor([[4.0, 1.0], [2.0, 1.5]])
    maps = [torch.tensor(order, dtype=torch.float64).view(1, 2, 2) for order in itertools.permutations(range(4))]
    areas = [area(deletion(model, images, one)).item() for one in maps]
    assert maps[min(range(24), key=areas.__getitem__)].flatten().tolist() == [3, 0, 2, 1]
    assert maps[max(range(24), key=areas.__getitem__)].flatten().tolist() == [0, 3, 1, 2]


@pytest.mark.parametrize(("curve", "expected"), [([1, 1, 1], 1), ([1, 0, 0], 0.25), ([0, 1], 0.5), ([1, 0.5, 0, 0.5], 5 / 12)])
def test_the_area_by_hand(curve, expected):
    assert area(torch.tensor(curve, dtype=torch.float64)).item() == pytest.approx(expected)


def test_the_model_is_asked_in_evaluation_mode_and_left_as_it_was():
    model = Adds(torch.ones(2, 2)).train()
    deletion(model, torch.randn(2, 3, 4, 4), torch.rand(2, 2, 2))
    assert model.training and set(model.modes) == {False}


def test_a_real_model_and_no_gradient():
    model = create_model("spvit_mini", image_size=(8, 12), num_classes=3, dim=16, depth=1)
    curves = deletion(model, torch.randn(2, 3, 8, 12), torch.rand(2, 2, 3))
    assert curves.shape == (2, 7) and not curves.requires_grad


@pytest.mark.parametrize(("images", "maps"), [((2, 3, 8, 12), (2, 3, 5)), ((2, 3, 8, 12), (1, 2, 3))])
def test_maps_that_do_not_fit_are_refused(images, maps):
    with pytest.raises(UserError, match="expected as many of both"):
        deletion(Adds(torch.ones(2, 3)), torch.zeros(images), torch.zeros(maps))


def test_contrast_by_hand():
    images = torch.zeros(1, 3, 2, 4)
    images[0, 0, :, 2:] = 2.0  # the mean red is 1, so each pixel is 1 away from it in one channel of three
    torch.testing.assert_close(contrast(images, (1, 2)), torch.full((1, 1, 2), 1 / 3))
    images[0, 1, 0, 0] = 8.0  # the mean green is 1: seven away at one pixel, 1 at the others
    left = (4 * 1 + 49 + 3) / 12
    torch.testing.assert_close(contrast(images, (1, 2)), torch.tensor([[[left, 8 / 12]]]))


def test_contrast_finds_the_raised_patches():
    made = Compass(200, seed=0)
    places = torch.stack([made.lighthouse, made.ship], dim=1)
    assert hits(contrast(made.images, (8, 8)), places, top=5).mean() > 0.99
