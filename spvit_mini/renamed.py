"""Old names in recorded recipes and weights files: read here, never written.

Records in `data/results/`, run folders and weights files have the names of the version that wrote them. Names are translated
when a file is read; files are never edited.
"""

from typing import Any

# Fields of a recipe by their dotted names, and of a model's configuration ("model.").
RENAMED = {
    "batch": "batch_size",
    "micro_batch": "micro_batch_size",
    "length": "duration",
    "start": "init_from",
    "checkpointing": "activation_checkpointing",
    "optim.lr_batch": "optim.lr_base_batch_size",
    "optim.clip": "optim.clip_grad_norm",
    "optim.frozen": "optim.freeze",
    "augment.randaugment_chance": "augment.randaugment_prob",
    "augment.erasing": "augment.random_erasing_prob",
    "augment.mix_probability": "augment.mix_prob",
    "data.on_bad_image": "data.on_corrupt_image",
    "data.pipeline": "data.backend",
    "model.class_enters": "model.class_token_block",
    "token_labels.class_from": "token_labels.class_target",
}
# Values of fields, by the field's new name.
RENAMED_VALUES = {
    "data.on_corrupt_image": {"fatal": "error"},
    "data.backend": {"plain": "pil", "fast": "tensor"},
    "weights": {"raw": "last", "averaged": "ema"},  # which weights a file holds, in its metadata
}
# Sums over the training images in a training state.
RENAMED_SUMS = {"right": "correct", "right5": "correct5"}
# Modes: the second part of MAP/MODE.
RENAMED_MODES = {"added": "additive", "alone": "position_only", "multiplied": "multiplicative", "multiplied_added": "affine"}


def current_names(plain: dict[str, Any], section: str = "") -> dict[str, Any]:
    """Translate the fields of a recipe, or of one section of it, to their present names and values.

    Args:
        plain: a recipe as JSON has it: names, and dictionaries for the sections.
        section: the name of the section that `plain` is, such as "model"; "" for a whole recipe.

    Returns a new dictionary in the same order. A name that is not in the tables stays as it is.
    """
    current = {}
    for name, value in plain.items():
        dotted = f"{section}.{name}" if section else name
        dotted = RENAMED.get(dotted, dotted)
        if isinstance(value, dict) and not section:
            value = current_names(value, name)
        elif dotted == "model.attention" and isinstance(value, str):
            value = current_attention(value)
        elif isinstance(value, str):
            value = RENAMED_VALUES.get(dotted, {}).get(value, value)
        current[dotted.removeprefix(f"{section}.")] = value
    return current


def current_attention(name: str) -> str:
    """Translate the name of an attention, MAP/MODE: "mlp/multiplied" → "mlp/multiplicative"."""
    spatial_map, slash, mode = name.partition("/")
    return spatial_map + slash + RENAMED_MODES.get(mode, mode)
