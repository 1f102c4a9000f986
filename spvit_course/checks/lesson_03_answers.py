"""Lesson 03's answers with options: each is right as it stands, and each changed option is one mistake.

`ruler` lists offsets, `lay` spreads a table, `framed` pads for a prefix. lesson_03.py says which changes are known, and
tests put two of them together.
"""

from math import isqrt

import torch
from torch import Tensor

from spvit_mini.geometry import Grid

SPANS = {
    "both ways": lambda side: torch.arange(-(side - 1), side),
    "from 0": lambda side: torch.arange(2 * side - 1),
    "one way": lambda side: torch.arange(side),
    "the last left out": lambda side: torch.arange(-(side - 1), side - 1),
    "one more at the start": lambda side: torch.arange(-side, side),
    "one more at both ends": lambda side: torch.arange(-side, side + 1),
    "turned round": lambda side: -torch.arange(-(side - 1), side),
    "absolute": lambda side: torch.arange(-(side - 1), side).abs(),
}


def ruler(
    rows: int,
    columns: int,
    *,
    down: str = "both ways",
    right: str = "both ways",
    sides: str = "rows, columns",
    entry: str = "row, column",
    layout: str = "(2R−1, 2C−1, 2)",
) -> Tensor:
    """List the offsets of a grid."""
    if sides == "columns, rows":
        rows, columns = columns, rows
    elif sides == "rows, rows":
        columns = rows
    elif sides == "columns, columns":
        rows = columns
    if layout == "(N, N, 2)":
        places = torch.cartesian_prod(SPANS["one way"](rows), SPANS["one way"](columns))
        return places[None] - places[:, None]
    grid = torch.meshgrid(SPANS[down](rows), SPANS[right](columns), indexing="ij")
    table = torch.stack(grid if entry == "row, column" else grid[::-1], dim=-1)
    shapes = {"(2C−1, 2R−1, 2)": (1, 0, 2), "(2, 2R−1, 2C−1)": (2, 0, 1)}
    if layout == "((2R−1)·(2C−1), 2)":
        return table.flatten(0, 1)
    return table.permute(shapes.get(layout, (0, 1, 2)))


STEPS = {
    "key − query": lambda key, query: key - query,
    "query − key": lambda key, query: query - key,
    "absolute": lambda key, query: (key - query).abs(),
    "key + query": lambda key, query: key + query,
}


def lay(
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
    tokens_in_all = grid[0] * grid[1]
    rows, columns = grid if sides == "rows, columns" else (isqrt(tokens_in_all), isqrt(tokens_in_all))
    n = torch.arange(rows * columns if sides == "√N" else tokens_in_all)
    line, place = {
        "row by row": (n // columns, n % columns),
        "column by column": (n % rows, n // rows),
        "row by row, R for C": (n // rows, n % rows),
    }[tokens]
    # A sum of places needs no shift: it begins at 0.
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
    steps = [STEPS[how](at[None, :], at[:, None]) for how, at in zip((down, right), (line, place), strict=True)]
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


def framed(
    spatial: Tensor,
    prefix: int,
    neutral: float,
    *,
    rows: str = "first",
    columns: str = "first",
    value: str = "neutral",
    other: str = "neutral",
    count: str = "prefix",
    patches: str = "kept",
    leading: str = "kept",
) -> Tensor:
    """Frame a map of the patches with rows and columns of a neutral value."""
    if patches == "written over":
        result = spatial.clone()
        result[..., :prefix, :] = neutral
        result[..., :, :prefix] = neutral
        return result
    ends = {"first": (1, 0), "last": (0, 1), "none": (0, 0), "both ends": (1, 1)}
    tokens = {"prefix": prefix, "one": 1, "one at most": min(prefix, 1)}[count]
    above, below = (tokens * end for end in ends[rows])
    left, right = (tokens * end for end in ends[columns])
    n = spatial.shape[-1]
    in_front = spatial.shape[:-2] if leading == "kept" else ()
    shape = (*in_front, above + n + below, left + n + right)
    result = spatial.new_full(shape, {"neutral": neutral, "0": 0.0, "1": 1.0}[value])
    if other == "columns 0":
        result[..., above : above + n, :] = 0
    if other == "rows 0":
        result[..., :, left : left + n] = 0
    if other == "corner 0":
        result[..., :above, :left] = 0
    if patches == "kept":
        result[..., above : above + n, left : left + n] = spatial
    return result
