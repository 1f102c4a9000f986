"""Find an image tree by the name of its set: ImageNet, its two parts of 100 classes, Tiny ImageNet, or any folder.

A tree is FOLDER/{train,val}/CLASS/*.jpg. The parts of ImageNet need none of their own: lists beside this file say which
of its classes they are. The two sets called ImageNet-100 share 8 classes: say which one it was.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch

from ..errors import UserError, near
from .images import Listing, class_folders, images_below, scan

log = logging.getLogger(__name__)

LISTS = Path(__file__).parent
PARTS_OF_IMAGENET = {
    "imagenet100": LISTS / "imagenet100_wnids.txt",
    "imagenet100_first": LISTS / "imagenet100_first_wnids.txt",
}
TINY_IMAGENET = "tiny-imagenet-200"  # the folder in which it comes
ANNOTATIONS = "val_annotations.txt"  # where it says of each validation image what it shows


def wnids(name: str) -> list[str]:
    """List the classes of a part of ImageNet, sorted: the order of their labels."""
    lines = PARTS_OF_IMAGENET[name].read_text().split("\n")
    return sorted(line for line in lines if line and not line.startswith("#"))


@dataclass(frozen=True)
class Tree:
    """Say where an image tree is.

    Attributes:
        name: of the set.
        folder: holds train and val (or test).
        classes: the class folders that count; all of them if not given.
    """

    name: str
    folder: Path
    classes: list[str] | None = None

    def listing(self, *, train: bool, on_corrupt_image: str) -> Listing:
        """List the training or the validation images. Raises UserError if there are none, and as `scan` does."""
        train_folder, place = self.folder / "train", self.place(train=train)
        if self.classes is not None:
            self._refuse_incomplete(place)
            return scan(place, classes=self.classes, others="ignore", on_corrupt_image=on_corrupt_image)
        # The training folder says which classes there are, if there is one.
        classes = class_folders(train_folder) if train_folder.is_dir() else None
        if not train and (place / ANNOTATIONS).is_file() and (place / "images").is_dir():
            return annotated(place, classes=classes, on_corrupt_image=on_corrupt_image)
        return scan(place, classes=classes, on_corrupt_image=on_corrupt_image)

    def place(self, *, train: bool) -> Path:
        """Find the folder of the training or the validation images. Raises UserError if there is none."""
        parts, what = (("train",), "training") if train else (("val", "test"), "validation")
        for part in parts:
            if (self.folder / part).is_dir():
                return self.folder / part
        expected = f"{self.folder}/{{train,val}}/CLASS/*.jpg" + ("" if train else " (or test for val)")
        raise UserError(f"{self.folder} has no {what} images; expected {expected}")

    def _refuse_incomplete(self, place: Path) -> None:
        missing = sorted(set(self.classes) - set(class_folders(place)))
        if missing:
            some = f"{len(missing)} of the {len(self.classes)} classes of {self.name}"
            raise UserError(f"{place} lacks {some}, {missing[0]} first; expected {place}/{missing[0]}/*.JPEG")


def find_tree(name: str, root: Path, *, known: Iterable[str] = ()) -> Tree:
    """Find the tree of a set: ROOT/NAME, or ROOT itself for the name "folder", or where the named sets are otherwise.

    A part of ImageNet is taken out of ROOT/imagenet; tiny_imagenet may be called tiny-imagenet-200. `known` are names
    of other sets, which may have been meant. Raises UserError if it is not there.
    """
    folder = root if name == "folder" else root / name
    if folder.is_dir():
        tree = Tree(name, folder)
    elif name in PARTS_OF_IMAGENET and (root / "imagenet").is_dir():
        tree = Tree(name, root / "imagenet", wnids(name))
    elif name == "tiny_imagenet" and (root / TINY_IMAGENET).is_dir():
        tree = Tree(name, root / TINY_IMAGENET)
    else:
        _refuse_missing(name, root, folder, known)
    validation = tree.place(train=False)
    if name in PARTS_OF_IMAGENET and tree.classes is None and class_folders(validation) != wnids(name):
        log.warning("%s has other classes than those of %s in the literature, which this package lists", folder, name)
    return tree


def annotated(folder: Path, *, classes: list[str] | None, on_corrupt_image: str) -> Listing:
    """List the images in FOLDER/images by FOLDER/val_annotations.txt, as Tiny ImageNet comes.

    A line of it names an image and its class, and then a box, which is not used. Arguments and errors are those of
    `scan`; UserError, too, for a line that names no class, or an image that is not there.
    """
    file = folder / ANNOTATIONS
    try:
        lines = file.read_text().splitlines()
        sizes = dict(images_below(folder / "images"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {file} and the images beside it: {error}") from None
    rows = [line.split()[:2] for line in lines if line.strip()]
    classes = sorted({row[-1] for row in rows}) if classes is None else classes
    label_of = {name: label for label, name in enumerate(classes)}
    labels, paths, empty = [], [], []
    for number, row in enumerate(rows, start=1):
        path = str(folder / "images" / row[0])
        if len(row) < 2 or row[1] not in label_of:
            raise UserError(f"line {number} of {file} names no class that the training images have: {' '.join(row)!r}")
        if path not in sizes:
            raise UserError(f"line {number} of {file} names {row[0]}, which is not in {folder / 'images'}")
        if sizes[path]:
            labels.append(label_of[row[1]])
            paths.append(os.fsencode(os.path.join("images", row[0])))
        else:
            empty.append(path)
    if not paths:
        raise UserError(f"{file} names no image in {folder / 'images'}; get the set again")
    listing = Listing(folder, classes, np.array(paths, dtype=bytes), torch.tensor(labels), on_corrupt_image, tuple(empty))
    for path in empty:
        listing.bad(path, "is empty")
    return listing


def _refuse_missing(name: str, root: Path, folder: Path, known: Iterable[str]) -> NoReturn:
    """Say what is missing, where it was looked for, and what may have been meant."""
    if name in PARTS_OF_IMAGENET:
        where = f"neither {folder} nor {root / 'imagenet'}, of which it is a part, is a folder."
    elif name == "tiny_imagenet":
        where = f"neither {folder} nor {root / TINY_IMAGENET} is a folder."
    else:
        where = f"{folder} is not a folder."
    if (root / "train").is_dir():
        hint = f" If {root} itself is the image tree, take --data.name folder."
    elif name in (*PARTS_OF_IMAGENET, "imagenet", "tiny_imagenet"):
        hint = ""
    else:
        there = class_folders(root) if root.is_dir() else []
        hint = near(name, [*known, *PARTS_OF_IMAGENET, "tiny_imagenet", *there])
    raise UserError(
        f"there is no data set {name!r}: {where}{hint} Put an image tree there "
        f"({folder}/{{train,val}}/CLASS/*.jpg, see data/README.md), or name another place with --data.root"
    )
