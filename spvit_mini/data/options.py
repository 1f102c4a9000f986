"""Options of data and augmentation: plain dataclasses, built by recipes and offered by the command line (`--data.name`)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import UserError


@dataclass(frozen=True)
class DataOptions:
    """The dataset, how much of it is used, and how its images are loaded."""

    name: str = "compass"
    """Name of the dataset: compass, compass6, compass_easy, textures, textures6, rings or rings6 (synthetic); cifar10, cifar100,
    imagenet, imagenet100, imagenet100_first or tiny_imagenet; or any ImageFolder directory ROOT/NAME/{train,val}/CLASS/*.jpg
    ("folder" if ROOT itself is that directory)."""
    root: Path = Path("data")
    """Folder that contains the datasets."""
    image_size: int | None = None
    """Height and width of the images in pixels. None: the size of the dataset (synthetic datasets and CIFAR), otherwise 224."""
    eval_crop: float | None = None
    """Crop ratio of evaluation: fraction of the height and width of the resized image that the centre crop keeps. None: 0.875 if
    training uses random resized crops, otherwise 1."""
    train_images: int = 2000
    """Number of training images of a synthetic dataset; other datasets use all files."""
    val_images: int = 1000
    """Number of validation images of a synthetic dataset."""
    fraction: float = 1.0
    """Fraction of the training images of each class to train on, above 0 and at most 1; at least one image per class."""
    holdout: float = 0.0
    """Fraction of the training images of each class to validate on instead of the validation split, which is then not read: for
    tuning hyperparameters. `fraction` applies to the remaining images. 0 uses the validation split."""
    on_corrupt_image: Literal["error", "skip"] = "error"
    """What to do about a truncated or unreadable image file: "error" stops and names it; "skip" logs and counts it, and loads the
    next readable image instead."""
    workers: int = 0
    """Number of worker processes that load images; 0 loads them in the main process."""
    backend: Literal["pil", "tensor"] = "pil"
    """How training images are augmented. "pil": one at a time, with Pillow. "tensor": natural images are decoded and cropped as
    uint8 tensors, then flipped, normalised and erased on the device, one batch at a time; the random draws are those of "pil",
    and resized pixels differ by the rounding of the filter. CIFAR and synthetic datasets are cached on the device and augmented
    there, without workers (flip, shift and RandAugment only; other random draws). Most recorded results use "pil"."""
    download: bool = False
    """Download CIFAR if `root` does not contain it."""

    def __post_init__(self) -> None:
        is_valid = {
            "image_size": (self.image_size is None or self.image_size >= 1, "a number of pixels"),
            "fraction": (0 < self.fraction <= 1, "a number above 0 and at most 1"),
            "holdout": (0 <= self.holdout < 1, "a number of at least 0 and below 1"),
            "on_corrupt_image": (self.on_corrupt_image in ("error", "skip"), "error or skip"),
            "workers": (self.workers >= 0, "a number of processes, 0 or more"),
            "backend": (self.backend in ("pil", "tensor"), "pil or tensor"),
        }
        check_fields("data", self, is_valid)


@dataclass(frozen=True)
class AugmentOptions:
    """Augmentation of the training images; by default none. Synthetic datasets refuse it, because it changes their labels."""

    flip: bool = False
    """Flip images horizontally with probability 0.5."""
    crop: Literal["none", "shift", "resized"] = "none"
    """Cropping: "none" resizes the image and crops its centre; "shift" then translates it by up to 1/8 of its size, with
    reflection padding; "resized" is a random resized crop."""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest area of a random resized crop, as a fraction of the image."""
    randaugment: tuple[int, int] = (0, 9)
    """RandAugment: number of operations per image, and their magnitude (0 to 30); 0 operations switch it off."""
    randaugment_prob: float = 1.0
    """Probability of each RandAugment operation."""
    random_erasing_prob: float = 0.0
    """Probability of random erasing, which replaces a rectangle with noise."""
    colour: float = 0.0
    """Strength of random brightness, contrast and saturation (colour jitter); 0 switches it off."""
    mixup: float = 0.0
    """Parameter alpha of MixUp, which draws mixing weights from Beta(alpha, alpha); 0 switches it off."""
    cutmix: float = 0.0
    """Parameter alpha of CutMix, which pastes a rectangle of another image; 0 switches it off. If both are on, each batch uses
    MixUp or CutMix with equal probability."""
    mix_prob: float = 1.0
    """Probability that a batch is mixed."""
    repeats: int = 1
    """Repeated augmentation: number of views of each image in a batch. The number of steps per epoch stays the same, therefore an
    epoch uses 1/repeats of the images."""

    def __post_init__(self) -> None:
        (low, high), (operations, magnitude) = self.crop_scale, self.randaugment
        is_valid = {
            "crop": (self.crop in ("none", "shift", "resized"), "none, shift or resized"),
            "crop_scale": (0 < low <= high <= 1, "a smallest and a largest area, above 0 and at most 1"),
            "randaugment": (operations >= 0 and 0 <= magnitude <= 30, "a number of operations and a magnitude of 0 to 30"),
            "colour": (self.colour >= 0, "a number of at least 0"),
            "repeats": (self.repeats >= 1, "a number of views per image, at least 1"),
        }
        is_valid |= {name: (0 <= getattr(self, name) < math.inf, "a finite number of at least 0") for name in ("mixup", "cutmix")}
        for name in ("randaugment_prob", "random_erasing_prob", "mix_prob"):
            is_valid[name] = (0 <= getattr(self, name) <= 1, "a probability, from 0 to 1")
        check_fields("augment", self, is_valid)


def check_fields(section: str, options: object, is_valid: dict[str, tuple[bool, str]]) -> None:
    """Raise UserError for the first field of a section that is not valid: {name: (is it valid, what is expected)}."""
    for name, (valid, expected) in is_valid.items():
        if not valid:
            raise UserError(f"{section}.{name} is {getattr(options, name)!r}; expected {expected}".removeprefix("."))
