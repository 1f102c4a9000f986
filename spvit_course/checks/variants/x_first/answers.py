"""The variant `x_first`: the lessons' answers, with the options that are right here."""

from functools import partial

from ...lesson_03 import answers as lesson_03
from ...lesson_04 import answers as lesson_04
from ...lesson_06 import answers as lesson_06
from ...lesson_08 import answers as lesson_08

offsets = partial(lesson_03.offsets, sides="columns, rows")
log_offsets = partial(lesson_04.log_offsets, axes="columns, rows")
psa_map = partial(lesson_06.psa_map, order="column, row, square")
prior = partial(lesson_08.prior, seen="columns, rows")
