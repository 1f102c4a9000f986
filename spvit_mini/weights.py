"""Weights in files: writing, reading, and initialising a model from them for other classes and other image sizes.

Weights are safetensors files, which hold numbers and cannot run code; their metadata name the model that they belong to
and say how its images were prepared.
"""

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .errors import UserError
from .fields import parse_json
from .files import atomic_write, compose, digest
from .renamed import RENAMED_VALUES, current_names
from .vit import VisionModel, resize_grid


def save_weights(
    model: VisionModel, path: str | Path, *, state: dict[str, Tensor] | None = None, **metadata: str
) -> None:
    """Write a model's weights atomically, with its name, configuration and preprocessing as metadata, to a safetensors file.

    A map that several blocks share is written once for each of them. `state` replaces the model's own `state_dict` if that
    is sharded over several processes. `metadata` are further entries.
    """
    state = model.state_dict() if state is None else state
    state = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}
    content = save(state, metadata={**model_metadata(model), **metadata})
    with atomic_write(Path(path)) as temporary:
        temporary.write_bytes(content)


def model_metadata(model: VisionModel) -> dict[str, str]:
    """Build the metadata from which a model can be rebuilt and its images prepared: name, configuration, preprocessing."""
    return {
        "model": model.name,
        "config": json.dumps(dataclasses.asdict(model.config)),
        "preprocessing": model.preprocessing.to_json(),
    }


def find_weights(path: str | Path) -> Path:
    """Find the weights file of a run folder; the path of a file stays as it is."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist; expected a run folder or a weights file")
    if not path.is_dir():
        return path
    if not (path / "best.safetensors").is_file():
        raise UserError(f"{path} contains no best.safetensors; a run writes it at its first evaluation with a finite loss")
    return path / "best.safetensors"


def load_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file: its tensors by name, and its metadata. Runs no code from the file."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no weights file {path}")
    try:
        # safetensors refuses a path that is no UTF-8, but not that of the open file.
        is_utf8 = os.fsencode(path).decode("utf-8", "ignore") == str(path)
        with open(path, "rb") as opened, safe_open(path if is_utf8 else f"/dev/fd/{opened.fileno()}", framework="pt") as file:
            metadata = file.metadata() or {}
            if "weights" in metadata:
                metadata["weights"] = RENAMED_VALUES["weights"].get(metadata["weights"], metadata["weights"])
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path} is no complete safetensors file ({error}). Write or copy it again; convert third-party weights first, "
            "by python -m spvit_mini convert."
        ) from None


def fingerprint_weights(path: str | Path) -> str:
    """Fingerprint the tensors and the classes of a run folder or weights file, whatever its name and its other metadata."""
    state, metadata = load_weights(find_weights(path))
    parts: list[Any] = [metadata.get("classes", "")]
    for name, tensor in sorted(state.items()):
        parts += [f"{name} {tensor.dtype} {tuple(tensor.shape)}", tensor.reshape(-1).view(torch.uint8).numpy()]
    return f"weights {digest(parts)}"


def read_metadata(metadata: dict[str, str], key: str, *, source: str | Path) -> Any:
    """Parse an entry of a weights file's metadata, a dictionary "config" or a list of texts, as JSON; None without the entry."""
    kind = dict[str, Any] if key == "config" else list[str]
    return parse_json(kind, metadata[key], f"the {key} in {source}") if key in metadata else None


def load_state(model: VisionModel, state: dict[str, Tensor], *, source: str) -> None:
    """Load weights strictly; only what was learned on another grid, positions and bias tables, is interpolated.

    Raises UserError that names the first differences if they belong to another model.
    """
    state = fit_grid(model, state)
    if differ := list_differences(model, state):
        raise mismatch_error(model, differ, source=source)
    model.load_state_dict(state)


def mismatch_error(model: VisionModel, differ: list[str], *, source: str) -> UserError:
    """Build the error for weights of another model, with the first differences."""
    more = f", and {len(differ) - 3} more" if len(differ) > 3 else ""
    return UserError(f"{source} does not fit {model.name}: it {'; it '.join(differ[:3])}{more}")


def fit_grid(model: VisionModel, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Interpolate the positions and bias tables of a state to the grid of a model."""
    own, state = model.state_dict(), dict(state)
    if "positions" in state and "positions" in own and state["positions"].shape[:2] == own["positions"].shape[:2]:
        state["positions"] = resize_grid(state["positions"], model.grid)
    for name, module in model.named_modules(remove_duplicate=False):  # a shared table has a name in each of its blocks
        for key, values in module.named_parameters(name, recurse=False) if hasattr(module, "resize") else ():
            if key in state and len(state[key]) == len(values):
                state[key] = module.resize(state[key], model.grid)
    return state


def list_differences(model: VisionModel, state: dict[str, Tensor]) -> list[str]:
    """List why a state does not fit a model: tensors that are missing, unexpected, or of another shape."""
    own = model.state_dict()
    lacks = [f"lacks {name}" for name in own if name not in state]
    more = [f"has {name}, which the model lacks" for name in state if name not in own]
    shapes = {name: (tuple(state[name].shape), tuple(own[name].shape)) for name in own if name in state}
    differ = [f"has {name} of shape {theirs} for {ours}" for name, (theirs, ours) in shapes.items() if theirs != ours]
    return lacks + more + differ


# --- Initialisation from trained weights --------------------------------------------------------------------------------

HEADS = ("head.", "dense_head.")
# Fields that may differ between a model and its initial weights: every other field changes what the same numbers compute,
# even if their shapes fit. Among an attention's options, those of its initialisation.
IGNORED_FIELDS = ("image_size", "num_classes", "drop_path", "init_std")
IGNORED_OPTIONS = ("std", "weight_std", "bias_std", "strength")


def init_from_weights(model: VisionModel, path: str | Path, *, classes: list[str]) -> str:
    """Initialise a model from the weights of a run folder or a weights file, to train it on other images.

    The heads keep their initial values in `model` if the file's classes differ, in number or by name. What was learned on
    another grid is interpolated. Everything else must fit, in shape and in meaning.

    Args:
        model: of the same kind as the weights, for its own classes and image size.
        path: run folder or weights file. Convert third-party weights by `python -m spvit_mini convert`.
        classes: names of the model's classes. A file without names counts as the same classes if it has as many.

    Returns a line about what was loaded and what is re-initialised. Raises UserError, naming the first differences, for the
    weights of another model; the model is then unchanged.
    """
    from .data import Preprocessing

    path = find_weights(path)
    state, metadata = load_weights(path)
    source = f"{path} ({metadata['model']})" if "model" in metadata else f"{path}"
    if differ := list_config_differences(model, current_names(read_metadata(metadata, "config", source=path) or {}, "model")):
        fields = [re.match(r"has (\w+) ([\w./]+) for", line) for line in differ]
        fix = " ".join(f"--model.{field[1].replace('_', '-')} {field[2]}" for field in fields if field)
        raise UserError(f"{mismatch_error(model, differ, source=source)}. Use {fix or 'the model of the weights'}.")

    names = read_metadata(metadata, "classes", source=path)
    before = len(state["head.bias"]) if "head.bias" in state else 0
    has_other_classes = before != len(classes) if names is None else list(map(compose, names)) != classes
    own = model.state_dict()
    if has_other_classes:
        state |= {name: own[name] for name in state if name.startswith(HEADS) and name in own}
    load_state(model, state, source=source)

    which = f"{metadata.get('weights', 'last')} weights" + (f" of step {metadata['step']}" if "step" in metadata else "")
    line = f"{path}, {which}"
    if has_other_classes:
        heads = "head and dense head are" if "dense_head.bias" in own else "head is"
        others = f"the file has {before}" if before != len(classes) else "the file has others"
        line += f"; the {heads} re-initialised for {len(classes)} classes ({others})"
    else:
        line += f", head included ({'the same' if names else 'as many'} classes)"
    resized = {name for name in own if state[name].shape != own[name].shape}
    kinds = ["positions"] * ("positions" in resized) + ["bias tables"] * bool(resized - {"positions"})
    if kinds:
        line += f"; {' and '.join(kinds)} are interpolated to {'×'.join(map(str, model.grid))} patches"
    if "preprocessing" in metadata:
        seen, now = Preprocessing.from_json(metadata["preprocessing"]), model.preprocessing
        if (seen.mean, seen.std) != (now.mean, now.std):
            line += f"; they were trained with a mean of {seen.mean} and a std of {seen.std}, which differ here"
    return line


def list_config_differences(model: VisionModel, config: dict[str, Any]) -> list[str]:
    """List where a file's configuration differs from the model's own, among the fields that weights depend on."""

    def relevant(config: dict[str, Any]) -> dict[str, Any]:
        fields = {name: value for name, value in config.items() if name not in IGNORED_FIELDS}
        for name in {"attention_options", "odd_block_options"} & fields.keys():
            fields[name] = {option: value for option, value in fields[name].items() if option not in IGNORED_OPTIONS}
        return fields

    own, theirs = relevant(json.loads(json.dumps(dataclasses.asdict(model.config)))), relevant(config)
    return [f"has {name} {theirs[name]} for {own[name]}" for name in own if name in theirs and theirs[name] != own[name]]
