"""Lesson 10: right answers that are written in an unusual way, and wrong ones that the bank does not hold as they stand."""

import math
import statistics

import numpy as np
import torch

from spvit_course.checks.lesson_10 import answers
from spvit_experiments import paired
from spvit_experiments.statistics import mean_and_deviation, t_quantile


def zeros(a, b):
    return a.nan_to_num(nan=0.0), b.nan_to_num(nan=0.0)


def mean_over_n(d):
    return statistics.mean(d), statistics.pstdev(d), len(d)


def interval_of(mean, deviation, n):
    reach = t_quantile(0.95, n - 1) * deviation / n**0.5
    return mean, mean - reach, mean + reach


def pairs_by_loops(a, b):
    d = [(0 if math.isnan(x) else x) - (0 if math.isnan(y) else y) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    mean = sum(d) / len(d)
    variance = sum((x - mean) ** 2 for x in d) / (len(d) - 1)
    reach = t_quantile(0.95, len(d) - 1) * math.sqrt(variance / len(d))
    return [mean, mean - reach, mean + reach]


def pairs_by_numpy(a, b):
    d = np.nan_to_num(a.numpy()) - np.nan_to_num(b.numpy())
    error = d.std(ddof=1) / np.sqrt(d.size)
    return d.mean() + error * t_quantile(0.95, d.size - 1) * np.array([0, -1, 1])


def pairs_by_covariance(a, b):
    """Var(a − b) = Var a + Var b − 2 Cov(a, b)."""
    both = torch.stack(zeros(a, b))
    (va, c), (_, vb) = torch.cov(both).tolist()
    return interval_of(float(both.mean(1) @ torch.tensor([1.0, -1.0]).double()), math.sqrt(va + vb - 2 * c), len(a))


def pairs_by_the_packages_parts(a, b):
    d = (zeros(a, b)[0] - zeros(a, b)[1]).tolist()
    return interval_of(*mean_and_deviation(d), len(d))


def steps_by_going_backwards(rows, level):
    found = {row["seed"]: math.inf for row in rows}
    for row in reversed(rows):
        if row["val_top1"] >= level:
            found[row["seed"]] = row["step"]
    return found


def steps_by_minimum(rows, level):
    there = [row for row in rows if not row["val_top1"] < level]
    seeds = {row["seed"] for row in rows}
    return {seed: min((r["step"] for r in there if r["seed"] == seed), default=float("inf")) for seed in seeds}


def steps_by_tensors(rows, level):
    seed, step, value = (torch.tensor([float(row[key]) for row in rows]) for key in ("seed", "step", "val_top1"))
    late = torch.where(value >= level, step, torch.inf)
    return {int(one): late[seed == one].min() for one in seed.unique()}


def steps_of_one_list(rows, level):
    """Collect all runs in one list, as `dict.fromkeys(seeds, [])` does."""
    runs = dict.fromkeys([row["seed"] for row in rows], [])
    for row in rows:
        runs[row["seed"]].append(row)
    return {seed: next((r["step"] for r in run if r["val_top1"] >= level), math.inf) for seed, run in runs.items()}


def sorted_pairs(a, b):
    d = [x - y for x, y in zip(*(sorted(values.tolist()) for values in zeros(a, b)), strict=True)]
    return interval_of(*mean_and_deviation(d), len(d))


def capped(found, most):
    return {seed: min(step, most) for seed, step in found.items()}


RIGHT = {
    "paired": [
        pairs_by_loops, pairs_by_numpy, pairs_by_covariance, pairs_by_the_packages_parts,
        lambda a, b: answers.paired(b, a, difference="b − a"),
    ],
    "steps_to": [steps_by_going_backwards, steps_by_minimum, steps_by_tensors],
}
NAMED = [
    ("paired", "sign", lambda a, b: answers.paired(b, a)),
    ("paired", "sign", lambda a, b: -answers.paired(a, b)[[0, 2, 1]]),
    ("paired", "over n", lambda a, b: interval_of(*mean_over_n((zeros(a, b)[0] - zeros(a, b)[1]).tolist()))),
    ("paired", "each sorted", sorted_pairs),
    ("steps_to", "first seed", steps_of_one_list),
    ("steps_to", "the end", lambda rows, level: capped(answers.steps_to(rows, level), max(row["step"] for row in rows))),
    ("steps_to", "training curve",
        lambda rows, level: answers.steps_to([r | {"val_top1": r["train_top1"]} for r in rows], level)),
    ("steps_to", "nan or left out", lambda rows, level: answers.steps_to(rows, level, never="nan")),
]
REFUSED = [
    ("paired", "it returns a float, not three numbers", lambda a, b: float((a - b).mean())),
    ("paired", "it returns 2 numbers, not three", lambda a, b: answers.paired(a, b)[:2]),
    ("paired", "the package's own solution", lambda a, b: paired(a.tolist(), b.tolist())),
    ("paired", "changes its input in place", lambda a, b: answers.paired(a.nan_to_num_(), b)),
    ("steps_to", "it returns an int, not a dictionary", lambda rows, level: 120),
    ("paired", "one of the three is a str, not a number", lambda a, b: [str(x) for x in answers.paired(a, b).tolist()]),
    ("paired", "it returns a generator, not three numbers", lambda a, b: (x for x in answers.paired(a, b))),
    ("steps_to", "is a str, not a number", lambda rows, level: {k: str(v) for k, v in answers.steps_to(rows, level).items()}),
    ("steps_to", "is a list, not a number", lambda rows, level: {k: [v] for k, v in answers.steps_to(rows, level).items()}),
    ("steps_to", "It counts as infinity", lambda rows, level: dict.fromkeys([row["seed"] for row in rows])),
    ("steps_to", "is no seed of the rows. The keys are the seeds: 0, 1, 2", lambda rows, level: {"seed 0": 20}),
]
