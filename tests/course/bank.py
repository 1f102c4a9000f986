"""What the tests of all lessons' banks of mistakes share: an answer's outcomes, and whether two answers always agree."""

from collections.abc import Callable, Iterable, Sequence

import pytest
import torch
from torch import Tensor

from spvit_course.checks.engine import Exercise, outcome, same


def outcomes(exercise: Exercise, answer: Callable, seed: int) -> list[Tensor | BaseException]:
    """Call a trusted answer on each case of a seed: its tensors or its errors."""
    return [outcome(exercise, answer, case) for case in exercise.cases(torch.Generator().manual_seed(seed))]


def agree(exercise: Exercise, one: Callable, other: Callable, seeds: Iterable[int] = range(4)) -> bool:
    """Say whether two answers give the same on every case of every seed."""
    pairs = (zip(outcomes(exercise, one, seed), outcomes(exercise, other, seed), strict=True) for seed in seeds)
    return all(same(a, b) for pair in pairs for a, b in pair)


def each_mistake(exercises: Sequence[Exercise]) -> list:
    """List (exercise, mistake) as parameters of a test, each named after both."""
    return [pytest.param(e, m, id=f"{e.name}: {m.name}") for e in exercises for m in e.mistakes]


def table(exercises: Sequence[Exercise], seed: int, *, width: int) -> str:
    """Write what each case tells of each mistake: "x" another result, "!" an error, "." the right result."""
    lines = [""]
    for exercise in exercises:
        lines.append(exercise.name)
        right = outcomes(exercise, exercise.solution, seed)
        for mistake in exercise.mistakes:
            wrong = outcomes(exercise, mistake.answer, seed)
            pairs = zip(right, wrong, strict=True)
            marks = ("!" if isinstance(b, Exception) else "." if same(a, b) else "x" for a, b in pairs)
            lines.append(f"    {mistake.name:<{width}}{''.join(marks)}")
    return "\n".join([*lines, ""])
