"""The variant `dilated`: a window around each query, with holes, in place of tiles. Each changed option is one mistake."""

import torch
from torch import Tensor

from spvit_mini.geometry import Grid

from ...composition import locate_tokens


def window_mask(
    grid: Grid,
    size: int,
    dilation: int,
    *,
    reach: str = "stretched",
    gaps: str = "multiples",
    kind: str = "sliding",
    both: str = "row and column",
    border: str = "cut",
    tokens: str = "row by row",
    sides: str = "R, C",
    says: str = "inside",
) -> Tensor:
    """Tell which keys lie in a query's dilated window: (N, N) booleans."""
    rows, columns = {"R, C": grid, "R, R": (grid[0], grid[0]), "C, C": (grid[1], grid[1])}[sides]
    line, place = locate_tokens(tokens, rows, columns)
    step = dilation + 1 if gaps == "skipped" else dilation
    far = {
        "stretched": step * (size // 2),
        "not stretched": size // 2,
        "size": step * size,
        "one short": step * (size // 2) - 1,
        "none": rows + columns,
    }[reach]
    moves = torch.arange(-rows - columns, rows + columns + 1)
    moves = moves[(moves.abs() <= far) & ((moves % step == 0) | (gaps == "none"))]
    seen = []
    for at, side in ((line, rows), (place, columns)):
        delta = at[None] - at[:, None]
        if border == "wrapped":
            delta = (delta + side // 2) % side - side // 2
        near = delta.abs() <= far
        if border == "clamped":  # a column for each move of a query
            near = ((at[:, None] + moves).clamp(0, side - 1)[:, None] == at[None, :, None]).any(-1)
        if kind == "tiles":
            near = at[None] // (step * size) == at[:, None] // (step * size)
        hit = {
            "multiples": delta % step == 0,
            "skipped": delta % step == 0,
            "none": torch.ones_like(near),
            "of the key's place": (at % step == 0)[None].expand_as(near),
        }[gaps if border != "clamped" else "none"]
        seen.append((near, hit))
    (near_rows, hit_rows), (near_columns, hit_columns) = seen
    if both == "holes in rows only":
        hit_columns = torch.ones_like(hit_columns)
    elif both == "holes in columns only":
        hit_rows = torch.ones_like(hit_rows)
    down, right = near_rows & hit_rows, near_columns & hit_columns
    result = {"row or column": down | right, "rows only": down, "columns only": right}.get(both, down & right)
    if border == "flat":
        n = torch.arange(rows * columns)
        result = torch.isin(n - n[:, None], moves[:, None] * columns + moves)
    if says == "others":
        return result & ~torch.eye(len(result), dtype=torch.bool)
    return result if says == "inside" else ~result
