"""Every model by its name, and its weights in a file.

A name stands for a configuration, of a ViT, a CaiT or a CNN; `create_model` builds it, with any field overridden. Weights are
safetensors files, which hold numbers and cannot run code; their metadata says which model they belong to and how its
images were prepared. `start_from` takes them over for other classes and other image sizes, to go on learning.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from .cait import CaiT, CaiTConfig
from .cnn import CNN, CNNConfig
from .data.augment import Preprocessing, evaluation_transform
from .errors import UserError, near
from .renamed import RENAMED_VALUES, current_names
from .spatial import Table, resize_table
from .vit import ViT, ViTConfig, resize_grid

# The minis: one skeleton of 2.7 M parameters for 32-pixel images, and one word that differs.


def mini(attention: str, *, odd: dict | None = None, **options) -> ViTConfig:
    """Put an attention into the skeleton of the minis."""
    return ViTConfig(attention=attention, attention_options=options, odd_block_options=odd or {})


# The published ones, at 224 pixels in patches of 16. Facts: the papers' tables, and the released code where they differ.
IMAGENET = {"image_size": (224, 224), "patch": 16, "num_classes": 1000, "pool": "class", "init_std": 0.02}


def deit(dim: int, heads: int) -> ViTConfig:
    """DeiT (Touvron et al. 2021, table 1): a plain ViT with a class token from the start."""
    return ViTConfig(**IMAGENET, dim=dim, depth=12, heads=heads, mlp_ratio=4, qkv_bias=True)


def convit(dim: int, heads: int) -> ViTConfig:
    """ConViT (d'Ascoli et al. 2021, table 1): ten blocks of GPSA, then the class token joins for two plain ones.

    Head counts are squares, so that the heads' centres fill a square; 48 dimensions a head, 64 in the “+” sizes.
    """
    late = {"spatial_layers": 10, "class_token_block": 10}
    return ViTConfig(**IMAGENET, **late, attention="gpsa", dim=dim, depth=12, heads=heads, mlp_ratio=4)


def lvvit(dim: int, depth: int, heads: int, *, stem: int, scale: float, drop_path: float) -> ViTConfig:
    """LV-ViT (Jiang et al. 2021): convolutional stem, scaled residuals, MLPs of ratio 3, a dense head for token labels."""
    return ViTConfig(
        **IMAGENET, dim=dim, depth=depth, heads=heads, mlp_ratio=3, norm_eps=1e-5,
        stem=stem, residual_scale=scale, dense_head=True, drop_path=drop_path,
    )  # fmt: skip


def spvit(lv: ViTConfig) -> ViTConfig:
    """SP-ViT (Zhou et al. 2022): an LV-ViT with SP-SA, and two more changes: a late class token, and PEG after each block.

    | | paper says | released code does | we do |
    |---|---|---|---|
    | blocks with SP-SA | S 14 of 16; M, L not found | S 14; M 10, a default its script leaves unset; L none | all but two |
    | prior's hidden width | 32 is best | 64 | 64, so that released weights fit |
    | start of the first layer | not said | σ 0.02, bias 0 | the same |
    | class token | joins late | joins after the asked number of blocks, also in L | joins after the last SP-SA block |
    | PEG | not in the ablations | after every block, the plain ones too | the same |
    """
    spatial = lv.depth - 2
    return dataclasses.replace(
        lv, attention="spsa", attention_options={"hidden": 64, "weight_std": 0.02, "bias_std": 0.0},
        spatial_layers=spatial, class_token_block=spatial, peg=True,
    )  # fmt: skip


def cait(dim: int, depth: int, heads: int, *, layer_scale: float) -> CaiTConfig:
    """CaiT (Touvron et al. 2021): patches first, then two blocks of class attention. 48 dimensions a head."""
    return CaiTConfig(dim=dim, depth=depth, heads=heads, layer_scale=layer_scale)


def ablation(depth: int) -> ViTConfig:
    """The skeleton of the paper's ablations: nine heads, since GPSA asks for a square. Its width was not found; ConViT-S's."""
    return ViTConfig(**IMAGENET, dim=432, depth=depth, heads=9, mlp_ratio=4)


LVVIT = {
    "s": lvvit(384, 16, 6, stem=64, scale=2, drop_path=0.1),
    "m": lvvit(512, 20, 8, stem=64, scale=2, drop_path=0.2),
    "l": lvvit(768, 24, 12, stem=128, scale=3, drop_path=0.3),
}
MODELS: dict[str, ViTConfig | CaiTConfig | CNNConfig] = {
    "vit_mini": mini("mhsa"),
    "rpb_mini": mini("rpb"),
    "window_mini": mini("window", size=4, odd={"shift": 2}),
    "psa_mini": mini("psa"),
    "convit_mini": mini("gpsa"),
    "spvit_mini": mini("spsa", hidden=32, weight_std=0.5),
    "anchored_mini": mini("anchored", hidden=32, weight_std=0.5),
    "cnn_mini": CNNConfig(),
    "deit_tiny": deit(192, 3),
    "deit_small": deit(384, 6),
    "deit_base": deit(768, 12),
    "convit_tiny": convit(192, 4),
    "convit_small": convit(432, 9),
    "convit_base": convit(768, 16),
    "convit_tiny_plus": convit(256, 4),
    "convit_small_plus": convit(576, 9),
    "convit_base_plus": convit(1024, 16),
    "cait_xxs24": cait(192, 24, 4, layer_scale=1e-5),
    "cait_s24": cait(384, 24, 8, layer_scale=1e-5),
    "cait_m36": cait(768, 36, 16, layer_scale=1e-6),
    **{f"lvvit_{size}": config for size, config in LVVIT.items()},
    **{f"spvit_{size}": spvit(config) for size, config in LVVIT.items()},
    "vit_ablation": ablation(12),
    "vit_ablation_16": ablation(16),
}
MODEL_OF = {ViTConfig: ViT, CaiTConfig: CaiT, CNNConfig: CNN}
# The central part of an image, by side, on which the published accuracies were measured; the whole for all others.
CROPS = {name: 0.875 for name in MODELS if name.startswith(("deit_", "convit_")) and name != "convit_mini"}
CROPS |= {"lvvit_s": 0.9, "spvit_s": 0.9}


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
) -> ViT | CNN:
    """Build a model by name.

    Args:
        name: one of `list_models()`.
        num_classes: width of the head; the model's own if not given.
        image_size: side in pixels, or (height, width).
        weights: a safetensors file as `save_weights` writes it. Positions made for another image size are interpolated.
        overrides: other fields of its `ViTConfig`, `CaiTConfig` or `CNNConfig`, e.g. depth=4.

    Raises UserError for an unknown name or field, a size that the patch does not divide, or weights of another model.
    """
    if name not in MODELS:
        raise UserError(f"no model is called {name!r}.{near(name, MODELS)} list_models() names them all")
    config = MODELS[name]
    fields = {field.name for field in dataclasses.fields(config)}
    for field in overrides:
        if field not in fields:
            raise UserError(unknown_option(name, field))
    if num_classes is not None:
        overrides["num_classes"] = num_classes
    if image_size is not None:
        overrides["image_size"] = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    model = MODEL_OF[type(config)](dataclasses.replace(config, **overrides))
    model.name = name
    model.preprocessing = Preprocessing(image_size=model.config.image_size, crop=CROPS.get(name, 1.0))
    if weights is not None:
        state, metadata = load_weights(weights)
        load_state(model, state, source=str(weights))
        if "preprocessing" in metadata:
            saved = Preprocessing.from_json(metadata["preprocessing"])
            model.preprocessing = dataclasses.replace(saved, image_size=model.config.image_size)
    return model


def unknown_option(name: str, option: str) -> str:
    """Say that a model has no such option, and whether one of another kind has it."""
    own = [field.name for field in dataclasses.fields(MODELS[name])]
    others = [
        kind.__name__ for config, kind in MODEL_OF.items() if option in (field.name for field in dataclasses.fields(config))
    ]
    if not others:
        return f"a model has no option {option!r}.{near(option, own)}"
    kind = MODEL_OF[type(MODELS[name])].__name__
    return f"{name} is a {kind}, and only a {' or '.join(others)} has an option {option!r}; its own are {', '.join(own)}"


def transforms_for(model: nn.Module) -> Callable:
    """Make the transform from a PIL image to what this model expects when it is evaluated: (3, height, width)."""
    return evaluation_transform(model.preprocessing)


def save_weights(
    model: nn.Module, path: str | Path, *, state: dict[str, Tensor] | None = None, **metadata: str
) -> None:
    """Write a model's weights, with its name, configuration and preprocessing as metadata, to a safetensors file.

    A map that several blocks share is written once for each of them. `state` stands for the model's own `state_dict`,
    where that lies in parts over several processes.
    """
    state = model.state_dict() if state is None else state
    state = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}
    content = save(state, metadata={**describe(model), **metadata})
    Path(path).write_bytes(content)  # save_file would make a file that no one else may read


def describe(model: nn.Module) -> dict[str, str]:
    """Say what someone must know of a model to rebuild it, and to prepare images for it."""
    return {
        "model": model.name,
        "config": json.dumps(dataclasses.asdict(model.config)),
        "preprocessing": model.preprocessing.to_json(),
    }


def weights_file(path: str | Path) -> Path:
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
    if differ := differences(model, state):
        raise unfit(model, differ, source=source)
    model.load_state_dict(state)


def unfit(model: nn.Module, differ: list[str], *, source: str) -> UserError:
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


def differences(model: nn.Module, state: dict[str, Tensor]) -> list[str]:
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


def model_from_weights(path: str | Path, *, image_size: int | tuple[int, int] | None = None) -> ViT:
    """Rebuild the model that a weights file belongs to, from the name and configuration in its metadata.

    For another `image_size`, its positions are interpolated.
    """
    metadata = load_weights(path)[1]
    config = read_metadata(metadata, "config", source=path)
    if config is None or "model" not in metadata:
        raise UserError(f"{path} does not say which model it belongs to; name one: create_model(NAME, weights=FILE)")
    config = current_names(config, "model")
    config["image_size"] = tuple(config["image_size"]) if image_size is None else image_size
    return create_model(metadata["model"], weights=path, **config)


# --- To go on learning something else --------------------------------------------------------------------------------

HEADS = ("head.", "dense_head.")
# What may differ between a model and the weights that it starts from: all else in a configuration changes what the same
# numbers compute, also where their shapes fit. Of an attention's options, those that say how it is drawn at the start.
FREE = ("image_size", "num_classes", "drop_path", "init_std")
FREE_OPTIONS = ("std", "weight_std", "bias_std", "strength")


def start_from(model: nn.Module, path: str | Path, *, classes: list[str]) -> str:
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
    path = weights_file(path)
    state, metadata = load_weights(path)
    source = f"{path} ({metadata['model']})" if "model" in metadata else f"{path}"
    if differ := other_options(model, current_names(read_metadata(metadata, "config", source=path) or {}, "model")):
        raise unfit(model, differ, source=source)

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


def other_options(model: nn.Module, config: dict[str, Any]) -> list[str]:
    """List what a file's configuration says otherwise than the model's own, of all that weights must agree in."""

    def telling(config: dict[str, Any]) -> dict[str, Any]:
        telling = {name: value for name, value in config.items() if name not in FREE}
        for name in {"attention_options", "odd_block_options"} & telling.keys():
            telling[name] = {option: value for option, value in telling[name].items() if option not in FREE_OPTIONS}
        return telling

    own, there = telling(json.loads(json.dumps(dataclasses.asdict(model.config)))), telling(config)
    return [f"has {name} {there[name]} for {own[name]}" for name in own if name in there and there[name] != own[name]]
