"""Synthetic datasets whose classes depend on where things are: Compass, Textures and Rings. No files, a fraction of a second.

The constructor draws all images from a random stream that never changes (see seeding.py): a seed gives the same images on
every machine. `split` ("train", "val", ...) selects the stream: two splits never share random numbers, whatever their seeds.

An image is a grid of rows × cols patches, each patch × patch pixels, of Gaussian noise with mean zero; values are not limited
to 0..1. Positions are (row, column) in patches, row 0 at the top.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from .images import InMemoryImages
from .seeding import make_random_state

# (row, column) steps of the eight directions, clockwise from north, which is up.
DIRECTIONS = {"N": (-1, 0), "NE": (-1, 1), "E": (0, 1), "SE": (1, 1), "S": (1, 0), "SW": (1, -1), "W": (0, -1), "NW": (-1, -1)}
RED, GREEN, BLUE = range(3)


class SyntheticDataset(InMemoryImages):
    """Hold images and labels in memory.

    Attributes:
        images: (n, 3, rows · patch, cols · patch), float32.
        labels: (n,), int64; the classes are balanced up to one image.
        classes: names of the classes.
    """

    skipped_files = ()  # a synthetic dataset has no files


class Compass(SyntheticDataset):
    """In which direction is the ship from the lighthouse?

    The images are noise; in one patch red is raised (the lighthouse), in one patch green (the ship, 1 to `reach` patches away
    along a straight or diagonal line), and in a few patches blue (decoys). The class is the direction. The patches without
    their positions contain no information about it. The position of the lighthouse alone contains a little, because at the
    upper edge no ship is in the north: the best classifier that uses only this position has accuracy .30 on 8 × 8 patches,
    where chance is .125.

    Args:
        images: number of images.
        seed: seed of all images.
        split: the random stream; "train" and "val" share no random numbers.
        rows, cols: the grid.
        patch: side of a patch in pixels.
        directions: 8, 4 (N, E, S, W), 2 (N, S) or 1 of the compass.
        reach: largest distance, in patches.
        decoys: number of blue patches.
        noise: standard deviation of the noise.
        lift: increment of a raised patch, in its colour.

    `lighthouse` and `ship` are the true positions, (n, 2). Raises UserError for a scene that does not fit into the grid.
    """

    def __init__(
        self, images: int, *, seed: int, split: str = "train", rows: int = 8, cols: int = 8, patch: int = 4,
        directions: int = 8, reach: int = 4, decoys: int = 3, noise: float = 0.35, lift: float = 1.5,
    ) -> None:  # fmt: skip
        if directions not in (1, 2, 4, 8):
            raise UserError(f"directions is {directions}; expected 1, 2, 4 or 8")
        _check_scene(rows, cols, reach=reach, decoys=decoys)
        random = make_random_state(f"compass {split}", seed)
        self.classes = list(DIRECTIONS)[:: 8 // directions]
        labels = _draw_labels(random, images, directions)
        distances = random.randint(1, reach + 1, size=images)
        steps = np.array([DIRECTIONS[name] for name in self.classes])  # (directions, 2)
        offsets = steps[labels] * distances[:, None]  # (n, 2)
        self.lighthouse, self.ship, self.images = _draw_scenes(random, offsets, rows, cols, patch, decoys, noise, lift)
        self.labels = torch.from_numpy(labels)


class Rings(SyntheticDataset):
    """How far is the ship from the lighthouse, in any direction?

    The scene is that of `Compass`, but the ship is anywhere on a square ring around the lighthouse. The class is the distance
    of the ring, 1 to `reach`: the larger of the differences in rows and in columns. Arguments and attributes are those of
    `Compass`; again the best classifier that uses only the position of the lighthouse has accuracy .30, where chance is .25.
    """

    def __init__(
        self, images: int, *, seed: int, split: str = "train", rows: int = 8, cols: int = 8, patch: int = 4,
        reach: int = 4, decoys: int = 3, noise: float = 0.35, lift: float = 1.5,
    ) -> None:  # fmt: skip
        _check_scene(rows, cols, reach=reach, decoys=decoys)
        random = make_random_state(f"rings {split}", seed)
        self.classes = [str(distance) for distance in range(1, reach + 1)]
        labels = _draw_labels(random, images, reach)
        offsets = np.empty((images, 2), dtype=np.int64)
        for distance in range(1, reach + 1):
            ring = np.array(_list_ring_offsets(distance))  # (8 · distance, 2)
            is_here = labels == distance - 1
            offsets[is_here] = ring[random.randint(len(ring), size=is_here.sum())]
        self.lighthouse, self.ship, self.images = _draw_scenes(random, offsets, rows, cols, patch, decoys, noise, lift)
        self.labels = torch.from_numpy(labels)


class Textures(SyntheticDataset):
    """Which pattern do bright and dark patches form: rows, columns, a checkerboard, or diagonals?

    Rows, columns and the checkerboard alternate with every patch, diagonals (down to the right) form bands, and each pattern
    has a random phase. Then equally many bright and dark patches are flipped. In every image exactly half of the patches are
    bright, and every position is bright in half of the images: neither a bag of patches nor any single position contains
    information about the class, only the arrangement of the patches does.

    Arguments are those of `Compass`, except for an even number of rows and columns, and

        flip_fraction: approximate fraction of the patches that are flipped.
        lift: difference between bright and dark, in all colours.

    `bright` is the pattern after flipping, (n, rows, cols), bool. Raises UserError for an odd grid.
    """

    def __init__(
        self, images: int, *, seed: int, split: str = "train", rows: int = 8, cols: int = 8, patch: int = 4,
        flip_fraction: float = 0.15, noise: float = 0.35, lift: float = 1.5,
    ) -> None:  # fmt: skip
        if rows % 2 or cols % 2 or min(rows, cols) < 4:
            raise UserError(f"the grid is {rows} × {cols} patches; expected an even number of rows and columns, at least 4")
        if not 0 <= flip_fraction < 0.5:
            raise UserError(f"flip_fraction is {flip_fraction}; expected a number of at least 0 and below 0.5")
        random = make_random_state(f"textures {split}", seed)
        self.classes = ["rows", "columns", "checker", "diagonal"]
        labels = _draw_labels(random, images, len(self.classes))
        # The period of the bands divides the columns, so that half of each row is bright for any phase.
        period = next(length for length in range(4, cols + 1, 2) if cols % length == 0)
        row, col = np.mgrid[:rows, :cols]
        phase = random.randint(period, size=images)[:, None, None]
        row = row + phase  # (n, rows, cols)
        diagonal = (row - col) % period // (period // 2)
        patterns = [row % 2, (col + phase) % 2, (row + col) % 2, diagonal]
        bright = np.choose(labels[:, None, None], patterns) == 1
        bright = _flip_patches(random, bright, round(flip_fraction * rows * cols / 2))
        patches = _draw_noise(random, noise, (images, 3, rows, patch, cols, patch))
        patches += (lift * (bright - 0.5)).astype(np.float32)[:, None, :, None, :, None]
        self.bright = torch.from_numpy(bright)
        self.images = _join_patches(patches)
        self.labels = torch.from_numpy(labels)


def _check_scene(rows: int, cols: int, *, reach: int, decoys: int) -> None:
    """Refuse a grid that is too small for a ship `reach` patches away, or for all decoys."""
    if not 1 <= reach < min(rows, cols):
        raise UserError(f"reach is {reach}; expected 1 to {min(rows, cols) - 1} in a grid of {rows} × {cols} patches")
    if not 0 <= decoys <= rows * cols - 2:
        raise UserError(f"decoys is {decoys}; expected 0 to {rows * cols - 2} in a grid of {rows} × {cols} patches")


def _draw_labels(random: np.random.RandomState, images: int, classes: int) -> np.ndarray:
    """Draw a label per image, (n,), int64; the classes are balanced up to one image."""
    if images < 1:
        raise UserError(f"the number of images is {images}; expected at least 1 in a synthetic dataset")
    return random.permutation(np.arange(images) % classes)


def _list_ring_offsets(distance: int) -> list[tuple[int, int]]:
    """List the offsets (row, column) whose larger absolute component is `distance`."""
    span = range(-distance, distance + 1)
    return [(row, col) for row in span for col in span if max(abs(row), abs(col)) == distance]


def _draw_scenes(
    random: np.random.RandomState, offsets: np.ndarray, rows: int, cols: int, patch: int, decoys: int, noise: float, lift: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw lighthouses, ships at offsets (n, 2) from them, and decoys; return lighthouses (n, 2), ships (n, 2) and images."""
    count = len(offsets)
    index = np.arange(count)
    size = np.array([rows, cols])
    # All positions from which the ship is still inside the grid are equally likely.
    lighthouse = np.maximum(-offsets, 0) + (random.random_sample((count, 2)) * (size - abs(offsets))).astype(np.int64)
    ship = lighthouse + offsets

    order = random.random_sample((count, rows * cols))
    for position in (lighthouse, ship):
        order[index, position[:, 0] * cols + position[:, 1]] = math.inf
    decoy_rows, decoy_cols = np.divmod(order.argsort(axis=1)[:, :decoys], cols)  # (n, decoys) each

    patches = _draw_noise(random, noise, (count, 3, rows, patch, cols, patch))
    patches[index, RED, lighthouse[:, 0], :, lighthouse[:, 1]] += lift
    patches[index, GREEN, ship[:, 0], :, ship[:, 1]] += lift
    patches[index[:, None], BLUE, decoy_rows, :, decoy_cols] += lift
    return torch.from_numpy(lighthouse), torch.from_numpy(ship), _join_patches(patches)


def _flip_patches(random: np.random.RandomState, bright: np.ndarray, count: int) -> np.ndarray:
    """Flip `count` bright and `count` dark patches of each image (n, rows, cols), which keeps the number of bright ones."""
    flat = bright.reshape(len(bright), -1).copy()
    order = random.random_sample(flat.shape)
    for value in (True, False):
        candidates = np.where(bright.reshape(flat.shape) == value, order, math.inf)
        np.put_along_axis(flat, candidates.argsort(axis=1)[:, :count], not value, axis=1)
    return flat.reshape(bright.shape)


def _draw_noise(random: np.random.RandomState, deviation: float, shape: tuple[int, ...]) -> np.ndarray:
    """Draw Gaussian noise, float32, image by image: numpy draws float64, which would double the memory of all images."""
    patches = np.empty(shape, dtype=np.float32)
    for image in patches:
        image[...] = deviation * random.standard_normal(shape[1:])
    return patches


def _join_patches(patches: np.ndarray) -> Tensor:
    """Join patches (n, 3, rows, patch, cols, patch) to images (n, 3, height, width)."""
    count, channels, rows, patch, cols, _ = patches.shape
    return torch.from_numpy(patches.reshape(count, channels, rows * patch, cols * patch))
