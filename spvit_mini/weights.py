"""Weights in files: writing, reading, and initialising a model from them for other classes and other image sizes.

Weights are safetensors files, which hold numbers and cannot run code; their metadata name the model that they belong to
and say how its images were prepared.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from .errors import UserError
from .renamed import RENAMED_VALUES, current_names
from .spatial import Table, resize_table
from .vit import resize_grid


def save_weights(
    model: nn.Module, path: str | Path, *, state: dict[str, Tensor] | None = None, **metadata: str
) -> None:
    """Write a model's weights, with its name, configuration and preprocessing as metadata, to a safetensors file.

    A map that several blocks share is written once for each of them. `state` stands for the model's own `state_dict`,
    where that lies in parts over several processes.
    """
    state = model.state_dict() if state is None else state
    state = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}
    content = save(state, metadata={**model_metadata(model), **metadata})
    Path(path).write_bytes(content)  # save_file would make a file that no one else may read


def model_metadata(model: nn.Module) -> dict[str, str]:
    """Say what someone must know of a model to rebuild it, and to prepare images for it."""
    return {
        "model": model.name,
        "config": json.dumps(dataclasses.asdict(model.config)),
        "preprocessing": model.preprocessing.to_json(),
    }


def find_weights(path: str | Path) -> Path:
    """Find the weights that a user means by a run folder or a file."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"there is no run folder or weights file {path}")
    if not path.is_dir():
        return path
    if not (path / "best.safetensors").is_file():
        raise UserError(f"{path} holds no best.safetensors; a run writes it at its first evaluation")
    return path / "best.safetensors"


def load_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file: its tensors by name, and its metadata. Runs no code from the file."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no weights file {path}")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if "weights" in metadata:
                metadata["weights"] = RENAMED_VALUES["weights"].get(metadata["weights"], metadata["weights"])
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path} is no whole safetensors file ({error}); make it again or copy it again, or convert it first if "
            "others made it: python -m spvit_mini convert"
        ) from None


def read_metadata(metadata: dict[str, str], what: str, *, source: str | Path) -> Any:
    """Read what a weights file's metadata say of `what` ("config", "classes"), as JSON; None if they say nothing."""
    try:
        return json.loads(metadata[what]) if what in metadata else None
    except json.JSONDecodeError as error:
        raise UserError(
            f"the {what} in {source} cannot be read ({error}); make the file again or copy it again"
        ) from None


def load_state(model: nn.Module, state: dict[str, Tensor], *, source: str) -> None:
    """Load weights strictly; only what was learned on another grid, positions and bias tables, is interpolated.

    Raises UserError that names the first differences if they belong to another model.
    """
    state = fit_grid(model, state)
    if differ := list_differences(model, state):
        raise mismatch_error(model, differ, source=source)
    model.load_state_dict(state)


def mismatch_error(model: nn.Module, differ: list[str], *, source: str) -> UserError:
    """Say that weights are of another model, and the first differences."""
    more = f", and {len(differ) - 3} more" if len(differ) > 3 else ""
    return UserError(f"{source} does not fit {model.name}: it {'; it '.join(differ[:3])}{more}")


def fit_grid(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Interpolate the positions and bias tables of a state to the grid of a model."""
    own, state = model.state_dict(), dict(state)
    if "positions" in state and "positions" in own and state["positions"].shape[:2] == own["positions"].shape[:2]:
        state["positions"] = resize_grid(state["positions"], model.grid)
    for name, module in model.named_modules(remove_duplicate=False):  # a shared table has a name in each of its blocks
        values = state.get(f"{name}.values")
        if isinstance(module, Table) and values is not None and len(values) == len(module.values):
            state[f"{name}.values"] = resize_table(values, model.grid)
    return state


def list_differences(model: nn.Module, state: dict[str, Tensor]) -> list[str]:
    """List what keeps a state from being this model's: what it lacks, has too much, or has in another shape."""
    own = model.state_dict()
    lacks = [f"lacks {name}" for name in own if name not in state]
    more = [f"has {name}, which the model lacks" for name in state if name not in own]
    shapes = [
        f"has {name} of shape {tuple(state[name].shape)} for {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    return lacks + more + shapes


# --- Initialisation from trained weights --------------------------------------------------------------------------------

HEADS = ("head.", "dense_head.")
# What may differ between a model and the weights that it starts from: all else in a configuration changes what the same
# numbers compute, also where their shapes fit. Of an attention's options, those that say how it is drawn at the start.
FREE = ("image_size", "num_classes", "drop_path", "init_std")
FREE_OPTIONS = ("std", "weight_std", "bias_std", "strength")


def init_from_weights(model: nn.Module, path: str | Path, *, classes: list[str]) -> str:
    """Load the weights of a run folder or a weights file into a model that will learn other images.

    The heads keep the start that they have in `model` where the file's classes are others, in number or by name. What
    was learned on another grid is interpolated. Everything else must fit, in shape and in meaning.

    Args:
        model: of the same kind as the weights, for its own classes and image size.
        path: where the weights are. Those of others come from `python -m spvit_mini convert`.
        classes: the names of what the model will tell apart. A file without names is taken to mean the same where it has
            as many.

    Returns a line that says what was taken and what begins anew. Raises UserError, naming the first differences, for
    the weights of another model; the model is then as it was.
    """
    from .data import Preprocessing

    path = find_weights(path)
    state, metadata = load_weights(path)
    source = f"{path} ({metadata['model']})" if "model" in metadata else f"{path}"
    if differ := list_config_differences(model, current_names(read_metadata(metadata, "config", source=path) or {}, "model")):
        raise mismatch_error(model, differ, source=source)

    named = read_metadata(metadata, "classes", source=path)
    before = len(state["head.bias"]) if "head.bias" in state else 0
    anew = before != len(classes) if named is None else named != classes
    own = model.state_dict()
    if anew:
        state |= {name: own[name] for name in state if name.startswith(HEADS) and name in own}
    load_state(model, state, source=source)

    which = f"{metadata.get('weights', 'last')} weights" + (f" of step {metadata['step']}" if "step" in metadata else "")
    line = f"{path}, {which}"
    if anew:
        what = "head and dense head start" if "dense_head.bias" in own else "head starts"
        others = f"{before} there" if before != len(classes) else "other ones there"
        line += f"; the {what} anew for {len(classes)} classes ({others})"
    else:
        line += f", head included ({'the same' if named else 'as many'} classes)"
    resized = {name for name in own if state[name].shape != own[name].shape}
    kinds = ["positions"] * ("positions" in resized) + ["bias tables"] * bool(resized - {"positions"})
    if kinds:
        line += f"; {' and '.join(kinds)} are interpolated to {'×'.join(map(str, model.grid))} patches"
    if "preprocessing" in metadata:
        seen, now = Preprocessing.from_json(metadata["preprocessing"]), model.preprocessing
        if (seen.mean, seen.std) != (now.mean, now.std):
            line += f"; they are used to a mean of {seen.mean} and a std of {seen.std}, which are others here"
    return line


def list_config_differences(model: nn.Module, config: dict[str, Any]) -> list[str]:
    """List what a file's configuration says otherwise than the model's own, of all that weights must agree in."""

    def telling(config: dict[str, Any]) -> dict[str, Any]:
        telling = {name: value for name, value in config.items() if name not in FREE}
        for name in {"attention_options", "odd_block_options"} & telling.keys():
            telling[name] = {option: value for option, value in telling[name].items() if option not in FREE_OPTIONS}
        return telling

    own, there = telling(json.loads(json.dumps(dataclasses.asdict(model.config)))), telling(config)
    return [f"has {name} {there[name]} for {own[name]}" for name in own if name in there and there[name] != own[name]]
