"""The tensor backend of small datasets: all images stay on the device, as uint8, where each batch is gathered and augmented.

The augmentation of an image is a function of (seed, epoch, index, copy), as in the PIL backend, but drawn for a whole epoch
at once, and therefore from other random numbers. Equal numbers give equal pixels, bit for bit on a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from .device_transform import normalize_batch
from .options import AugmentOptions
from .preprocessing import Preprocessing
from .sampler import Key
from .seeding import make_random_state

# The operations of torchvision's RandAugment; those of SIGNED have a direction.
OPERATIONS = (
    "Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast", "Sharpness",
    "Posterize", "Solarize", "AutoContrast", "Equalize",
)  # fmt: skip
SIGNED = OPERATIONS[1:10]


class OperationGroup(NamedTuple):
    """List the images of a batch that get one RandAugment operation, with +1 or −1 for its direction."""

    operation: str
    sign: int
    rows: Tensor  # indices into the batch


class BatchParams(NamedTuple):
    """Hold the images of a batch and the parameters of their augmentation."""

    indices: Tensor  # (B,), which images
    flip: Tensor  # (B,), whether they are flipped horizontally
    corner: Tensor  # (B, 2), top and left of the crop, in the padded image
    rounds: list[list[OperationGroup]]  # the groups of each round of RandAugment, which share no image


class CachedImages:
    """Hold the images of a small dataset on the device.

    Args:
        source: has `images`, (n, 3, height, width), uint8 or (without augmentation) float32; and `labels`.
        augment: flip, crop "shift" and RandAugment.
        preprocessing: as for the PIL backend.
        seed: seed of all draws.

    Raises UserError for other augmentation, and for another image size.
    """

    def __init__(self, source, augment: AugmentOptions, preprocessing: Preprocessing, *, seed: int) -> None:
        size = tuple(source.images.shape[-2:])
        fix = "; use --data.backend pil"
        for name in ("random_erasing_prob", "colour"):
            if value := getattr(augment, name):
                raise UserError(f"augment.{name} is {value}; expected 0 for a dataset that is cached on the device{fix}")
        if augment.crop == "resized":
            raise UserError(f"augment.crop is resized; expected none or shift for a dataset that is cached on the device{fix}")
        if size != preprocessing.image_size:
            got = "{} × {}".format(*preprocessing.image_size)
            own = f"{size[0]} × {size[1]} pixels, the size of the cached images"
            raise UserError(f"the image size is {got}; expected {own}{fix}")
        self.source, self.labels, self.images = source, source.labels, source.images
        self.augment, self.preprocessing, self.seed = augment, preprocessing, seed
        # The row (column) of the image at each row (column) of the image with reflection padding.
        padding = [side // 8 if augment.crop == "shift" else 0 for side in size]
        self.padded = [torch.from_numpy(np.pad(np.arange(s), p, mode="reflect")) for s, p in zip(size, padding, strict=True)]
        self.corners = np.array([2 * p + 1 for p in padding])
        self.numbers: dict[tuple[int, int], np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.labels)

    def load_batches(self, order: Iterable[list[Key]], **_) -> Iterator[list]:
        """Yield `BatchParams` and labels in an order. Options of a DataLoader have no effect."""
        for keys in order:
            yield [self.draw_params(keys), self.labels[[key.index for key in keys]]]

    def draw_params(self, keys: list[Key]) -> BatchParams:
        """Draw the augmentation of the images of a batch."""
        numbers = np.stack([self._draw_epoch(key.epoch, key.copy)[key.index] for key in keys])  # (B, 3 + 3 · operations)
        flip = numbers[:, 0] < 0.5 * self.augment.flip
        corner = (numbers[:, 1:3] * self.corners).astype(np.int64)
        rounds = [self._group_images(*columns) for columns in numbers[:, 3:].reshape(len(keys), -1, 3).transpose(1, 2, 0)]
        indices = torch.tensor([key.index for key in keys])
        return BatchParams(indices, torch.from_numpy(flip), torch.from_numpy(corner), rounds)

    def _group_images(self, chance: np.ndarray, choice: np.ndarray, direction: np.ndarray) -> list[OperationGroup]:
        """Group the images of a batch by their operation in a round of RandAugment, given three random numbers per image."""
        operation = np.where(chance < self.augment.randaugment_prob, (choice * len(OPERATIONS)).astype(np.int64), 0)
        signs = np.where((direction < 0.5) & np.isin(operation, [OPERATIONS.index(name) for name in SIGNED]), -1, 1)
        groups = []
        for number, sign in sorted(set(zip(operation.tolist(), signs.tolist(), strict=True))):
            rows = torch.from_numpy(np.flatnonzero((operation == number) & (signs == sign)))
            groups.append(OperationGroup(OPERATIONS[number], sign, rows))
        return groups

    def to_device(self, params: BatchParams, device: torch.device) -> Tensor:
        """Make a batch, float32 (B, 3, height, width), on a device. The first batch moves all images there."""
        if self.images.device != device:
            self.images = self.images.to(device)
            self.padded = [padded.to(device) for padded in self.padded]
        indices, flip, corner = (tensor.to(device, non_blocking=True) for tensor in params[:3])
        if self.images.is_floating_point():
            return self.images[indices]
        rows, columns = (torch.arange(side, device=device) for side in self.images.shape[-2:])
        columns = torch.where(flip[:, None], columns.flip(0), columns)  # (B, width)
        rows, columns = self.padded[0][corner[:, :1] + rows], self.padded[1][corner[:, 1:] + columns]
        channels = torch.arange(3, device=device)[:, None, None]
        images = self.images[indices[:, None, None, None], channels, rows[:, None, :, None], columns[:, None, None, :]]
        fill = [round(255 * value) for value in self.preprocessing.mean]
        for groups in params.rounds:
            for operation, sign, rows in groups:
                if operation != "Identity":
                    rows = rows.to(device, non_blocking=True)
                    images[rows] = apply_operation(images[rows], operation, sign, self.augment.randaugment[1], fill=fill)
        return normalize_batch(images, self.preprocessing)

    def _draw_epoch(self, epoch: int, copy: int) -> np.ndarray:
        """Draw the random numbers of an epoch, (n, 3 + 3 · operations) in [0, 1), and drop those of other epochs."""
        if (epoch, copy) not in self.numbers:
            self.numbers = {key: numbers for key, numbers in self.numbers.items() if key[0] == epoch}
            shape = len(self), 3 + 3 * self.augment.randaugment[0]
            self.numbers[epoch, copy] = make_random_state("kept images", self.seed, epoch, copy).random_sample(shape)
        return self.numbers[epoch, copy]


def apply_operation(images: Tensor, operation: str, sign: int, magnitude: int, *, fill: list[int]) -> Tensor:
    """Apply a RandAugment operation to images (B, 3, height, width), uint8, at a magnitude from 0 to 30.

    Ranges and arithmetic are those of torchvision: the last bit can decide how a pixel is rounded.
    """
    from torchvision.transforms.v2 import functional  # here, because it is slow to import

    height, width = images.shape[-2:]

    def level(most: float) -> float:
        return sign * float(torch.linspace(0.0, most, 31)[magnitude])

    def affine(*, shear: tuple[float, float] = (0.0, 0.0), shift: tuple[int, int] = (0, 0), center=None) -> Tensor:
        return functional.affine(images, 0.0, list(shift), 1.0, list(shear), fill=fill, center=center)

    operations = {
        "Identity": lambda: images,
        "ShearX": lambda: affine(shear=(math.degrees(math.atan(level(0.3))), 0.0), center=[0, 0]),
        "ShearY": lambda: affine(shear=(0.0, math.degrees(math.atan(level(0.3)))), center=[0, 0]),
        "TranslateX": lambda: affine(shift=(int(level(150 / 331 * width)), 0)),
        "TranslateY": lambda: affine(shift=(0, int(level(150 / 331 * height)))),
        "Rotate": lambda: functional.rotate(images, level(30.0), fill=fill),
        "Brightness": lambda: functional.adjust_brightness(images, 1 + level(0.9)),
        "Color": lambda: functional.adjust_saturation(images, 1 + level(0.9)),
        "Contrast": lambda: functional.adjust_contrast(images, 1 + level(0.9)),
        "Sharpness": lambda: functional.adjust_sharpness(images, 1 + level(0.9)),
        "Posterize": lambda: functional.posterize(images, round(8 - magnitude / 7.5)),
        "Solarize": lambda: functional.solarize(images, 255 * float(torch.linspace(1.0, 0.0, 31)[magnitude])),
        "AutoContrast": lambda: functional.autocontrast(images),
        "Equalize": lambda: functional.equalize(images),
    }
    return operations[operation]()
