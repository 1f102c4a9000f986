"""Data: synthetic datasets and natural images, brought to a model's input, and the order in which they come. It knows no model.

`load_data` loads the training and validation images of a dataset by its name; `TrainBatches` orders the training images.
Names are imported on first use (PEP 562), so that options can be read without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .augment import Preprocessing, evaluation_transform, training_transform
    from .datasets import Data, load_data
    from .options import AugmentOptions, DataOptions
    from .sampler import Key, TrainBatches
    from .synthetic import Compass, Rings, Textures

__all__ = [
    "AugmentOptions", "Compass", "Data", "DataOptions", "Key", "Preprocessing", "Rings", "Textures", "TrainBatches",
    "evaluation_transform", "load_data", "training_transform",
]  # fmt: skip
_MODULES = {
    "augment": ("Preprocessing", "evaluation_transform", "training_transform"),
    "datasets": ("Data", "load_data"),
    "options": ("AugmentOptions", "DataOptions"),
    "sampler": ("Key", "TrainBatches"),
    "synthetic": ("Compass", "Rings", "Textures"),
}


def __getattr__(name: str) -> object:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
