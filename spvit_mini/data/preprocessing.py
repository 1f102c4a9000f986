"""From an image to the input of a model, as in evaluation: resize, crop the centre, normalise. It needs no torchvision.

`Preprocessing` says how; it is saved with a model's weights. Transforms accept a PIL image of any mode or a tensor
(3, height, width), uint8 in 0..255 or float in 0..1, and return a normalised float tensor (3, height, width).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..errors import UserError
from ..fields import CropRatio, Fraction, Pixels, Share, check_fields, parse_json

Box = tuple[float, float, float, float]  # top, left, bottom, right, as fractions of the image's height and width

UNKNOWN_RANGE_MODES = ("I", "F")  # Pillow's modes of 32-bit integers and floats
RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@dataclass(frozen=True)
class Preprocessing:
    """Describe how evaluation turns images into the input of a model.

    Attributes:
        image_size: (height, width) in pixels.
        mean: mean of red, green and blue in 0..1; the default is that of ImageNet.
        std: standard deviation of red, green and blue in 0..1; the default is that of ImageNet.
        crop: crop ratio: fraction of the height and width of the resized image that the centre crop keeps.
        interpolation: interpolation of resizing, "bicubic" or "bilinear".
    """

    image_size: tuple[Pixels, Pixels]
    mean: tuple[Share, Share, Share] = (0.485, 0.456, 0.406)
    std: tuple[Fraction, Fraction, Fraction] = (0.229, 0.224, 0.225)
    crop: CropRatio = 1.0
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"

    def __post_init__(self) -> None:
        check_fields(self, "preprocessing.")

    def to_json(self) -> str:
        """Write all fields as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Preprocessing:
        """Read the output of `to_json`. Raises UserError for any other text."""
        return parse_json(cls, text, "the preprocessing")


class EvalTransform:
    """Resize an image, crop its centre and normalise it: the deterministic transform of evaluation."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.crop = CenterCrop(preprocessing, crop=preprocessing.crop)
        self.normalize = Normalize(preprocessing)

    def __call__(self, image: Image.Image | Tensor) -> Tensor:
        image = image if isinstance(image, Tensor) else convert_to_rgb(image)
        return self.normalize(self.crop.crop_with_box(image)[0])


class CenterCrop:
    """Resize an image, keeping its aspect ratio, until it covers `image_size` / crop; then crop its centre to `image_size`."""

    def __init__(self, preprocessing: Preprocessing, *, crop: float) -> None:
        self.size, self.ratio, self.interpolation = preprocessing.image_size, crop, preprocessing.interpolation

    def crop_with_box(self, image: Image.Image | Tensor) -> tuple[Image.Image | Tensor, Box]:
        """Resize and crop an image; also return the box that the crop shows."""
        (height, width), (old_height, old_width) = self.size, get_size(image)
        scale = max(height / self.ratio / old_height, width / self.ratio / old_width)
        new = max(height, round(scale * old_height)), max(width, round(scale * old_width))
        top, left = round((new[0] - height) / 2), round((new[1] - width) / 2)
        box = make_box(top, left, height, width, of=new)
        if self.ratio == 1 and (old_height, old_width) == self.size:
            return image, box
        image = resize(image, new, self.interpolation)
        if isinstance(image, Tensor):
            return image[..., top : top + height, left : left + width], box
        return image.crop((left, top, left + width, top + height)), box


class Normalize:
    """Turn an image into a float32 tensor (3, height, width) in 0..1 and normalise it.

    v2.ToImage, ToDtype and Normalize of torchvision need four times as long, which counts for small images.
    """

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.mean = torch.tensor(preprocessing.mean)[:, None, None]
        self.std = torch.tensor(preprocessing.std)[:, None, None]

    def __call__(self, image: Image.Image | Tensor) -> Tensor:
        if not isinstance(image, Tensor):
            image = pil_to_tensor(image).contiguous()  # arithmetic is five times as fast on contiguous channels
        white = 255 if image.dtype == torch.uint8 else 1
        return (image / white).sub_(self.mean).div_(self.std)


def convert_to_rgb(image: Image.Image) -> Image.Image:
    """Convert a PIL image of any mode to RGB.

    Raises UserError for modes without a known white value: 32-bit integers and floats.
    """
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16"):  # Pillow would clip all values above 255 to white
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in UNKNOWN_RANGE_MODES:
        raise UserError(f"the image has mode {image.mode}, whose white value is unknown; convert it to 8 bits")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def pil_to_tensor(image: Image.Image) -> Tensor:
    """Copy an RGB image to a uint8 tensor (3, height, width), channels last in memory."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def resize(image: Image.Image | Tensor, size: tuple[int, int], interpolation: str) -> Image.Image | Tensor:
    """Resize a PIL image or a tensor (…, 3, height, width) to (height, width) with antialiasing, as torchvision does."""
    if get_size(image) == tuple(size):
        return image
    if isinstance(image, Tensor):
        batch = image.reshape(-1, *image.shape[-3:])
        return F.interpolate(batch, size=size, mode=interpolation, antialias=True).reshape(*image.shape[:-2], *size)
    return image.resize(size[::-1], RESAMPLING[interpolation])


def get_size(image: Image.Image | Tensor) -> tuple[int, int]:
    """Return height and width in pixels."""
    return (image.shape[-2], image.shape[-1]) if isinstance(image, Tensor) else (image.height, image.width)


def make_box(top: int, left: int, height: int, width: int, *, of: tuple[int, int]) -> Box:
    """Convert a rectangle in pixels to fractions of an image of (height, width) `of`."""
    return top / of[0], left / of[1], (top + height) / of[0], (left + width) / of[1]
