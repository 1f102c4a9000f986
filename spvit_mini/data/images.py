"""Read natural images from files, one at a time or all into memory, and skip corrupt ones.

A file that turns out to be corrupt is handled as `on_corrupt_image` says (see image_folders.py): no model is trained on it.
"""

from __future__ import annotations

import math
import os
import re
import stat
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from ..errors import UserError
from .image_folders import ImageFileList
from .preprocessing import UNKNOWN_RANGE_MODES, convert_to_rgb, pil_to_tensor

# The only formats that Pillow may try. Some others start system programs to read a file (EPS).
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF")
# What else is found under the name of an image, by its first bytes.
OTHER_KINDS = {
    rb"\Z": "empty",
    rb".{4}ftyp.{0,40}avi[fs]": "an AVIF image; save it as JPEG or PNG",
    rb".{4}ftyp(he[imv]|m[is]f1)": "a HEIC image; save it as JPEG or PNG",
    rb"\xff\x0a|\x00{3}\x0cJXL ": "a JPEG XL image; save it as JPEG or PNG",
    rb"\xff\x4f\xff\x51|\x00{3}\x0cjP  ": "a JPEG 2000 image; save it as JPEG or PNG",
    rb"\s*(<[?!].*)?<svg": "an SVG drawing; save it as JPEG or PNG",
    rb"\s*<(!doctype|html|head|\?xml)": "a web page, such as the error page of a download; download the image again",
    rb"version https://git-lfs": "a Git LFS pointer, not the file itself; run git lfs pull",
    rb"\x00+\Z": "nothing but zeros, such as an interrupted download; download or copy it again",
}
# Above its limit of pixels Pillow warns, but `open_image` reads a file at a fraction of its size, or refuses it.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class CorruptImageError(ValueError):
    """Say why a file cannot be used as an image; the message continues the sentence "FILE …"."""


@contextmanager
def open_image(path: str | Path) -> Iterator[ImageFile]:
    """Open an image file without reading its pixels. Errors, also those inside the block, become those of `read_image`."""
    try:
        if stat.S_ISFIFO(os.stat(path).st_mode):  # to open it would wait for a writer
            raise CorruptImageError("is a pipe; expected a file")
        with _open_file(path) as image:
            width, height = image.size
            if min(width, height) < 2 or max(width, height) > 100 * min(width, height):
                raise CorruptImageError(f"has {width} × {height} pixels, which show nothing")
            if image.mode in UNKNOWN_RANGE_MODES:
                raise CorruptImageError(f"has pixels of mode {image.mode}, whose white value is unknown")
            yield image
    except (CorruptImageError, MemoryError):
        raise
    except UnidentifiedImageError:
        with open(path, "rb") as file:
            start = file.read(200)
        kinds = (kind for pattern, kind in OTHER_KINDS.items() if re.match(pattern, start, re.DOTALL | re.IGNORECASE))
        raise CorruptImageError(f"is {next(kinds, 'no image')}") from None
    except OSError as error:
        if os.path.islink(path) and not os.path.exists(path):
            raise CorruptImageError("is a link to a file that does not exist") from None
        if error.errno is not None:
            raise UserError(f"cannot read {path}: {error.strerror}") from None
        raise CorruptImageError(f"is truncated or damaged ({error})") from None
    except Exception as error:  # Pillow raises a dozen kinds for damaged files: SyntaxError, struct.error, ...
        raise CorruptImageError(f"is damaged ({error})") from None


def _open_file(path: str | Path) -> ImageFile:
    """Open an image file. A baseline JPEG above Pillow's limit of pixels will be decoded at 1/2, 1/4 or 1/8 of its size."""
    limit = Image.MAX_IMAGE_PIXELS or math.inf
    with suppress(Image.DecompressionBombError):  # above twice the limit
        image = Image.open(path, formats=FORMATS)
        if image.width * image.height <= limit:
            return image
        image.close()
    with suppress(SyntaxError):  # no JPEG
        image = JpegImageFile(path)
        scale = next((scale for scale in (2, 4, 8) if image.width * image.height <= scale**2 * limit), 0)
        if scale and "progressive" not in image.info:  # that would be decoded as a whole, before it is reduced
            image.draft(None, (image.width // scale, image.height // scale))
            return image
    raise CorruptImageError(
        f"has more than {limit:,} pixels, Pillow's limit against decompression bombs; save it smaller, or as a baseline JPEG "
        "file, which is read at a fraction of its size"
    )


def read_image(path: str | Path) -> Image.Image:
    """Read an image file as RGB; a baseline JPEG above Pillow's limit of pixels at 1/2, 1/4 or 1/8 of its size.

    Raises CorruptImageError if it is truncated, damaged, no image, under 2 pixels wide or high, over a hundred times as long
    as wide, or above the limit; UserError if the file system refuses to read it.
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
        same = image.format == "JPEG" and image.mode in ("RGB", "L") and not image.decoderconfig  # CMYK differs, and smaller ones
        if same and (decode := _jpeg_decoder()):
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
        return [*self.files.dropped_files, *(self.files.path(index) for index in corrupt)]

    def drop_corrupt(self) -> ImageFiles:
        """Decode every image once and select the readable ones; the others stay in `skipped_files`.

        An evaluation must count each readable image exactly once. After this check, evaluation uses a plain dataset of fixed
        length with any number of processes. It costs about as much as reading the images for one evaluation.
        """
        # Pillow decodes without Python's global lock.
        pool = ThreadPoolExecutor(os.cpu_count())
        try:
            results = pool.map(lambda index: self._read(index) is not None, range(len(self)))
            readable = torch.tensor(list(tqdm(results, "checking images", len(self), leave=False, disable=None)))
        finally:
            pool.shutdown(cancel_futures=True)  # Ctrl-C doesn't wait for a million images
        if not readable.any():
            raise UserError(f"none of the {len(self)} images in {self.files.folder} can be read")
        files = self.files.select(readable)
        return ImageFiles(replace(files, dropped_files=tuple(self.skipped_files)), self.read)


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
    def read(cls, files: ImageFileList, *, side: int, train: bool) -> InMemoryImages:
        """Read all images of a list, side × side pixels each.

        As with `ImageFiles`, the next image replaces a skipped one in training, and evaluation leaves it out. Raises UserError
        for an image of another size, and for a corrupt image unless such images are skipped.
        """
        source, images = ImageFiles(files), torch.empty(len(files), 3, side, side, dtype=torch.uint8)
        indices: list[int] = []
        for index in tqdm(range(len(files)), f"reading {files.folder}", leave=False, disable=None):
            image, used = source.load(index)
            assert isinstance(image, Image.Image)
            if not train and used != index:
                continue
            if image.size != (side, side):
                path, size = files.path(used), f"{image.width} × {image.height}"
                raise UserError(f"{path} has {size} pixels; expected {side} × {side} for this dataset")
            images[len(indices)] = pil_to_tensor(image)
            indices.append(used)
        return cls(images[: len(indices)], files.labels[indices], files.classes, source.skipped_files)
