"""What the answers of several lessons share, and how a variant's exercise is derived from a lesson's.

An answer is right as it stands, and each changed option is one mistake.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import isqrt

import torch
from torch import Tensor

from spvit_mini.geometry import Grid

from .engine import Exercise
from .resource_limits import hide_solution

LESSONS_OWN = "the lesson's answer"  # the name of that mistake in every variant

DIRECTIONS = {  # of an offset, from the positions of query and key
    "key − query": lambda key, query: key - query,
    "query − key": lambda key, query: query - key,
    "absolute": lambda key, query: (key - query).abs(),
    "key + query": lambda key, query: key + query,
}


def locate_tokens(order: str, rows: int, columns: int, number: int | None = None) -> tuple[Tensor, Tensor]:
    """Compute the row and the column of each token, in the right order or not: (N,) each."""
    n = torch.arange(number or rows * columns)
    return {
        "row by row": (n // columns, n % columns),
        "column by column": (n % rows, n // rows),
        "row by row, R for C": (n // rows, n % rows),
    }[order]


def spread_table(
    table: Tensor,
    grid: Grid,
    *,
    down: str = "key − query",
    right: str = "key − query",
    tokens: str = "row by row",
    shift: str = "R−1, C−1",
    axes: str = "rows, columns",
    stride: str | None = None,
    sides: str = "rows, columns",
    index: str = "[..., a, b]",
    pairs: str = "query, key",
) -> Tensor:
    """Spread a table over the pairs of patches; `stride` makes it by one index into the flattened table."""
    number = grid[0] * grid[1]
    rows, columns = grid if sides == "rows, columns" else (isqrt(number), isqrt(number))
    line, place = locate_tokens(tokens, rows, columns, rows * columns if sides == "√N" else number)
    # A sum of positions needs no shift: it begins at 0.
    shifts = {
        "R−1, C−1": (rows - 1, columns - 1),
        "0, 0": (0, 0),
        "0, C−1": (0, columns - 1),
        "R−1, 0": (rows - 1, 0),
        "R−1, R−1": (rows - 1, rows - 1),
        "C−1, C−1": (columns - 1, columns - 1),
        "C−1, R−1": (columns - 1, rows - 1),
        "R//2, C//2": (rows // 2, columns // 2),
    }[shift]
    steps = [DIRECTIONS[how](at[None, :], at[:, None]) for how, at in zip((down, right), (line, place), strict=True)]
    if index == "δ[0] and δ[1]":
        steps = torch.stack(steps, dim=-1)[:2]
    first, second = (
        step + (0 if how == "key + query" else start)
        for how, step, start in zip((down, right), steps, shifts, strict=True)
    )
    if axes == "columns, rows":
        table = table.transpose(-2, -1)
    if stride:
        width = {"2C−1": 2 * columns - 1, "2R−1": 2 * rows - 1, "C": columns}[stride]
        result = table.flatten(-2)[..., first * width + second]
    elif index == "[..., δ]":
        result = table[..., torch.stack([first, second], dim=-1)]
    else:
        before = {"[a, b]": (), "[:, a, b]": (slice(None),)}.get(index, (...,))
        result = table[(*before, first, second)]
    if pairs == "rows, columns":  # (query row, key row, query column, key column), then the right shape by force
        split = result.unflatten(-1, grid).unflatten(-3, grid)
        result = split.transpose(-3, -2).reshape(result.shape)
    return result


def select(mistakes: Mapping[str, tuple], *names: str) -> dict[str, tuple]:
    """Select known mistakes by name."""
    return {name: mistakes[name] for name in names}


def derive_exercise(
    lesson: Exercise, solution: Callable, answer: Callable, mistakes: Mapping[str, tuple], call: Callable | None = None
) -> Exercise:
    """Derive a variant's exercise from a lesson's.

    The lesson's own solution is out of reach too, because a flipped or negated call of it would answer the variant.
    """
    run = call or lesson.call

    def run_without_the_lessons(answer: Callable, *arguments) -> Tensor:
        with hide_solution(lesson.solution):
            return run(answer, *arguments)

    return replace(lesson, solution=solution, answer=answer, mistakes=mistakes, call=run_without_the_lessons)
