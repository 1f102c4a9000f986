"""The variant `decay`: tents in place of PSA's bells, hills in place of the prior's ramps."""

from functools import partial

import torch
from torch import Tensor

from spvit_mini.geometry import Grid

from ...cases import draw_integer, draw_normal, format_count, run_as_weights, stays_float32
from ...engine import Case, Exercise
from ...lesson_06.exercises import PSA_MAP
from . import answers, mistakes


def psa_map_decay(v: Tensor, grid: Grid) -> Tensor:
    return answers.psa_map(v, grid)


def prior_decay(delta: Tensor, centres: Tensor, reach: Tensor, heights: Tensor, floor: Tensor) -> Tensor:
    return answers.prior(delta, centres, reach, heights, floor)


def draw_tents(generator: torch.Generator) -> list[Case]:
    """Draw numbers of heads for grids: wide, tall, square, one row, one column, wider, one patch."""
    draw = partial(draw_integer, generator)
    grids = [(3, draw(4, 5)), (draw(4, 5), 3), (3, 3), (1, draw(4, 5)), (draw(4, 5), 1), (3, draw(6, 7)), (1, 1)]
    cases = []
    for heads, grid in zip([2, 3, 1, 2, 4, 9, 1], grids, strict=True):
        v = draw_normal(generator, heads, 3)
        v[:, 0] = 0.6 + v[:, 0].abs()
        cases.append(Case(f"v of shape {(heads, 3)} and the grid {grid}, after a softmax over the keys", (v, grid)))
    return cases


def draw_hills(generator: torch.Generator) -> list[Case]:
    """Draw hills, and offsets: of a wide grid, of a tall one, any, one alone; one head, one hill; one patch."""
    more = draw_integer(generator, 1, 2)

    def grid(rows: int, columns: int) -> Tensor:
        spans = [torch.arange(1 - side, side, dtype=torch.float64) for side in (rows, columns)]
        return torch.stack(torch.meshgrid(*spans, indexing="ij"), dim=-1)

    any_five = 2 * draw_normal(generator, 5, 2)
    cases = []
    for heads, hidden, delta, name in [
        (3, 4, grid(2, 2 + more), f"all offsets of a grid (2, {2 + more})"),
        (2, 3, grid(2 + more, 2), f"all offsets of a grid ({2 + more}, 2)"),
        (2, 5, any_five, "any five offsets"),
        (1, 4, grid(3, 3), "all offsets of a grid (3, 3)"),
        (4, 1, grid(1, 3), "all offsets of a grid (1, 3)"),
        (3, 4, any_five[0], "one offset"),
        (2, 3, grid(1, 1), "the one offset of a grid (1, 1)"),
    ]:
        shapes = (heads, hidden, 2), (heads, hidden), (heads, hidden), (heads,)
        centres, reach, heights, floor = (draw_normal(generator, *shape) for shape in shapes)
        label = f"{format_count(heads, 'head')}, K = {hidden}, {name}"
        cases.append(Case(label, (delta, centres, 0.5 + reach.abs(), heights, floor)))
    return cases


TENTS = Exercise(
    name="psa_map",
    solution=psa_map_decay,
    cases=draw_tents,
    call=run_as_weights,
    answer=answers.psa_map,
    mistakes=mistakes.PSA_MAP,
    properties=PSA_MAP.properties,
    shape_hint="types or shapes do not fit together. The offsets are whole numbers: cast them to the type of v. Each "
    "head has three numbers, and pairs stand on two axes behind the heads: v[:, 0, None, None] is (H, 1, 1).",
)
HILLS = Exercise(
    name="prior",
    solution=prior_decay,
    cases=draw_hills,
    call=lambda answer, delta, *numbers: answer(delta.detach(), *numbers),  # a distance has no slope at a centre
    answer=answers.prior,
    mistakes=mistakes.PRIOR,
    properties=(
        stays_float32(
            lambda answer: answer(torch.ones(3, 2), torch.zeros(2, 4, 2), torch.ones(2, 4), torch.ones(2, 4), torch.ones(2))
        ),
    ),
    shape_hint="shapes do not fit together. Offsets (…, 2) meet centres (H, K, 2): give the offsets two axes of "
    "length 1 before the last, and both broadcast to (…, H, K, 2). There may be no axis in front at all.",
)
EXERCISES = {"06": (TENTS,), "08": (HILLS,)}
