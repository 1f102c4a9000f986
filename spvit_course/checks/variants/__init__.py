"""Exercises whose mechanism was changed: other axes, another sign, other maps. See classroom/variants.py.

Where only a convention changes, a variant's bank is the lesson's, with the variant's options in place of the right ones,
and new words where the lesson's would mislead. Everywhere the lesson's own answer is one of the mistakes.
"""

from ..composition import LESSONS_OWN
from ..engine import Exercise
from . import decay, dilated, i_minus_j, x_first

__all__ = ["BANKS", "LESSONS_OWN"]

# The exercises of each variant: by lesson, then by name.
BANKS: dict[str, dict[str, dict[str, Exercise]]] = {
    name: {lesson: {one.name: one for one in exercises} for lesson, exercises in variant.EXERCISES.items()}
    for name, variant in {"x_first": x_first, "i_minus_j": i_minus_j, "decay": decay, "dilated": dilated}.items()
}
