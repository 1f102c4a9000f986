"""Lesson 06: attention by position alone. PSA's map of three numbers a head, and the heads that are a convolution.

A number added to a whole row of a map is lost in the softmax, so maps are compared after it. And heads may stand in any
order, so what is compared are not their numbers but what they do to tokens.
"""

from functools import partial

import torch
from torch import Tensor

from spvit_mini.geometry import Grid
from spvit_mini.spatial import Quadratic, conv_heads

from ..cases import draw_integer, draw_normal, stays_float32
from ..engine import Case, Exercise, Verdict, is_equal, require_type
from . import answers, mistakes


def draw_maps(generator: torch.Generator) -> list[Case]:
    """Draw numbers of heads for grids: wide, tall, square, one row, one column, wider, one patch."""
    draw = partial(draw_integer, generator)
    grids = [(3, draw(4, 5)), (draw(4, 5), 3), (3, 3), (1, draw(4, 5)), (draw(4, 5), 1), (3, draw(6, 7)), (1, 1)]
    cases = []
    for heads, grid in zip([2, 3, 1, 2, 4, 9, 1], grids, strict=True):
        v = (0.4 * draw_normal(generator, heads, 3)).round(decimals=2)
        cases.append(Case(f"v of shape {(heads, 3)} and the grid {grid}, after a softmax over the keys", (v, grid)))
    return cases


def run_map(answer, v: Tensor, grid: Grid) -> Tensor:
    """Make the attention weights by an answer's map, or by the package's class."""
    if answer is Quadratic:
        scores = torch.func.functional_call(Quadratic(len(v), strength=0.0), {"v": v}, (grid,))
    else:
        scores = answer(v, grid)
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        return scores
    weights = scores.softmax(-1)
    if is_length_rounded(weights, answers.psa_map(v, grid, square="norm").softmax(-1)):
        raise Verdict(mistakes.LENGTH, mistake="norm for square")
    return weights


def is_length_rounded(weights: Tensor, lengths: Tensor) -> bool:
    """Tell whether ‖δ‖ was taken for its square, with a root in single precision: whole numbers have no other in torch.

    Such a root may be off by one in its last digit, differently on each machine, so no known mistake has its numbers.
    """
    if weights.shape != lengths.shape:
        return False
    weights = weights.to(lengths)
    return torch.allclose(weights, lengths, rtol=1e-5, atol=1e-7) and not is_equal(weights, lengths)


def draw_kernels(generator: torch.Generator) -> list[Case]:
    """Draw kernels, strengths and tokens: 3 × 3, flat, upright and tall ones, 1 × 1; a large strength."""
    draw = partial(draw_integer, generator)
    cases = []
    # Strengths that float32 holds exactly: an answer may compute its centres there and cast them to the kernel's type.
    for out, inside, high, wide, rows, columns, strength in [
        (3, 2, 3, 3, 3, 5, 1.25),
        (3, 3, 3, 3, 5, 4, 0.5),
        (1, 1, 3, 3, 4, 4, 8.0),
        (2, 2, 1, 3, 3, draw(4, 5), 0.75),
        (2, 2, 3, 1, draw(4, 5), 3, 1.75),
        (1, 2, 5, 3, draw(5, 6), 4, 2.25),
        (2, 3, 3, 3, 3, draw(4, 6), 60.0),
        (3, 2, 1, 1, 2, 3, 1.5),
    ]:
        kernel = draw_normal(generator, out, inside, high, wide)
        tokens = draw_normal(generator, rows * columns, inside)
        label = f"a kernel of shape {tuple(kernel.shape)}, α = {strength:g}, as applied to {rows} × {columns} tokens"
        cases.append(Case(label, (kernel, strength, tokens, (rows, columns))))
    return cases


def run_heads(answer, kernel: Tensor, strength: float, tokens: Tensor, grid: Grid) -> Tensor:
    """Let the heads of an answer attend by position, and add them up: (N, out)."""
    heads = answer(kernel, strength)
    require_type(heads, (tuple, list), "two tensors, v and w")
    if len(heads) != 2:
        raise Verdict(f"it returns {len(heads)} parts, not two tensors, v and w.")
    v, w = heads
    for name, part in (("v", v), ("w", w)):
        require_type(part, Tensor, "a torch.Tensor", what=f"{name} is")
    if v.ndim == 3 and w.ndim == 2:
        raise Verdict("v and w are swapped. Return the three numbers v first, then the matrices w.")
    out, inside = kernel.shape[:2]
    if v.ndim != 2 or w.ndim != 3 or v.shape != (len(w), 3) or w.shape[1:] != (inside, out):
        shapes = f"{tuple(v.shape)} and {tuple(w.shape)}, not (heads, 3) and (heads, {inside}, {out})"
        raise ValueError(f"for a kernel of shape {tuple(kernel.shape)}, v and w are {shapes}")
    if v.dtype != kernel.dtype or w.dtype != kernel.dtype:
        raise ValueError(f"for a kernel of {kernel.dtype}, v and w are of {v.dtype} and {w.dtype}: keep its type")
    return answers.attend_by_position((v, w), tokens, grid)


PSA_MAP = Exercise(
    name="psa_map",
    solution=Quadratic,
    cases=draw_maps,
    call=run_map,
    answer=answers.psa_map,
    mistakes=mistakes.PSA_MAP,
    properties=(
        stays_float32(
            lambda answer: answer(torch.tensor([[-1.0, 0.0, 2.0]]), (2, 3)),
            "the values are right, but v of float32 gives a map of another type: keep the type of v.",
        ),
    ),
    shape_hint="shapes do not fit together. The last axis of v, and of the features, has three numbers.",
)
CONV_HEADS = Exercise(
    name="conv_heads",
    solution=conv_heads,
    cases=draw_kernels,
    call=run_heads,
    answer=answers.conv_heads,
    mistakes=mistakes.CONV_HEADS,
)
EXERCISES = (PSA_MAP, CONV_HEADS)
