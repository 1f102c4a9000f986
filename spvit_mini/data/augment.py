"""Training augmentation: random crop, flip, RandAugment, colour jitter, normalisation, random erasing; in the order of DeiT.

All draws come from torch's global CPU generator. Images are those of preprocessing.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional

from .device_transform import PartialBatch
from .options import AugmentOptions
from .preprocessing import Box, CenterCrop, Normalize, Preprocessing, convert_to_rgb, make_box, pil_to_tensor, resize


class TrainTransform:
    """Augment an image and turn it into the input of a model, float32 (3, height, width)."""

    def __init__(self, options: AugmentOptions, preprocessing: Preprocessing) -> None:
        size = preprocessing.image_size
        self.preprocessing, self.flip = preprocessing, options.flip
        self.crop, self.shift = CenterCrop(preprocessing, crop=1.0), None
        if options.crop == "resized":
            interpolation = InterpolationMode(preprocessing.interpolation)
            self.crop = RandomResizedCrop(size, options.crop_scale, interpolation=interpolation, antialias=True)
        elif options.crop == "shift":
            self.shift = v2.RandomCrop(size, padding=[size[1] // 8, size[0] // 8], padding_mode="reflect")
        count, magnitude = options.randaugment
        # Corners that an operation uncovers are filled with the mean colour, which is 0 after normalisation.
        operation = v2.RandAugment(1, magnitude, fill=[round(255 * value) for value in preprocessing.mean])
        self.operations: list[tuple[Callable, float]] = [(operation, options.randaugment_prob)] * count
        if options.colour:
            self.operations += [(v2.ColorJitter(options.colour, options.colour, options.colour), 1)]
        self.normalize = Normalize(preprocessing)
        self.erase = RandomErasing(options.random_erasing_prob, value="random") if options.random_erasing_prob else None

    def __call__(self, image: Image.Image | Tensor) -> Tensor:
        return self.transform_with_box(image)[0]

    def transform_with_box(self, image: Image.Image | Tensor) -> tuple[Tensor, Box, bool]:
        """Augment an image; also return the box that it shows, before any shift, and whether it is flipped.

        The box does not include RandAugment, which can still shear, translate or rotate the image (at magnitude 27, as in
        published recipes, by a slope of 0.27, 41 % of a side, 27°): a patch can then show what was many patches away.
        """
        image, box, is_flipped = self.draw_crop(image)
        image = self.normalize(self.apply_operations(functional.horizontal_flip(image) if is_flipped else image))
        return image if self.erase is None else self.erase(image), box, is_flipped

    def draw_crop(self, image: Image.Image | Tensor) -> tuple[Image.Image | Tensor, Box, bool]:
        """Crop an image; return the crop, its box before any shift, and whether the crop must be flipped."""
        image, box = self.crop.crop_with_box(image if isinstance(image, Tensor) else convert_to_rgb(image))
        if self.shift is not None:
            image = self.shift(image)
        return image, box, self.flip and torch.rand(1).item() < 0.5

    def apply_operations(self, image: Image.Image | Tensor) -> Image.Image | Tensor:
        """Apply RandAugment and colour jitter, each operation with its probability."""
        for operation, probability in self.operations:
            if probability == 1 or torch.rand(1) < probability:
                image = operation(image)
        return image


class TensorTrainTransform(TrainTransform):
    """Make the draws of `TrainTransform` on a uint8 tensor; leave to `DeviceTransform` what is faster on a whole batch."""

    def transform_with_box(self, image: Image.Image | Tensor) -> tuple[PartialBatch, Box, bool]:  # type: ignore[override]
        """Return the partially augmented image, the box that it shows, before any shift, and whether it will be flipped."""
        crop, box, is_flipped = self.draw_crop(image)
        return self.draw_erasing(*self.flip_and_apply_operations(crop, is_flipped)), box, is_flipped

    def draw_crop(self, image: Image.Image | Tensor) -> tuple[Any, Box, bool]:
        """Crop an image; return the crop (1, 3, height, width), its box before any shift, and whether it must be flipped."""
        image = image if isinstance(image, Tensor) else pil_to_tensor(convert_to_rgb(image))
        # torch's filter resizes a channels-last batch of one without copies, but not (3, height, width).
        return super().draw_crop(image.permute(1, 2, 0)[None].permute(0, 3, 1, 2))

    def flip_and_apply_operations(self, image: Tensor, is_flipped: bool) -> tuple[Tensor, bool]:
        """Flip an image and apply the operations; without operations, leave the flip to the device and return it."""
        if not self.operations:
            return image, is_flipped
        return self.apply_operations(functional.horizontal_flip(image) if is_flipped else image), False

    def apply_operations(self, image: Any) -> Any:
        """Apply the operations to (1, 3, height, width) with Pillow, several times as fast as torch on a single image."""
        pil: Any = super().apply_operations(Image.fromarray(image[0].permute(1, 2, 0).numpy()))
        return pil_to_tensor(pil)[None]

    def draw_erasing(self, image: Tensor, flip: bool) -> PartialBatch:
        """Draw the rectangle and the noise of random erasing, and leave the rest to the device."""
        erase_box, noise = torch.zeros(4, dtype=torch.int64), torch.zeros(0)
        if self.erase is not None:
            erase_box, noise = self.erase.draw(image)
        return PartialBatch(image[0].permute(1, 2, 0).contiguous(), torch.tensor(flip), erase_box, noise)


class RandomResizedCrop(v2.RandomResizedCrop):
    """Crop a random box of an image and resize it, as torchvision does, and return the box too."""

    def crop_with_box(self, image: Image.Image | Tensor) -> tuple[Image.Image | Tensor, Box]:
        """Crop and resize an image; also return the box that the crop shows."""
        box = self.make_params([image])
        crop = resize(functional.crop(image, **box), tuple(self.size), self.interpolation.value)
        return crop, make_box(**box, of=functional.get_size(image))


class RandomErasing(v2.RandomErasing):
    """Replace a random rectangle with noise, as torchvision does, or only draw the rectangle and the noise."""

    def draw(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Draw as a call does: (top, left, height, width) of the rectangle, and its noise, flat; zeros without a rectangle."""
        if torch.rand(1) < self.p:
            params = self.make_params([image])
            if params["v"] is not None:
                return torch.tensor([params[name] for name in "ijhw"]), params["v"].flatten()
        return torch.zeros(4, dtype=torch.int64), torch.zeros(0)
