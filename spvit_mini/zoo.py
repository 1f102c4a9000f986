"""Every model by its name: a configuration of a ViT, a CaiT or a CNN, any field of which can be overridden.

Names and configurations need no torch; `create_model` imports what it builds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import CaiTConfig, CNNConfig, ViTConfig
from .errors import UserError, near
from .fields import naming
from .renamed import current_names

if TYPE_CHECKING:
    from .vit import VisionModel

# The minis: one skeleton of 2.7 M parameters for 32-pixel images; only the attention differs.


def mini(attention: str, *, odd: dict | None = None, **options) -> ViTConfig:
    """Build the configuration of a mini with this attention."""
    return ViTConfig(attention=attention, attention_options=options, odd_block_options=odd or {})


# The published ones, at 224 pixels in patches of 16. Facts: the papers' tables, and the released code where they differ.
IMAGENET: dict[str, Any] = {"image_size": (224, 224), "patch": 16, "num_classes": 1000, "pool": "class", "init_std": 0.02}


def deit(dim: int, heads: int) -> ViTConfig:
    """DeiT (Touvron et al. 2021, table 1): a plain ViT with a class token in all blocks."""
    return ViTConfig(**IMAGENET, dim=dim, depth=12, heads=heads, mlp_ratio=4, qkv_bias=True)


def convit(dim: int, heads: int) -> ViTConfig:
    """ConViT (d'Ascoli et al. 2021, table 1): ten blocks of GPSA, then the class token joins for two plain ones.

    Head counts are squares, so that the heads' centres fill a square; 48 dimensions per head, 64 in the “+” sizes.
    """
    late: dict[str, Any] = {"spatial_layers": 10, "class_token_block": 10}
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
    | initialisation of the first layer | not said | σ 0.02, bias 0 | the same |
    | class token | late insertion | after the given number of blocks, also in L | after the last SP-SA block |
    | PEG | not in the ablations | after every block, the plain ones too | the same |
    """
    spatial = lv.depth - 2
    return dataclasses.replace(
        lv, attention="spsa", attention_options={"hidden": 64, "weight_std": 0.02, "bias_std": 0.0},
        spatial_layers=spatial, class_token_block=spatial, peg=True,
    )  # fmt: skip


def cait(dim: int, depth: int, heads: int, *, layer_scale: float) -> CaiTConfig:
    """CaiT (Touvron et al. 2021): patches first, then two blocks of class attention. 48 dimensions per head."""
    return CaiTConfig(dim=dim, depth=depth, heads=heads, layer_scale=layer_scale)


def ablation(depth: int) -> ViTConfig:
    """The model of the paper's ablations: nine heads, since GPSA needs a square. Its width, not found, is ConViT-S's."""
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
FAMILIES = {ViTConfig: "ViT", CaiTConfig: "CaiT", CNNConfig: "CNN"}
# Central crop, by side, on which the published accuracies were measured; all other models use the whole image.
CROPS = {name: 0.875 for name in MODELS if name.startswith(("deit_", "convit_")) and name != "convit_mini"}
CROPS |= {"lvvit_s": 0.9, "spvit_s": 0.9}


def list_models() -> list[str]:
    """List the names that `create_model` accepts."""
    return sorted(MODELS)


def create_model(
    name: str, *, num_classes: int | None = None, image_size: int | tuple[int, int] | None = None,
    weights: str | Path | None = None, **overrides: Any,
) -> VisionModel:  # fmt: skip
    """Build a model by name.

    Args:
        name: one of `list_models()`.
        num_classes: width of the head; the model's own if not given.
        image_size: side in pixels, or (height, width).
        weights: a safetensors file as `save_weights` writes it. Positions of another image size are interpolated.
        overrides: other fields of its `ViTConfig`, `CaiTConfig` or `CNNConfig`, e.g. depth=4.

    Another attention has its own options: those of the named model apply to its own attention alone.
    Raises UserError for an unknown name or field, a size that the patch does not divide, or weights of another model.
    """
    if num_classes is not None:
        overrides["num_classes"] = num_classes
    if image_size is not None:
        overrides["image_size"] = image_size if isinstance(image_size, tuple | list) else (image_size, image_size)
    from .data import Preprocessing

    model = build_model(configure(name, overrides))
    model.name = name
    model.preprocessing = Preprocessing(image_size=model.config.image_size, crop=CROPS.get(name, 1.0))
    if weights is not None:
        from .weights import check_config, load_state, load_weights

        state, metadata = load_weights(weights)
        check_config(model, metadata, source=weights, option="{}={}")
        load_state(model, state, source=str(weights))
        if "preprocessing" in metadata:
            with naming(weights):
                saved = Preprocessing.from_json(metadata["preprocessing"])
            model.preprocessing = dataclasses.replace(saved, image_size=model.config.image_size)
    return model


def configure(name: str, overrides: dict[str, Any]) -> ViTConfig | CaiTConfig | CNNConfig:
    """Build the configuration of a named model with some fields overridden. Raises UserError for a wrong name, field or value."""
    if name not in MODELS:
        raise UserError(f"no model is called {name!r:.80}.{near(name, MODELS)} list_models() names them all")
    config = MODELS[name]
    known = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    for field in overrides:
        if field not in known:
            raise UserError(unknown_option(name, field))
    if overrides.get("attention", known.get("attention")) != known.get("attention"):
        overrides = {"attention_options": {}, "odd_block_options": {}, **overrides}
    return dataclasses.replace(config, **overrides)


def build_model(config: ViTConfig | CaiTConfig | CNNConfig) -> VisionModel:
    """Build the model of a configuration, with initial weights."""
    if isinstance(config, CNNConfig):
        from .cnn import CNN  # imports torch._dynamo, which the others don't need

        return CNN(config)
    from .cait import CaiT
    from .vit import ViT

    return CaiT(config) if isinstance(config, CaiTConfig) else ViT(config)


def unknown_option(name: str, option: str) -> str:
    """Build the message for an unknown option, with the similar ones and the kinds of models that have it."""
    own = [field.name for field in dataclasses.fields(MODELS[name])]
    others = [
        family for config, family in FAMILIES.items() if option in (field.name for field in dataclasses.fields(config))
    ]
    if not others:
        return f"a model has no option {option!r}.{near(option, own)}"
    family = FAMILIES[type(MODELS[name])]
    return f"{name} is a {family}, and only a {' or '.join(others)} has an option {option!r}; its own are {', '.join(own)}"


def model_from_weights(path: str | Path, *, image_size: int | tuple[int, int] | None = None) -> VisionModel:
    """Rebuild the model of a weights file from the name and configuration in its metadata.

    For another `image_size`, its positions are interpolated.
    """
    from .weights import load_metadata, read_metadata

    metadata = load_metadata(path)
    config = read_metadata(metadata, "config", source=path)
    if config is None or "model" not in metadata:
        raise UserError(f"{path} does not name its model. Use create_model(NAME, weights=FILE).")
    with naming(path):
        config = dataclasses.asdict(configure(metadata["model"], current_names(config, "model")))
    config["image_size"] = image_size or config["image_size"]
    return create_model(metadata["model"], weights=path, **config)


def transforms_for(model: VisionModel) -> Callable:
    """Build the transform from a PIL image to this model's input for evaluation: (3, height, width)."""
    from .data import EvalTransform, Preprocessing

    return EvalTransform(getattr(model, "preprocessing", None) or Preprocessing(image_size=model.config.image_size))
