"""Synthetic datasets: checked by slow loops over the pixels, and by the information that they must not contain."""

import hashlib

import numpy as np
import pytest
import torch

from spvit_mini.data import Compass, Rings, Textures
from spvit_mini.errors import UserError

SCENES = [
    (Compass, {}),
    (Compass, {"rows": 6, "cols": 6, "reach": 3}),
    (Compass, {"rows": 6, "cols": 6, "directions": 2, "reach": 1, "decoys": 0}),
    (Compass, {"rows": 5, "cols": 9, "patch": 3, "directions": 4, "reach": 4, "decoys": 1}),
    (Rings, {}),
    (Rings, {"rows": 6, "cols": 6, "reach": 3}),
    (Rings, {"rows": 7, "cols": 5, "patch": 5, "reach": 2, "decoys": 5}),
]
TEXTURES = [(Textures, {}), (Textures, {"rows": 6, "cols": 6}), (Textures, {"rows": 4, "cols": 12, "patch": 3})]


def patch_means(image: torch.Tensor, rows: int, cols: int) -> list[list[list[float]]]:
    """Average each patch of an image, channel by channel, with loops: [channel][row][col]."""
    channels, height, width = image.shape
    p, q = height // rows, width // cols
    pixels = image.tolist()
    means = [[[0.0] * cols for _ in range(rows)] for _ in range(channels)]
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                means[c][y // p][x // q] += pixels[c][y][x] / (p * q)
    return means


def brightest(means: list[list[float]]) -> tuple[int, int]:
    return max(((r, c) for r in range(len(means)) for c in range(len(means[0]))), key=lambda at: means[at[0]][at[1]])


def compass_point(south: int, east: int) -> str:
    """Name the direction of a step, from the words themselves."""
    return ("N" if south < 0 else "S" if south > 0 else "") + ("W" if east < 0 else "E" if east > 0 else "")


@pytest.mark.parametrize("kind, options", SCENES)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_pixels_show_what_the_labels_say(kind, options, seed):
    rows, cols, reach = options.get("rows", 8), options.get("cols", 8), options.get("reach", 4)
    dataset = kind(48, seed=seed, **options)
    patch = options.get("patch", 4)
    assert dataset.images.shape == (48, 3, rows * patch, cols * patch) and dataset.images.dtype == torch.float32
    for index in range(len(dataset)):
        image, label = dataset[index]
        red, green, blue = patch_means(image, rows, cols)
        lighthouse, ship = brightest(red), brightest(green)
        assert dataset.lighthouse[index].tolist() == list(lighthouse)
        assert dataset.ship[index].tolist() == list(ship)
        south, east = ship[0] - lighthouse[0], ship[1] - lighthouse[1]
        distance = max(abs(south), abs(east))
        assert 1 <= distance <= reach
        if kind is Compass:
            assert south == 0 or east == 0 or abs(south) == abs(east)
            assert dataset.classes[label] == compass_point(south, east)
        else:
            assert dataset.classes[label] == str(distance)
        decoys = {(r, c) for r in range(rows) for c in range(cols) if blue[r][c] > 0.75}
        assert len(decoys) == options.get("decoys", 3)
        assert not decoys & {lighthouse, ship}


@pytest.mark.parametrize("kind, options", SCENES + TEXTURES)
def test_classes_are_balanced_whatever_the_number_of_images(kind, options):
    for count in (1, 10, 403):
        dataset = kind(count, seed=2, **options)
        per_class = torch.bincount(dataset.labels, minlength=len(dataset.classes))
        assert len(dataset) == per_class.sum() == count and per_class.max() - per_class.min() <= 1


def test_classes_have_their_names_in_order():
    assert Compass(1, seed=0).classes == ["N", "NE", "E", "SE", "S", "SW", "W", "NW"]
    assert Compass(1, seed=0, directions=4).classes == ["N", "E", "S", "W"]
    assert Compass(1, seed=0, directions=2).classes == ["N", "S"]
    assert Rings(1, seed=0).classes == ["1", "2", "3", "4"]
    assert Textures(1, seed=0).classes == ["rows", "columns", "checker", "diagonal"]


def test_distances_and_positions_are_uniform():
    count, seed = 8000, 1
    dataset = Compass(count, seed=seed, patch=1)
    offsets = dataset.ship - dataset.lighthouse
    distances = offsets.abs().amax(dim=1)
    share = torch.bincount(distances, minlength=5)[1:] / count
    assert (share - 0.25).abs().max() < 0.02
    # Eastward over 4 patches, columns 0 to 3 and all rows are left for the lighthouse: 32 places, about 31 images each.
    far_east = dataset.lighthouse[(dataset.labels == 2) & (distances == 4)]
    assert set(map(tuple, far_east.tolist())) == {(r, c) for r in range(8) for c in range(4)}
    rings = Rings(count, seed=seed, patch=1)
    offsets = (rings.ship - rings.lighthouse)[rings.labels == 1]
    seen, times = offsets.unique(dim=0, return_counts=True)
    assert len(seen) == 16 and times.min() > 0.6 * len(offsets) / 16


def test_the_best_classifier_of_one_position_alone_is_as_good_as_documented():
    for kind, classes in ((Compass, 8), (Rings, 4)):
        dataset = kind(50_000, seed=0, patch=1, decoys=0)
        for place in (dataset.lighthouse, dataset.ship):
            table = torch.zeros(64, classes)
            table.index_put_((place[:, 0] * 8 + place[:, 1], dataset.labels), torch.ones(len(dataset)), accumulate=True)
            assert float(table.amax(dim=1).sum() / len(dataset)) == pytest.approx(0.30, abs=0.01)


@pytest.mark.parametrize("noise, lift", [(0.35, 1.5), (0.1, 0.7)])
def test_noise_and_lift_have_their_sizes(noise, lift):
    dataset = Compass(500, seed=0, noise=noise, lift=lift)
    grid = dataset.images.reshape(500, 3, 8, 4, 8, 4)
    every = torch.arange(500)
    raised = grid[every, 0, dataset.lighthouse[:, 0], :, dataset.lighthouse[:, 1]]  # (n, 4, 4)
    assert raised.mean().item() == pytest.approx(lift, abs=5 * noise / np.sqrt(8000))
    assert raised.std().item() == pytest.approx(noise, rel=0.03)
    grid[every, 0, dataset.lighthouse[:, 0], :, dataset.lighthouse[:, 1]] -= lift
    red = grid[:, 0]
    assert red.mean().item() == pytest.approx(0, abs=5 * noise / np.sqrt(red.numel()))
    assert red.std().item() == pytest.approx(noise, rel=0.01)


def textures_by_hand(rows: int, cols: int, period: int) -> dict[str, list[np.ndarray]]:
    """Draw each pattern at each phase with loops."""
    found = {"rows": [], "columns": [], "checker": [], "diagonal": []}
    for phase in range(period):
        for name, bright in {
            "rows": lambda r, c, phase=phase: (r + phase) % 2 == 1,
            "columns": lambda r, c, phase=phase: (c + phase) % 2 == 1,
            "checker": lambda r, c, phase=phase: (r + c + phase) % 2 == 1,
            "diagonal": lambda r, c, phase=phase: (r - c + phase) % period >= period // 2,
        }.items():
            found[name].append(np.array([[bright(r, c) for c in range(cols)] for r in range(rows)]))
    return found


@pytest.mark.parametrize("options, period", [({}, 4), ({"rows": 6, "cols": 6}, 6), ({"rows": 4, "cols": 12}, 4)])
@pytest.mark.parametrize("seed", [0, 1])
def test_textures_are_their_pattern_with_as_many_bright_as_dark_patches_flipped(options, period, seed):
    rows, cols = options.get("rows", 8), options.get("cols", 8)
    dataset = Textures(160, seed=seed, **options)
    patterns = textures_by_hand(rows, cols, period)
    flips = round(0.15 * rows * cols / 2)
    phases = set()
    for index in range(len(dataset)):
        image, label = dataset[index]
        bright = np.array(patch_means(image, rows, cols)).mean(axis=0) > 0
        assert (dataset.bright[index].numpy() == bright).all()
        assert bright.sum() == rows * cols // 2
        name = dataset.classes[label]
        differing = [(pattern != bright).sum() for pattern in patterns[name]]
        assert min(differing) == 2 * flips
        phases.add((name, differing.index(2 * flips)))
        others = [(pattern != bright).sum() for other in patterns if other != name for pattern in patterns[other]]
        assert min(others) > 2 * flips
    assert len([phase for name, phase in phases if name == "diagonal"]) == period
    assert len({phase % 2 for name, phase in phases if name == "rows"}) == 2


@pytest.mark.parametrize("options", [{}, {"rows": 6, "cols": 6}])
def test_single_patches_and_positions_of_textures_contain_no_information(options):
    count = 8000
    dataset = Textures(count, seed=3, patch=1, **options)
    bright = dataset.bright.float()
    for label in range(4):
        of_class = bright[dataset.labels == label]
        # The histogram of patches is the same in every image, to the patch.
        assert set(of_class.sum(dim=(1, 2)).tolist()) == {dataset.bright[0].numel() // 2}
        # Each place is bright in half of the images: 5 standard deviations.
        assert (of_class.mean(dim=0) - 0.5).abs().max() < 5 * 0.5 / np.sqrt(count / 4)


def test_the_same_seed_gives_the_same_pixels_on_every_machine():
    # Recorded once, with values rounded to 0.001: the last bits may depend on a machine's logarithm.
    recorded = {
        Compass: ([2, 0, 1], "a91a7fcbbfba4da1"),
        Rings: ([0, 1, 2], "d8548880c657786d"),
        Textures: ([1, 2, 0], "11dc849bf98d9a4f"),
    }
    for kind, (labels, digest) in recorded.items():
        dataset = kind(3, seed=7, rows=6, cols=6, **({} if kind is Textures else {"reach": 3}))
        rounded = (dataset.images * 1000).round().int().numpy().astype("<i4")
        assert dataset.labels.tolist() == labels
        assert hashlib.sha256(rounded.tobytes()).hexdigest()[:16] == digest


@pytest.mark.parametrize("kind", [Compass, Rings, Textures])
def test_seeds_and_splits_never_share_noise(kind):
    def values(**options) -> set:
        return set(kind(20, noise=1.0, lift=0.0, **options).images.flatten().tolist())

    reference = values(seed=1)
    assert values(seed=1) == reference
    # Of 61,440 numbers a few hundred coincide by chance, since float32 is coarse; a shared stream would give thousands.
    for other in ({"seed": 0}, {"seed": 2}, {"seed": 0, "split": "val"}, {"seed": 1, "split": "val"}):
        assert len(values(**other) & reference) < 0.02 * len(reference)


def test_a_selection_has_all_attributes_of_its_images():
    dataset = Compass(10, seed=0)
    part = dataset.select(torch.tensor([7, 2]))
    assert len(part) == 2 and len(dataset) == 10
    assert torch.equal(part.images, dataset.images[[7, 2]])
    assert torch.equal(part.ship, dataset.ship[[7, 2]]) and torch.equal(part.lighthouse, dataset.lighthouse[[7, 2]])
    assert part[0][1] == dataset[7][1] and part.classes == dataset.classes


@pytest.mark.parametrize(
    "kind, options, said",
    [
        (Compass, {"directions": 3}, "directions is 3; expected 1, 2, 4 or 8"),
        (Compass, {"reach": 8}, "reach is 8; expected 1 to 7"),
        (Rings, {"rows": 4}, "reach is 4; expected 1 to 3"),
        (Rings, {"reach": 0}, "reach is 0; expected 1 to 7"),
        (Compass, {"decoys": 63}, "decoys is 63; expected 0 to 62"),
        (Textures, {"rows": 7}, "grid is 7 × 8 patches; expected an even number of rows and columns, at least 4"),
        (Textures, {"flip_fraction": 0.5}, "flip_fraction is 0.5; expected a number of at least 0 and below 0.5"),
    ],
)
def test_a_scene_that_does_not_fit_is_refused(kind, options, said):
    with pytest.raises(UserError, match=said):
        kind(4, seed=0, **options)


def test_no_images_and_a_negative_seed_are_refused():
    with pytest.raises(UserError, match="number of images is 0; expected at least 1"):
        Compass(0, seed=0)
    with pytest.raises(UserError, match="the seed is -1"):
        Compass(1, seed=-1)
