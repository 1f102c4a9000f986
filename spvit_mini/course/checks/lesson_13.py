"""Lesson 13: what is fast. A table laid out by views, and a prior that keeps only its best offsets.

Values alone do not tell whether an answer is fast, and a clock tells it differently each time. What can be counted is
counted: torch's calls, and the whole numbers that an index of all pairs would need.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ...geometry import Grid, spread
from ...sparse import sparsify
from .engine import Case, Exercise, Property
from .lesson_01 import slips, stays_float32
from .lesson_03 import as_numbers, grids
from .lesson_13_answers import kept, laid

# spread_fast -------------------------------------------------------------------------------------------------------------


def tables(generator: torch.Generator) -> list[Case]:
    cases = []
    for heads, grid in zip([2, 3, 2, 3, 2, 1, 2], grids(generator), strict=True):
        shape = (heads, 2 * grid[0] - 1, 2 * grid[1] - 1)
        values = torch.randn(shape, dtype=torch.float64, generator=generator)
        if not cases:  # a value that says where it comes from, for the message of the first difference
            values = torch.arange(values.numel(), dtype=torch.float64).reshape(shape)
        numbered = "" if cases else ", its values numbered in reading order"
        cases.append(Case(f"a table of shape {shape} and the grid {grid}{numbered}", (values, grid)))
    return cases


class Count(TorchDispatchMode):
    """Count torch's calls, and the most whole numbers in a tensor that goes into one or comes out."""

    def __init__(self):
        super().__init__()
        self.calls, self.most = 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.calls += 1
        for value in tensors((args, kwargs or {}, result)):
            if not value.is_floating_point() and value.dtype != torch.bool:
                self.most = max(self.most, value.numel())
        return result


def tensors(value) -> list[Tensor]:
    """List the tensors in nested lists, tuples and dictionaries."""
    if isinstance(value, Tensor):
        return [value]
    values = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for each in values for tensor in tensors(each)]


def counted(answer: Callable, grid: Grid) -> Count:
    """Call an answer on a table of two heads, and count."""
    with Count() as count:
        answer(torch.zeros(2, 2 * grid[0] - 1, 2 * grid[1] - 1), grid)
    return count


ORIGIN = (
    "Offset (0, 0) stands in the middle of the table, and is what a query reads for itself: ask which entry the first query "
    "reads for itself in your map."
)
FIRST_FRAME = "Which frame belongs to the first query: the one at the upper left of the table, or the one at the lower right?"
STRIDE = (
    "right only where the steps happen to fit: look at the strides. A step of one row goes over a whole row of the *table*, "
    "which is longer than a row of the grid; `table.stride()` says how long."
)

SPREAD_FAST = Exercise(
    name="spread_fast",
    solution=spread,
    cases=tables,
    stumble="an index or a view leads out of the table, or shapes do not fit together. On a rectangle, look which of the two "
    "sides each length and each step belongs to; a view may have to be copied (`reshape`, `flatten`) before axes are joined.",
    properties=(
        stays_float32(lambda answer: answer(torch.zeros(1, 3, 5), (2, 3))),
        Property(
            "no index of all pairs",
            "the values are right, but it works with whole numbers for all N² pairs: an index. The exercise is to do without, by "
            "frames that slide over the table.",
            lambda answer: all(counted(answer, grid).most < (grid[0] * grid[1]) ** 2 for grid in ((4, 6), (7, 5))),
        ),
        Property(
            "no loop",
            "the values are right, but larger grids take more calls of torch: there is a loop. Let one call make all frames.",
            lambda answer: len({counted(answer, grid).calls for grid in ((2, 3), (4, 6), (7, 5))}) == 1,
        ),
    ),
    mistakes=slips(
        laid,
        {
            "not turned round": (
                "the frames stand in the order in which they were cut, so place of query and place of key are added. "
                + FIRST_FRAME,
                {"down": "key + query", "right": "key + query"},
            ),
            "rows not turned round": (
                "right within a row of patches, wrong between rows: the frames of the columns are in order, those of the rows "
                "are not. " + FIRST_FRAME,
                {"down": "key + query"},
            ),
            "columns not turned round": (
                "right between rows, wrong within a row of patches: the frames of the rows are in order, those of the columns "
                "are not. " + FIRST_FRAME,
                {"right": "key + query"},
            ),
            "transposed": (
                "the map is transposed: queries and keys have changed places, or the axes that were turned round are those "
                "within a frame. Which axes belong to the query?",
                {"down": "query − key", "right": "query − key"},
            ),
            "sign of the rows": (
                "above and below have changed places, left and right have not. Of the axes of the rows, which belongs to the "
                "query and which to the key?",
                {"down": "query − key"},
            ),
            "sign of the columns": (
                "left and right have changed places, above and below have not. Of the axes of the columns, which belongs to the "
                "query and which to the key?",
                {"right": "query − key"},
            ),
            "absolute value": (
                "the signs of the offsets are lost: only the lower right quarter of the table is ever read.",
                {"down": "absolute", "right": "absolute"},
            ),
            "axes swapped": (
                "the table is read with rows and columns in each other's place. Its axis before last belongs to row offsets, on "
                "square grids too.",
                {"axes": "columns, rows"},
            ),
            "square assumed: √N": (
                "right for square grids only: the side is taken from the number of tokens. `grid` says both sides.",
                {"sides": "√N"},
            ),
            "R and C swapped": (
                "right for square grids only: rows and columns of the grid have changed places.",
                {"tokens": "row by row, R for C"},
            ),
            "column by column": (
                "the tokens are taken column by column. They are numbered row by row, as you read: look at the order of the axes "
                "that you join.",
                {"tokens": "column by column"},
            ),
            "wrong stride: C": (STRIDE, {"stride": "C"}),
            "wrong stride: 2R−1": (STRIDE, {"stride": "2R−1"}),
            "origin not shifted": (f"the table is entered at its wrong end. {ORIGIN}", {"shift": "0, 0"}),
            "rows not shifted": (f"the rows of the table are entered at the wrong end. {ORIGIN}", {"shift": "0, C−1"}),
            "columns not shifted": (f"the columns of the table are entered at the wrong end. {ORIGIN}", {"shift": "R−1, 0"}),
            "half the rows, half the columns": (
                f"the middle of the image is taken for the middle of the table. {ORIGIN}",
                {"shift": "R//2, C//2"},
            ),
            "rows with rows": (
                "the values are all there, but in the order (query row, key row, query column, key column). Bring the two axes "
                "of the query together before you join axes.",
                {"pairs": "rows, columns"},
            ),
            "one head's table": (
                "all heads read the first head's table. The heads are an axis of the view too: how far is it from one head's "
                "table to the next?",
                {"heads": "the first's"},
            ),
            "heads turned round": (
                "the heads have changed their order: an axis too many was turned round.",
                {"heads": "turned round"},
            ),
            "axes not joined": (
                "the values are right, but queries and keys still have two axes each. Join them, row by row, to N and N.",
                {"joined": "none"},
            ),
            "keys not joined": ("queries are joined to one axis, keys are not yet.", {"joined": "queries"}),
            "queries not joined": ("keys are joined to one axis, queries are not yet.", {"joined": "keys"}),
        },
    ),
)

# sparsify ----------------------------------------------------------------------------------------------------------------


LITTLE, MUCH = (0, 0.45), (0.55, 1)  # of an offset


def share(offsets: int, low: float, high: float, *, part: tuple[float, float]) -> float:
    """Choose a density between two, in 64ths, exact in floats, so that of density · offsets such a part is not whole."""
    densities = (k / 64 for k in range(1, 64))
    return next(d for d in densities if low <= d <= high and part[0] < d * offsets % 1 < part[1])


def priors(generator: torch.Generator) -> list[Case]:
    """Draw priors and densities of several kinds."""
    wide, tall, square, row, column, wider, one = grids(generator)
    cases = []

    def case(text: str, heads: int, grid: Grid, density: float | tuple, change=lambda prior: prior) -> None:
        shape = (heads, 2 * grid[0] - 1, 2 * grid[1] - 1)
        if isinstance(density, tuple):
            density = share(shape[1] * shape[2], *density[:2], part=density[2])
        prior = change(torch.randn(shape, dtype=torch.float64, generator=generator))
        cases.append(Case(f"{text}, of shape {shape}, and a density of {density:g}", (prior, density)))

    def low_middle(prior: Tensor) -> Tensor:
        prior[:, prior.shape[1] // 2, prior.shape[2] // 2] = prior.min() - 1
        return prior

    def levels(prior: Tensor) -> Tensor:
        """Give whole numbers, many of them equal; the middle is none of the largest."""
        prior = torch.randint(-1, 3, prior.shape, generator=generator).double()
        return low_middle(prior)

    def scaled(prior: Tensor) -> Tensor:
        """Let each head be louder than the one before."""
        return prior * 3.0 ** torch.arange(len(prior))[:, None, None] + 4.0 * torch.arange(len(prior))[:, None, None]

    def high_middle(prior: Tensor) -> Tensor:
        prior[:, prior.shape[1] // 2, prior.shape[2] // 2] = prior.max() + 1
        return prior

    case("a prior with its middle low", 2, wide, (0.3, 0.5, LITTLE), low_middle)
    case("heads of different loudness", 3, tall, (0.3, 0.5, MUCH), scaled)
    case("a prior with equal values", 2, square, (0.5, 0.7, LITTLE), levels)
    case("a prior on one row", 2, row, 1 / 64, low_middle)
    case("a prior on one column, its middle high", 3, column, (0.3, 0.8, LITTLE), high_middle)
    case("a prior that is negative everywhere", 1, wider, (0.2, 0.4, LITTLE), lambda x: -1 - x.abs())
    case("a prior with nothing left out", 2, wide, 1.0, low_middle)
    case("a single patch", 2, one, 0.25)
    return cases


SPARSIFY = Exercise(
    name="sparsify",
    solution=sparsify,
    cases=priors,
    call=as_numbers,
    gradients=False,
    stumble="shapes do not fit together, or an index leads out of the table. A rank is asked for within each head, so each "
    "head's table may be seen as one long row; bring the shape back at the end.",
    properties=(
        Property(
            "booleans",
            "the right offsets are kept, but the result is not of booleans. It is a mask: True and False (torch.bool).",
            lambda answer: answer(torch.zeros(1, 3, 3), 0.5).dtype == torch.bool,
        ),
        Property(
            "float32 as well",
            "in float32 it keeps another number of offsets than in float64.",
            lambda answer: int(answer(torch.arange(75.0).view(3, 5, 5), 0.5).sum()) == 39,
        ),
    ),
    mistakes=slips(
        kept,
        {
            "threshold: the density": (
                "values are compared with the density itself. A density is a share of the offsets; how large their values are "
                "plays no part in how many are kept.",
                {"by": "above the density"},
            ),
            "threshold: the range": (
                "values are compared with a part of the range between the smallest and the largest. How many lie above it "
                "depends on the values; the density says how many it must be.",
                {"by": "part of the range"},
            ),
            "threshold: the largest": (
                "values are compared with a part of the largest. How many lie above it depends on the values; the density says "
                "how many it must be.",
                {"by": "part of the largest"},
            ),
            "ties all kept": (
                "where values are equal, more are kept than the density allows: a comparison with the last value that is kept "
                "lets all its equals in.",
                {"by": "ties all kept"},
            ),
            "ties: the last": (
                "where values are equal, the last ones are kept. The first in reading order go first.",
                {"ties": "last"},
            ),
            "absolute value": (
                "values are ranked by their size, signs left aside. A strongly negative value is not one to keep.",
                {"sizes": "absolute"},
            ),
            "smallest kept": ("the smallest values are kept. Look at the direction of the sorting.", {"order": "smallest"}),
            "per network": (
                "all heads are ranked together: loud heads keep much, quiet ones nearly nothing. Each head has a density of its "
                "own.",
                {"who": "network"},
            ),
            "mean of the heads": ("all heads keep the same offsets. Each head ranks its own values.", {"who": "mean"}),
            "the diagonal lost": (
                "a query may have lost itself: the offset (0, 0) has to be kept, whatever its value, or a row of the mask could "
                "become empty.",
                {"middle": "ranked"},
            ),
            "one too many": (
                "the offset (0, 0) comes on top of the number that is asked for. It is one of them.",
                {"middle": "added"},
            ),
            "the corner for the middle": (
                "another offset than (0, 0) is always kept. Where in a table does (0, 0) stand? At its beginning stands the "
                "farthest one.",
                {"middle": "first"},
            ),
            "rounded down": (
                "where the density leaves a part of an offset, one is missing. Look at the rounding.",
                {"count": "down"},
            ),
            "rounded to the nearest": (
                "where the density leaves a small part of an offset, one is missing. Look at the rounding.",
                {"count": "to the nearest"},
            ),
            "of the others": (
                "the density is counted of the other offsets, with (0, 0) on top. It is a share of all offsets, (0, 0) included.",
                {"of": "others"},
            ),
            "of the pairs": (
                "the density is counted in pairs of patches, of which near offsets have more. Here each offset counts once.",
                {"of": "pairs"},
            ),
            "of the patches": (
                "the density is counted of the N patches. It is a share of the offsets, of which there are nearly four times as "
                "many.",
                {"of": "patches"},
            ),
            "share left out": (
                "the density is taken for the share that is left out. It is the share that stays.",
                {"of": "dropped"},
            ),
            "turned round": ("True and False have changed places: True is what is kept.", {"result": "turned round"}),
            "multiplied": (
                "the prior comes back with zeros in it. Multiplied into scores, a 0 is no mask: exp(0) is 1. What is asked for "
                "are booleans.",
                {"result": "multiplied"},
            ),
            "0 and −∞": (
                "these are numbers to be added to scores, 0 and −∞. What is asked for are booleans; a mask is made of them "
                "later.",
                {"result": "scores"},
            ),
            "one for all heads": (
                "the axis of the heads is gone. Each head keeps its own offsets.",
                {"result": "one for all heads"},
            ),
        },
    ),
)

EXERCISES = (SPREAD_FAST, SPARSIFY)
