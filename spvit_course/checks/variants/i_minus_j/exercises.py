"""The variant `i_minus_j`: an offset is the query's position minus the key's."""

from torch import Tensor

from spvit_mini.geometry import Grid

from ...cases import run_as_weights
from ...composition import derive_exercise
from ...lesson_03.exercises import OFFSETS, SPREAD
from ...lesson_04.exercises import SHAW2D
from ...lesson_06.exercises import PSA_MAP
from . import answers, mistakes


def offsets_i_minus_j(rows: int, columns: int) -> Tensor:
    return answers.offsets(rows, columns)


def spread_i_minus_j(table: Tensor, grid: Grid) -> Tensor:
    return answers.spread(table, grid)


def shaw2d_i_minus_j(q: Tensor, tables: Tensor, grid: Grid, clip: int) -> Tensor:
    return answers.shaw2d(q, tables, grid, clip)


def psa_map_i_minus_j(v: Tensor, grid: Grid) -> Tensor:
    return answers.psa_map(v, grid)


EXERCISES = {
    "03": (
        derive_exercise(OFFSETS, offsets_i_minus_j, answers.offsets, mistakes.OFFSETS),
        derive_exercise(SPREAD, spread_i_minus_j, answers.spread, mistakes.SPREAD),
    ),
    "04": (derive_exercise(SHAW2D, shaw2d_i_minus_j, answers.shaw2d, mistakes.SHAW2D),),
    "06": (derive_exercise(PSA_MAP, psa_map_i_minus_j, answers.psa_map, mistakes.PSA_MAP, call=run_as_weights),),
}
