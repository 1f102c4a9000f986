"""Read natural images from files, one at a time or all into memory, and skip corrupt ones.

A file that turns out to be corrupt is handled as `on_corrupt_image` says (see image_folders.py): no model is trained on it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from ..errors import UserError
from .image_folders import ImageFileList
from .preprocessing import UNKNOWN_RANGE_MODES, convert_to_rgb, pil_to_tensor

# The only formats that Pillow may try. Some others start system programs to read a file (EPS).
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF")


class CorruptImageError(ValueError):
    """Say why a file cannot be used as an image; the message continues the sentence "FILE …"."""


@contextmanager
def open_image(path: str | Path) -> Iterator[ImageFile]:
    """Open an image file without reading its pixels. Errors, also those inside the block, become those of `read_image`."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if min(width, height) < 2 or max(width, height) > 100 * min(width, height):
                raise CorruptImageError(f"has {width} × {height} pixels, which show nothing")
            if Image.MAX_IMAGE_PIXELS and width * height > Image.MAX_IMAGE_PIXELS:
                limit = f"above Pillow's limit of {Image.MAX_IMAGE_PIXELS}"
                raise CorruptImageError(f"claims {width} × {height} pixels, {limit}")
            if image.mode in UNKNOWN_RANGE_MODES:
                raise CorruptImageError(f"has pixels of mode {image.mode}, whose white value is unknown")
            yield image
    except (CorruptImageError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise CorruptImageError("is empty" if os.path.getsize(path) == 0 else "is no image") from None
    except OSError as error:
        if error.errno is not None:
            raise UserError(f"cannot read {path}: {error.strerror}") from None
        raise CorruptImageError(f"is truncated or damaged ({error})") from None
    except Exception as error:  # Pillow raises a dozen kinds for damaged files: SyntaxError, struct.error, ...
        raise CorruptImageError(f"is damaged ({error})") from None


def read_image(path: str | Path) -> Image.Image:
    """Read an image file as RGB.

    Raises CorruptImageError if it is truncated, damaged, no image, under 2 pixels wide or high, over a hundred times as long
    as wide, or larger than Pillow's limit against decompression bombs; UserError if the file system refuses to read it.
    """
    with open_image(path) as image:
        image.load()
        return convert_to_rgb(image)


def read_image_tensor(path: str | Path) -> Tensor:
    """Read an image file as a uint8 tensor (3, height, width), with the pixels and the errors of `read_image`.

    torchvision decodes JPEG files, a tenth faster than Pillow and without a copy; the bytes of uncompressed files (.ppm) are
    used as they are. Pillow reads all other files, and names what is wrong with corrupt ones.
    """
    with open_image(path) as image:
        if image.format == "JPEG" and image.mode in ("RGB", "L") and (decode := _jpeg_decoder()):  # they convert CMYK differently
            try:
                return decode(torch.from_numpy(np.fromfile(path, np.uint8)))
            except RuntimeError:
                pass
        elif image.format == "PPM" and image.mode == "RGB" and image.tile[0][0] == "raw":
            pixels = np.fromfile(path, np.uint8, count=3 * image.width * image.height, offset=image.tile[0][2])
            if pixels.size == 3 * image.width * image.height:
                return torch.from_numpy(pixels.reshape(image.height, image.width, 3)).permute(2, 0, 1)
        image.load()
        return pil_to_tensor(convert_to_rgb(image))


@cache
def _jpeg_decoder() -> Callable[[Tensor], Tensor] | None:
    """Import torchvision's decoder of JPEG files to RGB; None if it has none (it announces that it will drop it)."""
    try:
        from torchvision.io import ImageReadMode, decode_jpeg
    except ImportError:
        return None
    return lambda content: decode_jpeg(content, mode=ImageReadMode.RGB)


class ImageFiles:
    """Read images from their files.

    The process that reads a corrupt file reports it, once; `skipped_files` includes those of all worker processes.

    Attributes:
        files: the list of files.
        read: function that reads a file, `read_image` or `read_image_tensor`.
        is_corrupt: (n,), which files are known to be corrupt.
    """

    def __init__(self, files: ImageFileList, read: Callable[[str], Image.Image | Tensor] = read_image) -> None:
        self.files, self.read = files, read
        self.classes, self.labels = files.classes, files.labels
        # Worker processes write here too. They only ever write a 1, therefore they need no lock.
        self.is_corrupt = torch.zeros(len(files), dtype=torch.uint8).share_memory_()

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Image.Image | Tensor, int]:
        """Return image and label of the image that `load` returns."""
        image, index = self.load(index)
        return image, int(self.labels[index])

    def load(self, index: int) -> tuple[Image.Image | Tensor, int]:
        """Read an image, or the next readable one if it is corrupt; return the image and its index.

        Raises UserError for a corrupt image unless such images are skipped, and if no image is readable; IndexError past the
        end, which ends a loop over a dataset.
        """
        if index >= len(self):
            raise IndexError(index)
        for step in range(len(self)):
            candidate = (index + step) % len(self)
            image = self._read(candidate)
            if image is not None:
                return image, candidate
        raise UserError(f"none of the {len(self)} images in {self.files.folder} can be read")

    def _read(self, index: int) -> Image.Image | Tensor | None:
        """Read an image; None if it is corrupt and such images are skipped."""
        if self.is_corrupt[index]:
            return None
        path = self.files.path(index)
        try:
            return self.read(path)
        except CorruptImageError as reason:
            if not self.is_corrupt[index]:
                self.files.report_corrupt(path, reason)
                self.is_corrupt[index] = 1
            return None

    def select(self, indices: Tensor) -> ImageFiles:
        """Select images, by indices in this order or by a mask."""
        return ImageFiles(self.files.select(indices), self.read)

    @property
    def skipped_files(self) -> list[str]:
        """List the corrupt files that are known so far."""
        corrupt = self.is_corrupt.nonzero()[:, 0].tolist()
        return [*self.files.empty_files, *(self.files.path(index) for index in corrupt)]

    def drop_corrupt(self) -> ImageFiles:
        """Decode every image once and select the readable ones; the others stay in `skipped_files`.

        An evaluation must count each readable image exactly once. After this check, evaluation uses a plain dataset of fixed
        length with any number of processes. It costs about as much as reading the images for one evaluation.
        """
        # Pillow decodes without Python's global lock.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            results = pool.map(lambda index: self._read(index) is not None, range(len(self)))
            readable = torch.tensor(list(tqdm(results, "checking images", len(self), leave=False, disable=None)))
        if not readable.any():
            raise UserError(f"none of the {len(self)} images in {self.files.folder} can be read")
        files = self.files.select(readable)
        return ImageFiles(replace(files, empty_files=tuple(self.skipped_files)), self.read)


class InMemoryImages(Dataset):
    """Hold small decoded images in memory, (n, 3, height, width), uint8: reading CIFAR's files costs 5 s and more per epoch."""

    def __init__(self, images: Tensor, labels: Tensor, classes: list[str], skipped_files: Sequence[str] = ()) -> None:
        self.images, self.labels, self.classes, self.skipped_files = images, labels, classes, skipped_files

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])

    def load(self, index: int) -> tuple[Tensor, int]:
        """Return an image and its index."""
        return self.images[index], index

    def select(self, indices: Tensor) -> InMemoryImages:
        """Select images with all their tensors, by indices in this order or by a mask."""
        subset = copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(subset, name, value[indices])
        return subset

    @classmethod
    def read(cls, files: ImageFileList, *, side: int) -> InMemoryImages:
        """Read all images of a list, side × side pixels each.

        Raises UserError for an image of another size, and for a corrupt image unless such images are skipped.
        """
        source, images = ImageFiles(files), torch.empty(len(files), 3, side, side, dtype=torch.uint8)
        indices: list[int] = []
        for index in tqdm(range(len(files)), f"reading {files.folder}", leave=False, disable=None):
            image: Any = source._read(index)  # a PIL image
            if image is None:
                continue
            if image.size != (side, side):
                path, size = files.path(index), f"{image.width} × {image.height}"
                raise UserError(f"{path} has {size} pixels; expected {side} × {side} for this dataset")
            images[len(indices)] = pil_to_tensor(image)
            indices.append(index)
        if not indices:
            raise UserError(f"none of the {len(files)} images in {files.folder} can be read")
        return cls(images[: len(indices)], files.labels[indices], files.classes, source.skipped_files)
