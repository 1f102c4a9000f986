"""Load a set by its name: made images, CIFAR or a tree of photographs, ready for a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import UserError, near
from .augment import Preprocessing, Transform, evaluation_transform, training_transform
from .cifar import CIFAR, SIDE, load_cifar
from .images import Files, Pixels, class_folders, scan
from .options import AugmentOptions, DataOptions
from .sampler import Key
from .streams import check_seed, stream, torch_seeded
from .synthetic import Compass, Made, Rings, Textures

# What gives images as they are, and has labels, classes, skipped files, and `take(indices)`.
Source = Made | Pixels | Files

PATCH = 4
MADE: dict[str, Callable[..., Made]] = {
    "compass": Compass,
    "compass6": partial(Compass, rows=6, cols=6, reach=3),
    "compass_easy": partial(Compass, rows=6, cols=6, directions=2, reach=1, decoys=0),
    "textures": Textures,
    "textures6": partial(Textures, rows=6, cols=6),
    "rings": Rings,
    "rings6": partial(Rings, rows=6, cols=6, reach=3),
}


class TrainSet(Dataset):
    """Give training images by `Key`, or by number as of epoch 0: (image, label), float32 (3, height, width) and int.

    How an image is varied depends on (seed, epoch, index, copy) alone, whichever process does it.

    Attributes:
        source: gives the images as they are.
        labels: (n,), int64.
    """

    def __init__(self, source: Source, transform: Transform | None, *, seed: int) -> None:
        self.source, self.labels = source, source.labels
        self.transform, self.seed = transform, seed

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: Key | int) -> tuple[Tensor, int]:
        key = key if isinstance(key, Key) else Key(0, int(key))
        image, label = self.source[key.index]
        if self.transform is not None:
            with torch_seeded(self.seed, *key):
                image = self.transform(image)
        return image, label


class ValSet(Dataset):
    """Give validation images by number, always the same: (image, label), float32 (3, height, width) and int."""

    def __init__(self, source: Source, transform: Transform | None) -> None:
        self.source, self.labels, self.transform = source, source.labels, transform

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.source[index]
        return (image if self.transform is None else self.transform(image)), label


@dataclass(frozen=True)
class Data:
    """Hold the two parts of a set.

    Attributes:
        name: of the set.
        classes: their names; a label is a position in this list.
        train: training images by `Key`; None if they were not asked for.
        val: validation images by number.
        preprocessing: how `val` was prepared.
    """

    name: str
    classes: list[str]
    train: TrainSet | None
    val: ValSet
    preprocessing: Preprocessing

    @property
    def skipped(self) -> list[str]:
        """List the bad image files that were found so far and left out; it grows while training images are read."""
        sources = [part.source for part in (self.train, self.val) if part is not None]
        return [path for source in sources for path in source.skipped]


def load_data(options: DataOptions, augment: AugmentOptions | None = None, *, seed: int, train: bool = True) -> Data:
    """Load a set by name.

    Args:
        options: which set, and how much of it.
        augment: how training images are varied; not at all if not given.
        seed: decides the training images of made sets, which part `fraction` takes, and all augmentation. The
            validation images of a set are the same for all seeds.
        train: whether to load training images too. Evaluation does without them, and so with a tree that has none.

    Raises UserError for an unknown or missing set, a damaged one, and options that don't go with it.
    """
    check_seed(seed)
    if not 0 < options.fraction <= 1:
        raise UserError(f"data.fraction must be above 0 and at most 1, not {options.fraction}")
    if options.on_bad_image not in ("fatal", "skip"):
        raise UserError(f"data.on_bad_image must be fatal or skip, not {options.on_bad_image!r}")
    if options.image_size is not None and options.image_size < 1:
        raise UserError(f"data.image_size must be a number of pixels, not {options.image_size}")
    augment = augment or AugmentOptions()
    load = _made if options.name in MADE else _cifar if options.name in CIFAR else _tree
    return load(options, augment, seed, train)


def _made(options: DataOptions, augment: AugmentOptions, seed: int, train: bool) -> Data:
    if augment != AugmentOptions():
        raise UserError(
            f"{options.name} is a made set: augmentation would change its answers; take no --augment option"
        )
    sizes = {}
    if options.image_size is not None:
        if options.image_size % PATCH:
            size = f"{options.image_size} pixels"
            raise UserError(
                f"{options.name} has patches of {PATCH} pixels, which don't divide {size}; take 24 or 32, say"
            )
        sizes = dict.fromkeys(("rows", "cols"), options.image_size // PATCH)
    make = partial(MADE[options.name], **sizes)
    val = make(options.val_images, seed=0, part="val")
    preprocessing = Preprocessing(tuple(val.images.shape[-2:]), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    train_set = None
    if train:
        source = make(options.train_images, seed=seed)
        train_set = TrainSet(_part(source, options.fraction, seed), None, seed=seed)
    return Data(options.name, val.classes, train_set, ValSet(val, None), preprocessing)


def _cifar(options: DataOptions, augment: AugmentOptions, seed: int, train: bool) -> Data:
    root, how = Path(options.root), {"on_bad_image": options.on_bad_image, "download": options.download}
    source = load_cifar(options.name, root, train=True, **how) if train else None
    val = load_cifar(options.name, root, train=False, **how)
    if source is not None and source.classes != val.classes:
        raise UserError(f"{options.name} in {options.root} has other classes in train than in test")
    colours = {"mean": CIFAR[options.name].mean, "std": CIFAR[options.name].std}
    return _photographs(source, val, options, augment, seed, side=SIDE, **colours)


def _tree(options: DataOptions, augment: AugmentOptions, seed: int, train: bool) -> Data:
    root = Path(options.root)
    folder = root if options.name == "folder" else root / options.name
    if not folder.is_dir():
        _refuse_missing(options.name, root, folder)
    train_folder = folder / "train"
    if train and not train_folder.is_dir():
        raise UserError(f"{folder} has no training images; expected {train_folder}/CLASS/*.jpg")
    val_folder = next((folder / part for part in ("val", "test") if (folder / part).is_dir()), None)
    if val_folder is None:
        raise UserError(f"{folder} has no validation images; expected {folder / 'val'}/CLASS/*.jpg (or test for val)")
    classes = class_folders(train_folder) if train_folder.is_dir() else None
    source = Files(scan(train_folder, on_bad_image=options.on_bad_image)) if train else None
    val = Files(scan(val_folder, on_bad_image=options.on_bad_image, classes=classes))
    if options.on_bad_image == "skip":
        val = val.only_good()
    return _photographs(source, val, options, augment, seed, side=224)


def _refuse_missing(name: str, root: Path, folder: Path) -> NoReturn:
    """Say what is missing, where it was looked for, and what may have been meant."""
    if (root / "train").is_dir():
        hint = f" If {root} itself is the image tree, take --data.name folder."
    else:
        hint = near(name, [*MADE, *CIFAR, *(class_folders(root) if root.is_dir() else [])])
    raise UserError(
        f"there is no data set {name!r}: {folder} is not a folder.{hint} Put an image tree there "
        f"({folder}/{{train,val}}/CLASS/*.jpg, see data/README.md), or name another place with --data.root"
    )


def _photographs(
    train: Source | None, val: Source, options: DataOptions, augment: AugmentOptions, seed: int, *, side: int, **colours
) -> Data:
    """Put transforms around the two parts. Who trains on cut-outs sees things larger: so evaluate on the centre."""
    side = options.image_size or side
    preprocessing = Preprocessing((side, side), crop=0.875 if augment.crop == "resized" else 1.0, **colours)
    train_set = None
    if train is not None:
        train = _part(train, options.fraction, seed)
        train_set = TrainSet(train, training_transform(augment, preprocessing), seed=seed)
    return Data(options.name, val.classes, train_set, ValSet(val, evaluation_transform(preprocessing)), preprocessing)


def _part(source: Source, fraction: float, seed: int) -> Source:
    """Keep a part of each class's images, at least one, in their order.

    Each class's images are put in a random order, of which the first ones are taken; a smaller part is thus contained
    in a larger one.
    """
    if fraction == 1:
        return source
    random = stream("fraction", seed)
    kept = []
    for label in source.labels.unique():
        images = (source.labels == label).nonzero()[:, 0]
        order = torch.from_numpy(random.permutation(len(images)))
        kept.append(images[order[: max(1, round(fraction * len(images)))]])
    return source.take(torch.cat(kept).sort().values)
