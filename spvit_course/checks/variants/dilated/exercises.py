"""The variant `dilated`: a window around each query, with holes, in place of tiles."""

from functools import partial

import torch
from torch import Tensor

from spvit_mini.geometry import Grid

from ...cases import as_numbers, draw_integer
from ...engine import Case, Exercise, Property
from ...lesson_05.exercises import NUMBERS
from . import answers, mistakes


def window_mask_dilated(grid: Grid, size: int, dilation: int) -> Tensor:
    return answers.window_mask(grid, size, dilation)


def draw_windows(generator: torch.Generator) -> list[Case]:
    """Draw windows with holes: wide, tall, square, a row, a column, wider holes, no holes, of one patch, larger than it."""
    draw = partial(draw_integer, generator)
    cases = [
        ((5, draw(8, 9)), 3, 2),
        ((draw(8, 9), 5), 3, 2),
        ((7, 7), 3, 2),
        ((1, draw(10, 11)), 5, 2),
        ((draw(10, 11), 1), 5, 2),
        ((7, draw(9, 10)), 3, 3),
        ((4, draw(6, 7)), 3, 1),
        ((3, 5), 1, 2),
        ((4, 6), 7, 2),
    ]
    return [Case(f"grid = {grid}, size = {size} and dilation = {d}", (grid, size, d)) for grid, size, d in cases]


HOLES = Exercise(
    name="window_mask",
    solution=window_mask_dilated,
    cases=draw_windows,
    call=as_numbers,
    answer=answers.window_mask,
    mistakes=mistakes.WINDOW_MASK,
    gradients=False,
    properties=(Property("booleans", NUMBERS, lambda answer: answer((2, 3), 3, 1).dtype == torch.bool),),
)
EXERCISES = {"05": (HOLES,)}
