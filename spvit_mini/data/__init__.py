"""Data: made sets and photographs, brought to a model's input, and the order in which they come. It knows no model.

`load_data` gives the training and validation images of a set by its name; `TrainBatches` says which training images
come when.
"""

from .augment import Preprocessing, evaluation_transform, training_transform
from .datasets import Data, load_data
from .options import AugmentOptions, DataOptions
from .sampler import Key, TrainBatches
from .synthetic import Compass, Rings, Textures

__all__ = [
    "AugmentOptions",
    "Compass",
    "Data",
    "DataOptions",
    "Key",
    "Preprocessing",
    "Rings",
    "Textures",
    "TrainBatches",
    "evaluation_transform",
    "load_data",
    "training_transform",
]
