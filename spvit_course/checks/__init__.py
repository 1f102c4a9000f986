"""Checks that diagnose: one engine, and exercises as data for each lesson.

engine.py            compares, diagnoses, speaks
resource_limits.py   time, and what an answer may not reach
exchange.py          a whole class written by hand against the package's
cases.py             what exercises share: draws, labels, calls
composition.py       what answers share, and how variants are derived
lesson_NN/           exercises.py: `EXERCISES` with cases, calls, properties; answers.py: right answers with options;
                     mistakes.py: the bank, name → (hint, the options that make the mistake)
variants/            the same for exercises whose mechanism was changed, for graded use
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
