"""What a model's forward pass costs, in multiply-adds for one image.

The rule of counting. A multiply-add counts 1 (so "FLOPs" of other tools are twice this). Counted: every linear layer and
convolution without its bias, Q Kᵀ, weights · V, and what a spatial map costs: making it on the (2R−1)(2C−1) offsets, once
for each block even where blocks share it, and each product per head and pair where it enters. Not counted: norms, softmax,
activations, biases and other additions, scaling, dropping, pooling, interpolation.

Counted as the equations are written (`weights` in attention.py), so that ways in can be compared: GPSA's fast path, for
one, multiplies with V twice. A map is made once for a whole batch; here it is charged to one image.

Letters: H heads, D width, N tokens, R, C grid, K hidden units or embeddings.
"""

from collections import Counter

import torch
from torch import nn

from . import spatial as maps
from .attention import (
    MHSA,
    AffineAttention,
    ContextualAttention,
    GatedAttention,
    ModulatedAttention,
    PositionOnlyAttention,
    SpatialAttention,
)
from .cait import CaiT, CaiTConfig, TalkingHeads
from .cnn import CNN, CNNConfig
from .geometry import Grid, patch_grid
from .vit import ViT, ViTConfig

PARTS = ("embed", "qkv", "scores", "map", "values", "proj", "mlp", "peg", "convolutions", "head")


def multiply_adds(
    model: ViT | CNN | ViTConfig | CaiTConfig | CNNConfig, image_size: int | tuple[int, int] | None = None
) -> dict[str, int]:
    """Count the multiply-adds of one image by part, and their sum as "total".

    Args:
        model: a model, or a configuration such as `zoo.MODELS["spvit_s"]`; no weights are made for it.
        image_size: side in pixels, or (height, width); the model's own if not given.

    The parts: embed (stem and patches), qkv, scores (Q Kᵀ), map (making it and letting it in; talking heads too), values
    (weights · V), proj, mlp, peg, convolutions (a CNN's, behind its stem), head (the dense head too).
    """
    if isinstance(model, (ViTConfig, CaiTConfig, CNNConfig)):
        kind = {ViTConfig: ViT, CaiTConfig: CaiT, CNNConfig: CNN}[type(model)]
        with torch.device("meta"):
            model = kind(model)
    config = model.config
    size = (image_size, image_size) if isinstance(image_size, int) else image_size or config.image_size
    cost = Counter(dict.fromkeys(PARTS, 0), embed=convolutions(model.embed, size), head=weights_of(model.head))
    if isinstance(model, CNN):
        size = resized(model.embed, size)
        for block in model.blocks:
            cost["convolutions"] += convolutions(block.branch, size) + convolutions(block.skip, size)
            size = resized(block.branch, size)
        return {**cost, "total": cost.total()}

    grid = patch_grid(size, config.patch)
    patches = grid[0] * grid[1]
    for i, block in enumerate(model.blocks):
        late = isinstance(model, CaiT) or model.class_token is None or i < config.class_token_block
        tokens = patches if late else patches + 1
        cost.update(attention_cost(block.attention, asking=tokens, seen=tokens, grid=grid))
        cost["mlp"] += tokens * weights_of(block.mlp)
        if getattr(block, "peg", None) is not None:
            cost["peg"] += patches * block.peg.conv.weight.numel()
    for block in model.class_blocks if isinstance(model, CaiT) else ():
        cost.update(attention_cost(block.attention, asking=1, seen=patches + 1, grid=grid))
        cost["mlp"] += weights_of(block.mlp)
    cost["head"] += patches * weights_of(model.dense_head) if model.dense_head else 0
    return {**cost, "total": cost.total()}


def attention_cost(attention: MHSA, *, asking: int, seen: int, grid: Grid) -> dict[str, int]:
    """Count one attention in which `asking` tokens (all, or a class token alone) look at `seen` ones."""
    dim, heads, patches = attention.proj.in_features, attention.heads, grid[0] * grid[1]
    by_content = seen - patches if isinstance(attention, PositionOnlyAttention) else asking
    cost = {
        "qkv": (asking + 2 * seen) * dim * dim,
        "scores": by_content * seen * dim,
        "values": asking * seen * dim,
        "proj": asking * dim * dim,
    }
    if isinstance(attention, TalkingHeads):
        return cost | {"map": 2 * heads * heads * asking * seen}
    if not isinstance(attention, SpatialAttention):
        return cost
    made = map_cost(attention.spatial, grid)
    if isinstance(attention, ContextualAttention):
        return cost | {"map": made + patches * dim * sum(len(vectors) for vectors in attention.spatial.vectors)}
    enters = isinstance(attention, (ModulatedAttention, AffineAttention, GatedAttention)) and not isinstance(attention, PositionOnlyAttention)
    return cost | {"map": made + enters * heads * patches**2}


def map_cost(spatial: nn.Module, grid: Grid) -> int:
    """Count the making of a map: so many multiply-adds for each of the (2R−1)(2C−1) offsets. A look-up costs nothing."""
    match spatial:
        case maps.PriorMLP():
            each = spatial.w1.numel() + spatial.w2.numel()
        case maps.Anchored():
            return map_cost(spatial.prior, grid) + map_cost(spatial.anchor, grid)
        case maps.Quadratic():
            each = spatial.v.numel()
        case maps.Linear():
            each = spatial.w.numel()
        case maps.LogCPB():
            each = weights_of(spatial.mlp)
        case _:
            each = 0
    return each * (2 * grid[0] - 1) * (2 * grid[1] - 1)


def weights_of(module: nn.Module) -> int:
    """Count the weights of the linear layers inside: the multiply-adds of one token."""
    return sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Linear))


def convolutions(stem: nn.Module, size: tuple[int, int]) -> int:
    """Count convolutions one after the other on an image of (height, width)."""
    total = 0
    for conv in (m for m in stem.modules() if isinstance(m, nn.Conv2d)):
        size = resized(conv, size)
        total += size[0] * size[1] * conv.weight.numel()
    return total


def resized(stem: nn.Module, size: tuple[int, int]) -> tuple[int, int]:
    """Compute the height and width that convolutions one after the other leave of an image."""
    for conv in (m for m in stem.modules() if isinstance(m, nn.Conv2d)):
        steps = zip(size, conv.kernel_size, conv.stride, conv.padding, strict=True)
        size = tuple((side + 2 * padding - kernel) // stride + 1 for side, kernel, stride, padding in steps)
    return size
