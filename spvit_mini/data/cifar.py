"""CIFAR-10 and CIFAR-100, decoded in memory: from torchvision's files, an image tree, or a wanted download."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import torch

from ..errors import UserError
from .images import Pixels, scan

SIDE = 32


@dataclass(frozen=True)
class Cifar:
    """Describe one of the two sets: torchvision's folder for it; mean and deviation of its training images, in 0..1."""

    folder: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


CIFAR = {
    "cifar10": Cifar("cifar-10-batches-py", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": Cifar("cifar-100-python", (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


def load_cifar(name: str, root: Path, *, train: bool, on_corrupt_image: str, download: bool = False) -> Pixels:
    """Load the training or the test images of "cifar10" or "cifar100".

    Looked for, in this order: torchvision's folder (cifar-10-batches-py, cifar-100-python) in ROOT and in ROOT/NAME;
    the image tree ROOT/NAME/{train,test}/CLASS/*. Raises UserError if none is there and no download was asked for, or
    if files are damaged.
    """
    folder = CIFAR[name].folder
    for place in (root, root / name):
        if (place / folder).is_dir():
            return _torchvision_files(name, place, train=train, download=False)
    parts = ["train"] if train else ["test", "val"]
    for part in parts:
        if (root / name / part).is_dir():
            return Pixels.decode(scan(root / name / part, on_corrupt_image=on_corrupt_image), side=SIDE)
    if download:
        return _torchvision_files(name, root, train=train, download=True)
    tree = root / name / parts[0]
    raise UserError(
        f"{name} is not there: neither torchvision's files {root / folder} nor the image tree {tree}. "
        "Put one there (see data/README.md), name another place with --data.root, or fetch it with --data.download"
    )


def _torchvision_files(name: str, root: Path, *, train: bool, download: bool) -> Pixels:
    """Read torchvision's files, whose checksums it verifies before it unpickles them."""
    from torchvision import datasets  # here, since it is slow to import and few need it

    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    try:
        found = kind(str(root), train=train, download=download)
    except (RuntimeError, URLError, OSError) as error:
        what = "could not be downloaded" if download else "is damaged or lacks files"
        place = root / CIFAR[name].folder
        raise UserError(f"{name} in {place} {what} ({error}); remove the folder and get it again") from None
    images = torch.from_numpy(found.data).permute(0, 3, 1, 2).contiguous()
    return Pixels(images, torch.tensor(found.targets), list(found.classes))
