"""From image files to batches on the device, in five steps:

1. `ImageFolder` lists the files of a split, and `ImageFiles` reads one: a PIL image, or a uint8 tensor (image_folders, images).
2. `TrainTransform` crops, flips, augments and normalises it (augment); `EvalTransform` resizes and normalises (preprocessing).
3. `TrainDataset[Key(epoch, index, copy)]` is 1 and 2 with random draws of its own; a DataLoader collates (datasets, sampler).
4. `to_device` moves a batch; data.backend "tensor" leaves flip, normalisation and erasing to this step (device_transform).
5. CIFAR and synthetic datasets need no files, and can stay on the device from the start (cifar, synthetic, device_cache).

`load_data` puts this together for a dataset by its name. Names are imported on first use, so that options need no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .augment import TrainTransform
    from .datasets import Data, load_data
    from .options import AugmentOptions, DataOptions
    from .preprocessing import EvalTransform, Preprocessing
    from .sampler import Key, TrainBatches
    from .synthetic import Compass, Rings, Textures

__all__ = [
    "AugmentOptions", "Compass", "Data", "DataOptions", "EvalTransform", "Key", "Preprocessing", "Rings", "Textures",
    "TrainBatches", "TrainTransform", "load_data",
]  # fmt: skip
_MODULES = {
    "augment": ("TrainTransform",),
    "datasets": ("Data", "load_data"),
    "options": ("AugmentOptions", "DataOptions"),
    "preprocessing": ("EvalTransform", "Preprocessing"),
    "sampler": ("Key", "TrainBatches"),
    "synthetic": ("Compass", "Rings", "Textures"),
}


def __getattr__(name: str) -> object:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
