"""Photographs on disk: a tree with one folder a class, or CIFAR, and what is done about files that are broken.

A start must not take ages on a million images, so the scan sees only what is cheap: missing and empty folders, empty
files. What is broken inside shows when it is read. Then `on_corrupt_image` decides: "error" stops with the file's name;
"skip" names it once in the log, counts it, and gives its place to the next good image, so that nothing is learned from
it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from tqdm import tqdm

from ..errors import UserError, near
from .augment import UNKNOWN_RANGE, as_rgb

try:
    from torchvision.io import ImageReadMode, decode_jpeg
except ImportError:  # torchvision 0.29 announces that it will drop them; Pillow then reads all files
    decode_jpeg = None

log = logging.getLogger(__name__)

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff")
# Pillow tries these only. Some others start programs of the system to read a file (EPS).
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF")


class BadImage(ValueError):
    """Say why a file is no image to learn from."""


@contextmanager
def opened(path: str | Path) -> Iterator[Image.Image]:
    """Open an image file, its pixels not read yet. What goes wrong here, or while it is open, becomes `read_image`'s errors."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if min(width, height) < 2 or max(width, height) > 100 * min(width, height):
                raise BadImage(f"has {width} × {height} pixels, which show nothing")
            if Image.MAX_IMAGE_PIXELS and width * height > Image.MAX_IMAGE_PIXELS:
                raise BadImage(f"claims {width} × {height} pixels, above Pillow's limit of {Image.MAX_IMAGE_PIXELS}")
            if image.mode in UNKNOWN_RANGE:
                raise BadImage(f"has pixels of mode {image.mode}, which does not say which value is white")
            yield image
    except (BadImage, MemoryError):
        raise
    except UnidentifiedImageError:
        raise BadImage("is empty" if os.path.getsize(path) == 0 else "is no image") from None
    except OSError as error:
        if error.errno is not None:
            raise UserError(f"cannot read {path}: {error.strerror}") from None
        raise BadImage(f"is cut off or damaged ({error})") from None
    except Exception as error:  # Pillow's readers raise a dozen kinds for damaged files: SyntaxError, struct.error, ...
        raise BadImage(f"is damaged ({error})") from None


def read_image(path: str | Path) -> Image.Image:
    """Decode an image file whole, as RGB.

    Raises BadImage if it is cut off, damaged, no image, under 2 pixels wide or high, over a hundred times as long as
    wide (it could fill no frame), or larger than Pillow's limit against decompression bombs; UserError if the file
    system refuses it, which says nothing about the image.
    """
    with opened(path) as image:
        image.load()
        return as_rgb(image)


def read_pixels(path: str | Path) -> Tensor:
    """Decode an image file to a tensor (3, height, width), uint8: the very pixels that `read_image` gives, and its errors.

    JPEG files are decoded by torchvision if it can, a tenth faster than by Pillow and without a copy; of uncompressed files
    (.ppm) the bytes are taken as they are. Pillow reads all others, and says what is wrong with those that are broken.
    """
    with opened(path) as image:
        if decode_jpeg and image.format == "JPEG" and image.mode in ("RGB", "L"):  # of CMYK the two make different colours
            image.fp.seek(0)
            try:
                return decode_jpeg(torch.from_numpy(np.fromfile(image.fp, np.uint8)), mode=ImageReadMode.RGB)
            except RuntimeError:
                pass
        elif image.format == "PPM" and image.mode == "RGB" and image.tile[0][0] == "raw":
            image.fp.seek(image.tile[0][2])  # where the pixels begin
            pixels = np.fromfile(image.fp, np.uint8, count=3 * image.width * image.height)
            if pixels.size == 3 * image.width * image.height:
                return torch.from_numpy(pixels.reshape(image.height, image.width, 3)).permute(2, 0, 1)
        image.load()
        return torch.from_numpy(np.array(as_rgb(image))).permute(2, 0, 1)


@dataclass(frozen=True)
class Listing:
    """Name the images of one part of a set.

    Attributes:
        folder: what the paths are relative to.
        classes: names of the classes; a label is a position in it.
        paths: (n,) of bytes. One array, not a million strings: worker processes then share it.
        labels: (n,), int64.
        on_corrupt_image: "error" or "skip".
        dropped: the empty files, which are not in `paths`.
    """

    folder: Path
    classes: list[str]
    paths: np.ndarray
    labels: Tensor
    on_corrupt_image: str
    dropped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, index: int) -> str:
        """Give the path of an image as text."""
        return os.path.join(self.folder, os.fsdecode(self.paths[index]))

    def take(self, indices: Tensor) -> Listing:
        """Keep only these images, in this order."""
        return replace(self, paths=self.paths[indices.numpy()], labels=self.labels[indices])

    def bad(self, path: str, reason: BadImage | str) -> None:
        """Name a bad file: in the log if such files are skipped, else by raising UserError."""
        if self.on_corrupt_image == "error":
            cure = "replace it or remove it, or leave out such files with --data.on-corrupt-image skip"
            raise UserError(f"{path} {reason}; {cure}")
        log.warning("skipped: %s %s", path, reason)


def class_folders(folder: Path) -> list[str]:
    """List the class folders of a folder by name, leaving out hidden ones. Raises UserError if it can't be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise UserError(f"cannot read {folder}: {error.strerror}") from None


def scan(
    folder: Path,
    *,
    on_corrupt_image: str,
    classes: list[str] | None = None,
    others: Literal["refuse", "ignore"] = "refuse",
) -> Listing:
    """List the images below FOLDER/CLASS, sorted by name; those in folders within a class folder belong to it too.

    Args:
        folder: holds one folder a class.
        on_corrupt_image: what to do about an empty file.
        classes: the classes to sort by; the folder's own if not given. A class may be missing here, which is logged.
        others: what to do about class folders that are not in `classes`.

    Raises UserError for a folder without classes, a class folder without images, a class that is not in `classes`
    (unless `others` are ignored), and, unless they are skipped, an empty file.
    """
    found = class_folders(folder)
    if classes is not None and others == "ignore":
        found = [name for name in found if name in classes]
    try:
        below = {name: images_below(folder / name) for name in found}
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from None
    if not found:
        raise UserError(f"{folder} has no class folders; expected {folder}/CLASS/*.jpg, one folder for each class")
    classes = found if classes is None else classes
    foreign = sorted(set(found) - set(classes))
    if foreign:
        meant = near(foreign[0], classes)
        raise UserError(f"{folder} has a class {foreign[0]!r} that the training images don't have.{meant}")
    missing = sorted(set(classes) - set(found))
    if missing:
        log.warning("%s lacks %d of %d classes, %s first", folder, len(missing), len(classes), missing[0])

    images = {name: [path for path, size in files if size] for name, files in below.items()}
    empty = [path for files in below.values() for path, size in files if not size]
    without = [name for name in found if not images[name]]
    within = len(str(folder)) + 1
    paths = [os.fsencode(path[within:]) for name in found for path in images[name]]
    labels = [classes.index(name) for name in found for _ in images[name]]
    listing = Listing(folder, classes, np.array(paths, dtype=bytes), torch.tensor(labels), on_corrupt_image, tuple(empty))
    more = f" (as are {len(empty) - 1} more files)" if len(empty) > 1 and on_corrupt_image == "error" else ""
    for path in empty:
        listing.bad(path, f"is empty{more}")
    if without:
        more = f" (nor do {len(without) - 1} more)" if len(without) > 1 else ""
        cure = f"add some ({', '.join(ENDINGS[:4])}, ...) or remove the folder"
        raise UserError(f"the class folder {folder / without[0]} holds no images{more}; {cure}")
    return listing


def images_below(folder: Path) -> list[tuple[str, int]]:
    """List the image files below a folder with their sizes in bytes, sorted by path."""
    found = []
    pending = [str(folder)]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    pending.append(entry.path)
                elif entry.name.lower().endswith(ENDINGS):
                    found.append((entry.path, entry.stat().st_size))
    return sorted(found)


class Files:
    """Read images from their files, each time anew.

    A file that turns out bad is named once, in whichever process reads it; `skipped` sees what all worker processes
    found.

    Attributes:
        read: how a file becomes an image: `read_image`, or `read_pixels` for a tensor.
    """

    def __init__(self, listing: Listing, read: Callable[[str], Image.Image | Tensor] = read_image) -> None:
        self.listing, self.read = listing, read
        self.classes, self.labels = listing.classes, listing.labels
        # Worker processes write here too. Each only ever sets a 1, so they need no lock.
        self.known_bad = torch.zeros(len(listing), dtype=torch.uint8).share_memory_()

    def __len__(self) -> int:
        return len(self.listing)

    def __getitem__(self, index: int) -> tuple[Image.Image | Tensor, int]:
        """Give image and label, or those of the next good image after a bad one; raises UserError as `good` does."""
        image, at = self.good(index)
        return image, int(self.labels[at])

    def good(self, index: int) -> tuple[Image.Image | Tensor, int]:
        """Give an image and its number, or those of the next good image after a bad one.

        Raises UserError for a bad image unless such are skipped, and if there is no good image at all; IndexError past
        the end, which is how a loop over a data set ends.
        """
        if index >= len(self):
            raise IndexError(index)
        for step in range(len(self)):
            at = (index + step) % len(self)
            image = self._read(at)
            if image is not None:
                return image, at
        raise UserError(f"none of the {len(self)} images in {self.listing.folder} can be read")

    def _read(self, index: int) -> Image.Image | Tensor | None:
        """Decode an image; None if it is bad and such are skipped."""
        if self.known_bad[index]:
            return None
        path = self.listing.path(index)
        try:
            return self.read(path)
        except BadImage as reason:
            if not self.known_bad[index]:
                self.listing.bad(path, reason)
                self.known_bad[index] = 1
            return None

    def take(self, indices: Tensor) -> Files:
        """Keep only these images, in this order."""
        return Files(self.listing.take(indices), self.read)

    @property
    def skipped(self) -> list[str]:
        """List the bad files found so far."""
        return [*self.listing.dropped, *(self.listing.path(index) for index in self.known_bad.nonzero()[:, 0].tolist())]

    def only_good(self) -> Files:
        """Decode every image once and keep only the good ones; those left out stay in `skipped`.

        An evaluation must count each good image exactly once, and no bad one. Looking beforehand makes it a plain set
        of plain length, for any number of processes; only those who skip pay for it, about as much as for reading one
        evaluation.
        """
        # Pillow decodes outside Python's global lock.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            good = pool.map(lambda index: self._read(index) is not None, range(len(self)))
            kept = torch.tensor(list(tqdm(good, "checking images", len(self), leave=False, disable=None)))
        if not kept.any():
            raise UserError(f"none of the {len(self)} images in {self.listing.folder} can be read")
        return Files(replace(self.listing.take(kept.nonzero()[:, 0]), dropped=tuple(self.skipped)), self.read)


class Pixels:
    """Hold small images decoded in memory, (n, 3, height, width) of uint8: CIFAR's files cost 5 s and more an epoch."""

    def __init__(self, images: Tensor, labels: Tensor, classes: list[str], skipped: tuple[str, ...] = ()) -> None:
        self.images, self.labels, self.classes, self.skipped = images, labels, classes, list(skipped)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])

    def take(self, indices: Tensor) -> Pixels:
        """Keep only these images, in this order."""
        return Pixels(self.images[indices], self.labels[indices], self.classes, tuple(self.skipped))

    @classmethod
    def decode(cls, listing: Listing, *, side: int) -> Pixels:
        """Read all images of a listing, side × side pixels each.

        Raises UserError for an image of another size, and for a bad image unless such are skipped.
        """
        images = torch.empty(len(listing), 3, side, side, dtype=torch.uint8)
        good, skipped = [], list(listing.dropped)
        for index in tqdm(range(len(listing)), f"reading {listing.folder}", leave=False, disable=None):
            path = listing.path(index)
            try:
                image = read_image(path)
            except BadImage as reason:
                listing.bad(path, reason)
                skipped.append(path)
                continue
            if image.size != (side, side):
                size = f"{image.width} × {image.height} pixels"
                raise UserError(f"{path} has {size}, but images of this set have {side} × {side}")
            images[len(good)] = torch.from_numpy(np.array(image)).permute(2, 0, 1)
            good.append(index)
        if not good:
            raise UserError(f"none of the {len(listing)} images in {listing.folder} can be read")
        return cls(images[: len(good)], listing.labels[good], listing.classes, tuple(skipped))
