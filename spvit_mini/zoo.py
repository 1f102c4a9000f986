"""Every model by its name, and its weights in a file.

A name stands for a `ViTConfig`; `create_model` builds it, with any field overridden. Weights are safetensors files, which
hold numbers and cannot run code; their metadata says which model they belong to and how its images were prepared.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .data.augment import Preprocessing, evaluation_transform
from .errors import UserError, near
from .vit import ViT, ViTConfig, resize_grid


def vit_mini() -> ViTConfig:
    """A plain ViT for 32-pixel images, 2.7 M parameters: the skeleton of all minis."""
    return ViTConfig()


def spvit_mini() -> ViTConfig:
    """The skeleton of `vit_mini` with SP-SA in every block, its priors started wide so that they are found soon."""
    return ViTConfig(attention="spsa", attention_options={"hidden": 32, "weight_std": 0.5})


MODELS: dict[str, Callable[[], ViTConfig]] = {make.__name__: make for make in (vit_mini, spvit_mini)}


def list_models() -> list[str]:
    """List the names that `create_model` knows."""
    return sorted(MODELS)


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    weights: str | Path | None = None,
    **overrides,
) -> ViT:
    """Build a model by name.

    Args:
        name: one of `list_models()`.
        num_classes: width of the head; the model's own if not given.
        image_size: side in pixels, or (height, width).
        weights: a safetensors file as `save_weights` writes it. Positions made for another image size are interpolated.
        overrides: other fields of `ViTConfig`, e.g. depth=4.

    Raises UserError for an unknown name or field, a size that the patch does not divide, or weights of another model.
    """
    if name not in MODELS:
        raise UserError(f"no model is called {name!r}.{near(name, MODELS)} list_models() names them all")
    config = MODELS[name]()
    fields = {field.name for field in dataclasses.fields(config)}
    for field in overrides:
        if field not in fields:
            raise UserError(f"a model has no option {field!r}.{near(field, fields)}")
    if num_classes is not None:
        overrides["num_classes"] = num_classes
    if image_size is not None:
        overrides["image_size"] = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    model = ViT(dataclasses.replace(config, **overrides))
    model.name = name
    model.preprocessing = Preprocessing(image_size=model.config.image_size)
    if weights is not None:
        state, metadata = load_weights(weights)
        load_state(model, state, source=str(weights))
        if "preprocessing" in metadata:
            saved = Preprocessing.from_json(metadata["preprocessing"])
            model.preprocessing = dataclasses.replace(saved, image_size=model.config.image_size)
    return model


def transforms_for(model: nn.Module) -> Callable:
    """Make the transform from a PIL image to what this model expects when it is evaluated: (3, height, width)."""
    return evaluation_transform(model.preprocessing)


def save_weights(model: nn.Module, path: str | Path, **metadata: str) -> None:
    """Write a model's weights, with its name, configuration and preprocessing as metadata, to a safetensors file."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    described = {
        "model": model.name,
        "config": json.dumps(dataclasses.asdict(model.config)),
        "preprocessing": model.preprocessing.to_json(),
    }
    save_file(state, str(path), metadata={**described, **metadata})


def load_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file: its tensors by name, and its metadata. Runs no code from the file."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no weights file {path}")
    try:
        with safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is no whole safetensors file ({error}); make it again or copy it again") from None


def load_state(model: nn.Module, state: dict[str, Tensor], *, source: str) -> None:
    """Load weights strictly; only positions learned on another grid are interpolated to the model's own.

    Raises UserError that names the first differences if they belong to another model.
    """
    own = model.state_dict()
    if "positions" in state and "positions" in own and state["positions"].shape[:2] == own["positions"].shape[:2]:
        state = {**state, "positions": resize_grid(state["positions"], model.grid)}
    differences = [f"lacks {name}" for name in own if name not in state]
    differences += [f"has {name}, which the model lacks" for name in state if name not in own]
    differences += [
        f"has {name} of shape {tuple(state[name].shape)} for {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if differences:
        more = f", and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise UserError(f"{source} does not fit {model.name}: it {'; it '.join(differences[:3])}{more}")
    model.load_state_dict(state)


def model_from_weights(path: str | Path) -> ViT:
    """Rebuild the model that a weights file belongs to, from the name and configuration in its metadata."""
    _, metadata = load_weights(path)
    if "config" not in metadata:
        raise UserError(f"{path} does not say which model it belongs to; name one: create_model(NAME, weights=FILE)")
    config = json.loads(metadata["config"])
    config["image_size"] = tuple(config["image_size"])
    return create_model(metadata["model"], weights=path, **config)
