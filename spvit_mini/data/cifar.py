"""CIFAR-10 and CIFAR-100 in memory: from torchvision's files, an ImageFolder directory, or a requested download."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError

import torch

from ..errors import UserError
from .image_folders import scan_class_folders
from .images import InMemoryImages

SIDE = 32


class Cifar(NamedTuple):
    """Describe a dataset: torchvision's folder; mean and standard deviation of the training images, in 0..1."""

    folder: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


CIFAR = {
    "cifar10": Cifar("cifar-10-batches-py", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": Cifar("cifar-100-python", (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


def load_cifar(name: str, root: Path, *, train: bool, on_corrupt_image: str, download: bool = False) -> InMemoryImages:
    """Load the training or the test images of "cifar10" or "cifar100".

    Searches in this order: torchvision's folder (cifar-10-batches-py, cifar-100-python) in ROOT and in ROOT/NAME; the
    ImageFolder directory ROOT/NAME/{train,test}/CLASS/*. Raises UserError if there is none and no download was requested, or
    if files are damaged.
    """
    files = CIFAR[name].folder
    for folder in (root, root / name):
        if (folder / files).is_dir():
            return _read_torchvision_files(name, folder, train=train, download=False)
    splits = ["train"] if train else ["test", "val"]
    for split in splits:
        if (root / name / split).is_dir():
            listing = scan_class_folders(root / name / split, on_corrupt_image=on_corrupt_image)
            return InMemoryImages.read(listing, side=SIDE, train=train)
    if download:
        return _read_torchvision_files(name, root, train=train, download=True)
    raise UserError(
        f"{name} is missing: neither torchvision's files {root / files} nor the ImageFolder directory {root / name / splits[0]} "
        "exists. Put one there (see data/README.md), choose another folder with --data.root, or add --data.download"
    )


def _read_torchvision_files(name: str, root: Path, *, train: bool, download: bool) -> InMemoryImages:
    """Read torchvision's files; torchvision verifies their checksums before it unpickles them."""
    from torchvision import datasets  # here, because it is slow to import

    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    try:
        dataset = kind(str(root), train=train, download=download)
    except (RuntimeError, URLError, OSError) as error:
        what = "could not be downloaded" if download else "is damaged or incomplete"
        folder = root / CIFAR[name].folder
        raise UserError(f"{name} in {folder} {what} ({error}); remove the folder and get the dataset again") from None
    images = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()
    return InMemoryImages(images, torch.tensor(dataset.targets), list(dataset.classes))
