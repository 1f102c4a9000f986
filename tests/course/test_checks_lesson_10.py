"""Lesson 10's bank of mistakes: each is refused with its own hint, nothing else is, and right answers pass."""

import itertools
import math
import statistics
from functools import partial

import numpy as np
import pytest
import torch

from spvit_course.checks.engine import examine, same
from spvit_course.checks.lesson_10 import EXERCISES, PAIRED, STEPS_TO
from spvit_course.checks.lesson_10_answers import first_steps, interval
from spvit_experiments import paired
from spvit_experiments.statistics import mean_and_deviation, t_quantile

from .bank import agree, each_mistake, outcomes, table

SEEDS = range(4)
each_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)

# The cases of pairs, in order: those of the lesson, some, two, many; then some with a diverged run in a, in b, in both, in
# both with one seed. Of rows: three seeds, four, one that never gets there, two, five.
# "x": another result than the right one, "!": an error, ".": the right result, so nothing to be learned from the case.
TOLD_APART = """
paired
    unpaired                             xxxxxxxx
    unpaired, n − 1                      xxxxxxxx
    over n                               xxxxxxxx
    standard deviation                   xxxxxxxx
    divided by n                         xxxxxxxx
    variance for deviation               xxxxxxxx
    variance of the mean                 xxxxxxxx
    normal                               xxxxxxxx
    1.96                                 xxxxxxxx
    degrees of freedom                   xxxxxxxx
    three digits                         xxxxxxxx
    one side                             xxxxxxxx
    no quantile                          xxxxxxxx
    sign                                 xxxxxxxx
    size                                 .xxxxxxx
    failures dropped                     ....xxxx
    failures kept                        ....xxxx
    difference 0                         ....xxx.
    median                               .xxxxxxx
    order                                xxxxxxxx
    order, mean last                     xxxxxxxx
    high before low                      xxxxxxxx
steps_to
    last                                 xx.xx
    stays                                xx.xx
    largest                              xx.xx
    before                               xx.xx
    place                                xx.xx
    place from 1                         xx.xx
    value                                xx.xx
    between                              xx..x
    its end                              xxx.x
    the end                              xxx.x
    0                                    xxx.x
    nan or left out                      xxx.x
    above                                .x.xx
    training curve                       xx.xx
    best seed                            xx.xx
    first seed                           xx.xx
    mean curve                           xx.xx
"""


@pytest.mark.parametrize("seed", SEEDS)
def test_the_table_of_what_each_case_tells(seed):
    assert table(EXERCISES, seed, width=37) == TOLD_APART


# What is right, by other means ----------------------------------------------------------------------------------------


def test_the_numbers_of_the_section_by_hand():
    a, b = (torch.tensor(values, dtype=torch.float64) for values in ([91, 96, 86, 93, 89], [90, 94, 86, 92, 88]))
    assert interval(a, b).tolist() == pytest.approx([1, 1 - 2.776445 * 0.1**0.5, 1 + 2.776445 * 0.1**0.5], abs=1e-6)
    assert interval(a, b, pairs="not, of 2n − 2")[1].item() == pytest.approx(1 - 2.306004 * 4.9**0.5, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n", [2, 5])
def test_the_interval_holds_the_truth_in_95_of_100_cases(n, seed):
    truth, times = 0.4, 8000
    draw = torch.Generator().manual_seed(seed)
    d = truth + 3 * torch.randn(times, n, dtype=torch.float64, generator=draw)
    reach = t_quantile(0.95, n - 1) * d.std(1) / math.sqrt(n)
    assert interval(d[0], torch.zeros(n))[2].item() == pytest.approx(d[0].mean().item() + reach[0].item())
    assert ((d.mean(1) - truth).abs() < reach).double().mean().item() == pytest.approx(0.95, abs=0.01)


@pytest.mark.parametrize(("exercise", "answer"), [(PAIRED, interval), (STEPS_TO, first_steps)])
def test_the_answers_with_options_are_right_as_they_stand(exercise, answer):
    assert agree(exercise, answer, exercise.solution)
    assert {mistake.answer.func for mistake in exercise.mistakes} == {answer}


# What is wrong --------------------------------------------------------------------------------------------------------


@each_exercise
def test_any_two_mistakes_are_told_apart(exercise):
    for seed in SEEDS:
        found = {mistake.name: outcomes(exercise, mistake.answer, seed) for mistake in exercise.mistakes}
        for one, other in itertools.combinations(found, 2):
            assert not all(same(a, b) for a, b in zip(found[one], found[other], strict=True)), (one, other)


@pytest.mark.parametrize(("exercise", "mistake"), each_mistake(EXERCISES))
@pytest.mark.parametrize("seed", SEEDS)
def test_each_mistake_is_refused_with_its_own_hint(exercise, mistake, seed):
    result = examine(exercise, mistake.answer, seed=seed)
    assert (result.status, result.mistake, result.lines[0]) == ("NOT YET", mistake.name, mistake.hint)
    assert len(str(result).splitlines()) <= 3


@each_exercise
@pytest.mark.slow
def test_pairs_of_mistakes_are_refused_and_never_taken_for_another(exercise):
    refused = 0
    for one, other in itertools.combinations(exercise.mistakes, 2):
        changes = {**one.answer.keywords, **other.answer.keywords}
        if len(changes) < len(one.answer.keywords) + len(other.answer.keywords):
            continue  # both change the same part
        pair = partial(one.answer.func, **changes)
        result = examine(exercise, pair)
        if agree(exercise, pair, exercise.solution, [0]):
            assert result.passed
            continue
        assert result.status == "NOT YET", (one.name, other.name)
        refused += 1
        if result.mistake:
            named = next(m for m in exercise.mistakes if m.name == result.mistake)
            assert agree(exercise, pair, named.answer, [0]), (one.name, other.name, result.mistake)
    assert refused > 40


@pytest.mark.parametrize("seed", range(12))
def test_random_wrong_answers_get_no_diagnosis(seed):
    noise = np.random.default_rng(seed)

    def near(rows, level):
        return {key: value + noise.normal() for key, value in first_steps(rows, level).items()}

    for exercise, answer in (
        (PAIRED, lambda a, b: tuple(float(x) + noise.normal() for x in interval(a, b))),
        (STEPS_TO, near),
    ):
        result = examine(exercise, answer)
        assert result.status == "NOT YET" and result.mistake is None


# Other ways to the numbers of a known mistake: they get its hint. Two of them together may be right.
def zeros(a, b):
    return a.nan_to_num(nan=0.0), b.nan_to_num(nan=0.0)


SAME_NUMBERS = [
    (PAIRED, "sign", lambda a, b: interval(b, a)),
    (PAIRED, "sign", lambda a, b: -interval(a, b)[[0, 2, 1]]),
    (PAIRED, None, lambda a, b: interval(b, a, difference="b − a")),
    (PAIRED, "over n", lambda a, b: interval_of(*mean_over_n((zeros(a, b)[0] - zeros(a, b)[1]).tolist()))),
    (STEPS_TO, "the end", lambda rows, level: capped(first_steps(rows, level), max(row["step"] for row in rows))),
    (
        STEPS_TO,
        "training curve",
        lambda rows, level: first_steps([r | {"val_top1": r["train_top1"]} for r in rows], level),
    ),
    (STEPS_TO, "nan or left out", lambda rows, level: first_steps(rows, level, never="nan")),
]


def mean_over_n(d):
    return statistics.mean(d), statistics.pstdev(d), len(d)


def interval_of(mean, deviation, n):
    reach = t_quantile(0.95, n - 1) * deviation / n**0.5
    return mean, mean - reach, mean + reach


def capped(found, most):
    return {seed: min(step, most) for seed, step in found.items()}


@pytest.mark.parametrize(("exercise", "name", "answer"), SAME_NUMBERS)
def test_other_ways_to_the_same_numbers_get_the_same_hint(exercise, name, answer):
    result = examine(exercise, answer)
    assert (result.passed, result.mistake) == (name is None, name), str(result)


@pytest.mark.parametrize(
    ("exercise", "answer", "words"),
    [
        (PAIRED, lambda a, b: None, "Is the `return` missing?"),
        (PAIRED, lambda a, b: float((a - b).mean()), "it returns a float, not three numbers"),
        (PAIRED, lambda a, b: interval(a, b)[:2], "it returns 2 numbers, not three"),
        (PAIRED, lambda a, b: paired(a.tolist(), b.tolist()), "the package's own solution"),
        (PAIRED, lambda a, b: interval(a.nan_to_num_(), b), "changes its input in place"),
        (STEPS_TO, lambda rows, level: None, "Is the `return` missing?"),
        (STEPS_TO, lambda rows, level: 120, "it returns an int, not a dictionary"),
        (STEPS_TO, lambda rows, level: dict.fromkeys([row["seed"] for row in rows]), "It counts as infinity"),
        (STEPS_TO, lambda rows, level: {"seed 0": 20}, "is no seed of the rows. The keys are the seeds: 0, 1, 2"),
    ],
)
def test_what_is_no_answer_is_told_so(exercise, answer, words):
    result = examine(exercise, answer)
    assert words in str(result) and result.status == "NOT YET"


# Right answers that nobody would have thought of ----------------------------------------------------------------------


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
    seeds = sorted({row["seed"] for row in rows})
    return {
        seed: min((r["step"] for r in rows if r["seed"] == seed and not r["val_top1"] < level), default=float("inf"))
        for seed in seeds
    }


def steps_by_tensors(rows, level):
    seed, step, value = (torch.tensor([float(row[key]) for row in rows]) for key in ("seed", "step", "val_top1"))
    late = torch.where(value >= level, step, torch.inf)
    return {int(one): late[seed == one].min() for one in seed.unique()}


RIGHT = [
    *((PAIRED, answer) for name, answer in list(globals().items()) if name.startswith("pairs_by")),
    *((STEPS_TO, answer) for name, answer in list(globals().items()) if name.startswith("steps_by")),
]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("exercise", "answer"), RIGHT, ids=[answer.__name__ for _, answer in RIGHT])
def test_unusual_right_answers_pass(exercise, answer, seed):
    result = examine(exercise, answer, seed=seed)
    assert result.passed, str(result)


def test_there_are_enough_of_each():
    for exercise in EXERCISES:
        assert len(exercise.mistakes) >= 6
        assert sum(of is exercise for of, _ in RIGHT) >= 3
        assert len({mistake.name for mistake in exercise.mistakes}) == len(exercise.mistakes)
