"""The exercise of the variant `dilated`: a window around each query, with holes, in place of tiles.

As in the lessons' answers, the function with options is right as it stands, and each changed option is one mistake.
"""

import torch
from torch import Tensor

from spvit_mini.geometry import Grid

from .engine import Case, Exercise, Mistake, Property
from .lesson_01 import slips
from .lesson_03 import as_numbers, drawer
from .lesson_05 import NUMBERS
from .lesson_05_answers import windows
from .variants_maps import numbered


def holes(
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
    line, place = numbered(tokens, (rows, columns))
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


def window_mask_dilated(grid: Grid, size: int, dilation: int) -> Tensor:
    return holes(grid, size, dilation)


def hole_cases(generator: torch.Generator) -> list[Case]:
    """Draw windows with holes: wide, tall, square, a row, a column, wider holes, no holes, of one patch, larger than it."""
    draw = drawer(generator)
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
    cases=hole_cases,
    call=as_numbers,
    gradients=False,
    properties=(
        Property(
            "booleans",
            NUMBERS,
            lambda answer: answer((2, 3), 3, 1).dtype == torch.bool,
        ),
    ),
    mistakes=(
        Mistake(
            "the lesson's answer",
            "these are the lesson's tiles, moved by the third argument. This set asks for a window around each query, with "
            "holes, and the third argument is the dilation.",
            windows,
        ),
        *slips(
            holes,
            {
                "no holes": (
                    "the window is as wide as asked, but it has no holes: only every `dilation`-th row and column is seen.",
                    {"gaps": "none"},
                ),
                "not stretched": (
                    "the window has holes, but it is not stretched: `size` counts keys that are seen, not patches that are "
                    "covered.",
                    {"reach": "not stretched"},
                ),
                "dilation ignored": (
                    "this is an ordinary sliding window: the dilation is not used.",
                    {"reach": "not stretched", "gaps": "none"},
                ),
                "one hole too many": (
                    "`dilation` patches are skipped between two keys. It is the step from one key to the next: with 1 there are "
                    "no holes.",
                    {"gaps": "skipped"},
                ),
                "size to each side": (
                    "the window goes `size` keys to each side. It has `size` keys in all: size // 2 to each side, and the query.",
                    {"reach": "size"},
                ),
                "last left out": (
                    "the outermost keys are missing: those size // 2 steps away are still seen.",
                    {"reach": "one short"},
                ),
                "no end": ("the window has no end: at most size // 2 steps to each side are seen.", {"reach": "none"}),
                "tiles": (
                    "the image is cut into tiles. Here each query is in the middle of its own window.",
                    {"kind": "tiles"},
                ),
                "holes in the image": (
                    "the same patches are seen by everybody, those in every `dilation`-th row and column of the image. Count "
                    "from the query: it is the offset that has to be a multiple.",
                    {"gaps": "of the key's place"},
                ),
                "holes in rows only": (
                    "rows are skipped, columns are not. Both offsets have to be multiples of the dilation.",
                    {"both": "holes in rows only"},
                ),
                "holes in columns only": (
                    "columns are skipped, rows are not. Both offsets have to be multiples of the dilation.",
                    {"both": "holes in columns only"},
                ),
                "row or column": ("keys are seen if row *or* column fits. Both have to.", {"both": "row or column"}),
                "rows only": ("the columns are not looked at.", {"both": "rows only"}),
                "columns only": ("the rows are not looked at.", {"both": "columns only"}),
                "wrapped": (
                    "the window goes round the border: what it loses at one end it gains at the other. Here it is just cut.",
                    {"border": "wrapped"},
                ),
                "clamped to the border": (
                    "what lies beyond the border is moved onto it, so that some queries see the border's patches without reason. "
                    "It is left out.",
                    {"border": "clamped"},
                ),
                "flat index": (
                    "the window runs over the end of a row into the next one: a token's number alone does not say where its row "
                    "ends. Take rows and columns apart.",
                    {"border": "flat"},
                ),
                "column by column": (
                    "right for square grids only: rows and columns have changed places. Tokens are numbered row by row.",
                    {"tokens": "column by column"},
                ),
                "square assumed: rows": (
                    "right for square grids only: the grid has `columns` columns, not `rows`.",
                    {"sides": "R, R"},
                ),
                "square assumed: columns": (
                    "right for square grids only: the grid has `rows` rows, not `columns`.",
                    {"sides": "C, C"},
                ),
                "query left out": ("the query does not see itself. It is the middle of its window.", {"says": "others"}),
                "inverted": ("in and out have changed places: True is for keys that are seen.", {"says": "outside"}),
            },
        ),
    ),
)
