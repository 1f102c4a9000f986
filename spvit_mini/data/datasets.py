"""Load a set by its name: made images, CIFAR or a tree of photographs, ready for a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..errors import UserError
from .augment import Preprocessing, Transform, Varied, evaluation_transform, training_transform
from .cifar import CIFAR, SIDE, load_cifar
from .device_cache import Kept
from .image_folders import find_tree
from .images import Files, Pixels, read_pixels
from .options import AugmentOptions, DataOptions
from .sampler import Key, TrainBatches
from .seeding import check_seed, stream, torch_seeded
from .synthetic import Compass, Made, Rings, Textures
from .tensor_backend import Begun, Finish, Unfinished, collate
from .token_labels import TokenLabels, View

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

    How an image is varied depends on (seed, epoch, index, copy) alone, whichever process does it. On the fast way an image
    is `Unfinished`.

    Attributes:
        source: gives the images as they are.
        labels: (n,), int64.
        token_labels: what a teacher sees in the images, which must be `Files` then, or None. With it, items are
            (image, label, `View`).
    """

    def __init__(
        self, source: Source, transform: Varied | None, *, seed: int, token_labels: TokenLabels | None = None
    ) -> None:
        self.source, self.labels = source, source.labels
        self.transform, self.seed, self.token_labels = transform, seed, token_labels

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: Key | int) -> tuple[Tensor, int] | tuple[Tensor, int, View]:
        key = key if isinstance(key, Key) else Key(0, int(key))
        if self.token_labels is not None:
            return self._with_view(key)
        image, label = self.source[key.index]
        if self.transform is not None:
            with torch_seeded(self.seed, *key):
                image = self.transform(image)
        return image, label

    def batches(self, order: TrainBatches, **loading) -> Iterator[list]:
        """Read batch after batch in an order; `loading` are options of torch's DataLoader. `finish` then has to come."""
        return iter(DataLoader(self, batch_sampler=order, collate_fn=collate, **loading))

    def finish(self, images: Tensor | Unfinished, device: torch.device) -> Tensor:
        """Bring a batch's images to a device, and do there what is still to be done to them."""
        if isinstance(images, Unfinished):
            return Finish(self.transform.preprocessing)(images, device)
        return images.to(device, non_blocking=True)

    def _with_view(self, key: Key) -> tuple[Tensor, int, View]:
        image, at = self.source.good(key.index)
        with torch_seeded(self.seed, *key):
            image, box, mirrored = self.transform.viewed(image)
        return image, int(self.labels[at]), View(*self.token_labels[at], torch.tensor(box), mirrored)


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
        train: training images, in batches or by `Key` (which those of a set that is kept on the device don't have); None
            if they were not asked for.
        val: validation images by number.
        preprocessing: how `val` was prepared.
    """

    name: str
    classes: list[str]
    train: TrainSet | Kept | None
    val: ValSet
    preprocessing: Preprocessing

    @property
    def skipped(self) -> list[str]:
        """List the bad image files that were found so far and left out; it grows while training images are read."""
        sources = [part.source for part in (self.train, self.val) if part is not None]
        return list(dict.fromkeys(path for source in sources for path in source.skipped))


def load_data(
    options: DataOptions,
    augment: AugmentOptions | None = None,
    *,
    seed: int,
    train: bool = True,
    preprocessing: Preprocessing | None = None,
    token_labels: Path | None = None,
) -> Data:
    """Load a set by name.

    Args:
        options: which set, and how much of it.
        augment: how training images are varied; not at all if not given.
        seed: decides the training images of made sets, which parts `fraction` and `holdout` take, and all augmentation.
            The validation images of a set are the same for all seeds, unless they are held out of the training images.
        train: whether to load training images too. Evaluation does without them, and so with a tree that has none.
        preprocessing: how photographs are prepared, if not in the set's own way: a trained model's must be kept. An
            `image_size` or `eval_crop` in the options goes before its own. Made sets need none, and leave it aside.
        token_labels: the folder of the training images' token labels, if they are to come with the images. Only an image
            tree can have them.

    Raises UserError for an unknown or missing set, a damaged one, and options that don't go with it.
    """
    check_seed(seed)
    if not 0 < options.fraction <= 1:
        raise UserError(f"data.fraction must be above 0 and at most 1, not {options.fraction}")
    if not 0 <= options.holdout < 1:
        raise UserError(f"data.holdout must be at least 0 and below 1, not {options.holdout}")
    if options.on_corrupt_image not in ("error", "skip"):
        raise UserError(f"data.on_corrupt_image must be error or skip, not {options.on_corrupt_image!r}")
    if options.image_size is not None and options.image_size < 1:
        raise UserError(f"data.image_size must be a number of pixels, not {options.image_size}")
    if options.workers < 0:
        raise UserError(f"data.workers is a number of processes, 0 or more, not {options.workers}")
    if options.backend not in ("pil", "tensor"):
        raise UserError(f"data.backend must be plain or fast, not {options.backend!r}")
    augment = augment or AugmentOptions()
    if token_labels is not None:
        _check_token_labels(options, augment)
    if options.name in MADE:
        return _made(options, augment, seed, train)

    # Photographs: the two parts as they are, and how they are prepared.
    part_of, own = _cifar(options) if options.name in CIFAR else _tree(options)
    source = part_of(train=True) if train or options.holdout else None
    if options.holdout:
        source, val = _hold_out(source, options.holdout, seed)
    else:
        val = part_of(train=False)
    if source is not None and source.classes != val.classes:
        raise UserError(f"{options.name} in {options.root} has other classes to train than to validate on")
    if isinstance(val, Files) and options.on_corrupt_image == "skip":
        val = val.only_good()
    if preprocessing is None:
        # Who trains on cut-outs sees things larger, and so evaluates on the frame's centre.
        preprocessing = replace(own, crop=0.875 if augment.crop == "resized" else 1.0)
    if options.eval_crop is not None:
        preprocessing = replace(preprocessing, crop=options.eval_crop)
    if options.image_size is not None:
        preprocessing = replace(preprocessing, image_size=(options.image_size, options.image_size))
    train_set = None
    if train:
        source = _part(source, options.fraction, seed)
        if options.backend == "tensor" and isinstance(source, Pixels):
            train_set = Kept(source, augment, preprocessing, seed=seed)
        else:
            kind = Varied
            if options.backend == "tensor":
                source, kind = Files(source.listing, read_pixels), Begun
            seen = None if token_labels is None else _token_labels(token_labels, source)
            transform = training_transform(augment, preprocessing, kind=kind)
            train_set = TrainSet(source, transform, seed=seed, token_labels=seen)
    return Data(options.name, val.classes, train_set, ValSet(val, evaluation_transform(preprocessing)), preprocessing)


def _check_token_labels(options: DataOptions, augment: AugmentOptions) -> None:
    """Refuse token labels where there is no image file to find them by, or no way to follow the image."""
    if options.name in CIFAR or options.name in MADE:
        tree = f"; for a tree of it, --data.name folder --data.root ROOT/{options.name}" if options.name in CIFAR else ""
        raise UserError(f"token labels are found by the image files of a tree, of which {options.name} has none{tree}")
    if augment.crop == "shift":
        raise UserError(
            "token labels follow augment.crop resized or none, not shift: its margin, mirrored at the border, has no place "
            "in their maps"
        )


def _token_labels(folder: Path, source: Files) -> TokenLabels:
    """Open the token labels of a source's images; images that can have none count as bad, and are left out."""
    labels = TokenLabels(folder, source.listing)
    for index in labels.bad:
        source.listing.bad(source.listing.path(index), f"has no token labels in {folder}: it could not be read")
        source.known_bad[index] = 1
    return labels


def _made(options: DataOptions, augment: AugmentOptions, seed: int, train: bool) -> Data:
    """Make a set."""
    if augment != AugmentOptions():
        raise UserError(f"{options.name} is a made set: augmentation would change its answers; leave --augment out")
    sizes = {}
    if options.image_size is not None:
        if options.image_size % PATCH:
            wrong = f"{options.name} has patches of {PATCH} pixels, which don't divide {options.image_size}"
            raise UserError(f"{wrong}; take a multiple of {PATCH} for data.image_size")
        sizes = dict.fromkeys(("rows", "cols"), options.image_size // PATCH)
    make = partial(MADE[options.name], **sizes)
    source = make(options.train_images, seed=seed) if train or options.holdout else None
    if options.holdout:
        source, val = _hold_out(source, options.holdout, seed)
    else:
        val = make(options.val_images, seed=0, part="val")
    preprocessing = Preprocessing(tuple(val.images.shape[-2:]), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    train_set = None
    if train:
        source = _part(source, options.fraction, seed)
        kept = options.backend == "tensor"
        train_set = Kept(source, augment, preprocessing, seed=seed) if kept else TrainSet(source, None, seed=seed)
    return Data(options.name, val.classes, train_set, ValSet(val, None), preprocessing)


def _cifar(options: DataOptions) -> tuple[Callable[..., Pixels], Preprocessing]:
    """Find CIFAR: what loads a part of it (train=...), and how it is prepared."""
    root, cifar = Path(options.root), CIFAR[options.name]
    load = partial(load_cifar, options.name, root, on_corrupt_image=options.on_corrupt_image, download=options.download)
    return load, Preprocessing((SIDE, SIDE), mean=cifar.mean, std=cifar.std)


def _tree(options: DataOptions) -> tuple[Callable[..., Files], Preprocessing]:
    """Find an image tree: what loads a part of it (train=...), and how it is prepared."""
    tree = find_tree(options.name, Path(options.root), known=[*MADE, *CIFAR])

    def load(*, train: bool) -> Files:
        return Files(tree.listing(train=train, on_corrupt_image=options.on_corrupt_image))

    return load, Preprocessing((224, 224))


def _part(source: Source, fraction: float, seed: int) -> Source:
    """Keep a part of each class's images, at least one, in their order."""
    if fraction == 1:
        return source
    return source.take(_of_each_class(source.labels, fraction, stream("fraction", seed)).nonzero()[:, 0])


def _hold_out(source: Source, holdout: float, seed: int) -> tuple[Source, Source]:
    """Split off a part of each class's images, at least one: the rest, and what is held out, each in its order."""
    held = _of_each_class(source.labels, holdout, stream("holdout", seed))
    return source.take((~held).nonzero()[:, 0]), source.take(held.nonzero()[:, 0])


def _of_each_class(labels: Tensor, fraction: float, random: np.random.Generator) -> Tensor:
    """Mark a part of each class's images, (n,) bool.

    Each class's images are put in a random order, of which the first ones are taken; a smaller part is thus contained
    in a larger one.
    """
    taken = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        images = (labels == label).nonzero()[:, 0]
        order = torch.from_numpy(random.permutation(len(images)))
        taken[images[order[: max(1, round(fraction * len(images)))]]] = True
    return taken
