"""Lesson 12's bank of mistakes, and whether the lesson's answers are what the package does."""

import itertools
import math
from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from spvit_course.checks.engine import examine, same
from spvit_course.checks.lesson_12 import (
    ACCURACY,
    AVERAGE,
    EMA,
    EXERCISES,
    SCHEDULE,
    by_hand,
    exact_accuracy,
    hand_out,
)
from spvit_course.checks.lesson_12_answers import averaged, scheduled, scored
from spvit_mini.training.distributed import Share, Team
from spvit_mini.training.metrics import Counts
from spvit_mini.training.optim import average, lr_at

from .bank import agree, each_mistake, outcomes, table

SEEDS = range(4)
ANSWERS = {"lr_at": scheduled, "EMA": averaged, "exact_accuracy": scored}
each_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)

# The cases, in order.
# lr_at: by hand, a start above 0, a cool-down, no warm-up, nothing but warm-up, level.
# EMA: by hand, slow with buffers, fast with buffers, no buffers, bfloat16.
# exact_accuracy: by hand, one process, four with padding alone in their last batch, three, four, long.
# "x": another result than the right one, "!": an error, ".": the right result, so nothing to be learned from the case.
TOLD_APART = """
lr_at
    start at the first step        xxx.xx
    peak a step early              xxx.xx
    rise a step late               xxx.xx
    both ends                      xxx.xx
    no warm-up                     xxx.xx
    warm-up from 0                 .xx.xx
    warm-up from final             xxx.xx
    no floor                       xxxxxx
    floor added                    xxxxxx
    floor cut                      xxxx..
    over the total                 xxx.x.
    over the total, begun late     xxx.x.
    over the rest, from 0          xxx.x.
    from 0, and up again           xxx.x.
    end before the warm-up         ....x.
    end a step early               xxxx..
    begun a step early             xxxxx.
    cool-down ignored              ..x...
    cool-down added                ..x...
    rises again                    xxxxx.
    begins anew                    xxxxx.
    division by 0                  ....!.
    whole cosine                   xxxxx.
    quarter cosine                 xxxx..
    no π                           xxxxx.
    no ½                           xxxxx.
    upside down                    xxxxx.
    straight down                  xxxx..
EMA
    decay swapped                  xxxxx
    weights in full                xxxxx
    average in full                xxxxx
    no warm-up                     xxxx.
    max for min                    xxxxx
    warm-up alone                  x.xxx
    product                        xxxxx
    plain mean                     xxxxx
    n a step ahead                 xxxx.
    n a step behind                xxxxx
    always copied                  xxxxx
    not put back                   xxxxx
    no copy at first               xxxxx
    buffers skipped                .xx..
    means skipped                  .xx..
    counts skipped                 .xx..
    means copied                   .xx..
    counts averaged                .xx..
    counts averaged and cut        .xx..
    counts in place                .!!..
    half precision                 ....x
    half precision product         ....x
exact_accuracy
    mean over batches              xxxxxx
    mean over processes            x.xxxx
    mean over batches, padded      xxxxxx
    padding counted                x.xxxx
    padding right                  x.xxxx
    padding as class 0             x.xxxx
    padding as the last class      x.xxxx
    first process                  x.xxxx
    last process                   x.xxxx
    right reduced twice            x.xxxx
    images reduced twice           x.xxxx
    integer division               xx.xxx
    integer division first         xxxxxx
    last batch dropped             xxxx!x
    short batches dropped          .x.x.x
    last batch alone               xxxx.x
    a share                        xxxxxx
    smallest logit                 xxxxxx
"""


@pytest.mark.parametrize("seed", SEEDS)
def test_the_table_of_what_each_case_tells(seed):
    assert table(EXERCISES, seed, width=31) == TOLD_APART


@each_exercise
def test_the_answers_with_options_are_right_as_they_stand(exercise):
    assert agree(exercise, ANSWERS[exercise.name], exercise.solution)
    assert {mistake.answer.func for mistake in exercise.mistakes} == {ANSWERS[exercise.name]}


@each_exercise
def test_any_two_mistakes_are_told_apart(exercise):
    for seed in SEEDS:
        found = {mistake.name: outcomes(exercise, mistake.answer, seed) for mistake in exercise.mistakes}
        for one, other in itertools.combinations(found, 2):
            assert not all(same(a, b) for a, b in zip(found[one], found[other], strict=True)), (one, other)


@pytest.mark.parametrize(("exercise", "mistake"), each_mistake(EXERCISES))
def test_each_mistake_is_refused_with_its_own_hint(exercise, mistake):
    for seed in SEEDS:
        result = examine(exercise, mistake.answer, seed=seed)
        assert (result.status, result.mistake, result.lines[0]) == ("NOT YET", mistake.name, mistake.hint)
        assert len(str(result).splitlines()) <= 3


@each_exercise
def test_pairs_of_mistakes_are_refused_and_never_taken_for_another(exercise):
    refused = 0
    for one, other in itertools.combinations(exercise.mistakes, 2):
        changes = {**one.answer.keywords, **other.answer.keywords}
        if len(changes) < len(one.answer.keywords) + len(other.answer.keywords):
            continue  # both change the same part
        pair = partial(one.answer.func, **changes)
        result = examine(exercise, pair)
        assert result.passed == agree(exercise, pair, exercise.solution, [0]), (one.name, other.name)
        refused += not result.passed
        if result.mistake:
            named = next(m for m in exercise.mistakes if m.name == result.mistake)
            assert agree(exercise, pair, named.answer, [0]), (one.name, other.name, result.mistake)
    assert refused > 20


class Kept:
    """Stand in for a student's class: the beginning that the lesson gives, and an update in place."""

    def __init__(self, model, decay):
        self.decay, self.updates = decay, 0
        self.average = {}
        for name, value in model.state_dict().items():
            half = value.dtype in (torch.float16, torch.bfloat16)
            self.average[name] = value.detach().float() if half else value.detach().clone()

    @torch.no_grad()
    def update(self, model):
        d = min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.updates else 0.0
        for name, value in itertools.chain(model.named_parameters(), model.named_buffers()):
            if value.is_floating_point():
                self.average[name].mul_(d).add_(value.to(self.average[name].dtype), alpha=1 - d)
            else:
                self.average[name].copy_(value)
        self.updates += 1


class Drifting(Kept):
    def update(self, model):
        super().update(model)
        self.average["weight"] += 0.01


def drifting_rate(step, **options):
    return scheduled(step, **options) + 0.01 * math.sin(step + 1)


def drifting_accuracy(parts):
    return scored(parts) + 0.01


@pytest.mark.parametrize(
    ("exercise", "answer"), [(SCHEDULE, drifting_rate), (AVERAGE, Drifting), (ACCURACY, drifting_accuracy)]
)
@pytest.mark.parametrize("seed", range(6))
def test_random_wrong_answers_get_no_diagnosis(exercise, answer, seed):
    result = examine(exercise, answer, seed=seed)
    assert result.status == "NOT YET" and result.mistake is None


# What the checks say beside the known mistakes --------------------------------------------------------------------------


class Attached(Kept):
    def update(self, model):
        d = min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.updates else 0.0
        for name, value in itertools.chain(model.named_parameters(), model.named_buffers()):
            old = self.average[name]
            self.average[name] = d * old + (1 - d) * value.to(old) if value.is_floating_point() else value.clone()
        self.updates += 1


class Meddling(Kept):
    def update(self, model):
        super().update(model)
        model.load_state_dict(self.average)


class Forgetful(Kept):
    def update(self, model):
        self.average = {"weight": model.weight.detach().clone()}


class Undone(Kept):
    def update(self, model):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("exercise", "answer", "words"),
    [
        (SCHEDULE, lambda step, **options: None, "Is the `return` missing?"),
        (SCHEDULE, lambda step, **options: [0.1], "it returns a list, not a number"),
        (SCHEDULE, lambda step, **options: torch.tensor(scheduled(step, **options)), "float32 tensor"),
        (SCHEDULE, lambda step, **options: lr_at(step, **options), "the package's own solution"),
        (AVERAGE, Attached, "remember how they came about"),
        (AVERAGE, Meddling, "changes the model's own weights"),
        (AVERAGE, Forgetful, "has lost 'scale'"),
        (AVERAGE, Undone, "not done yet"),
        (AVERAGE, lambda model, decay: EMA(model, decay), "the package's own solution"),
        (ACCURACY, lambda parts: None, "Is the `return` missing?"),
        (ACCURACY, lambda parts: exact_accuracy(parts), "the package's own solution"),
        (ACCURACY, lambda parts: torch.tensor(scored(parts)), "float32 tensor"),
    ],
)
def test_what_is_no_answer_is_told_so(exercise, answer, words):
    result = examine(exercise, answer)
    assert words in str(result) and not result.passed


# Right answers that nobody would have thought of ------------------------------------------------------------------------


def rate_by_pieces(step, *, peak, final, warmup, total, start=0.0, cooldown=0):
    if step <= warmup:
        return start + (peak - start) * (step + 1) / (warmup + 1)
    if step >= total - cooldown:
        return final
    return final + (peak - final) * math.cos(0.5 * math.pi * (step - warmup) / (total - cooldown - warmup)) ** 2


def rate_in_tensors(step, *, peak, final, warmup, total, start=0.0, cooldown=0):
    up = torch.linspace(start, peak, warmup + 2, dtype=torch.float64)[1:]  # the last is step `warmup`
    angles = torch.linspace(0, math.pi, max(1, total - cooldown - warmup) + 1, dtype=torch.float64)[1:]
    rates = torch.cat([up, final + (peak - final) * (1 + angles.cos()) / 2])
    return rates[min(step, len(rates) - 1)]


def rate_by_repeated_asking(step, **options):
    """Walk back from past the end, as a scheduler with a memory would."""
    last = max(options["total"] - options.get("cooldown", 0), options["warmup"] + 1)
    return scheduled(min(step, last), **options)


class AverageInPlace(Kept):
    pass


class AverageAnew(Kept):
    def update(self, model):
        n, now = self.updates, deepcopy(model.state_dict())
        if n:
            d = min(self.decay, (1 + n) / (10 + n))
            for name, old in self.average.items():
                if old.is_floating_point():
                    now[name] = old + (1 - d) * (now[name].to(old.dtype) - old)
        self.average = {name: value.to(self.average[name].dtype) for name, value in now.items()}
        self.updates = n + 1


class AverageByTheDifference(Kept):
    def update(self, model):
        keep = 0.0 if self.updates == 0 else min(self.decay, 1 - 9 / (10 + self.updates))
        self.updates += 1
        for name in self.average:
            now = model.state_dict()[name].detach()
            if now.dtype == torch.int64:
                self.average[name].fill_(int(now))
                continue
            gap = self.average[name] - now.to(self.average[name].dtype)
            self.average[name] = now.to(gap.dtype) + keep * gap


def accuracy_by_concatenation(parts):
    logits, labels = (torch.cat([batch[i] for part in parts for batch in part]) for i in (0, 1))
    real = labels != -1
    return 100 * (logits[real].max(1).indices == labels[real]).double().mean()


def accuracy_by_sums_of_processes(parts):
    sums = torch.zeros(2, dtype=torch.int64)
    for part in parts:
        own = Counts.zero()
        for logits, labels in part:
            own.add(logits, labels, torch.zeros(()))
        sums += torch.stack([own.right, own.images])
    return (100 * sums[0].double() / sums[1]).item()


def accuracy_image_by_image(parts):
    right = images = 0
    for logits, labels in itertools.chain.from_iterable(parts):
        for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
            if label >= 0:
                images += 1
                right += row.index(max(row)) == label
    return right / images * 100


RIGHT = [
    *((SCHEDULE, answer) for name, answer in list(globals().items()) if name.startswith("rate_")),
    *(
        (AVERAGE, answer)
        for name, answer in list(globals().items())
        if name.startswith("Average") and answer is not AveragedModel
    ),
    *((ACCURACY, answer) for name, answer in list(globals().items()) if name.startswith("accuracy_")),
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


# The lesson's answers and the package's ---------------------------------------------------------------------------------


def test_the_average_is_what_torch_keeps_by_the_packages_rule():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    mine, theirs = EMA(model, 0.3), AveragedModel(model, multi_avg_fn=average(0.3), use_buffers=True)
    generator = torch.Generator().manual_seed(0)
    for _ in range(7):
        model(torch.randn(5, 3, generator=generator))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += torch.randn(parameter.shape, generator=generator)
        mine.update(model)
        theirs.update_parameters(model)
    for name, value in theirs.module.state_dict().items():
        torch.testing.assert_close(mine.average[name], value, rtol=1e-5, atol=1e-6)
    assert mine.average["1.num_batches_tracked"] == 7 and not torch.equal(mine.average["0.weight"], model[0].weight)


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_the_accuracy_is_what_shares_and_counts_make(world):
    generator = torch.Generator().manual_seed(world)
    logits, labels = torch.randn(13, 4, generator=generator), torch.randint(4, (13,), generator=generator)
    images = list(zip(logits, labels, strict=True))
    shares = [[Share(images, Team(rank, world))[i] for i in range(-(-13 // world))] for rank in range(world)]
    parts, total = [], Counts.zero()
    for share in shares:
        rows, marks = torch.stack([row for row, _ in share]), torch.tensor([int(mark) for _, mark in share])
        parts.append(list(zip(rows.split(2), marks.split(2), strict=True)))
        for batch in parts[-1]:
            total.add(*batch, torch.zeros(()))
    assert exact_accuracy(parts) == total.top1 == 100 * int((logits.argmax(-1) == labels).sum()) / 13


def test_by_hand_is_what_the_section_says():
    rates = [lr_at(step, peak=0.8, final=0.2, warmup=3, total=7) for step in range(8)]
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.712, 0.5, 0.288, 0.2], abs=5e-4)
    assert hand_out(exact_accuracy, *by_hand()).item() == pytest.approx(500 / 7)
    model, held = nn.Linear(1, 1, bias=False), []
    ema = EMA(model, 0.2)
    for weight in (11.0, 0.0, 12.0):
        nn.init.constant_(model.weight, weight)
        ema.update(model)
        held.append(ema.average["weight"].item())
    assert held == pytest.approx([11, 2, 10])
