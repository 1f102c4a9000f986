"""Lesson 02: a block, and the vision transformer around its blocks."""

import torch
from torch import Tensor

from spvit_mini.attention import MHSA
from spvit_mini.vit import Block, ViT, ViTConfig

from ..cases import draw_integer, draw_normal, stays_float32
from ..engine import Case, Exercise
from ..exchange import run_module
from . import answers, mistakes

# Cases ------------------------------------------------------------------------------------------------------------------


def draw_weights(state: dict[str, Tensor], generator: torch.Generator) -> list[Tensor]:
    """Draw weights for a state: matrices such that sizes stay about what they are, everything else with variance 1."""
    weights = []
    for value in state.values():
        is_matrix = value.ndim > 1 and len(value) > 1  # positions and a class token begin with an axis of 1
        scale = value[0].numel() ** -0.5 if is_matrix else 1.0
        weights.append(scale * draw_normal(generator, *value.shape))
    return weights


def draw_blocks(generator: torch.Generator) -> list[Case]:
    """Draw weights and tokens of blocks: several heads, one, a hidden layer as wide as a token, one token."""
    rows = draw_integer(generator, 2, 3)
    sizes = [(2, (rows, 3), 8, 2, 2), (1, (2, 2), 6, 1, 3), (2, (1, 4), 8, 4, 1), (3, (1, 1), 8, 2, 2)]
    cases = []
    for batch, grid, dim, heads, ratio in sizes:
        config = ViTConfig(dim=dim, heads=heads, mlp_ratio=ratio)
        state = Block(MHSA(dim, heads), config, 0.0).state_dict()
        x = 1.0 + 2 * draw_normal(generator, batch, grid[0] * grid[1], dim)
        label = f"x of shape {tuple(x.shape)} and a hidden layer of {dim * ratio}"
        cases.append(Case(label, (config, grid, tuple(state), x, *draw_weights(state, generator))))
    return cases


def run_block(block, config: ViTConfig, grid, names: tuple[str, ...], x: Tensor, *weights: Tensor) -> Tensor:
    """Build a block, give it these weights, and pass tokens x (B, N, D) of a grid through."""
    return run_module(block(MHSA(config.dim, config.heads), config, 0.0), dict(zip(names, weights, strict=True)), x, grid)


def draw_models(generator: torch.Generator) -> list[Case]:
    """Draw weights and images of models.

    A rectangle, read by its mean and by a class token; as many patches as a token is wide, so that the wrong axis fits;
    an attention that looks at the grid, so that its order shows; a single patch; a class token beside such an attention,
    so that its place shows, for one image, so that it fits as it is.
    """
    batch = draw_integer(generator, 2, 3)
    kinds = [
        (batch, (2, 3), 8, "mean", "mhsa"),
        (2, (3, 2), 4, "class", "mhsa"),
        (2, (2, 4), 8, "mean", "mhsa"),
        (1, (2, 3), 4, "mean", "psa"),
        (2, (1, 1), 4, "class", "mhsa"),
        (1, (2, 3), 4, "class", "spsa"),
    ]
    cases = []
    for images, grid, dim, pool, attention in kinds:
        size = {
            "image_size": (2 * grid[0], 2 * grid[1]),
            "patch": 2,
            "num_classes": 5,
            "dim": dim,
            "depth": 2,
            "heads": 2,
        }
        config = ViTConfig(**size, attention=attention, pool=pool)
        state = ViT(config).state_dict()
        pixels = draw_normal(generator, images, 3, *config.image_size)
        label = f"images of shape {tuple(pixels.shape)}, patches of 2 × 2 pixels, pool={pool!r}"
        cases.append(Case(label, (config, tuple(state), pixels, *draw_weights(state, generator))))
    return cases


def run_model(model, config: ViTConfig, names: tuple[str, ...], images: Tensor, *weights: Tensor) -> Tensor:
    """Build a model, give it these weights, and classify images."""
    return run_module(model(config), dict(zip(names, weights, strict=True)), images)


# Exercises ----------------------------------------------------------------------------------------------------------------


BLOCK = Exercise(
    name="Block",
    solution=Block,
    cases=draw_blocks,
    call=run_block,
    answer=answers.Block,
    mistakes=mistakes.BLOCK,
    properties=(
        stays_float32(
            lambda answer: answer(MHSA(4, 2), ViTConfig(dim=4, heads=2), 0.0)(torch.ones(1, 4, 4), (2, 2)),
            "tokens in float32 come back in another type: keep the type.",
        ),
    ),
)
MODEL = Exercise(
    name="ViT",
    solution=ViT,
    cases=draw_models,
    call=run_model,
    answer=answers.ViT,
    mistakes=mistakes.VIT,
    properties=(
        stays_float32(
            lambda answer: answer(ViTConfig(image_size=(4, 4), patch=2, dim=4, depth=1, heads=2))(torch.ones(1, 3, 4, 4)),
            "images in float32 give another type: keep the type.",
        ),
    ),
    shape_hint="shapes do not fit together. Four things to look at: are positions, (1, D, R, C), added while the "
    "patches are laid out like them? Are tokens (B, N, D), width last? Is there a class token for each image? Does "
    "the mean run over tokens?",
)
EXERCISES = (BLOCK, MODEL)
