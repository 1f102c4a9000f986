"""Exercises of all lessons and variants for the tests of the checks, and outcomes of answers, those of known mistakes once."""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from spvit_course import checks
from spvit_course.checks.engine import Exercise, Mistake, Trial, compute_outcome, is_equal
from spvit_course.checks.variants import BANKS
from spvit_mini.geometry import Grid

LESSONS = [f"{number:02}" for number in range(14)]
EXERCISES = {f"{lesson} {name}": exercise for lesson in LESSONS for name, exercise in checks.exercises(lesson).items()}
VARIED = {
    f"{variant} {lesson} {name}": exercise
    for variant, lessons in BANKS.items()
    for lesson, bank in lessons.items()
    for name, exercise in bank.items()
}

make_trial = cache(Trial)  # by exercise and seed


def list_outcomes(exercise: Exercise, answer: Callable | Mistake, seed: int) -> list[Tensor | BaseException]:
    """Call a trusted answer, or a known mistake, on each case of a seed: its tensors or its errors."""
    trial = make_trial(exercise, seed)
    if isinstance(answer, Mistake):
        return [trial.outcome(answer, number) for number in range(len(trial.cases))]
    return [compute_outcome(exercise, answer, case) for case in trial.cases]


def is_same(exercise: Exercise, one: Callable | Mistake, other: Callable | Mistake, seeds: Iterable[int]) -> bool:
    """Tell whether two answers give the same on every case of every seed."""
    pairs = (zip(list_outcomes(exercise, one, s), list_outcomes(exercise, other, s), strict=True) for s in seeds)
    return all(is_equal(a, b) for pair in pairs for a, b in pair)


def change_outcome(exercise: Exercise, one: Callable, change: Callable[[Tensor], Tensor]) -> Exercise:
    """Change what one answer to an exercise gives; all others stay."""

    def call(answer: Callable, *arguments) -> Tensor:
        output = exercise.call(answer, *arguments)
        return change(output) if answer is one else output

    return replace(exercise, call=call)


def stack_pairs(grid: Grid, of: Callable[[int, int], Tensor]) -> Tensor:
    """Stack `of(rows down, columns right)` over all pairs of patches, for δ = key minus query: (…, N, N)."""
    cells = list(itertools.product(range(grid[0]), range(grid[1])))
    return torch.stack([torch.stack([of(r - a, c - b) for r, c in cells], dim=-1) for a, b in cells], dim=-2)
