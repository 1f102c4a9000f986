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
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional

from ..errors import UserError
from .options import AugmentOptions

Transform = Callable[[Image.Image | Tensor], Tensor]
Box = tuple[float, float, float, float]  # top, left, bottom, right, as parts of the image's height and width

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


def size_of(image: Image.Image | Tensor) -> tuple[int, int]:
    """Give height and width in pixels."""
    return tuple(image.shape[-2:]) if isinstance(image, Tensor) else (image.height, image.width)


def box_of(top: int, left: int, height: int, width: int, *, of: tuple[int, int]) -> Box:
    """Turn a rectangle of pixels into parts of an image of a height and a width."""
    return top / of[0], left / of[1], (top + height) / of[0], (left + width) / of[1]


class Fit:
    """Resize an image, keeping its shape, to the smallest size that covers a frame, and cut out the frame's centre.

    A frame of `size` / `crop` is covered, and its central `size` is kept.
    """

    def __init__(self, size: tuple[int, int], *, crop: float, interpolation: InterpolationMode) -> None:
        self.size, self.crop, self.interpolation = size, crop, interpolation

    def __call__(self, image: Image.Image | Tensor) -> Image.Image | Tensor:
        height, width = size_of(image)
        if self.crop == 1 and (height, width) == self.size:
            return image
        image = functional.resize(image, self._resized(height, width), interpolation=self.interpolation, antialias=True)
        return functional.center_crop(image, list(self.size))

    def seen(self, image: Image.Image | Tensor) -> tuple[Image.Image | Tensor, Box]:
        """Fit an image, and say which part of it is left."""
        sides = self._resized(*size_of(image))
        top, left = (round((side - kept) / 2) for side, kept in zip(sides, self.size, strict=True))
        return self(image), box_of(top, left, *self.size, of=sides)

    def _resized(self, height: int, width: int) -> list[int]:
        scale = max(self.size[0] / self.crop / height, self.size[1] / self.crop / width)
        return [max(side, round(scale * old)) for side, old in zip(self.size, (height, width), strict=True)]


class CutOut(v2.RandomResizedCrop):
    """Cut out a random part of an image and resize it, as torchvision does, and say which part it was."""

    def seen(self, image: Image.Image | Tensor) -> tuple[Image.Image | Tensor, Box]:
        cut = self.make_params([image])
        return self.transform(image, cut), box_of(**cut, of=size_of(image))

    def transform(self, image: Image.Image | Tensor, cut: dict[str, int]) -> Image.Image | Tensor:
        """Cut out a part and resize it; a batch of one, channels last, as such: torchvision would rearrange it in memory."""
        if isinstance(image, Tensor) and image.dim() == 4:
            part = functional.crop(image, **cut)
            return F.interpolate(part, size=self.size, mode=self.interpolation.value, antialias=True)
        return super().transform(image, cut)


class ToInput:
    """Turn an image into a float32 tensor (3, height, width), from 0..255 (PIL, uint8) to 0..1, and normalise it.

    v2.ToImage, ToDtype and Normalize do the same in four times the time, which counts for small images.
    """

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.mean = torch.tensor(preprocessing.mean)[:, None, None]
        self.std = torch.tensor(preprocessing.std)[:, None, None]

    def __call__(self, image: Image.Image | Tensor) -> Tensor:
        if not isinstance(image, Tensor):
            # Pillow's pixels lie channel by channel of a place; the arithmetic is five times as fast in planes.
            image = functional.pil_to_tensor(image).contiguous()
        white = 255 if image.dtype == torch.uint8 else 1
        return (image / white).sub_(self.mean).div_(self.std)


def _fit(preprocessing: Preprocessing, crop: float) -> Fit:
    return Fit(preprocessing.image_size, crop=crop, interpolation=INTERPOLATIONS[preprocessing.interpolation])


def evaluation_transform(preprocessing: Preprocessing) -> Transform:
    """Make the transform that is used to evaluate: resize, cut out the centre, normalise. It has no randomness."""
    return v2.Compose([as_rgb, _fit(preprocessing, preprocessing.crop), ToInput(preprocessing)])


class Erasing(v2.RandomErasing):
    """Replace a rectangle by noise, sometimes, as torchvision does, or say which rectangle and by what."""

    def drawn(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Draw what a call would: the rectangle's top, left, height and width, and its noise, flat. All 0 if there is none."""
        if torch.rand(1) < self.p:
            cut = self.make_params([image])
            if cut["v"] is not None:
                return torch.tensor([cut[name] for name in "ijhw"]), cut["v"].flatten()
        return torch.zeros(4, dtype=torch.int64), torch.zeros(0)


class Varied:
    """Vary an image: which part of it is seen, mirrored or not, then how that looks.

    `viewed` also says where the part lies, for labels that have a place. What comes after the mirroring is not in it:
    RandAugment may still shear, shift or turn the image (at magnitude 27, as in published recipes, by a slope of 0.27, by
    41 % of a side, by 27°), and then shows in a patch what lay many patches away.

    Args:
        frame: cuts out the part.
        shift: moves it, or None.
        flip: whether every second image is mirrored.
        looks: change how the image looks, with the chance that each of them does.
        erasing: probability that a rectangle is replaced by noise.
        preprocessing: how the image becomes a model's input.
    """

    def __init__(
        self,
        frame: Fit | CutOut,
        shift: v2.RandomCrop | None,
        *,
        flip: bool,
        looks: list[tuple[Callable, float]],
        erasing: float,
        preprocessing: Preprocessing,
    ) -> None:
        self.frame, self.shift, self.flip, self.looks = frame, shift, flip, looks
        self.erasing = Erasing(erasing, value="random") if erasing else None
        self.preprocessing, self.to_input = preprocessing, ToInput(preprocessing)

    def __call__(self, image: Image.Image | Tensor) -> Tensor:
        return self.viewed(image)[0]

    def viewed(self, image: Image.Image | Tensor) -> tuple[Tensor, Box, bool]:
        """Give the varied image, the part of the image that it shows before any shift, and whether it is mirrored."""
        image, box, mirrored = self.framed(image)
        image = self.to_input(self.looked(functional.horizontal_flip(image) if mirrored else image))
        return image if self.erasing is None else self.erasing(image), box, mirrored

    def framed(self, image: Image.Image | Tensor) -> tuple[Image.Image | Tensor, Box, bool]:
        """Give the part that is seen, where it lies before any shift, and whether it is to be mirrored."""
        image, box = self.frame.seen(as_rgb(image))
        if self.shift is not None:
            image = self.shift(image)
        return image, box, self.flip and torch.rand(1).item() < 0.5

    def looked(self, image: Image.Image | Tensor) -> Image.Image | Tensor:
        """Change how an image looks."""
        for look, chance in self.looks:
            if chance == 1 or torch.rand(1) < chance:
                image = look(image)
        return image


def training_transform(options: AugmentOptions, preprocessing: Preprocessing, *, kind: type[Varied] = Varied) -> Varied:
    """Make the transform that is used to train; it draws from torch's global generator.

    Cropping, mirroring, RandAugment and colour come before the normalisation, erasing after it, as in DeiT's recipe.
    Raises UserError for options out of range.
    """
    check(options)
    size = preprocessing.image_size
    frame = _fit(preprocessing, 1.0)
    if options.crop == "resized":
        interpolation = INTERPOLATIONS[preprocessing.interpolation]
        frame = CutOut(size, options.crop_scale, interpolation=interpolation, antialias=True)
    shift = None
    if options.crop == "shift":
        shift = v2.RandomCrop(size, padding=[size[1] // 8, size[0] // 8], padding_mode="reflect")
    operations, magnitude = options.randaugment
    # Where an operation uncovers a corner, it is filled with the mean colour, which is 0 once normalised.
    one = v2.RandAugment(1, magnitude, fill=[round(255 * value) for value in preprocessing.mean])
    looks: list[tuple[Callable, float]] = [(one, options.randaugment_prob)] * operations
    if options.colour:
        looks += [(v2.ColorJitter(options.colour, options.colour, options.colour), 1)]
    return kind(frame, shift, flip=options.flip, looks=looks, erasing=options.random_erasing_prob, preprocessing=preprocessing)


def check(options: AugmentOptions) -> None:
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
    if not 0 <= options.randaugment_prob <= 1:
        raise UserError(f"augment.randaugment_prob is a probability, from 0 to 1, not {options.randaugment_prob}")
    if not 0 <= options.random_erasing_prob <= 1:
        raise UserError(f"augment.random_erasing_prob is a probability, from 0 to 1, not {options.random_erasing_prob}")
    if options.colour < 0:
        raise UserError(f"augment.colour must not be negative: {options.colour}")
