"""From an image to a model's input: the fixed way of evaluation, and the varied way of training.

`Preprocessing` is what a model must be told about its input, and travels with its weights. Both transforms take a PIL
image of any mode or a tensor (3, height, width), uint8 in 0..255 or float32, and give float32 (3, height, width),
normalised.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional

from ..errors import UserError
from .options import AugmentOptions

Transform = Callable[[Image.Image | Tensor], Tensor]

# Pillow's modes of 32-bit integers and floats.
UNKNOWN_RANGE = ("I", "F")
INTERPOLATIONS = {mode.value: mode for mode in (InterpolationMode.BICUBIC, InterpolationMode.BILINEAR)}


@dataclass(frozen=True)
class Preprocessing:
    """Describe how images are brought to a model's input.

    Attributes:
        image_size: (height, width) in pixels.
        mean: mean of red, green and blue, in units of the full range; ImageNet's if not given.
        std: standard deviation likewise.
        crop: the central part of the frame, by side, that evaluation looks at.
        interpolation: how images are resized, "bicubic" or "bilinear".
    """

    image_size: tuple[int, int]
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    crop: float = 1.0
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        for name, kind in (("image_size", int), ("mean", float), ("std", float)):
            object.__setattr__(self, name, tuple(kind(value) for value in getattr(self, name)))
        if len(self.image_size) != 2 or min(self.image_size) < 1:
            raise UserError(f"image_size must be (height, width) in pixels, not {self.image_size}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise UserError(f"mean and std must be three numbers each, std above 0, not {self.mean} and {self.std}")
        if not 0 < self.crop <= 1:
            raise UserError(f"crop is a part of the frame's side, above 0 and at most 1, not {self.crop}")
        if self.interpolation not in INTERPOLATIONS:
            raise UserError(f"interpolation must be one of {', '.join(INTERPOLATIONS)}, not {self.interpolation!r}")

    def to_json(self) -> str:
        """Write all fields as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Preprocessing:
        """Read what `to_json` wrote. Raises UserError for anything else."""
        try:
            return cls(**json.loads(text))
        except UserError:
            raise
        except (TypeError, ValueError) as error:
            raise UserError(f"this is no description of a preprocessing: {text[:80]!r} ({error})") from None


def as_rgb(image: Image.Image | Tensor) -> Image.Image | Tensor:
    """Convert a PIL image of any mode to RGB, and leave a tensor as it is.

    Raises UserError for modes that don't say which value is white: 32-bit integers and floats.
    """
    if isinstance(image, Tensor) or image.mode == "RGB":
        return image
    if image.mode.startswith("I;16"):
        # Pillow would clip everything above 255 to white.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in UNKNOWN_RANGE:
        raise UserError(f"an image of mode {image.mode} does not say which value is white; convert it to 8 bits first")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


class Fit:
    """Resize an image, keeping its shape, to the smallest size that covers a frame, and cut out the frame's centre.

    A frame of `size` / `crop` is covered, and its central `size` is kept.
    """

    def __init__(self, size: tuple[int, int], *, crop: float, interpolation: InterpolationMode) -> None:
        self.size, self.crop, self.interpolation = size, crop, interpolation

    def __call__(self, image: Image.Image | Tensor) -> Image.Image | Tensor:
        height, width = image.shape[-2:] if isinstance(image, Tensor) else (image.height, image.width)
        if self.crop == 1 and (height, width) == self.size:
            return image
        scale = max(self.size[0] / self.crop / height, self.size[1] / self.crop / width)
        resized = [max(side, round(scale * old)) for side, old in zip(self.size, (height, width), strict=True)]
        image = functional.resize(image, resized, interpolation=self.interpolation, antialias=True)
        return functional.center_crop(image, list(self.size))


class ToInput:
    """Turn an image into a float32 tensor (3, height, width), from 0..255 (PIL, uint8) to 0..1, and normalise it.

    v2.ToImage, ToDtype and Normalize do the same in four times the time, which counts for small images.
    """

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.mean = torch.tensor(preprocessing.mean)[:, None, None]
        self.std = torch.tensor(preprocessing.std)[:, None, None]

    def __call__(self, image: Image.Image | Tensor) -> Tensor:
        if not isinstance(image, Tensor):
            image = functional.pil_to_tensor(image)
        white = 255 if image.dtype == torch.uint8 else 1
        return (image / white).sub_(self.mean).div_(self.std)


def _fit(preprocessing: Preprocessing, crop: float) -> Fit:
    return Fit(preprocessing.image_size, crop=crop, interpolation=INTERPOLATIONS[preprocessing.interpolation])


def evaluation_transform(preprocessing: Preprocessing) -> Transform:
    """Make the transform that is used to evaluate: resize, cut out the centre, normalise. It has no randomness."""
    return v2.Compose([as_rgb, _fit(preprocessing, preprocessing.crop), ToInput(preprocessing)])


def training_transform(options: AugmentOptions, preprocessing: Preprocessing) -> Transform:
    """Make the transform that is used to train; it draws from torch's global generator.

    Cropping, mirroring, RandAugment and colour come before the normalisation, erasing after it, as in DeiT's recipe.
    Raises UserError for options out of range.
    """
    _check(options)
    size = preprocessing.image_size
    steps: list[Callable] = [as_rgb]
    if options.crop == "resized":
        interpolation = INTERPOLATIONS[preprocessing.interpolation]
        steps += [v2.RandomResizedCrop(size, options.crop_scale, interpolation=interpolation, antialias=True)]
    else:
        steps += [_fit(preprocessing, 1.0)]
    if options.crop == "shift":
        padding = [size[1] // 8, size[0] // 8]
        steps += [v2.RandomCrop(size, padding=padding, padding_mode="reflect")]
    if options.flip:
        steps += [v2.RandomHorizontalFlip()]
    operations, magnitude = options.randaugment
    if operations:
        # Where an operation uncovers a corner, it is filled with the mean colour, which is 0 once normalised.
        steps += [v2.RandAugment(operations, magnitude, fill=[round(255 * value) for value in preprocessing.mean])]
    if options.colour:
        steps += [v2.ColorJitter(options.colour, options.colour, options.colour)]
    steps += [ToInput(preprocessing)]
    if options.erasing:
        steps += [v2.RandomErasing(options.erasing, value="random")]
    return v2.Compose(steps)


def _check(options: AugmentOptions) -> None:
    """Refuse augmentation options that are out of range."""
    if options.crop not in ("none", "shift", "resized"):
        raise UserError(f"augment.crop must be none, shift or resized, not {options.crop!r}")
    low, high = options.crop_scale
    if not 0 < low <= high <= 1:
        wanted = "a smallest and a largest part of the area, above 0 and at most 1"
        raise UserError(f"augment.crop_scale is {wanted}, not {low} and {high}")
    operations, magnitude = options.randaugment
    if operations < 0 or not 0 <= magnitude <= 30:
        wanted = "a number of operations and a magnitude of 0 to 30"
        raise UserError(f"augment.randaugment is {wanted}, not {operations} and {magnitude}")
    if not 0 <= options.erasing <= 1:
        raise UserError(f"augment.erasing is a probability, from 0 to 1, not {options.erasing}")
    if options.colour < 0:
        raise UserError(f"augment.colour must not be negative: {options.colour}")
