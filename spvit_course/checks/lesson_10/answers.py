"""Lesson 10's answers with options: each is right as it stands, and each changed option is one mistake."""

import math

import torch
from torch import Tensor

from spvit_experiments.statistics import t_quantile

NORMAL = 1.959963984540054  # P(|Z| ≤ this) = 95 %
DIFFERENCES = {"a − b": lambda a, b: a - b, "b − a": lambda a, b: b - a, "size": lambda a, b: (a - b).abs()}
FACTORS = {
    "t of n − 1": lambda n: t_quantile(0.95, n - 1),
    "t of n": lambda n: t_quantile(0.95, n),
    "t of n − 1, three digits": lambda n: round(t_quantile(0.95, n - 1), 3),
    "t of 2n − 2": lambda n: t_quantile(0.95, 2 * n - 2),
    "one side": lambda n: t_quantile(0.90, n - 1),
    "97.5 %": lambda n: t_quantile(0.975, n - 1),
    "5 %": lambda n: t_quantile(0.05, n - 1),
    "normal": lambda n: NORMAL,
    "1.96": lambda n: 1.96,
    "none": lambda n: 1.0,
}
ERRORS = {
    "s/√n": lambda s, n: s / math.sqrt(n),
    "s": lambda s, n: s,
    "s/n": lambda s, n: s / n,
    "s/√(n − 1)": lambda s, n: s / math.sqrt(n - 1),
    "s²/√n": lambda s, n: s**2 / math.sqrt(n),
    "s²/n": lambda s, n: s**2 / n,
}


def paired(
    a: Tensor,
    b: Tensor,
    *,
    failed: str = "as 0",
    difference: str = "a − b",
    pairs: str = "seed by seed",
    over: str = "n − 1",
    error: str = "s/√n",
    factor: str = "t of n − 1",
    middle: str = "mean",
    order: str = "mean, low, high",
) -> Tensor:
    """Compare runs a with b, both (n,), NaN where a run diverged: (3,), the mean of a − b and its 95 % interval."""
    if failed == "as 0":
        a, b = a.nan_to_num(nan=0.0), b.nan_to_num(nan=0.0)
    if failed == "dropped":
        both = ~(a.isnan() | b.isnan())
        a, b = a[both], b[both]
    if failed == "difference 0":
        either = a.isnan() | b.isnan()
        a, b = a.masked_fill(either, 0.0), b.masked_fill(either, 0.0)
    if pairs == "each sorted":
        a, b = a.sort().values, b.sort().values
    n, less = len(a), over == "n − 1"
    d = DIFFERENCES[difference](a, b)
    centre = d.median() if middle == "median" else d.mean()
    if not pairs.startswith("not"):
        reach = FACTORS[factor](n) * ERRORS[error](d.std(correction=less), n)
    else:  # as if no two runs had a seed in common
        spread = (a.var(correction=less) + b.var(correction=less)).sqrt()
        degrees = {"not, of 2n − 2": 2 * n - 1, "not, of n − 1": n}[pairs]
        reach = FACTORS[factor](degrees) * ERRORS[error](spread, n)
    numbers = {"mean": centre, "low": centre - reach, "high": centre + reach, "reach": reach}
    return torch.stack([numbers[name] for name in order.split(", ")])


def steps_to(
    rows: list[dict],
    level: float,
    *,
    curve: str = "val_top1",
    reached: str = "at or above",
    which: str = "first",
    said: str = "step",
    never: str = "infinity",
    seeds: str = "each",
) -> dict[int, float]:
    """Find for each seed of an arm's rows the first step at which its run is at the level or above it; else infinity."""
    runs: dict[int, list[dict]] = {}
    for row in rows:
        runs.setdefault(row["seed"], []).append(row)
    if seeds == "mean curve":
        runs = dict.fromkeys(runs, average_runs(list(runs.values()), curve))
    last = max(row["step"] for row in rows)
    steps = {}
    for seed, run in runs.items():
        values = [row[curve] for row in run]
        there = [value >= level if reached == "at or above" else value > level for value in values]
        place = choose_evaluation(there, values, which)
        if place is None:
            missing = {
                "infinity": math.inf,
                "its last step": run[-1]["step"],
                "the last step": last,
                "0": 0,
                "nan": math.nan,
            }
            if never != "dropped":
                steps[seed] = missing[never]
        else:
            steps[seed] = {
                "step": run[place]["step"],
                "place from 0": place,
                "place from 1": place + 1,
                "value": values[place],
                "between": interpolate_step(run, values, place, level),
            }[said]
    if seeds == "best" and steps:
        steps = dict.fromkeys(runs, min(steps.values()))
    if seeds == "first alone":
        steps = dict.fromkeys(runs, steps.get(rows[0]["seed"], math.nan))
    return steps


def choose_evaluation(there: list[bool], values: list[float], which: str) -> int | None:
    """Find the place in a curve, given where it is at the level; None if there is none."""
    if not any(there):
        return None
    if which == "last":
        return max(i for i, at in enumerate(there) if at)
    if which == "stays":
        return next((i for i in range(len(there)) if all(there[i:])), None)
    if which == "largest":
        return values.index(max(values))
    return there.index(True) - (which == "before" and there.index(True) > 0)


def interpolate_step(run: list[dict], values: list[float], place: int, level: float) -> float:
    """Draw a straight line between two evaluations, and read the step off at which it meets the level."""
    if place == 0 or values[place] == values[place - 1]:
        return run[place]["step"]
    share = (level - values[place - 1]) / (values[place] - values[place - 1])
    return run[place - 1]["step"] + share * (run[place]["step"] - run[place - 1]["step"])


def average_runs(runs: list[list[dict]], curve: str) -> list[dict]:
    """Average the runs, evaluation by evaluation, over those that got so far."""
    averages = []
    for place in range(max(map(len, runs))):
        rows = [run[place] for run in runs if place < len(run)]
        averages.append({"step": rows[0]["step"], curve: sum(row[curve] for row in rows) / len(rows)})
    return averages
