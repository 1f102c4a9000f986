"""The variant `x_first`: the column comes before the row, in tables, offsets and weights."""

from torch import Tensor

from spvit_mini.geometry import Grid

from ...cases import run_as_weights
from ...composition import derive_exercise
from ...lesson_03.exercises import OFFSETS
from ...lesson_04.exercises import LOG_OFFSETS
from ...lesson_06.exercises import PSA_MAP
from ...lesson_08.exercises import PRIOR
from . import answers, mistakes


def offsets_x_first(rows: int, columns: int) -> Tensor:
    return answers.offsets(rows, columns)


def log_offsets_x_first(delta: Tensor, window: Grid) -> Tensor:
    return answers.log_offsets(delta, window)


def psa_map_x_first(v: Tensor, grid: Grid) -> Tensor:
    return answers.psa_map(v, grid)


def prior_x_first(delta: Tensor, *weights: Tensor) -> Tensor:
    return answers.prior(delta, *weights)


EXERCISES = {
    "03": (derive_exercise(OFFSETS, offsets_x_first, answers.offsets, mistakes.OFFSETS),),
    "04": (derive_exercise(LOG_OFFSETS, log_offsets_x_first, answers.log_offsets, mistakes.LOG_OFFSETS),),
    "06": (derive_exercise(PSA_MAP, psa_map_x_first, answers.psa_map, mistakes.PSA_MAP, call=run_as_weights),),
    "08": (derive_exercise(PRIOR, prior_x_first, answers.prior, mistakes.PRIOR),),
}
