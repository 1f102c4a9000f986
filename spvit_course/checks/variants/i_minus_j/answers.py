"""The variant `i_minus_j`: the lessons' answers, with the options that are right here."""

from functools import partial

from ...lesson_03 import answers as lesson_03
from ...lesson_04 import answers as lesson_04
from ...lesson_06 import answers as lesson_06

FROM_THE_KEY = {"down": "query − key", "right": "query − key"}
offsets = partial(lesson_03.offsets, down="turned round", right="turned round")
spread = partial(lesson_03.spread, **FROM_THE_KEY)
shaw2d = partial(lesson_04.shaw2d, **FROM_THE_KEY)
psa_map = partial(lesson_06.psa_map, **FROM_THE_KEY)
