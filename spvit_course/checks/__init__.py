"""Checks that diagnose: one engine, and a module of exercises for each lesson.

engine.py      compares, diagnoses, speaks
limits.py      time, and what an answer may not reach
exchange.py    a whole class written by hand against the package's
lesson_NN.py   `EXERCISES` of lesson NN: cases and known mistakes
variants.py    exercises whose mechanism was changed, for graded use
"""

import importlib
import importlib.util

from spvit_mini.errors import UserError, near

from .engine import Exercise


def exercises(lesson: str, variant: str | None = None) -> dict[str, Exercise]:
    """Return the exercises of a lesson, "00" to "13", by name; none for a lesson without checks.

    With a variant only those that it changes. Raises UserError if there is no such variant.
    """
    if variant is not None:
        from .variants import BANKS

        if variant not in BANKS:
            raise UserError(f"there is no variant {variant!r}; the variants: {', '.join(BANKS)}.{near(variant, BANKS)}")
        return BANKS[variant].get(lesson, {})
    name = f"{__name__}.lesson_{lesson}"
    if importlib.util.find_spec(name) is None:
        return {}
    return {exercise.name: exercise for exercise in importlib.import_module(name).EXERCISES}
