"""Small sets on the fast way: all images stay on the device, as uint8, and a batch is cut out of them and varied there.

What is done to an image is a function of (seed, epoch, image, copy), as on the plain way, but drawn for a whole epoch at
once, and so other numbers. With the same numbers the pixels are the same, bit for bit on a CPU (tests/data/test_kept.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from ..errors import UserError
from .augment import Preprocessing, check
from .options import AugmentOptions
from .sampler import Key
from .seeding import stream
from .tensor_backend import normalised

# RandAugment's operations, as torchvision has them; those of SIGNED go either way.
OPERATIONS = (
    "Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast", "Sharpness",
    "Posterize", "Solarize", "AutoContrast", "Equalize",
)  # fmt: skip
SIGNED = OPERATIONS[1:10]


class Group(NamedTuple):
    """Name the images of a batch to which one of RandAugment's operations is done, with +1 or −1 for its direction."""

    operation: str
    sign: int
    places: Tensor


class Drawn(NamedTuple):
    """Say which images make a batch, and what is done to them.

    Attributes:
        index: (B,), which images.
        mirror: (B,), whether they are mirrored.
        corner: (B, 2), top and left of what is seen, in the image with its margin.
        rounds: for each round of RandAugment its groups, which share no image.
    """

    index: Tensor
    mirror: Tensor
    corner: Tensor
    rounds: list[list[Group]]


class Kept:
    """Hold the images of a small set where the model is.

    Args:
        source: has `images`, (n, 3, height, width), uint8 or, not to be varied, float32; and `labels`.
        augment: flip, crop "shift" and RandAugment can be had here.
        preprocessing: as for the plain way.
        seed: decides all draws.

    Raises UserError for other augmentation, and for another size than the images have.
    """

    def __init__(self, source, augment: AugmentOptions, preprocessing: Preprocessing, *, seed: int) -> None:
        check(augment)
        size = tuple(source.images.shape[-2:])
        cure = "take --data.backend pil"
        wanted = {"erasing": augment.random_erasing_prob, "colour": augment.colour, "crop resized": augment.crop == "resized"}
        for name, there in wanted.items():
            if there:
                raise UserError(f"a set that is kept on the device cannot have augment.{name}; {cure}")
        if size != preprocessing.image_size:
            raise UserError(f"a set that is kept on the device has its own size, {size[0]} × {size[1]} pixels; {cure}")
        self.source, self.labels, self.images = source, source.labels, source.images
        self.augment, self.preprocessing, self.seed = augment, preprocessing, seed
        # Which row (column) of the image stands at each row (column) of the image with its margin, a mirror image.
        margins = [side // 8 if augment.crop == "shift" else 0 for side in size]
        self.places = [torch.from_numpy(np.pad(np.arange(s), m, mode="reflect")) for s, m in zip(size, margins, strict=True)]
        self.corners = np.array([2 * margin + 1 for margin in margins])
        self.numbers: dict[tuple[int, int], np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, order: Iterable[list[Key]], **_) -> Iterator[list]:
        """Draw batch after batch in an order: `Drawn` and labels. Options of a loader do nothing here."""
        for keys in order:
            yield [self.drawn(keys), self.labels[[key.index for key in keys]]]

    def drawn(self, keys: list[Key]) -> Drawn:
        """Say what is done to the images that keys name."""
        numbers = np.stack([self._numbers(key.epoch, key.copy)[key.index] for key in keys])  # (B, 3 + 3 · operations)
        mirror = numbers[:, 0] < 0.5 * self.augment.flip
        corner = (numbers[:, 1:3] * self.corners).astype(np.int64)
        rounds = [self._groups(*columns) for columns in numbers[:, 3:].reshape(len(keys), -1, 3).transpose(1, 2, 0)]
        return Drawn(*map(torch.as_tensor, ([key.index for key in keys], mirror, corner)), rounds)

    def _groups(self, chance: np.ndarray, which: np.ndarray, direction: np.ndarray) -> list[Group]:
        """Put the images of a batch into groups by what a round of RandAugment does to them, from three numbers of each."""
        done = np.where(chance < self.augment.randaugment_prob, (which * len(OPERATIONS)).astype(np.int64), 0)
        signs = np.where((direction < 0.5) & np.isin(done, [OPERATIONS.index(name) for name in SIGNED]), -1, 1)
        groups = []
        for number, sign in sorted(set(zip(done.tolist(), signs.tolist(), strict=True))):
            places = torch.from_numpy(np.flatnonzero((done == number) & (signs == sign)))
            groups.append(Group(OPERATIONS[number], sign, places))
        return groups

    def finish(self, drawn: Drawn, device: torch.device) -> Tensor:
        """Make a batch, (B, 3, height, width) of float32, on a device, to which the images move with the first one."""
        if self.images.device != device:
            self.images = self.images.to(device)
            self.places = [places.to(device) for places in self.places]
        index, mirror, corner = (tensor.to(device, non_blocking=True) for tensor in drawn[:3])
        if self.images.is_floating_point():
            return self.images[index]
        rows, columns = (torch.arange(side, device=device) for side in self.images.shape[-2:])
        columns = torch.where(mirror[:, None], columns.flip(0), columns)  # (B, width)
        rows, columns = self.places[0][corner[:, :1] + rows], self.places[1][corner[:, 1:] + columns]
        channels = torch.arange(3, device=device)[:, None, None]
        images = self.images[index[:, None, None, None], channels, rows[:, None, :, None], columns[:, None, None, :]]
        fill = [round(255 * value) for value in self.preprocessing.mean]
        for groups in drawn.rounds:
            for operation, sign, places in groups:
                if operation == OPERATIONS[0]:
                    continue
                places = places.to(device, non_blocking=True)
                images[places] = operate(images[places], operation, sign, self.augment.randaugment[1], fill=fill)
        return normalised(images, self.preprocessing)

    def _numbers(self, epoch: int, copy: int) -> np.ndarray:
        """Draw the numbers of an epoch, (n, 3 + 3 · operations) in [0, 1); those of the epoch before are forgotten."""
        if (epoch, copy) not in self.numbers:
            self.numbers = {key: numbers for key, numbers in self.numbers.items() if key[0] == epoch}
            shape = len(self), 3 + 3 * self.augment.randaugment[0]
            self.numbers[epoch, copy] = stream("kept images", self.seed, epoch, copy).random_sample(shape)
        return self.numbers[epoch, copy]


def operate(images: Tensor, operation: str, sign: int, magnitude: int, *, fill: list[int]) -> Tensor:
    """Do one of RandAugment's operations to images (B, 3, height, width), uint8, at a magnitude from 0 to 30.

    The ranges are torchvision's, in its arithmetic: a last bit decides how a pixel is rounded.
    """
    height, width = images.shape[-2:]

    def level(most: float) -> float:
        return sign * float(torch.linspace(0.0, most, 31)[magnitude])

    def moved(*, shear: tuple[float, float] = (0.0, 0.0), shift: tuple[int, int] = (0, 0), centre=None) -> Tensor:
        return functional.affine(images, 0.0, list(shift), 1.0, list(shear), fill=fill, center=centre)

    match operation:
        case "ShearX":
            return moved(shear=(math.degrees(math.atan(level(0.3))), 0.0), centre=[0, 0])
        case "ShearY":
            return moved(shear=(0.0, math.degrees(math.atan(level(0.3)))), centre=[0, 0])
        case "TranslateX":
            return moved(shift=(int(level(150 / 331 * width)), 0))
        case "TranslateY":
            return moved(shift=(0, int(level(150 / 331 * height))))
        case "Rotate":
            return functional.rotate(images, level(30.0), fill=fill)
        case "Brightness":
            return functional.adjust_brightness(images, 1 + level(0.9))
        case "Color":
            return functional.adjust_saturation(images, 1 + level(0.9))
        case "Contrast":
            return functional.adjust_contrast(images, 1 + level(0.9))
        case "Sharpness":
            return functional.adjust_sharpness(images, 1 + level(0.9))
        case "Posterize":
            return functional.posterize(images, round(8 - magnitude / 7.5))
        case "Solarize":
            return functional.solarize(images, 255 * float(torch.linspace(1.0, 0.0, 31)[magnitude]))
        case "AutoContrast":
            return functional.autocontrast(images)
        case "Equalize":
            return functional.equalize(images)
    return images
