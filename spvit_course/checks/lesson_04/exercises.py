"""Lesson 04: a learned number for each offset, a vector that meets the query, and coordinates for a network.

Rectangles, and tables with random values: what is wrong with signs and axes shows on them only. Widths of heads are
powers of 4, so that a root computed in float32 is exact too.
"""

import torch
from torch import Tensor

from spvit_mini import spatial
from spvit_mini.attention import RelativeBias
from spvit_mini.geometry import Grid, pair_offsets

from ..cases import draw_integer, draw_normal, run_weights, stays_float32
from ..engine import Case, Exercise, Property
from . import answers, mistakes


def shaw2d(q: Tensor, tables: Tensor, grid: Grid, clip: int) -> Tensor:
    """Compute q · e_δ / √C: queries (…, N, C) and tables (2, 2·clip+1, C) → (…, N, N)."""
    index = pair_offsets(*grid).clamp(-clip, clip) + clip  # (N, N, 2)
    embeddings = tables[0][index[..., 0]] + tables[1][index[..., 1]]  # (N, N, C)
    return torch.einsum("...ic,ijc->...ij", q, embeddings) * q.shape[-1] ** -0.5


def log_offsets(delta: Tensor, window: Grid) -> Tensor:
    """Compute Swin v2's coordinates of offsets (…, 2) for the window that they were learned in."""
    return spatial.log_offsets(8 * delta / delta.new_tensor([side - 1 for side in window])) / 3


def draw_layers(generator: torch.Generator) -> list[Case]:
    """Draw queries, keys and a table on grids of several kinds."""
    wide = draw_integer(generator, 4, 5)
    cases = []
    for batch, heads, width, grid in [
        (2, 2, 4, (2, 3)),
        (1, 3, 4, (3, 2)),
        (1, 2, 16, (3, 3)),
        (2, 1, 4, (2, wide)),
        (1, 2, 1, (1, 4)),
        (1, 2, 4, (wide, 1)),
        (2, 2, 4, (1, 1)),
    ]:
        rows, columns = grid
        tokens = (batch, heads, rows * columns, width)
        shapes = (tokens, tokens, (heads, 2 * rows - 1, 2 * columns - 1))
        q, k, table = (1.5 * draw_normal(generator, *shape) for shape in shapes)
        label = f"q and k of shape {tokens} on the grid {grid}"
        cases.append(Case(label, (heads, grid, table, q, k)))
    return cases


def run_layer(layer, heads: int, grid: Grid, table: Tensor, q: Tensor, k: Tensor) -> Tensor:
    """Build a layer, give it this table, and compute the weights of these queries and keys."""
    return run_weights(layer(heads * q.shape[-1], heads, grid), {"spatial.values": table}, q, k, grid)


def draw_queries(generator: torch.Generator) -> list[Case]:
    """Draw queries and embeddings: the clip smaller than the grid on both axes, on one, on none."""
    wide = draw_integer(generator, 4, 5)
    cases = []
    for leading, width, grid, clip in [
        ((2, 2), 4, (2, 3), 2),
        ((1, 2), 4, (3, wide), 1),
        ((2, 1), 4, (wide, 3), 2),
        ((1, 2), 16, (4, 4), 1),
        ((), 4, (1, wide), 2),
        ((3,), 1, (wide, 1), 1),
        ((1, 1), 4, (1, 1), 1),
    ]:
        shape = (*leading, grid[0] * grid[1], width)
        q, tables = draw_normal(generator, *shape), draw_normal(generator, 2, 2 * clip + 1, width)
        cases.append(Case(f"q of shape {shape} on the grid {grid}, clip = {clip}", (q, tables, grid, clip)))
    return cases


def draw_deltas(generator: torch.Generator) -> list[Case]:
    """List offsets: all of the window that they were learned in, of a larger grid, of a smaller one, any."""
    small, large = draw_integer(generator, 3, 4), draw_integer(generator, 6, 7)
    cases = []
    for window, grid in [
        ((9, 9), (9, 9)),
        ((small, large), (small, large)),
        ((large, small), (8, 8)),
        ((7, 7), (2, 3)),
        ((2, 5), (2, 5)),
    ]:
        label = f"all offsets of a grid {grid} for the window {window}"
        cases.append(Case(label, (pair_offsets(*grid).double(), window)))
    return [*cases, Case("any five offsets for the window (5, 4)", (4 * draw_normal(generator, 5, 2), (5, 4)))]


RELATIVE_BIAS = Exercise(
    name="RelativeBias",
    solution=RelativeBias,
    cases=draw_layers,
    call=run_layer,
    answer=answers.RelativeBias,
    mistakes=mistakes.RELATIVE_BIAS,
)
SHAW2D = Exercise(
    name="shaw2d",
    solution=shaw2d,
    cases=draw_queries,
    answer=answers.shaw2d,
    mistakes=mistakes.SHAW2D,
    properties=(stays_float32(lambda answer: answer(torch.ones(1, 6, 4), torch.ones(2, 3, 4), (2, 3), 1)),),
    shape_hint="shapes or indices do not fit together. Is each index between 0 and 2·clip? And each pair has an "
    "embedding of its own, (N, N, D/H) in all: in `q @ e.mT` their first axis would be a batch. Name axes (einsum), "
    "or multiply and sum.",
)
LOG_OFFSETS = Exercise(
    name="log_offsets",
    solution=log_offsets,
    cases=draw_deltas,
    answer=answers.log_offsets,
    mistakes=mistakes.LOG_OFFSETS,
    gradients=False,
    properties=(
        Property(
            "whole numbers as input",
            "offsets that are whole numbers come out otherwise than the same offsets as real ones.",
            lambda answer: torch.allclose(
                answer(pair_offsets(2, 3), (4, 3)).double(), answer(pair_offsets(2, 3).double(), (4, 3)), atol=1e-6
            ),
        ),
    ),
)
EXERCISES = (RELATIVE_BIAS, SHAW2D, LOG_OFFSETS)
