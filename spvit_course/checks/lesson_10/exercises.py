"""Lesson 10: a fair comparison. A mean of paired differences with its interval, and the step at which a run reaches a level."""

import math
from collections.abc import Mapping
from copy import deepcopy
from functools import partial

import numpy as np
import torch
from torch import Tensor

from spvit_experiments.statistics import paired, steps_to

from ..cases import as_number, draw_integer, draw_normal, format_count
from ..engine import Case, Exercise, Verdict, require_type
from . import answers, mistakes

# Cases ------------------------------------------------------------------------------------------------------------------


def draw_comparisons(generator: torch.Generator) -> list[Case]:
    """Draw accuracies of two arms over the same seeds: luck that both share, some runs diverged, two pairs at least."""
    hand = [torch.tensor(values, dtype=torch.float64) for values in ([91, 96, 86, 93, 89], [90, 94, 86, 92, 88])]
    cases = [Case("the five pairs of *By hand*", tuple(hand))]
    draw = partial(draw_integer, generator)
    for n, lost in [
        (draw(6, 8), ""),
        (2, ""),
        (draw(9, 14), ""),
        (5, "a"),
        (draw(6, 8), "b"),
        (draw(6, 8), "ab"),
        (6, "both"),
    ]:
        luck = 60 + 8 * draw_normal(generator, n)
        a, b = (luck + 3 * draw_normal(generator, n) for _ in "ab")
        a += 2
        b[0] = a[0] + 1.5  # a loss, so that signs count
        places = 1 + torch.randperm(n - 1, generator=generator)
        if lost in ("a", "ab", "both"):
            a[places[0]] = math.nan
        if lost in ("b", "ab", "both"):
            b[places[1 if lost == "ab" else 0]] = math.nan
        what = {"": "", "a": ", one run of a diverged", "b": ", one run of b diverged"}
        what |= {"ab": ", a run of each diverged", "both": ", both runs of one seed diverged"}
        cases.append(Case(f"{n} pairs{what[lost]}", (a, b)))
    return cases


def run_comparison(answer, a: Tensor, b: Tensor) -> Tensor:
    """Ask an answer, or the package's function, for mean, low and high: (3,)."""
    if answer is paired:
        ours = paired(a.nan_to_num(nan=0.0).tolist(), b.nan_to_num(nan=0.0).tolist())
        return torch.tensor([ours.mean, ours.low, ours.high], dtype=torch.float64)
    output = answer(a, b)
    require_type(output, (list, tuple, Tensor, np.ndarray), "three numbers: mean, low, high")
    if getattr(output, "ndim", 1) != 1:
        raise Verdict(f"it returns the shape {tuple(output.shape)}, not three numbers: mean, low, high.")
    if len(output) != 3:
        raise Verdict(f"it returns {len(output)} numbers, not three: mean, low, high.")
    return torch.tensor([as_number(value, "one of the three is") for value in output], dtype=torch.float64)


def draw_records(generator: torch.Generator) -> list[Case]:
    """Draw the rows of an arm: runs that rise, fall back, get there at once, late, exactly or never; one that ended early."""
    draw = partial(draw_integer, generator)
    cases = []
    for seeds, level in [((0, 1, 2), 90), ((3, 7, 100, 4), 60), ((5,), 90), ((2, 9), 45.5), ((0, 1, 2, 3, 4), 75)]:
        pace, rows = 10 * draw(1, 4), []
        for place, seed in enumerate(seeds):
            kind = ["rises", "falls back", "never", "at once", "exactly"][(place + len(cases)) % 5]
            rows += make_run(kind, seed, level, pace, draw)
        cases.append(Case(f"rows of {format_count(len(seeds), 'seed')} and the level {level:g}", (rows, level)))
    return cases


def make_run(kind: str, seed: int, level: float, pace: int, draw) -> list[dict]:
    """Make the rows of one run. What it got right of its training images runs ahead of the validation part, or behind."""
    low, high = [level - draw(3, 20) - 0.5 for _ in range(9)], [level + draw(1, 9) + 0.25 for _ in range(9)]
    values = {
        "rises": low[:3] + high[:4] + [max(high) + 1],
        "falls back": low[:2] + high[:2] + low[2:4] + high[2:4],
        "never": low[: 6 if seed % 2 else 8],
        "at once": high[:6] + low[:1] + high[6:7],
        "exactly": low[:4] + [float(level)] + low[4:5] + high[:2],
    }[kind]
    steps = [pace * (i + 1) for i in range(len(values))]
    steps[-1] += pace // 2  # the last evaluation is not at a multiple
    ahead = draw(0, 1)
    train = [values[max(0, min(len(values) - 1, i + (1 if ahead else -1)))] + 0.125 for i in range(len(values))]
    return [
        {"seed": seed, "step": step, "train_top1": other, "val_top1": value}
        for step, other, value in zip(steps, train, values, strict=True)
    ]


def run_steps(answer, rows: list[dict], level: float) -> Tensor:
    """Ask an answer, or the package's function, for the step of each seed: (seeds,), NaN for a seed that it leaves out."""
    rows = deepcopy(rows)
    seeds = list(dict.fromkeys(row["seed"] for row in rows))
    if answer is steps_to:
        curves = {seed: [(row["step"], row["val_top1"]) for row in rows if row["seed"] == seed] for seed in seeds}
        steps = {seed: steps_to(curve, level) for seed, curve in curves.items()}
    else:
        steps = answer(rows, level)
    require_type(steps, Mapping, "a dictionary with the step of each seed")
    if any(value is None for value in steps.values()):
        raise Verdict("for a run that never gets there it gives None. It counts as infinity, math.inf.")
    strange = [key for key in steps if key not in seeds]
    if strange:
        raise Verdict(f"its key {strange[0]!r} is no seed of the rows. The keys are the seeds: {', '.join(map(str, seeds))}.")
    numbers = {seed: as_number(step, f"the step of seed {seed} is") for seed, step in steps.items()}
    return torch.tensor([numbers.get(seed, math.nan) for seed in seeds], dtype=torch.float64)


# Exercises --------------------------------------------------------------------------------------------------------------

PAIRED = Exercise(
    name="paired",
    solution=paired,
    cases=draw_comparisons,
    call=run_comparison,
    answer=answers.paired,
    mistakes=mistakes.PAIRED,
    gradients=False,
)
STEPS_TO = Exercise(
    name="steps_to",
    solution=steps_to,
    cases=draw_records,
    call=run_steps,
    answer=answers.steps_to,
    mistakes=mistakes.STEPS_TO,
    gradients=False,
)
EXERCISES = (PAIRED, STEPS_TO)
