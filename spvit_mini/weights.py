"""Weights in files: writing, reading, and initialising a model from them for other classes and other image sizes.

Weights are safetensors files, which hold numbers and cannot run code; their metadata name the model that they belong to
and say how its images were prepared.
"""

import dataclasses
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .config import ViTConfig
from .errors import UserError
from .fields import naming, parse_json
from .files import atomic_write, compose, digest
from .renamed import RENAMED_VALUES, current_names
from .vit import VisionModel, attention_of, resize_grid, spatial_of


def save_weights(
    model: VisionModel, path: str | Path, *, state: dict[str, Tensor] | None = None, **metadata: str
) -> None:
    """Write a model's weights atomically, with its name, configuration and preprocessing as metadata, to a safetensors file.

    A map that several blocks share is written once for each of them. `state` replaces the model's own `state_dict` if that
    is sharded over several processes. `metadata` are further entries. A wrapper of the model, such as torch.compile's, leaves
    no trace in the file.
    """
    model = getattr(model, "module", model)
    state = remove_wrappers(model.state_dict() if state is None else state)
    state = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}
    content = save(state, metadata={**model_metadata(model), **metadata})
    with atomic_write(Path(path)) as temporary:
        temporary.write_bytes(content)


def model_metadata(model: VisionModel) -> dict[str, str]:
    """Build the metadata from which a model can be rebuilt and its images prepared: name, configuration, preprocessing."""
    metadata = {"model": model.name, "config": json.dumps(dataclasses.asdict(model.config))}
    # A model that was not built by its name has none.
    return metadata | ({"preprocessing": model.preprocessing.to_json()} if hasattr(model, "preprocessing") else {})


# What DistributedDataParallel, AveragedModel, torch.compile, FSDP and activation checkpointing put before a part's own name.
PARTS = "_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module"
WRAPPERS = re.compile(rf"^(?:(?:module|{PARTS})\.)+|(?<=\.)(?:{PARTS})\.")


def remove_wrappers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove what wrappers of a model add to the names of its tensors, in any nesting."""
    return {WRAPPERS.sub("", name): tensor for name, tensor in state.items() if name != "n_averaged"}


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
    with open_weights(path) as (file, metadata):
        return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118


def load_metadata(path: str | Path) -> dict[str, str]:
    """Read the metadata of a weights file alone. Raises UserError for third-party weights."""
    with open_weights(path) as (file, metadata):
        if "model" not in metadata:
            refuse_third_party(file.keys(), source=path)
        return metadata


@contextmanager
def open_weights(path: str | Path) -> Iterator[tuple[Any, dict[str, str]]]:
    """Open a safetensors file: yield its reader and its metadata."""
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
            yield file, metadata
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path} is no complete safetensors file ({error}). Write or copy it again; convert third-party weights first: "
            f"python -m spvit_mini convert {path} --model NAME"
        ) from None


def refuse_third_party(names: Iterable[str], *, source: str | Path, model: str = "NAME") -> None:
    """Raise UserError, with the command that converts them, if tensors have the names of third-party weights."""
    pattern = r"(.+\.)?(patch_embed\..+|cls_token|pos_embed|blocks\.\d+\.attn\..+)"
    if theirs := next((name for name in names if re.fullmatch(pattern, name)), None):
        raise UserError(
            f"{source} has third-party weights, such as {theirs}. Convert them first: python -m spvit_mini convert {source} "
            f"--model {model}"
        )


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
    state = fit_grid(model, remove_wrappers(state))
    if differ := list_differences(model, state):
        refuse_third_party(state, source=source, model=model.name)
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
    state, source = remove_wrappers(state), f"{path} ({metadata['model']})" if "model" in metadata else f"{path}"
    check_config(model, metadata, source=path, option="--model.{} {}")

    names = read_metadata(metadata, "classes", source=path)
    before = state["head.bias"].numel() if "head.bias" in state else 0
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


def check_config(model: VisionModel, metadata: dict[str, str], *, source: str | Path, option: str) -> None:
    """Raise UserError, with both values of the first fields, if the file's configuration means another model.

    `option` is how the remedy writes a field, such as "{}={}".
    """
    config = current_names(read_metadata(metadata, "config", source=source) or {}, "model")
    with naming(source):  # its types and ranges
        dataclasses.replace(model.config, **{name: value for name, value in config.items() if hasattr(model.config, name)})
    if differ := list_config_differences(model, config):
        name = metadata.get("model", model.name)
        error = mismatch_error(model, differ, source=f"{source} ({name})")
        fields = [re.match(r"has (\w+) ([\w./]+) for", line) for line in differ]
        fix = " ".join(option.format(f[1].replace("_", "-" if "--" in option else "_"), f[2]) for f in fields if f)
        raise UserError(f"{error}. Use {(fix if name == model.name else '') or f'the model of the weights, {name}'}.")


def list_config_differences(model: VisionModel, config: dict[str, Any]) -> list[str]:
    """List where a file's configuration means another model than `model`, among the fields that weights depend on."""

    def relevant(config: dict[str, Any]) -> dict[str, Any]:
        fields = {name: value for name, value in config.items() if name not in IGNORED_FIELDS}
        for name in {"attention_options", "odd_block_options"} & fields.keys():
            fields[name] = {option: value for option, value in fields[name].items() if option not in IGNORED_OPTIONS}
        return fields

    own = json.loads(json.dumps(dataclasses.asdict(model.config)))
    ours, theirs = relevant(own), relevant(config)
    lacks = [f"has {name} {value}, which the model lacks" for name, value in theirs.items() if name not in ours]
    differ = [name for name in ours if name in theirs and theirs[name] != ours[name]]
    fields = {"attention", "attention_options", "odd_block_options", "spatial_layers"}
    written = own | {name: config[name] for name in fields & theirs.keys()}
    if fields & set(differ) and describe_attentions(own) == describe_attentions(written):
        differ = [name for name in differ if name not in fields]
    return [f"has {name} {theirs[name]} for {ours[name]}" for name in differ] + lacks


def describe_attentions(config: dict[str, Any]) -> list[Any]:
    """Describe what the attention of each block computes, its numbers apart: equal for two ways to write one configuration."""
    descriptions: list[Any] = []
    with torch.device("meta"):
        for block in range(config["depth"]):
            attention = attention_of(ViTConfig(**config), block)
            spatial = spatial_of(attention)
            if not all(type(part).__module__.startswith(__package__) for part in (attention, spatial) if part is not None):
                return [object()]  # of the user's own: nobody knows
            descriptions.append(getattr(attention, "mode", type(attention)))
            for part in spatial.modules() if spatial is not None else ():
                settings = {n: v for n, v in vars(part).items() if isinstance(v, bool | int | float | str | tuple)}
                settings = {n: v for n, v in settings.items() if n not in IGNORED_OPTIONS}
                descriptions.append((type(part), settings, [parameter.shape for parameter in part.parameters()]))
    return descriptions
