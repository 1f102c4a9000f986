"""What a user can choose about data: which set, how much of it, and how its training images are varied.

Plain dataclasses: recipes build them in Python, and the command line offers each field (`--data.name`,
`--augment.flip`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import UserError


@dataclass(frozen=True)
class DataOptions:
    """Which images to learn from, and where they are.

    Attributes:
        name: a made set (compass, compass6, compass_easy, textures, textures6, rings, rings6), cifar10, cifar100,
            imagenet, imagenet100, imagenet100_first, tiny_imagenet, or the name of any image tree
            ROOT/NAME/{train,val}/CLASS/*.jpg; "folder" if ROOT itself is the tree.
        root: the folder that holds the data sets.
        image_size: side of the images in pixels; if not given the set's own (made sets and CIFAR), else 224.
        eval_crop: the central part of a photograph, by side, that evaluation looks at; if not given 0.875 where
            training cuts out parts, else the whole.
        train_images: how many training images a made set has; other sets have what is in their folder.
        val_images: how many validation images a made set has.
        fraction: the part of each class's training images to learn from, above 0 and at most 1; at least one image a
            class.
        holdout: the part of each class's training images that is held out and validated on, in place of the set's own
            validation part, which is then not looked at: to choose options by. `fraction` is taken of the rest.
        on_corrupt_image: what to do about a file that is cut off or no image: "error" stops and names it, "skip" names it,
            counts it and goes on with another.
        workers: processes that prepare training images; 0 does it in the main process.
        backend: how training images are prepared. "pil": one by one, with Pillow. "tensor": photographs are decoded and
            cut out on uint8 tensors, then mirrored, normalised and erased on the device, a batch at a time: the same
            draws, and pixels that differ by the resizing filter's rounding. CIFAR is kept whole on the device and
            varied there (flip, shift and RandAugment only), made sets are kept there: other draws, no workers. Records
            were made on the plain way.
        download: fetch CIFAR from the network if it is not there.
    """

    name: str = "compass"
    root: Path = Path("data")
    image_size: int | None = None
    eval_crop: float | None = None
    train_images: int = 2000
    val_images: int = 1000
    fraction: float = 1.0
    holdout: float = 0.0
    on_corrupt_image: Literal["error", "skip"] = "error"
    workers: int = 0
    backend: Literal["pil", "tensor"] = "pil"
    download: bool = False


@dataclass(frozen=True)
class AugmentOptions:
    """How training images are varied; by default not at all. Made sets refuse it: it would change their answers.

    Attributes:
        flip: mirror every second image, left to right.
        crop: "none" shows the whole frame; "shift" moves it by up to an eighth of its size, mirrored at the border;
            "resized" cuts out a random part and resizes it.
        crop_scale: smallest and largest part of the area that "resized" cuts out.
        randaugment: RandAugment's number of operations and their magnitude (0 to 30); 0 operations switch it off.
        randaugment_prob: probability of each of these operations.
        random_erasing_prob: probability that a rectangle is replaced by noise.
        colour: strength of random brightness, contrast and saturation; 0 switches it off.
        mixup: both parameters of the Beta distribution from which MixUp draws how much of each of two images is kept; 0
            switches it off.
        cutmix: the same for CutMix, which puts a rectangle of one image into another. With both on, each batch takes
            one of them, either as likely.
        mix_prob: part of the batches that are mixed.
        repeats: repeated augmentation: how many views of an image come together. An epoch keeps its number of steps,
            so it sees 1/repeats of the images.
    """

    flip: bool = False
    crop: Literal["none", "shift", "resized"] = "none"
    crop_scale: tuple[float, float] = (0.08, 1.0)
    randaugment: tuple[int, int] = (0, 9)
    randaugment_prob: float = 1.0
    random_erasing_prob: float = 0.0
    colour: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_prob: float = 1.0
    repeats: int = 1

    def __post_init__(self) -> None:
        for name in ("mixup", "cutmix"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"augment.{name} is {getattr(self, name)}; it must be at least 0, which switches it off")
        if not 0 <= self.mix_prob <= 1:
            raise UserError(f"augment.mix_prob is a probability, from 0 to 1, not {self.mix_prob}")
        if self.repeats < 1:
            raise UserError(f"augment.repeats is a number of views of each image, at least 1, not {self.repeats}")
