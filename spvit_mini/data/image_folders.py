"""List the image files of ImageFolder directories: ImageNet, its two subsets of 100 classes, Tiny ImageNet, or any other.

An ImageFolder directory is FOLDER/{train,val}/CLASS/*.jpg. The subsets of ImageNet need no directory: lists beside this file
name their classes. Two different datasets are called ImageNet-100, and they share 8 classes: always say which one you use.

Listing a million files must be fast, therefore it detects only missing folders, empty folders and empty files. Other corrupt
files are detected when they are read (images.py). `on_corrupt_image` "error" stops with the name of the file; "skip" logs the
name once, counts the file, and the next readable image replaces it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError, near
from ..files import compose, digest

log = logging.getLogger(__name__)

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff")
IMAGENET_SUBSETS = {name: Path(__file__).with_name(f"{name}_wnids.txt") for name in ("imagenet100", "imagenet100_first")}
TINY_IMAGENET = "tiny-imagenet-200"  # the folder of its archive
ANNOTATIONS = "val_annotations.txt"  # its classes of the validation images


@dataclass(frozen=True)
class ImageFileList:
    """List the image files of a split."""

    folder: Path  # folder that paths are relative to
    classes: list[str]  # names of the classes; a label is an index into them
    paths: np.ndarray  # (n,) of bytes. One array instead of a million strings: worker processes then share its memory
    labels: Tensor  # (n,), int64
    on_corrupt_image: str  # "error" or "skip"
    dropped_files: tuple[str, ...] = ()  # corrupt files that are left out of `paths`
    # Of the whole split, empty files included: number of files, digest of their names and classes, digest of their sizes.
    fingerprint: tuple[int, str, str] = (0, "", "")

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, index: int) -> str:
        """Return the path of an image as text."""
        return os.path.join(self.folder, os.fsdecode(self.paths[index]))

    def select(self, indices: Tensor) -> ImageFileList:
        """Select images, by indices in this order or by a mask."""
        return replace(self, paths=self.paths[indices.numpy()], labels=self.labels[indices])

    def report_corrupt(self, path: str, reason: object) -> None:
        """Log a corrupt file if such files are skipped, otherwise raise UserError."""
        if self.on_corrupt_image == "error":
            fix = "replace it, or skip such files with --data.on-corrupt-image skip"
            raise UserError(f"{path} {reason}; {fix}")
        log.warning("skipped: %s %s", path, reason)


@dataclass(frozen=True)
class ImageFolder:
    """Locate an ImageFolder directory."""

    name: str  # name of the dataset
    folder: Path  # contains train and val (or test)
    classes: list[str] | None = None  # the class folders to use; None: all

    def list_files(self, *, train: bool, on_corrupt_image: str) -> ImageFileList:
        """List the training or validation images. Raises UserError if there are none, and as `scan_class_folders` does."""
        train_folder, folder = self.folder / "train", self.split_folder(train=train)
        if self.classes is not None:
            missing = sorted(set(self.classes) - set(list_classes(folder)))
            if missing:
                what = f"{len(missing)} of the {len(self.classes)} classes of {self.name}"
                raise UserError(f"{folder} lacks {what}, {missing[0]} first; expected {folder}/{missing[0]}/*.JPEG")
            return scan_class_folders(folder, classes=self.classes, ignore_others=True, on_corrupt_image=on_corrupt_image)
        # The training folder defines the classes, if it exists.
        classes = list(list_classes(train_folder)) if train_folder.is_dir() else None
        if not train and (folder / ANNOTATIONS).is_file() and (folder / "images").is_dir():
            return read_annotations(folder, classes=classes, on_corrupt_image=on_corrupt_image)
        return scan_class_folders(folder, classes=classes, on_corrupt_image=on_corrupt_image)

    def split_folder(self, *, train: bool) -> Path:
        """Find the folder of the training or validation images. Raises UserError if it does not exist."""
        names, split = (("train",), "training") if train else (("val", "test"), "validation")
        for name in names:
            if (self.folder / name).is_dir():
                return self.folder / name
        expected = f"{self.folder}/{{train,val}}/CLASS/*.jpg" + ("" if train else " (or test for val)")
        raise UserError(f"{self.folder} has no {split} images; expected {expected}")


def find_image_folder(name: str, root: Path, *, known: Iterable[str] = ()) -> ImageFolder:
    """Find the ImageFolder directory of a dataset: ROOT/NAME, ROOT for the name "folder", or as named below.

    A subset of ImageNet is also searched for in ROOT/imagenet, tiny_imagenet also in ROOT/tiny-imagenet-200. `known` are names of
    other datasets, to suggest. Raises UserError if the directory does not exist.
    """
    folder = root if name == "folder" else root / name
    if folder.is_dir():
        image_folder = ImageFolder(name, folder)
    elif name in IMAGENET_SUBSETS and (root / "imagenet").is_dir():
        image_folder = ImageFolder(name, root / "imagenet", read_subset_classes(name))
    elif name == "tiny_imagenet" and (root / TINY_IMAGENET).is_dir():
        image_folder = ImageFolder(name, root / TINY_IMAGENET)
    else:
        _raise_missing(name, root, folder, known)
    validation = image_folder.split_folder(train=False)
    if name in IMAGENET_SUBSETS and image_folder.classes is None and list(list_classes(validation)) != read_subset_classes(name):
        log.warning("%s has other classes than %s in the literature, whose list this package contains", folder, name)
    return image_folder


def read_subset_classes(name: str) -> list[str]:
    """Read the classes of a subset of ImageNet, sorted: the order of their labels."""
    lines = IMAGENET_SUBSETS[name].read_text(encoding="utf-8-sig").split("\n")
    return sorted(line for line in lines if line and not line.startswith("#"))


def list_classes(folder: Path) -> dict[str, Path]:
    """List the class folders of a folder by name, without hidden ones: names in composed characters, sorted, and the folders.

    Raises UserError if the folder can't be read, and for two folders of one name.
    """
    try:
        with os.scandir(folder) as entries:
            folders = [Path(entry) for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
    except OSError as error:
        raise UserError(f"cannot read {error.filename or folder}: {error.strerror}") from None
    names = (os.fsencode(path.name).decode("utf-8", "surrogateescape") for path in folders)  # in any locale
    classes = dict(sorted(zip(map(compose, names), folders, strict=True)))
    if double := sorted(set(folders) - set(classes.values())):
        raise UserError(f"{folder} has two folders called {compose(double[0].name)}, in other Unicode characters; merge them")
    return classes


def list_images(folder: Path) -> list[tuple[str, int]]:
    """List all image files below a folder with their sizes in bytes, 0 for a link to no file, sorted by path.

    Raises UserError if a folder can't be read.
    """
    images, pending = [], [str(folder)]
    try:
        while pending:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    is_lost = entry.is_symlink() and not os.path.exists(entry.path)
                    if entry.name.startswith("."):
                        continue
                    if not is_lost and entry.is_dir():
                        pending.append(entry.path)
                    elif entry.name.lower().endswith(EXTENSIONS):
                        images.append((entry.path, 0 if is_lost else entry.stat().st_size))
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from None
    return sorted(images)


def scan_class_folders(
    folder: Path, *, on_corrupt_image: str, classes: list[str] | None = None, ignore_others: bool = False
) -> ImageFileList:
    """List the images in and below FOLDER/CLASS, sorted by class and path.

    Args:
        folder: contains one folder per class.
        on_corrupt_image: what to do about an empty file, "error" or "skip".
        classes: the classes; None: the class folders. The folder may lack a class, which is logged.
        ignore_others: ignore class folders that are not in `classes`.

    Raises UserError for a folder without classes, a class folder without images, a class that is not in `classes` (unless
    ignored), and an empty file (unless skipped).
    """
    folders = list_classes(folder)
    names = [name for name in folders if classes is None or not ignore_others or name in classes]
    files = {name: list_images(folders[name]) for name in names}
    if not names:
        raise UserError(f"{folder} has no class folders; expected {folder}/CLASS/*.jpg, one folder per class")
    classes = names if classes is None else classes
    if unknown := sorted(set(names) - set(classes)):
        hint = near(unknown[0], classes)
        raise UserError(f"{folder} has a class {unknown[0]!r} that the training images don't have.{hint}")
    if missing := sorted(set(classes) - set(names)):
        log.warning("%s lacks %d of %d classes, %s first", folder, len(missing), len(classes), missing[0])

    start = len(str(folder)) + 1
    images = [(path[start:], classes.index(name), size) for name in names for path, size in files[name]]
    listed = _make_list(folder, classes, images, on_corrupt_image)
    without = [name for name in names if not any(size for _, size in files[name])]
    if without:
        more = f" (nor do {len(without) - 1} more)" if len(without) > 1 else ""
        fix = f"add images ({', '.join(EXTENSIONS[:4])}, ...) or remove the folder"
        raise UserError(f"the class folder {folders[without[0]]} holds no images{more}; {fix}")
    return listed


def read_annotations(folder: Path, *, classes: list[str] | None, on_corrupt_image: str) -> ImageFileList:
    """List the images in FOLDER/images by FOLDER/val_annotations.txt, the format of Tiny ImageNet.

    Each line names an image and its class, followed by a box, which is not used. Arguments and errors are those of
    `scan_class_folders`; also raises UserError for a line without a known class or with an image that does not exist.
    """
    file = folder / ANNOTATIONS
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
        sizes = dict(list_images(folder / "images"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {file} and the images beside it: {error}") from None
    rows = [line.split()[:2] for line in lines if line.strip()]
    classes = sorted({compose(row[-1]) for row in rows}) if classes is None else classes
    label_of = {name: label for label, name in enumerate(classes)}
    images = []
    for number, row in enumerate(rows, start=1):
        path = str(folder / "images" / row[0])
        if len(row) < 2 or compose(row[1]) not in label_of:
            raise UserError(f"line {number} of {file} names no class of the training images: {' '.join(row)!r}")
        if path not in sizes:
            raise UserError(f"line {number} of {file} names {row[0]}, which is not in {folder / 'images'}")
        images.append((os.path.join("images", row[0]), label_of[compose(row[1])], sizes[path]))
    if not any(size for _, _, size in images):
        raise UserError(f"{file} names no image in {folder / 'images'}; unpack the dataset again")
    return _make_list(folder, classes, images, on_corrupt_image)


def _make_list(
    folder: Path, classes: list[str], images: list[tuple[str, int, int]], on_corrupt_image: str
) -> ImageFileList:
    """Build the list of images (relative path, label, size in bytes).

    Raises UserError for an empty file unless such files are skipped. Then it keeps its place in the list, and is reported when
    it is read: a run that is resumed after a file was damaged, and skips it, has its images in the same order as before.
    """
    encoded = [os.fsencode(path) for path, _, _ in images]
    paths, labels = np.array(encoded, dtype=bytes), np.array([label for _, label, _ in images], dtype="<i8")
    sizes = np.array([size for _, _, size in images], dtype="<i8")
    names = digest(["\0".join(classes), labels, b"\0".join(encoded)])
    empty = [os.path.join(folder, path) for path, _, size in images if not size]
    listed = ImageFileList(
        folder, classes, paths, torch.from_numpy(labels), on_corrupt_image,
        fingerprint=(len(images), names, digest([sizes])),
    )  # fmt: skip
    if empty and on_corrupt_image == "error":
        more = f" (as are {len(empty) - 1} more files)" if len(empty) > 1 else ""
        reason = "is empty" if os.path.exists(empty[0]) else "is a link to a file that does not exist"
        listed.report_corrupt(empty[0], f"{reason}{more}")
    return listed


def _raise_missing(name: str, root: Path, folder: Path, known: Iterable[str]) -> NoReturn:
    """Raise UserError: where the dataset was expected, and which names are similar."""
    if name in IMAGENET_SUBSETS:
        where = f"neither {folder} nor {root / 'imagenet'}, which would contain it, is a folder."
    elif name == "tiny_imagenet":
        where = f"neither {folder} nor {root / TINY_IMAGENET} is a folder."
    else:
        where = f"{folder} is not a folder."
    hint = ""
    if (root / "train").is_dir():
        hint = f" If {root} itself is the ImageFolder directory, use --data.name folder."
    elif name not in (*IMAGENET_SUBSETS, "imagenet", "tiny_imagenet"):
        existing = list_classes(root) if root.is_dir() else []
        hint = near(name, [*known, *IMAGENET_SUBSETS, "tiny_imagenet", *existing])
    raise UserError(
        f"there is no dataset {name!r}: {where}{hint} Put an ImageFolder directory there "
        f"({folder}/{{train,val}}/CLASS/*.jpg, see data/README.md), or choose another folder with --data.root"
    )
