"""Multiply-adds of a model's forward pass, for one image.

The rule of counting. A multiply-add counts 1 (so "FLOPs" of other tools are twice this). Counted: every linear layer and
convolution without its bias, Q Kᵀ, weights · V, and the cost of a spatial map: computing it on the (2R−1)(2C−1) offsets,
once for each block even if blocks share it, and each product per head and pair by which it enters. Not counted: norms,
softmax, activations, biases and other additions, scaling, dropping, pooling, interpolation.

The count follows the equations (`weights` in attention.py), so that modes can be compared: GPSA's fast computation, for
example, multiplies with V twice. A map is computed once for a whole batch; here it is charged to one image.

Letters: D width, N tokens, R, C grid.
"""

import warnings
from collections import Counter
from typing import Any

import torch
from torch import nn

from .config import CaiTConfig, CNNConfig, Grid, ViTConfig, patch_grid
from .vit import VisionModel
from .zoo import build_model

PARTS = ("embed", "qkv", "scores", "map", "values", "proj", "mlp", "peg", "convolutions", "head")


def multiply_adds(
    model: VisionModel | ViTConfig | CaiTConfig | CNNConfig, image_size: int | tuple[int, int] | None = None
) -> dict[str, int]:
    """Count the multiply-adds of one image by part, and their sum as "total".

    Args:
        model: a model, or a configuration such as `zoo.MODELS["spvit_s"]`, for which no weights are allocated.
        image_size: side in pixels, or (height, width); the model's own if not given.

    The parts: embed (stem and patches), qkv, scores (Q Kᵀ), map (its values and its products; talking heads too), values
    (weights · V), proj, mlp, peg, convolutions (of a CNN, after its stem), head (the dense head too).
    """
    if not isinstance(model, VisionModel):
        with torch.device("meta"):
            model = build_model(model)
    config = model.config
    size = (image_size, image_size) if isinstance(image_size, int) else image_size or config.image_size
    cost = Counter({**dict.fromkeys(PARTS, 0), "embed": convolutions(model.embed, size), "head": weights_of(model.head)})
    if isinstance(config, CNNConfig):
        size = resized(model.embed, size)
        for block in model.blocks:
            cost["convolutions"] += convolutions(block.branch, size) + convolutions(block.skip, size)
            size = resized(block.branch, size)
        return {**cost, "total": cost.total()}

    grid = patch_grid(size, config.patch)
    patches, class_blocks = grid[0] * grid[1], getattr(model, "class_blocks", ())  # CaiT's
    for i, block in enumerate(model.blocks):
        has_class_token = model.class_token is not None and not class_blocks and i >= config.class_token_block
        tokens = patches + has_class_token
        cost.update(attention_cost(block.attention, queries=tokens, keys=tokens, grid=grid))
        cost["mlp"] += tokens * weights_of(block.mlp)
        if getattr(block, "peg", None) is not None:
            cost["peg"] += patches * block.peg.conv.weight.numel()
    for block in class_blocks:
        cost.update(attention_cost(block.attention, queries=1, keys=patches + 1, grid=grid))
        cost["mlp"] += weights_of(block.mlp)
    cost["head"] += patches * weights_of(model.dense_head) if model.dense_head else 0
    return {**cost, "total": cost.total()}


def attention_cost(attention: Any, *, queries: int, keys: int, grid: Grid) -> dict[str, int]:
    """Count an attention by part, in which `queries` tokens (all, or a class token alone) attend to `keys` tokens.

    If it has no method `multiply_adds`, count its linear layers alone, as "proj", and warn.
    """
    if hasattr(attention, "multiply_adds"):
        return attention.multiply_adds(queries, keys, grid)
    warnings.warn(f"{type(attention).__name__} has no method multiply_adds; only its linear layers are counted", stacklevel=2)
    return {"proj": queries * weights_of(attention)}


def weights_of(module: nn.Module) -> int:
    """Count the weights of the linear layers inside: the multiply-adds of one token."""
    return sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Linear))


def convolutions(stem: nn.Module, size: tuple[int, int]) -> int:
    """Count a sequence of convolutions on an image of (height, width)."""
    total = 0
    for conv in (m for m in stem.modules() if isinstance(m, nn.Conv2d)):
        size = resized(conv, size)
        total += size[0] * size[1] * conv.weight.numel()
    return total


def resized(stem: nn.Module, size: tuple[int, int]) -> tuple[int, int]:
    """Compute the height and width of an image after a sequence of convolutions."""
    for conv in (m for m in stem.modules() if isinstance(m, nn.Conv2d)):
        axes: Any = zip(size, conv.kernel_size, conv.stride, conv.padding, strict=True)
        height, width = ((side + 2 * padding - kernel) // stride + 1 for side, kernel, stride, padding in axes)
        size = height, width
    return size
