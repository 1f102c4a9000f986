"""Lesson 03's answers with options: each is right as it stands, and each changed option is one mistake."""

import torch
from torch import Tensor

from ..composition import spread_table as spread

__all__ = ["offsets", "pad_prefix", "spread"]

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


def offsets(
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
        positions = torch.cartesian_prod(SPANS["one way"](rows), SPANS["one way"](columns))
        return positions[None] - positions[:, None]
    grid = torch.meshgrid(SPANS[down](rows), SPANS[right](columns), indexing="ij")
    table = torch.stack(grid if entry == "row, column" else grid[::-1], dim=-1)
    shapes = {"(2C−1, 2R−1, 2)": (1, 0, 2), "(2, 2R−1, 2C−1)": (2, 0, 1)}
    if layout == "((2R−1)·(2C−1), 2)":
        return table.flatten(0, 1)
    return table.permute(shapes.get(layout, (0, 1, 2)))


def pad_prefix(
    spatial: Tensor,
    prefix: int,
    neutral: float,
    *,
    rows: str = "first",
    columns: str = "first",
    value: str = "neutral",
    other: str = "neutral",
    count: str = "prefix",
    patches: str = "own",
    leading: str = "own",
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
    in_front = spatial.shape[:-2] if leading == "own" else ()
    shape = (*in_front, above + n + below, left + n + right)
    result = spatial.new_full(shape, {"neutral": neutral, "0": 0.0, "1": 1.0}[value])
    if other == "columns 0":
        result[..., above : above + n, :] = 0
    if other == "rows 0":
        result[..., :, left : left + n] = 0
    if other == "corner 0":
        result[..., :above, :left] = 0
    if patches == "own":
        result[..., above : above + n, left : left + n] = spatial
    return result
