"""Lesson 03: the ruler. Which offsets a grid has, how a table of them becomes an N×N map, and what frames that map.

Signs and the order of axes are what goes wrong, and a square grid or a symmetric map hides it. So most cases are
rectangles with random values.
"""

from functools import partial

import torch

from spvit_mini.geometry import offsets, pad_prefix, spread

from ..cases import as_numbers, draw_grids, draw_integer, draw_normal, number_values, stays_float32
from ..engine import Case, Exercise, Property
from . import answers, mistakes


def draw_sizes(generator: torch.Generator) -> list[Case]:
    return [Case(f"{rows} rows and {columns} columns", (rows, columns)) for rows, columns in draw_grids(generator)]


def draw_tables(generator: torch.Generator) -> list[Case]:
    """Draw tables with no, one and two axes in front; the first table's values are numbered."""
    cases = []
    leading = [(2,), (), (3,), (1,), (2, 2), (2,), (4,)]
    for heads, (rows, columns) in zip(leading, draw_grids(generator), strict=True):
        shape = (*heads, 2 * rows - 1, 2 * columns - 1)
        values = draw_normal(generator, *shape)
        numbered = "" if cases else ", its values numbered in reading order"
        label = f"a table of shape {shape} and the grid {(rows, columns)}{numbered}"
        cases.append(Case(label, (values if cases else number_values(shape), (rows, columns))))
    return cases


def draw_maps(generator: torch.Generator) -> list[Case]:
    """Draw maps, numbers of prefix tokens and neutral values."""
    draw = partial(draw_integer, generator)

    def other() -> float:  # a value that is neither 0 nor 1
        return draw(2, 9) + 0.5

    cases = []
    for leading, patches, prefix, neutral in [
        ((2,), draw(3, 4), 2, other()),
        ((), draw(2, 3), 1, 0.0),
        ((3,), draw(2, 3), 1, 1.0),
        ((2, 2), draw(4, 5), 3, -other()),
        ((1,), draw(2, 4), 0, other()),
        ((2,), 1, 1, other()),
    ]:
        shape = (*leading, patches, patches)
        label = f"a map of shape {shape}, prefix = {prefix} and neutral = {neutral:g}"
        cases.append(Case(label, (draw_normal(generator, *shape), prefix, neutral)))
    return cases


OFFSETS = Exercise(
    name="offsets",
    solution=offsets,
    cases=draw_sizes,
    call=as_numbers,
    answer=answers.offsets,
    mistakes=mistakes.OFFSETS,
    gradients=False,
    properties=(
        Property(
            "whole numbers",
            "the values are right, but they are no whole numbers. Offsets count patches and serve as indices: keep the type "
            "that torch.arange gives them.",
            lambda answer: not answer(2, 3).is_floating_point(),
        ),
    ),
)
SPREAD = Exercise(
    name="spread",
    solution=spread,
    cases=draw_tables,
    answer=answers.spread,
    mistakes=mistakes.SPREAD,
    properties=(stays_float32(lambda answer: answer(torch.zeros(3, 5), (2, 3))),),
    shape_hint="an index leads out of the table, or shapes do not fit together. Three things to look at: are row "
    "offsets shifted by R − 1 and column offsets by C − 1? Are all axes in front kept, with dots? Is a grid taken for "
    "a square?",
)
PAD_PREFIX = Exercise(
    name="pad_prefix",
    solution=pad_prefix,
    cases=draw_maps,
    answer=answers.pad_prefix,
    mistakes=mistakes.PAD_PREFIX,
    properties=(stays_float32(lambda answer: answer(torch.zeros(3, 4, 4), 1, 1.0)),),
    shape_hint="shapes do not fit together. Does it take maps with no axis in front, with one and with two? New rows "
    "and columns need the same axes in front as the map.",
)
EXERCISES = (OFFSETS, SPREAD, PAD_PREFIX)
