"""Load a dataset by its name: synthetic images, CIFAR or an ImageFolder directory, ready for training and evaluation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..errors import UserError
from ..files import digest, read_start
from .cifar import CIFAR, SIDE, load_cifar
from .device_cache import CachedImages
from .device_transform import DeviceTransform, PartialBatch, collate
from .image_folders import find_image_folder
from .images import ImageFiles, InMemoryImages, read_image_tensor
from .options import AugmentOptions, DataOptions
from .preprocessing import EvalTransform, Preprocessing, get_size
from .sampler import Key, TrainBatches
from .seeding import check_seed, fork_torch_rng, make_random_state
from .synthetic import Compass, Rings, SyntheticDataset, Textures
from .token_labels import TokenLabels, TokenLabelView

if TYPE_CHECKING:
    from .augment import TrainTransform

# Original images, with labels, classes, skipped_files, load(index) and select(indices).
Source = SyntheticDataset | InMemoryImages | ImageFiles

log = logging.getLogger(__name__)
PATCH = 4  # pixels, of synthetic datasets
SAMPLED = 64  # images of a split whose content is part of its fingerprint
SYNTHETIC: dict[str, Callable[..., SyntheticDataset]] = {
    "compass": Compass,
    "compass6": partial(Compass, rows=6, cols=6, reach=3),
    "compass_easy": partial(Compass, rows=6, cols=6, directions=2, reach=1, decoys=0),
    "textures": Textures,
    "textures6": partial(Textures, rows=6, cols=6),
    "rings": Rings,
    "rings6": partial(Rings, rows=6, cols=6, reach=3),
}


class TrainDataset(Dataset):
    """Return training images by `Key`, or by index as in epoch 0: (image, label), float32 (3, height, width) and int.

    The augmentation of an image is a function of (seed, epoch, index, copy), in any process. With the tensor backend an image
    is a `PartialBatch`.

    Attributes:
        source: the original images.
        labels: (n,), int64.
        token_labels: token labels of the images, which must be `ImageFiles` then, or None. With them, items are
            (image, label, `TokenLabelView`).
    """

    def __init__(
        self, source: Source, transform: TrainTransform | None, *, seed: int, token_labels: TokenLabels | None = None
    ) -> None:
        self.source, self.labels = source, source.labels
        self.transform, self.seed, self.token_labels = transform, seed, token_labels

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: Key | int) -> tuple:
        key = key if isinstance(key, Key) else Key(0, int(key))
        image, index = self.source.load(key.index)
        label = int(self.labels[index])
        if self.transform is None:
            return image, label
        with fork_torch_rng(self.seed, *key):
            image, box, is_flipped = self.transform.transform_with_box(image)
        if self.token_labels is None:
            return image, label
        return image, label, TokenLabelView(*self.token_labels[index], torch.tensor(box), torch.tensor(is_flipped))

    def load_batches(self, order: TrainBatches, **loader_options) -> Iterator[list]:
        """Load batches in an order; `loader_options` are those of torch's DataLoader. Pass the images to `to_device`."""
        return iter(DataLoader(self, batch_sampler=order, collate_fn=collate, **loader_options))

    def to_device(self, images: Tensor | PartialBatch, device: torch.device) -> Tensor:
        """Move the images of a batch to a device, and finish their augmentation there."""
        if isinstance(images, Tensor):
            return images.to(device, non_blocking=True)
        assert self.transform is not None  # it returned the partial batch
        return DeviceTransform(self.transform.preprocessing)(images, device)


class ValDataset(Dataset):
    """Return validation images by index, without randomness: (image, label), float32 (3, height, width) and int."""

    def __init__(self, source: Source, transform: EvalTransform | None) -> None:
        self.source, self.labels, self.transform = source, source.labels, transform

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple:
        image, label = self.source[index]
        return (image if self.transform is None else self.transform(image)), label


@dataclass(frozen=True)
class Data:
    """Hold the training and the validation split of a dataset.

    Attributes:
        name: name of the dataset.
        classes: names of the classes; a label is an index into this list.
        train: training images, as batches or (unless they are cached on the device) by `Key`; None if not requested.
        val: validation images, by index.
        preprocessing: preprocessing of `val`.
        fingerprint: which images were loaded, as `fingerprint_data` returns it.
    """

    name: str
    classes: list[str]
    train: TrainDataset | CachedImages | None
    val: ValDataset
    preprocessing: Preprocessing
    fingerprint: dict[str, str]

    @property
    def skipped_files(self) -> list[str]:
        """List the corrupt image files that were skipped so far; the list grows while training images are read."""
        sources = [split.source for split in (self.train, self.val) if split is not None]
        return list(dict.fromkeys(path for source in sources for path in source.skipped_files))


def load_data(
    options: DataOptions, augment: AugmentOptions | None = None, *, seed: int, train: bool = True,
    preprocessing: Preprocessing | None = None, token_labels: Path | None = None,
) -> Data:  # fmt: skip
    """Load a dataset by name.

    Args:
        options: which dataset, and how much of it.
        augment: augmentation of training images; None: no augmentation.
        seed: seed of the training images of synthetic datasets, of the images that `fraction` and `holdout` select, and of all
            augmentation. The validation images are the same for all seeds, unless they are held out of the training images.
        train: whether to load training images. Evaluation needs none, so that a directory without them can be evaluated.
        preprocessing: preprocessing of natural images, for example that of a trained model; None: that of the dataset.
            `image_size` and `eval_crop` of the options override it. Synthetic datasets ignore it.
        token_labels: folder of the training images' token labels, to return with the images; ImageFolder directories only.

    Raises UserError for an unknown, missing or damaged dataset, and for options that it does not support.
    """
    check_seed(seed)
    augment = augment or AugmentOptions()
    if token_labels is not None:
        _check_token_labels(options, augment)
    load_split = _open_dataset(options, augment, seed)
    source = load_split(train=True) if train or options.holdout else None
    splits = [] if source is None else [source]
    if options.holdout and source is not None:
        is_held = _draw_of_each_class(source.labels, options.holdout, make_random_state("holdout", seed), leave=1)
        if single := sorted(set(source.labels.tolist()) - set(source.labels[is_held].tolist())):
            names = f"{len(single)} of {len(source.classes)} classes, {source.classes[single[0]]} first"
            if not is_held.any():
                need = "a class with at least two training images, of which one is held out"
                raise UserError(f"data.holdout is {options.holdout}; expected {need}. Use 0, and a validation split.")
            log.warning("%s: one image each, which stays in training; none is held out for validation", names)
        source, val = source.select(~is_held), source.select(is_held)
    else:
        splits.append(val := load_split(train=False))
    if source is not None and source.classes != val.classes:
        raise UserError(f"{options.name} in {options.root} has different classes for training and validation")
    if isinstance(val, ImageFiles) and options.on_corrupt_image == "skip":
        val = val.drop_corrupt()
    preprocessing = _choose_preprocessing(options, augment, preprocessing, val)
    train_dataset = None
    if train and source is not None:
        if options.fraction < 1:
            source = source.select(_draw_of_each_class(source.labels, options.fraction, make_random_state("fraction", seed)))
        train_dataset = _make_train_dataset(source, options, augment, preprocessing, seed, token_labels)
    transform = None if isinstance(val, SyntheticDataset) else EvalTransform(preprocessing)
    fingerprint = {} if options.name in SYNTHETIC else _fingerprint_splits(splits)
    return Data(options.name, val.classes, train_dataset, ValDataset(val, transform), preprocessing, fingerprint)


def fingerprint_data(options: DataOptions) -> dict[str, str]:
    """Fingerprint the images that `load_data` would load, from their names and sizes and a sample of them, wherever they are.

    Returns texts by option: "data.name" has the classes and the names of the images, "data.root" what the files hold. Synthetic
    datasets have none: their options decide their images. Raises UserError as `load_data` does.
    """
    if options.name in SYNTHETIC:
        return {}
    load_split = _open_dataset(options, AugmentOptions(), seed=0)
    return _fingerprint_splits([load_split(train=True)] + ([] if options.holdout else [load_split(train=False)]))


def _fingerprint_splits(splits: Sequence[Any]) -> dict[str, str]:
    """Fingerprint whole splits of natural images, before some of them are selected."""
    counts, names, contents = [], [], []
    for split in splits:
        sample = range(0, len(split), -(-len(split) // SAMPLED))
        if isinstance(split, ImageFiles):
            count, name, sizes = split.files.fingerprint
            contents += [sizes, *(read_start(split.files.path(index)) for index in sample)]
        else:  # CIFAR in memory, whose images have no names
            count, name = len(split), digest(["CIFAR", *split.classes, split.labels.numpy()])
            contents += [split.images[index].numpy() for index in sample]
        counts.append(f"{count:,}")
        names.append(name)
    text = f"{len(splits[0].classes)} classes, {' + '.join(counts)} images, names {digest(names)}"
    return {"data.name": text, "data.root": f"files {digest(contents)}"}


def _open_dataset(options: DataOptions, augment: AugmentOptions, seed: int) -> Callable[..., Source]:
    """Find a dataset, and return the function that loads one of its splits: load_split(train=True) or load_split(train=False)."""
    name, root, on_corrupt_image = options.name, Path(options.root), options.on_corrupt_image
    if name in SYNTHETIC:
        return _open_synthetic(options, augment, seed)
    if name in CIFAR:
        return partial(load_cifar, name, root, on_corrupt_image=on_corrupt_image, download=options.download)
    folder = find_image_folder(name, root, known=[*SYNTHETIC, *CIFAR])
    return lambda train: ImageFiles(folder.list_files(train=train, on_corrupt_image=on_corrupt_image))


def _open_synthetic(options: DataOptions, augment: AugmentOptions, seed: int) -> Callable[..., SyntheticDataset]:
    """Return the function that draws a split of a synthetic dataset."""
    if augment != AugmentOptions():
        raise UserError(f"{options.name} is a synthetic dataset: augmentation would change its labels; omit --augment options")
    draw, size = SYNTHETIC[options.name], options.image_size
    if size is not None:
        if size % PATCH:
            raise UserError(f"data.image_size is {size}; expected a multiple of {PATCH}, the patch size of {options.name}")
        draw = partial(draw, rows=size // PATCH, cols=size // PATCH)
    return lambda train: draw(options.train_images, seed=seed) if train else draw(options.val_images, seed=0, split="val")


def _choose_preprocessing(
    options: DataOptions, augment: AugmentOptions, given: Preprocessing | None, val: Source
) -> Preprocessing:
    """Choose the preprocessing: the given one or the dataset's own, as the options change it; none for synthetic images."""
    if isinstance(val, SyntheticDataset):
        return Preprocessing(get_size(val.images), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    if given is None:
        cifar = CIFAR.get(options.name)
        given = Preprocessing((SIDE, SIDE), mean=cifar.mean, std=cifar.std) if cifar else Preprocessing((224, 224))
        # A model that is trained on random resized crops sees objects larger; therefore it is evaluated on the centre.
        given = replace(given, crop=0.875 if augment.crop == "resized" else 1.0)
    if options.eval_crop is not None:
        given = replace(given, crop=options.eval_crop)
    if options.image_size is not None:
        given = replace(given, image_size=(options.image_size, options.image_size))
    return given


def _make_train_dataset(
    source: Source, options: DataOptions, augment: AugmentOptions, preprocessing: Preprocessing, seed: int,
    token_labels: Path | None,
) -> TrainDataset | CachedImages:  # fmt: skip
    """Combine original images and augmentation, with the backend of the options."""
    if options.backend == "tensor" and not isinstance(source, ImageFiles):
        return CachedImages(source, augment, preprocessing, seed=seed)
    if isinstance(source, SyntheticDataset):
        return TrainDataset(source, None, seed=seed)
    from .augment import TensorTrainTransform, TrainTransform  # here: they import torchvision, which is slow

    kind, labels = TrainTransform, None
    if isinstance(source, ImageFiles) and options.backend == "tensor":
        source, kind = ImageFiles(source.files, read_image_tensor), TensorTrainTransform
    if isinstance(source, ImageFiles) and token_labels is not None:
        labels = TokenLabels(token_labels, source.files)
        for index in labels.unreadable.tolist():
            source.files.report_corrupt(source.files.path(index), f"has no token labels in {token_labels}: it was unreadable")
            source.is_corrupt[index] = 1
    return TrainDataset(source, kind(augment, preprocessing), seed=seed, token_labels=labels)


def _check_token_labels(options: DataOptions, augment: AugmentOptions) -> None:
    """Refuse token labels for datasets without image files, and for crops that they cannot follow."""
    if options.name in CIFAR or options.name in SYNTHETIC:
        fix = f"; for a directory of its images use --data.name folder --data.root ROOT/{options.name}"
        problem = f"token labels are found by image files, but {options.name} has none"
        raise UserError(problem + (fix if options.name in CIFAR else ""))
    if augment.crop == "shift":
        raise UserError("augment.crop is shift; expected resized or none: token labels do not cover the reflection padding")


def _draw_of_each_class(labels: Tensor, fraction: float, random: np.random.RandomState, *, leave: int = 0) -> Tensor:
    """Draw a fraction of the images of each class, at least one, but `leave` some: (n,), bool.

    The images of each class are permuted, and the first ones are drawn: a smaller fraction is a subset of a larger one.
    """
    is_drawn = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        images = (labels == label).nonzero()[:, 0]
        order = torch.from_numpy(random.permutation(len(images)))
        is_drawn[images[order[: min(max(1, round(fraction * len(images))), len(images) - leave)]]] = True
    return is_drawn
