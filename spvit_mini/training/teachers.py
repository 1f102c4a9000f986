"""Trained models as teachers: logits for each cell of an image, (B, R, C, classes), not only for the whole.

How a model comes to say something of a single cell:

- A dense head (LV-ViT, SP-ViT) was trained to do it.
- A model that averages its tokens, or a CNN that averages the cells of its last feature map, and then classifies the
  mean: the classifier is applied to each cell instead. Where it is linear, the mean of the cells' logits is exactly the
  image's logit, so each cell says what it adds to the answer. (A norm between mean and classifier, as in ConvNeXt, makes
  that approximate.)
- A model with a class token and no dense head: its head, applied to patches that it was never trained to read. It has been
  done, but nothing in training makes these logits mean anything, and `Teacher.note` warns of it.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torchvision
from torch import Tensor, nn

from ..convert import read_state
from ..data.augment import Preprocessing
from ..errors import UserError, near
from ..geometry import patch_grid
from ..vit import ViT
from ..weights import find_weights, list_differences, load_weights, mismatch_error, read_metadata
from ..zoo import model_from_weights

TORCHVISION = "torchvision:"


@dataclass
class Teacher:
    """A trained model that says what it sees in each cell.

    Attributes:
        name: what it is, with a fingerprint of its weights.
        cells: the module: images (B, 3, height, width) to logits (B, R, C, classes).
        preprocessing: how images are brought to its input.
        classes: the names of its classes, if it knows them.
        note: a warning about what its answers are worth, or "".
    """

    name: str
    cells: nn.Module
    preprocessing: Preprocessing
    classes: list[str] | None = None
    note: str = ""


class PatchLogits(nn.Module):
    """Ask a ViT of this package about each patch."""

    def __init__(self, model: ViT):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        model, grid = self.model, patch_grid(images.shape[-2:], self.model.config.patch)
        if model.dense_head is not None:
            logits = model(images, dense=True)[1]
        else:
            logits = model.head(model.forward_features(images)[:, -grid[0] * grid[1] :])  # without a class token
        return logits.unflatten(1, grid)


class CellLogits(nn.Module):
    """Ask a torchvision model about each cell of its last feature map, the one that its `avgpool` averages.

    What comes after the mean takes each cell for an image of its own.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.model.avgpool = CellsAsImages()

    def forward(self, images: Tensor) -> Tensor:
        logits = self.model(images)  # (B·R·C, classes)
        return logits.unflatten(0, (len(images), *self.model.avgpool.grid))


class CellsAsImages(nn.Module):
    """Stand in for the average over cells: (B, D, R, C) to (B·R·C, D, 1, 1). `grid` is the last (R, C)."""

    def forward(self, features: Tensor) -> Tensor:
        self.grid = tuple(features.shape[-2:])
        return features.permute(0, 2, 3, 1).flatten(0, 2)[:, :, None, None]


def load_teacher(model: str, *, weights: Path | None = None, image_size: int | None = None) -> Teacher:
    """Load a teacher.

    Args:
        model: a run folder or a weights file of this package, or "torchvision:NAME".
        weights: the weights of a torchvision model, its state_dict as a torch or safetensors file. Nothing is downloaded.
        image_size: side of the square that images are squeezed to; the model's own frame if not given.

    Raises UserError for what is missing, damaged or no such model.
    """
    if model.startswith(TORCHVISION):
        if weights is None:
            raise UserError(f"{model} needs its weights: --weights FILE, its state_dict; nothing is downloaded")
        teacher = _torchvision_teacher(model, Path(weights), image_size)
    else:
        if weights is not None:
            raise UserError(f"--weights go with {TORCHVISION}NAME; {model} is a run folder or a weights file by itself")
        teacher = _own_teacher(find_weights(model), image_size)
    teacher.cells.eval().requires_grad_(False)
    return teacher


def _own_teacher(path: Path, image_size: int | None) -> Teacher:
    model = model_from_weights(path, image_size=image_size)
    note = ""
    if model.dense_head is None and model.class_token is not None:
        note = (
            f"{model.name} reads a class token, and its head was never trained to read patches: these labels may mean "
            "little. A model with a dense head, or one that averages its patches, makes better ones"
        )
    classes = read_metadata(load_weights(path)[1], "classes", source=path)
    name = f"{model.name} ({path.name}, sha256 {fingerprint(path)})"
    return Teacher(name, PatchLogits(model), model.preprocessing, classes, note)


def _torchvision_teacher(model: str, path: Path, image_size: int | None) -> Teacher:
    name = model.removeprefix(TORCHVISION)
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise UserError(f"torchvision has no classifier {name!r}.{near(name, known)}")
    state, _ = read_state(path)
    built = torchvision.models.get_model(name, weights=None)
    last = [key for key, module in built.named_modules() if isinstance(module, nn.Linear)][-1:]
    classes = [len(state[f"{key}.bias"]) for key in last if f"{key}.bias" in state]
    if classes != [1000]:
        built = torchvision.models.get_model(name, weights=None, num_classes=classes[0] if classes else 1000)
    if getattr(getattr(built, "avgpool", None), "output_size", None) not in (1, (1, 1)):
        raise UserError(
            f"{model} does not average the cells of a feature map before it classifies (or not in its `avgpool`), so it "
            "has nothing to say of a cell; take a ResNet, ResNeXt, RegNet, EfficientNet, MobileNetV3, ConvNeXt or Swin"
        )
    built.name = model
    if differ := list_differences(built, state):
        raise mismatch_error(built, differ, source=str(path))
    built.load_state_dict(state)
    if hasattr(built, "transform_input"):
        built.transform_input = True  # GoogLeNet and Inception: their published weights expect another normalisation

    # How the published weights of this name expect their images.
    preset = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    height, width = (image_size, image_size) if image_size else preset.crop_size * 2
    own = {"mean": preset.mean, "std": preset.std, "interpolation": preset.interpolation.value}
    name = f"{model} ({path.name}, sha256 {fingerprint(path)})"
    return Teacher(name, CellLogits(built), Preprocessing((height, width), **own))


def fingerprint(path: Path) -> str:
    """Tell a file from others: the first twelve digits of its SHA-256."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()[:12]
