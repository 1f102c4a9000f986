"""Options of data and augmentation: plain dataclasses, built by recipes and offered by the command line (`--data.name`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from ..errors import UserError
from ..fields import BelowOne, Count, CropRatio, Fraction, NonNegative, Pixels, Range, Share, Workers, check_fields


@dataclass(frozen=True)
class DataOptions:
    """The dataset, how much of it is used, and how its images are loaded."""

    name: str = "compass"
    """Name of the dataset: compass, compass6, compass_easy, textures, textures6, rings or rings6 (synthetic); cifar10, cifar100,
    imagenet, imagenet100, imagenet100_first or tiny_imagenet; or any ImageFolder directory ROOT/NAME/{train,val}/CLASS/*.jpg
    ("folder" if ROOT itself is that directory)."""
    root: Path = Path("data")
    """Folder that contains the datasets."""
    image_size: Pixels | None = None
    """Height and width of the images in pixels. None: the size of the dataset (synthetic datasets and CIFAR), otherwise 224."""
    eval_crop: CropRatio | None = None
    """Crop ratio of evaluation: fraction of the height and width of the resized image that the centre crop keeps. None: 0.875 if
    training uses random resized crops, otherwise 1."""
    train_images: Count = 2000
    """Number of training images of a synthetic dataset; other datasets use all files."""
    val_images: Count = 1000
    """Number of validation images of a synthetic dataset."""
    fraction: Fraction = 1.0
    """Fraction of the training images of each class to train on, above 0 and at most 1; at least one image per class."""
    holdout: BelowOne = 0.0
    """Fraction of the training images of each class to validate on instead of the validation split, which is then not read: for
    tuning hyperparameters. `fraction` applies to the remaining images. 0 uses the validation split."""
    on_corrupt_image: Literal["error", "skip"] = "error"
    """What to do about a truncated or unreadable image file: "error" stops and names it; "skip" logs and counts it, and loads the
    next readable image instead."""
    workers: Workers = 0
    """Number of worker processes that load images; 0 loads them in the main process."""
    backend: Literal["pil", "tensor"] = "pil"
    """How training images are augmented. "pil": one at a time, with Pillow. "tensor": natural images are decoded and cropped as
    uint8 tensors, then flipped, normalised and erased on the device, one batch at a time; the random draws are those of "pil",
    and resized pixels differ by the rounding of the filter. CIFAR and synthetic datasets are cached on the device and augmented
    there, without workers (flip, shift and RandAugment only; other random draws). Most recorded results use "pil"."""
    download: bool = False
    """Download CIFAR if `root` does not contain it."""

    def __post_init__(self) -> None:
        check_fields(self, "data.")


@dataclass(frozen=True)
class AugmentOptions:
    """Augmentation of the training images; by default none. Synthetic datasets refuse it, because it changes their labels."""

    flip: bool = False
    """Flip images horizontally with probability 0.5."""
    crop: Literal["none", "shift", "resized"] = "none"
    """Cropping: "none" resizes the image and crops its centre; "shift" then translates it by up to 1/8 of its size, with
    reflection padding; "resized" is a random resized crop."""
    crop_scale: tuple[Fraction, Fraction] = (0.08, 1.0)
    """Smallest and largest area of a random resized crop, as a fraction of the image."""
    randaugment: tuple[Annotated[int, Range(0, 100)], Annotated[int, Range(0, 30)]] = (0, 9)
    """RandAugment: number of operations per image, and their magnitude (0 to 30); 0 operations switch it off."""
    randaugment_prob: Share = 1.0
    """Probability of each RandAugment operation."""
    random_erasing_prob: Share = 0.0
    """Probability of random erasing, which replaces a rectangle with noise."""
    colour: Annotated[float, Range(0, 10)] = 0.0
    """Strength of random brightness, contrast and saturation (colour jitter); 0 switches it off."""
    mixup: NonNegative = 0.0
    """Parameter alpha of MixUp, which draws mixing weights from Beta(alpha, alpha); 0 switches it off."""
    cutmix: NonNegative = 0.0
    """Parameter alpha of CutMix, which pastes a rectangle of another image; 0 switches it off. If both are on, each batch uses
    MixUp or CutMix with equal probability."""
    mix_prob: Share = 1.0
    """Probability that a batch is mixed."""
    repeats: Count = 1
    """Repeated augmentation: number of views of each image in a batch. The number of steps per epoch stays the same, therefore an
    epoch uses 1/repeats of the images."""

    def __post_init__(self) -> None:
        check_fields(self, "augment.")
        if self.crop_scale[0] > self.crop_scale[1]:
            raise UserError(f"augment.crop_scale is {self.crop_scale}; expected the smaller area first")
