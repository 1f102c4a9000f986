"""Lesson 10: a fair comparison. A mean of paired differences with its interval, and the step at which a run gets there."""

import math
from copy import deepcopy
from functools import partial

import torch
from torch import Tensor

from spvit_experiments.statistics import paired, steps_to

from .engine import Case, Exercise, Mistake, Verdict, article
from .lesson_03 import drawer
from .lesson_10_answers import first_steps, interval

# Cases ------------------------------------------------------------------------------------------------------------------


def comparisons(generator: torch.Generator) -> list[Case]:
    """Draw accuracies of two arms over the same seeds: luck that both share, some runs diverged, two pairs at least."""
    hand = [torch.tensor(values, dtype=torch.float64) for values in ([91, 96, 86, 93, 89], [90, 94, 86, 92, 88])]
    cases = [Case("the five pairs of *By hand*", tuple(hand))]
    draw = drawer(generator)
    for n, lost in [
        (draw(6, 8), ""),
        (2, ""),
        (draw(9, 14), ""),
        (5, "a"),
        (draw(6, 8), "b"),
        (draw(6, 8), "ab"),
        (6, "both"),
    ]:
        luck = 60 + 8 * torch.randn(n, dtype=torch.float64, generator=generator)
        a, b = (luck + 3 * torch.randn(n, dtype=torch.float64, generator=generator) for _ in "ab")
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


def compare(answer, a: Tensor, b: Tensor) -> Tensor:
    """Ask an answer, or the package's function, for mean, low and high: (3,)."""
    if answer is paired:
        found = paired(a.nan_to_num(nan=0.0).tolist(), b.nan_to_num(nan=0.0).tolist())
        return torch.tensor([found.mean, found.low, found.high], dtype=torch.float64)
    found = answer(a, b)
    if found is None or isinstance(found, dict) or not hasattr(found, "__len__"):
        forgotten = " Is the `return` missing?" if found is None else ""
        raise Verdict(f"it returns {article(found)}, not three numbers: mean, low, high.{forgotten}")
    if len(found) != 3:
        raise Verdict(f"it returns {len(found)} numbers, not three: mean, low, high.")
    return torch.stack([torch.as_tensor(value, dtype=torch.float64).reshape(()) for value in found])


def records(generator: torch.Generator) -> list[Case]:
    """Draw the rows of an arm: runs that rise, fall back, get there at once, late, exactly or never; one that ended early."""
    draw = drawer(generator)
    cases = []
    for seeds, level in [((0, 1, 2), 90), ((3, 7, 100, 4), 60), ((5,), 90), ((2, 9), 45.5), ((0, 1, 2, 3, 4), 75)]:
        pace, rows = 10 * draw(1, 4), []
        for place, seed in enumerate(seeds):
            kind = ["rises", "falls back", "never", "at once", "exactly"][(place + len(cases)) % 5]
            rows += run_of(kind, seed, level, pace, draw)
        cases.append(Case(f"rows of {len(seeds)} seed{'s' * (len(seeds) > 1)} and the level {level:g}", (rows, level)))
    return cases


def run_of(kind: str, seed: int, level: float, pace: int, draw) -> list[dict]:
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


def arrive(answer, rows: list[dict], level: float) -> Tensor:
    """Ask an answer, or the package's function, for the step of each seed: (seeds,), NaN for a seed that it leaves out."""
    rows = deepcopy(rows)
    seeds = list(dict.fromkeys(row["seed"] for row in rows))
    if answer is steps_to:
        curves = {seed: [(row["step"], row["val_top1"]) for row in rows if row["seed"] == seed] for seed in seeds}
        found = {seed: steps_to(curve, level) for seed, curve in curves.items()}
    else:
        found = answer(rows, level)
    if not isinstance(found, dict):
        forgotten = " Is the `return` missing?" if found is None else ""
        raise Verdict(f"it returns {article(found)}, not a dictionary with the step of each seed.{forgotten}")
    if any(value is None for value in found.values()):
        raise Verdict("for a run that never gets there it gives None. It counts as infinity, math.inf.")
    strange = [key for key in found if key not in seeds]
    if strange:
        raise Verdict(
            f"its key {strange[0]!r} is no seed of the rows. The keys are the seeds: {', '.join(map(str, seeds))}."
        )
    return torch.tensor([float(found.get(seed, math.nan)) for seed in seeds], dtype=torch.float64)


# Mistakes ---------------------------------------------------------------------------------------------------------------

UNPAIRED = (
    "the interval is that of two groups that have nothing to do with each other. Take the difference of each seed first; "
    "then there is one list, and its own spread counts."
)
NORMAL = "the factor is that of the normal distribution. With so few pairs s itself is uncertain: t, of n − 1 degrees of freedom."

PAIRED = Exercise(
    name="paired",
    solution=paired,
    cases=comparisons,
    call=compare,
    gradients=False,
    mistakes=(
        Mistake("unpaired", UNPAIRED, partial(interval, pairs="not, of 2n − 2")),
        Mistake("unpaired, n − 1", UNPAIRED, partial(interval, pairs="not, of n − 1")),
        Mistake(
            "over n",
            "the spread is a little too small: the sum of squares is divided by n. The mean came from the same n numbers.",
            partial(interval, over="n"),
        ),
        Mistake(
            "standard deviation",
            "this is how far single differences lie from their mean. How far does the mean of n of them lie?",
            partial(interval, error="s"),
        ),
        Mistake(
            "divided by n",
            "s is divided by n. The variance of a mean is s²/n; what is its root?",
            partial(interval, error="s/n"),
        ),
        Mistake(
            "variance for deviation",
            "the variance stands where its root belongs: s has the unit of the accuracies, s² has not.",
            partial(interval, error="s²/√n"),
        ),
        Mistake(
            "variance of the mean",
            "s²/n is the variance of the mean. The interval needs its root.",
            partial(interval, error="s²/n"),
        ),
        Mistake("normal", NORMAL, partial(interval, factor="normal")),
        Mistake("1.96", NORMAL, partial(interval, factor="1.96")),
        Mistake(
            "degrees of freedom",
            "the quantile is that of n degrees of freedom. One is used up by the mean.",
            partial(interval, factor="t of n"),
        ),
        Mistake(
            "three digits",
            "the quantile is rounded, as in the table. Ask t_quantile for it.",
            partial(interval, factor="t of n − 1, three digits"),
        ),
        Mistake(
            "one side",
            "the quantile is that of 90 %: 5 % lie outside on each side. t_quantile counts both sides.",
            partial(interval, factor="one side"),
        ),
        Mistake(
            "no quantile",
            "mean ± s/√n holds the truth far less often than in 95 % of all cases. What is the factor before s/√n?",
            partial(interval, factor="none"),
        ),
        Mistake(
            "sign",
            "the sign is turned: a is compared with b, a − b.",
            partial(interval, difference="b − a"),
        ),
        Mistake(
            "size",
            "the signs of the differences are lost, so losses count as gains.",
            partial(interval, difference="size"),
        ),
        Mistake(
            "failures dropped",
            "pairs with a diverged run are left out. A method that fails now and then looks better for it: such a run counts "
            "as 0 %.",
            partial(interval, failed="dropped"),
        ),
        Mistake(
            "failures kept",
            "a run that diverged makes everything NaN. It counts as 0 %.",
            partial(interval, failed="kept"),
        ),
        Mistake(
            "difference 0",
            "where one run diverged, the difference is set to 0, as if both had done equally well. The *run* counts as 0 %.",
            partial(interval, failed="difference 0"),
        ),
        Mistake(
            "median",
            "the interval of Student's t lies around the mean. For an even number, torch's median is not even the middle.",
            partial(interval, middle="median"),
        ),
        Mistake(
            "order",
            "the mean stands in the middle of the three. Return it first: mean, low, high.",
            partial(interval, order="low, mean, high"),
        ),
        Mistake(
            "order, mean last",
            "the mean stands last. Return it first: mean, low, high.",
            partial(interval, order="low, high, mean"),
        ),
        Mistake(
            "high before low",
            "low and high have changed places.",
            partial(interval, order="mean, high, low"),
        ),
    ),
)

STEPS_TO = Exercise(
    name="steps_to",
    solution=steps_to,
    cases=records,
    call=arrive,
    gradients=False,
    mistakes=(
        Mistake(
            "last",
            "it finds the last evaluation at the level. When did the run get there for the first time?",
            partial(first_steps, which="last"),
        ),
        Mistake(
            "stays",
            "it asks that the run stays at the level to its end. Asked is the first time, whatever comes after.",
            partial(first_steps, which="stays"),
        ),
        Mistake(
            "largest",
            "it finds the step of the best accuracy. Asked is when the level is reached.",
            partial(first_steps, which="largest"),
        ),
        Mistake(
            "before",
            "it finds the evaluation before: there the run was still below the level.",
            partial(first_steps, which="before"),
        ),
        Mistake(
            "place",
            "it gives the place of the evaluation in the list, counted from 0. Each row says its step.",
            partial(first_steps, said="place from 0"),
        ),
        Mistake(
            "place from 1",
            "it counts evaluations. Each row says its step.",
            partial(first_steps, said="place from 1"),
        ),
        Mistake(
            "value",
            "it gives the accuracy there. Asked is the step.",
            partial(first_steps, said="value"),
        ),
        Mistake(
            "between",
            "it draws a line between two evaluations. Nobody looked there: the answer is a step at which the run was evaluated.",
            partial(first_steps, said="between"),
        ),
        Mistake(
            "its end",
            "a run that never gets there is given its own last step. So it counts as slow, not as failed; infinity says what "
            "it is.",
            partial(first_steps, never="its last step"),
        ),
        Mistake(
            "the end",
            "a run that never gets there is given the last step of all. So it counts as slow, not as failed; infinity says what "
            "it is.",
            partial(first_steps, never="the last step"),
        ),
        Mistake(
            "0",
            "a run that never gets there is given 0 steps: the best of all. It counts as infinity.",
            partial(first_steps, never="0"),
        ),
        Mistake(
            "nan or left out",
            "a run that never gets there is left out, or NaN, and every mean, median and minimum will pass over it. It counts as "
            "infinity.",
            partial(first_steps, never="dropped"),
        ),
        Mistake(
            "above",
            "it asks for more than the level. A run that is exactly there has reached it.",
            partial(first_steps, reached="above"),
        ),
        Mistake(
            "training curve",
            "it reads the accuracy on training images. What counts is the validation part.",
            partial(first_steps, curve="train_top1"),
        ),
        Mistake(
            "best seed",
            "every seed is given the step of the fastest. Each run speaks for itself.",
            partial(first_steps, seeds="best"),
        ),
        Mistake(
            "first seed",
            "every seed is given the step of the first. Each run speaks for itself.",
            partial(first_steps, seeds="first alone"),
        ),
        Mistake(
            "mean curve",
            "it looks where the mean of all curves gets there. Such a mean hides the runs that never do; each run speaks for "
            "itself.",
            partial(first_steps, seeds="mean curve"),
        ),
    ),
)

EXERCISES = (PAIRED, STEPS_TO)
