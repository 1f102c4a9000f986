"""Trained models as teachers: logits for every cell of an image, (B, R, C, classes).

How a model gives logits of a single cell:

- A dense head (LV-ViT, SP-ViT) was trained for it.
- In a model that averages its tokens, or a CNN that averages the cells of its last feature map, the classifier is applied to
  each cell instead of the mean. If the classifier is linear, the mean of the cells' logits is exactly the image's logits. (A
  norm between mean and classifier, as in ConvNeXt, makes this approximate.)
- In a model with a class token and without a dense head, the head is applied to patches that it was never trained to read.
  Nothing in training gives these logits a meaning, and `Teacher.note` warns of it.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torchvision
from torch import Tensor, nn

from ..convert import read_state
from ..data.preprocessing import Preprocessing
from ..errors import UserError, near
from ..geometry import patch_grid
from ..vit import VisionModel
from ..weights import find_weights, list_differences, load_metadata, mismatch_error, read_metadata
from ..zoo import model_from_weights

TORCHVISION = "torchvision:"


@dataclass
class Teacher:
    """A trained model that gives logits for each cell."""

    name: str  # of the model, with a fingerprint of its weights
    cells: nn.Module  # from images (B, 3, height, width) to logits (B, R, C, classes)
    preprocessing: Preprocessing
    classes: list[str] | None = None  # names, if they are known
    note: str = ""  # a warning about the value of its labels


class PatchLogits(nn.Module):
    """The logits of each patch by a ViT of this package."""

    def __init__(self, model: VisionModel):
        super().__init__()
        self.model: Any = model

    def forward(self, images: Tensor) -> Tensor:
        model, grid = self.model, patch_grid(images.shape[-2:], self.model.config.patch)
        if model.dense_head is not None:
            logits = model(images, dense=True)[1]
        else:
            logits = model.head(model.forward_features(images)[:, -grid[0] * grid[1] :])  # without a class token
        return logits.unflatten(1, grid)


class CellLogits(nn.Module):
    """The logits of each cell of a torchvision model's last feature map, which its `avgpool` averages.

    The layers after the mean process each cell as an image of its own.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, self.cells = model, CellsAsImages()
        model.avgpool = self.cells

    def forward(self, images: Tensor) -> Tensor:
        logits = self.model(images)  # (B·R·C, classes)
        return logits.unflatten(0, (len(images), *self.cells.grid))


class CellsAsImages(nn.Module):
    """Replace the average over cells: (B, D, R, C) to (B·R·C, D, 1, 1). `grid` is the last (R, C)."""

    def forward(self, features: Tensor) -> Tensor:
        self.grid = tuple(features.shape[-2:])
        return features.permute(0, 2, 3, 1).flatten(0, 2)[:, :, None, None]


def load_teacher(model: str, *, weights: Path | None = None, image_size: int | None = None) -> Teacher:
    """Load a teacher.

    Args:
        model: a run folder or a weights file of this package, or "torchvision:NAME".
        weights: the weights of a torchvision model, its state_dict as a torch or safetensors file. Nothing is downloaded.
        image_size: side of the square that images are resized to. None: the image size of the model.

    Raises UserError for missing or damaged weights, and for an unknown model.
    """
    if model.startswith(TORCHVISION):
        if weights is None:
            raise UserError(f"{model} needs --weights FILE, its state_dict; nothing is downloaded")
        teacher = _torchvision_teacher(model, Path(weights), image_size)
    else:
        if weights is not None:
            raise UserError(f"--weights is for {TORCHVISION}NAME, but --model is {model}; leave --weights out")
        teacher = _own_teacher(find_weights(model), image_size)
    teacher.cells.eval().requires_grad_(False)
    return teacher


def _own_teacher(path: Path, image_size: int | None) -> Teacher:
    model = model_from_weights(path, image_size=image_size)
    note = ""
    if model.dense_head is None and model.class_token is not None:
        note = (
            f"{model.name} reads a class token, and its head was never trained to read patches: these labels may be "
            "meaningless. Use a model with a dense head, or one that averages its patches"
        )
    classes = read_metadata(load_metadata(path), "classes", source=path)
    return Teacher(f"{model.name} {describe_file(path)}", PatchLogits(model), model.preprocessing, classes, note)


def _torchvision_teacher(model: str, path: Path, image_size: int | None) -> Teacher:
    name = model.removeprefix(TORCHVISION)
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise UserError(f"torchvision has no classifier {name!r}.{near(name, known)}")
    state, _ = read_state(path)
    network = torchvision.models.get_model(name, weights=None)
    last = [key for key, module in network.named_modules() if isinstance(module, nn.Linear)][-1:]
    classes = [len(state[f"{key}.bias"]) for key in last if f"{key}.bias" in state]
    if classes != [1000]:
        network = torchvision.models.get_model(name, weights=None, num_classes=classes[0] if classes else 1000)
    if getattr(getattr(network, "avgpool", None), "output_size", None) not in (1, (1, 1)):
        raise UserError(
            f"{model} has no `avgpool` that averages the cells of a feature map, so that it gives no logits of a cell; "
            "use a ResNet, ResNeXt, RegNet, EfficientNet, MobileNetV3, ConvNeXt or Swin"
        )
    network.name = model
    if differ := list_differences(network, state):
        raise mismatch_error(network, differ, source=str(path))
    network.load_state_dict(state)
    if hasattr(network, "transform_input"):
        network.transform_input = True  # GoogLeNet and Inception: their published weights expect another normalisation

    # The preprocessing of the published weights.
    preset = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    height, width = (image_size, image_size) if image_size else preset.crop_size * 2
    own = {"mean": preset.mean, "std": preset.std, "interpolation": preset.interpolation.value}
    return Teacher(f"{model} {describe_file(path)}", CellLogits(network), Preprocessing((height, width), **own))


def describe_file(path: Path) -> str:
    """Describe a file by its name and the first twelve digits of its SHA-256."""
    return f"({path.name}, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()[:12]})"
