"""Lesson 12's mistakes as they are written: whatever the way, each gets its hint."""

import math

import pytest
import torch

from spvit_course.checks.engine import examine
from spvit_course.checks.lesson_12 import ACCURACY, AVERAGE, SCHEDULE
from spvit_course.checks.lesson_12_answers import scored

from .test_checks_lesson_12 import SEEDS, Kept


class Aliased(Kept):
    """Forgets to copy what is copied, as `self.average[name] = value` does."""

    def update(self, model):
        d = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, value in model.state_dict().items():
            if self.updates == 0 or not value.is_floating_point():
                self.average[name] = value
            else:
                self.average[name] = d * self.average[name] + (1 - d) * value.to(self.average[name].dtype)
        self.updates += 1


class AliasedButForHalf(Kept):
    """As above, with weights brought to the average's type, which copies where they are in half precision."""

    def update(self, model):
        d = min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.updates else 0.0
        for name, value in model.state_dict().items():
            value = value.to(self.average[name].dtype)
            self.average[name] = d * self.average[name] + (1 - d) * value if d and name != "batches" else value
        self.updates += 1


class AliasedCounts(Kept):
    def update(self, model):
        super().update(model)
        if hasattr(model, "batches"):
            self.average["batches"] = model.batches


class AllAveraged(Kept):
    """Averages whole numbers too: torch makes float32 of a whole number times a fraction."""

    def update(self, model):
        d = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, value in model.state_dict().items():
            if self.updates == 0:
                self.average[name] = value.to(self.average[name], copy=True)
            else:
                self.average[name] = d * self.average[name] + (1 - d) * value.to(self.average[name].dtype)
        self.updates += 1


class AllAveragedByTheDifference(AllAveraged):
    def update(self, model):
        if self.updates == 0:
            return super().update(model)
        share = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, value in model.state_dict().items():
            self.average[name] = self.average[name] + share * (value.to(self.average[name].dtype) - self.average[name])
        self.updates += 1


def mean_of_float32(parts):
    means = [(a.argmax(-1) == b).float().mean().item() for part in parts for a, b in part]
    return sum(means) / len(means) * 100


def mean_of_masked(parts):
    means = [(a.argmax(-1) == b)[b >= 0].float().mean() for part in parts for a, b in part]
    return 100 * torch.stack(means).mean().item()


def all_in_float32(parts):
    a, b = (torch.cat([batch[i] for part in parts for batch in part]) for i in (0, 1))
    return (a.argmax(-1) == b)[b >= 0].float().mean().item() * 100


def all_in_float32_percent_first(parts):
    return (100 * torch.tensor(scored(parts) / 100, dtype=torch.float32)).item()


def formula(step, *, peak, final, warmup, total, start=0.0, cooldown=0, since=None):
    """Compute the section's formula as it stands, its last line first."""
    if step >= total - cooldown:
        return final
    if step < warmup:
        return start + (peak - start) * (step + 1) / (warmup + 1)
    angle = math.pi * (step - (warmup if since is None else since)) / (total - cooldown - warmup)
    return final + (peak - final) * 0.5 * (1 + math.cos(angle))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("exercise", "answer", "name"),
    [
        (AVERAGE, AllAveraged, "counts averaged"),
        (AVERAGE, AllAveragedByTheDifference, "counts averaged"),
        (ACCURACY, mean_of_float32, "mean over batches, padded"),
        (ACCURACY, mean_of_masked, "mean over batches"),
        (SCHEDULE, lambda step, **options: formula(step, since=0, **options), "from 0, and up again"),
        (SCHEDULE, lambda step, **options: formula(step, **options), "end before the warm-up"),
    ],
)
def test_mistakes_as_they_are_written_get_their_hints(exercise, answer, name, seed):
    result = examine(exercise, answer, seed=seed)
    assert (result.status, result.mistake) == ("NOT YET", name), str(result)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("exercise", "answer", "words"),
    [
        (AVERAGE, Aliased, "not a copy"),
        (AVERAGE, AliasedButForHalf, "not a copy"),
        (AVERAGE, AliasedCounts, "not a copy"),
        (ACCURACY, all_in_float32, "float32 rounds"),
        (ACCURACY, all_in_float32_percent_first, "float32 rounds"),
    ],
)
def test_what_no_numbers_tell_apart_is_told_too(exercise, answer, words, seed):
    result = examine(exercise, answer, seed=seed)
    assert words in str(result) and not result.passed and len(str(result).splitlines()) <= 3
