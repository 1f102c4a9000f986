"""Made images that ask where things are: Compass, Textures and Rings. No download, no file, a fraction of a second.

Each set is drawn whole at construction from a frozen random stream (see `streams`), so that a seed gives the same
images everywhere. `part` ("train", "val", ...) chooses the stream: whatever the seeds, two parts never share numbers.

An image is a grid of rows × cols patches, each patch × patch pixels, of Gaussian noise, zero in the mean; values are
not limited to 0..1. Places are (row, column) in patches, row 0 on top.
"""

from __future__ import annotations

import math
from copy import copy

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import UserError
from .seeding import stream

# (row, column) steps of the eight directions, clockwise from north, which is up.
NAMES = ("N", "NE", "E", "SE", "S", "SW", "W", "NW")
STEPS = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
RED, GREEN, BLUE = range(3)


class Made(Dataset):
    """Hold images and labels in memory.

    Attributes:
        images: (n, 3, rows · patch, cols · patch), float32.
        labels: (n,), int64; each class has n / classes images, give or take one.
        classes: the names of the classes.
    """

    images: Tensor
    labels: Tensor
    classes: list[str]
    skipped: tuple[str, ...] = ()  # no file, so never a bad one

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])

    def take(self, indices: Tensor) -> Made:
        """Keep only these images, in this order."""
        kept = copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(kept, name, value[indices])
        return kept


class Compass(Made):
    """Which way is the ship from the lighthouse?

    Noise, in which one patch is raised in red (the lighthouse), one in green (the ship, 1 to `reach` patches away along
    a straight or diagonal line) and a few in blue (decoys). The class is the direction. All patches without their
    places tell nothing of it. The lighthouse's place alone tells a little, since at the upper edge no ship is in the
    north: who makes the most of it is right in .30 of the images of 8 × 8 patches, where chance is .125.

    Args:
        images: how many.
        seed: decides all of them.
        part: the stream of random numbers; "train" and "val" never share any.
        rows, cols: the grid.
        patch: side of a patch in pixels.
        directions: 8, 4 (N, E, S, W), 2 (N, S) or 1 of the compass.
        reach: the largest distance, in patches.
        decoys: how many blue patches.
        noise: standard deviation of the noise.
        lift: what is added to a raised patch, in its one colour.

    `lighthouse` and `ship` are the true places, (n, 2). Raises UserError for a scene that does not fit the grid.
    """

    def __init__(
        self,
        images: int,
        *,
        seed: int,
        part: str = "train",
        rows: int = 8,
        cols: int = 8,
        patch: int = 4,
        directions: int = 8,
        reach: int = 4,
        decoys: int = 3,
        noise: float = 0.35,
        lift: float = 1.5,
    ) -> None:
        if directions not in (1, 2, 4, 8):
            raise UserError(f"compass has 1, 2, 4 or 8 directions, not {directions}")
        _check_scene(rows, cols, reach=reach, decoys=decoys)
        random = stream(f"compass {part}", seed)
        self.classes = list(NAMES[:: 8 // directions])
        labels = _balanced(random, images, directions)
        distances = random.randint(1, reach + 1, size=images)
        steps = np.array(STEPS[:: 8 // directions])  # (directions, 2)
        offsets = steps[labels] * distances[:, None]  # (n, 2)
        self.lighthouse, self.ship, self.images = _scene(random, offsets, rows, cols, patch, decoys, noise, lift)
        self.labels = torch.from_numpy(labels)


class Rings(Made):
    """How far is the ship from the lighthouse, in whatever direction?

    The scene of `Compass`, with the ship anywhere on a square ring around the lighthouse. The class is the ring's
    distance, 1 to `reach`: the larger of the differences in rows and in columns. Arguments and attributes are those of
    `Compass`; here too the best guess from the lighthouse's place alone is right in .30 of the images, where chance is
    .25.
    """

    def __init__(
        self,
        images: int,
        *,
        seed: int,
        part: str = "train",
        rows: int = 8,
        cols: int = 8,
        patch: int = 4,
        reach: int = 4,
        decoys: int = 3,
        noise: float = 0.35,
        lift: float = 1.5,
    ) -> None:
        _check_scene(rows, cols, reach=reach, decoys=decoys)
        random = stream(f"rings {part}", seed)
        self.classes = [str(distance) for distance in range(1, reach + 1)]
        labels = _balanced(random, images, reach)
        offsets = np.empty((images, 2), dtype=np.int64)
        for distance in range(1, reach + 1):
            ring = np.array(_ring(distance))  # (8 · distance, 2)
            chosen = labels == distance - 1
            offsets[chosen] = ring[random.randint(len(ring), size=chosen.sum())]
        self.lighthouse, self.ship, self.images = _scene(random, offsets, rows, cols, patch, decoys, noise, lift)
        self.labels = torch.from_numpy(labels)


class Textures(Made):
    """Which pattern do bright and dark patches make: rows, columns, a checker, or diagonals?

    Rows, columns and checker change with every patch, diagonals (down to the right) come in bands, and each pattern
    begins at a random phase. Then as many bright as dark patches are flipped. In every image exactly half of the
    patches are bright, and at every place half of the images: neither a bag of patches nor any single place tells the
    class, only how patches lie to each other.

    Args:
        images: how many.
        seed: decides all of them.
        part: the stream of random numbers; "train" and "val" never share any.
        rows, cols: the grid; both even.
        patch: side of a patch in pixels.
        flipped: about which part of the patches is flipped.
        noise: standard deviation of the noise.
        lift: the difference between bright and dark, in all colours.

    `bright` is the pattern after flipping, (n, rows, cols) of bool. Raises UserError for an odd grid.
    """

    def __init__(
        self,
        images: int,
        *,
        seed: int,
        part: str = "train",
        rows: int = 8,
        cols: int = 8,
        patch: int = 4,
        flipped: float = 0.15,
        noise: float = 0.35,
        lift: float = 1.5,
    ) -> None:
        if rows % 2 or cols % 2 or min(rows, cols) < 4:
            raise UserError(f"textures need an even number of rows and columns, at least 4, not {rows} and {cols}")
        if not 0 <= flipped < 0.5:
            raise UserError(f"the part of flipped patches must be at least 0 and below a half, not {flipped}")
        random = stream(f"textures {part}", seed)
        self.classes = ["rows", "columns", "checker", "diagonal"]
        labels = _balanced(random, images, len(self.classes))
        # The period of the bands divides the columns, so that half of each row is bright whatever the phase.
        period = next(length for length in range(4, cols + 1, 2) if cols % length == 0)
        row, col = np.mgrid[:rows, :cols]
        shift = random.randint(period, size=images)[:, None, None]
        row = row + shift  # (n, rows, cols)
        diagonal = (row - col) % period // (period // 2)
        patterns = [row % 2, (col + shift) % 2, (row + col) % 2, diagonal]
        bright = np.choose(labels[:, None, None], patterns) == 1
        bright = _flip_evenly(random, bright, round(flipped * rows * cols / 2))
        grid = _noise(random, noise, (images, 3, rows, patch, cols, patch))
        grid += (lift * (bright - 0.5)).astype(np.float32)[:, None, :, None, :, None]
        self.bright = torch.from_numpy(bright)
        self.images = _to_images(grid)
        self.labels = torch.from_numpy(labels)


def _check_scene(rows: int, cols: int, *, reach: int, decoys: int) -> None:
    """Refuse a grid on which a ship `reach` patches away, or all decoys, would not fit."""
    if not 1 <= reach < min(rows, cols):
        most = min(rows, cols) - 1
        raise UserError(f"a grid of {rows} rows and {cols} columns has room for a reach of 1 to {most}, not {reach}")
    if not 0 <= decoys <= rows * cols - 2:
        raise UserError(f"a grid of {rows} × {cols} patches has room for {rows * cols - 2} decoys, not {decoys}")


def _balanced(random: np.random.RandomState, images: int, classes: int) -> np.ndarray:
    """Draw a label for each image, (n,) of int64, such that all classes are equally frequent, give or take one."""
    if images < 1:
        raise UserError(f"a made set needs at least one image, not {images}")
    return random.permutation(np.arange(images) % classes)


def _ring(distance: int) -> list[tuple[int, int]]:
    """List the offsets (row, column) whose larger part is `distance`."""
    span = range(-distance, distance + 1)
    return [(row, col) for row in span for col in span if max(abs(row), abs(col)) == distance]


def _scene(
    random: np.random.RandomState,
    offsets: np.ndarray,
    rows: int,
    cols: int,
    patch: int,
    decoys: int,
    noise: float,
    lift: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw lighthouse, ship at an offset (n, 2) from it, and decoys; return lighthouse and ship (n, 2), and images."""
    count = len(offsets)
    every = np.arange(count)
    size = np.array([rows, cols])
    # All places from which the ship is still inside are equally likely.
    lighthouse = np.maximum(-offsets, 0) + (random.random_sample((count, 2)) * (size - abs(offsets))).astype(np.int64)
    ship = lighthouse + offsets

    order = random.random_sample((count, rows * cols))
    for place in (lighthouse, ship):
        order[every, place[:, 0] * cols + place[:, 1]] = math.inf
    decoy_rows, decoy_cols = np.divmod(order.argsort(axis=1)[:, :decoys], cols)  # (n, decoys) each

    grid = _noise(random, noise, (count, 3, rows, patch, cols, patch))
    grid[every, RED, lighthouse[:, 0], :, lighthouse[:, 1]] += lift
    grid[every, GREEN, ship[:, 0], :, ship[:, 1]] += lift
    grid[every[:, None], BLUE, decoy_rows, :, decoy_cols] += lift
    return torch.from_numpy(lighthouse), torch.from_numpy(ship), _to_images(grid)


def _flip_evenly(random: np.random.RandomState, bright: np.ndarray, count: int) -> np.ndarray:
    """Flip `count` bright and `count` dark patches of each image (n, rows, cols), so that as many stay bright."""
    flat = bright.reshape(len(bright), -1).copy()
    order = random.random_sample(flat.shape)
    for value in (True, False):
        among = np.where(bright.reshape(flat.shape) == value, order, math.inf)
        np.put_along_axis(flat, among.argsort(axis=1)[:, :count], not value, axis=1)
    return flat.reshape(bright.shape)


def _noise(random: np.random.RandomState, deviation: float, shape: tuple[int, ...]) -> np.ndarray:
    """Draw Gaussian noise of float32, image by image: the stream gives float64, which need not all be there at once."""
    grid = np.empty(shape, dtype=np.float32)
    for image in grid:
        image[...] = deviation * random.standard_normal(shape[1:])
    return grid


def _to_images(grid: np.ndarray) -> Tensor:
    """Join patches (n, 3, rows, patch, cols, patch) to images (n, 3, height, width)."""
    count, channels, rows, patch, cols, _ = grid.shape
    return torch.from_numpy(grid.reshape(count, channels, rows * patch, cols * patch))
