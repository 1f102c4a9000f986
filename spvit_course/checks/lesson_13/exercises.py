"""Lesson 13: what is fast. A table laid out by views, and a prior that keeps only its best offsets.

Values alone do not show whether an answer is fast, and a clock varies. What can be counted is counted:
torch's calls, and the integers that an index of all pairs would need.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from spvit_mini.block_sparse import sparsify
from spvit_mini.geometry import Grid, spread

from ..cases import as_numbers, draw_grids, draw_normal, number_values, stays_float32
from ..engine import Case, Exercise, Property
from . import answers, mistakes

# spread_fast -------------------------------------------------------------------------------------------------------------


def draw_tables(generator: torch.Generator) -> list[Case]:
    """Draw tables of all kinds of grids, then two that do not lie in one piece: a third argument says how they lie."""
    cases, grids = [], draw_grids(generator)
    for heads, grid in zip([2, 3, 2, 3, 2, 1, 2], grids, strict=True):
        shape = (heads, 2 * grid[0] - 1, 2 * grid[1] - 1)
        values = draw_normal(generator, *shape)
        numbered = "" if cases else ", its values numbered in reading order"
        label = f"a table of shape {shape} and the grid {grid}{numbered}"
        cases.append(Case(label, (values if cases else number_values(shape), grid)))
    for heads, grid, lies in ((3, grids[0], "transposed"), (2, grids[1], "cut from a larger one")):
        shape = (heads, 2 * grid[0] - 1, 2 * grid[1] - 1)
        label = f"a table of shape {shape} that is a view, {lies}, and the grid {grid}"
        cases.append(Case(label, (draw_normal(generator, *shape), grid, lies)))
    return cases


def run_on_view(answer: Callable, table: Tensor, grid: Grid, lies: str = "in one piece") -> Tensor:
    """Call an answer on a table with this layout in memory."""
    return answer(answers.lay_out(table, lies), grid)


class Count(TorchDispatchMode):
    """Count torch's calls, and the most integers in a tensor that one of them takes or returns."""

    def __init__(self):
        super().__init__()
        self.calls, self.most = 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.calls += 1
        for value in list_tensors((args, kwargs or {}, result)):
            if not value.is_floating_point() and value.dtype != torch.bool:
                self.most = max(self.most, value.numel())
        return result


def list_tensors(value) -> list[Tensor]:
    """List the tensors in nested lists, tuples and dictionaries."""
    if isinstance(value, Tensor):
        return [value]
    values = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for each in values for tensor in list_tensors(each)]


def count_calls(answer: Callable, grid: Grid) -> Count:
    """Call an answer on a table of two heads, and count."""
    with Count() as count:
        answer(torch.zeros(2, 2 * grid[0] - 1, 2 * grid[1] - 1), grid)
    return count


SPREAD_FAST = Exercise(
    name="spread_fast",
    solution=spread,
    cases=draw_tables,
    shape_hint="an index or a view leads out of the table, or shapes do not fit together. On a rectangle, look which "
    "of the two sides each length and each step belongs to; a view may have to be copied (`reshape`, `flatten`) "
    "before axes are joined. If it fails on squares too: `unfold` puts a new axis last, so which axis is the last one "
    "at the second call?",
    call=run_on_view,
    answer=answers.spread_fast,
    mistakes=mistakes.SPREAD_FAST,
    properties=(
        stays_float32(lambda answer: answer(torch.zeros(1, 3, 5), (2, 3))),
        Property(
            "no index of all pairs",
            "the values are right, but it works with whole numbers for all N² pairs: an index. The exercise is to do without, by "
            "frames that slide over the table.",
            lambda answer: all(count_calls(answer, grid).most < (grid[0] * grid[1]) ** 2 for grid in ((4, 6), (7, 5))),
        ),
        Property(
            "no loop",
            "the values are right, but larger grids take more calls of torch: there is a loop. Let one call make all frames.",
            lambda answer: len({count_calls(answer, grid).calls for grid in ((2, 3), (4, 6), (7, 5))}) == 1,
        ),
    ),
)

# sparsify ----------------------------------------------------------------------------------------------------------------


LITTLE, MUCH = (0, 0.45), (0.55, 1)  # of an offset


def choose_density(offsets: int, low: float, high: float, *, part: tuple[float, float]) -> float:
    """Choose a density between two, in 64ths, exact in floats, so that of density · offsets such a part is not whole."""
    densities = (k / 64 for k in range(1, 64))
    return next(d for d in densities if low <= d <= high and part[0] < d * offsets % 1 < part[1])


def draw_priors(generator: torch.Generator) -> list[Case]:
    """Draw priors and densities of several kinds."""
    wide, tall, square, row, column, wider, one = draw_grids(generator)
    cases = []

    def case(text: str, heads: int, grid: Grid, density: float | tuple, change=lambda prior: prior) -> None:
        shape = (heads, 2 * grid[0] - 1, 2 * grid[1] - 1)
        if isinstance(density, tuple):
            density = choose_density(shape[1] * shape[2], *density[:2], part=density[2])
        prior = change(draw_normal(generator, *shape))
        cases.append(Case(f"{text}, of shape {shape}, and a density of {density:g}", (prior, density)))

    def low_middle(prior: Tensor) -> Tensor:
        prior[:, prior.shape[1] // 2, prior.shape[2] // 2] = prior.min() - 1
        return prior

    def levels(prior: Tensor) -> Tensor:
        """Return integers, many of them equal; the middle is none of the largest."""
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
    cases=draw_priors,
    call=as_numbers,
    answer=answers.sparsify,
    mistakes=mistakes.SPARSIFY,
    gradients=False,
    shape_hint="shapes do not fit together, or an index leads out of the table. A rank is asked for within each head, "
    "so each head's table may be seen as one long row; bring the shape back at the end.",
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
)

EXERCISES = (SPREAD_FAST, SPARSIFY)
