"""Lesson 00: cutting an image into patches and putting it together again. What matters is the order of things."""

from functools import partial

import torch

from spvit_mini.geometry import patchify, unpatchify

from ..cases import draw_integer, draw_normal, number_values, stays_float32
from ..engine import Case, Exercise
from . import answers, mistakes

NUMBERED = ", its values numbered in reading order"


def draw_sizes(generator: torch.Generator) -> list[tuple[int, int, int, int]]:
    """Draw (channels, rows, columns, p) of several kinds: wide, tall, square, one row, one patch, one channel, one pixel.

    The number of patches is a square only where the grid is one, so that a root taken of it fails on all others.
    """
    draw = partial(draw_integer, generator)
    rows = draw(2, 3)
    return [
        (3, rows, rows + draw(1, 2), 2),
        (3, rows + draw(1, 2), rows, 3),
        (2, draw(2, 3), draw(4, 5), 2),
        (4, rows, rows, 2),
        (3, 1, draw(2, 3), 3),
        (1, 2, 3, 2),
        (3, 1, 1, draw(2, 4)),
        (3, 3, 2, 1),
    ]


def draw_images(generator: torch.Generator) -> list[Case]:
    """Draw images and patch sizes; the first image's values are numbered."""
    cases = []
    for channels, rows, columns, p in draw_sizes(generator):
        shape = (channels, rows * p, columns * p)
        image = draw_normal(generator, *shape)
        label = f"an image of shape {shape} and p = {p}{NUMBERED * (not cases)}"
        cases.append(Case(label, (image if cases else number_values(shape), p)))
    return cases


def draw_tokens(generator: torch.Generator) -> list[Case]:
    """Draw tokens, grids and patch sizes; the first tokens' values are numbered."""
    cases = []
    for channels, rows, columns, p in draw_sizes(generator):
        shape = (rows * columns, channels * p * p)
        values = draw_normal(generator, *shape)
        label = f"tokens of shape {shape}, a grid of {(rows, columns)} and p = {p}{NUMBERED * (not cases)}"
        cases.append(Case(label, (values if cases else number_values(shape), (rows, columns), p)))
    return cases


PATCHIFY = Exercise(
    name="patchify",
    solution=patchify,
    cases=draw_images,
    answer=answers.patchify,
    mistakes=mistakes.PATCHIFY,
    properties=(
        stays_float32(
            lambda answer: answer(torch.zeros(3, 4, 6), 2),
            "an image in float32 comes back in another type: keep the type of the image.",
        ),
    ),
)
UNPATCHIFY = Exercise(
    name="unpatchify",
    solution=unpatchify,
    cases=draw_tokens,
    answer=answers.unpatchify,
    mistakes=mistakes.UNPATCHIFY,
    properties=(
        stays_float32(
            lambda answer: answer(torch.zeros(6, 12), (2, 3), 2),
            "tokens in float32 come back in another type: keep the type of the tokens.",
        ),
    ),
)
EXERCISES = (PATCHIFY, UNPATCHIFY)
