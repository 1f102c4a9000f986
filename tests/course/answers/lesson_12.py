"""Lesson 12: right answers that are written in an unusual way, and wrong ones that the bank does not hold as they stand."""

import itertools
import math
from copy import deepcopy
from statistics import fmean

import torch

from spvit_course.checks.lesson_12 import answers
from spvit_mini.training.metrics import ClassificationMetrics


class Kept:
    """Stand in for a student's class: the beginning that the lesson gives, and an update in place."""

    def __init__(self, model, decay):
        self.decay, self.updates = decay, 0
        self.average = {}
        for name, value in model.state_dict().items():
            half = value.dtype in (torch.float16, torch.bfloat16)
            self.average[name] = value.detach().float() if half else value.detach().clone()

    def update(self, model):
        d = min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.updates else 0.0
        self.mix(model, dict(itertools.chain(model.named_parameters(), model.named_buffers())), d)
        self.updates += 1

    @torch.no_grad()
    def mix(self, model, now, d):
        for name, value in now.items():
            if value.is_floating_point():
                self.average[name].mul_(d).add_(value.to(self.average[name].dtype), alpha=1 - d)
            else:
                self.average[name].copy_(value)


class AverageAnew(Kept):
    def mix(self, model, now, d):
        now = deepcopy(model.state_dict())
        for name, old in self.average.items() if d else ():
            if old.is_floating_point():
                now[name] = old + (1 - d) * (now[name].to(old.dtype) - old)
        self.average = {name: value.to(self.average[name].dtype) for name, value in now.items()}


class AverageByTheDifference(Kept):
    def mix(self, model, now, d):
        keep = 1 - 9 / (10 + self.updates) if self.updates else 0.0
        for name, value in model.state_dict().items():
            if value.dtype == torch.int64:
                self.average[name].fill_(int(value))
            else:
                gap = self.average[name] - value.to(self.average[name].dtype)
                self.average[name] = value.to(gap.dtype) + min(keep, self.decay) * gap


class Attached(Kept):
    def mix(self, model, now, d):
        for name, value in now.items():
            old = self.average[name]
            self.average[name] = d * old + (1 - d) * value.to(old) if value.is_floating_point() else value.clone()


class Meddling(Kept):
    def mix(self, model, now, d):
        super().mix(model, now, d)
        model.load_state_dict(self.average)


class Forgetful(Kept):
    def mix(self, model, now, d):
        self.average = {"weight": model.weight.detach().clone()}


class Undone(Kept):
    def update(self, model):
        raise NotImplementedError


class Drifting(Kept):
    def mix(self, model, now, d):
        super().mix(model, now, d)
        self.average["weight"] += 0.01


class Aliased(Kept):
    """Forgets to copy what is copied, as `self.average[name] = value` does."""

    def mix(self, model, now, d):
        for name, value in model.state_dict().items():
            old = self.average[name]
            self.average[name] = d * old + (1 - d) * value.to(old.dtype) if d and value.is_floating_point() else value


class AliasedButForHalf(Kept):
    """As above, with weights brought to the average's type, which copies where they are in half precision."""

    def mix(self, model, now, d):
        for name, value in model.state_dict().items():
            value = value.to(self.average[name].dtype)
            self.average[name] = d * self.average[name] + (1 - d) * value if d and name != "batches" else value


class AliasedCounts(Kept):
    def mix(self, model, now, d):
        super().mix(model, now, d)
        if hasattr(model, "batches"):
            self.average["batches"] = model.batches


class AllAveraged(Kept):
    """Averages whole numbers too: torch makes float32 of a whole number times a fraction."""

    def mix(self, model, now, d):
        for name, value in model.state_dict().items():
            old = self.average[name]
            self.average[name] = d * old + (1 - d) * value.to(old.dtype) if d else value.to(old, copy=True)


class AllAveragedByTheDifference(Kept):
    def mix(self, model, now, d):
        for name, value in model.state_dict().items():
            old = self.average[name]
            self.average[name] = old + (1 - d) * (value.to(old.dtype) - old) if d else value.to(old, copy=True)


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
    return answers.lr_at(min(step, last), **options)


def formula(step, *, peak, final, warmup, total, start=0.0, cooldown=0, since=None):
    """Compute the section's formula as it stands, its last line first."""
    if step >= total - cooldown:
        return final
    if step < warmup:
        return start + (peak - start) * (step + 1) / (warmup + 1)
    angle = math.pi * (step - (warmup if since is None else since)) / (total - cooldown - warmup)
    return final + (peak - final) * 0.5 * (1 + math.cos(angle))


def join(parts):
    return (torch.cat([batch[i] for part in parts for batch in part]) for i in (0, 1))


def accuracy_by_concatenation(parts):
    logits, labels = join(parts)
    return 100 * (logits.max(1).indices == labels)[labels != -1].double().mean()


def accuracy_by_sums_of_processes(parts):
    sums = torch.zeros(2, dtype=torch.int64)
    for part in parts:
        own = ClassificationMetrics.zero()
        for logits, labels in part:
            own.update(logits, labels, torch.zeros(()))
        sums += torch.stack([own.correct, own.images])
    return (100 * sums[0].double() / sums[1]).item()


def accuracy_image_by_image(parts):
    logits, labels = join(parts)
    rows = [(row.index(max(row)), label) for row, label in zip(logits.tolist(), labels.tolist(), strict=True) if label >= 0]
    return sum(best == label for best, label in rows) / len(rows) * 100


def all_in_float32(parts):
    a, b = join(parts)
    return (a.argmax(-1) == b)[b >= 0].float().mean().item() * 100


RIGHT = {
    "lr_at": [rate_by_pieces, rate_in_tensors, rate_by_repeated_asking],
    "EMA": [Kept, AverageAnew, AverageByTheDifference],
    "exact_accuracy": [accuracy_by_concatenation, accuracy_by_sums_of_processes, accuracy_image_by_image],
}
NAMED = [
    ("EMA", "counts averaged", AllAveraged),
    ("EMA", "counts averaged", AllAveragedByTheDifference),
    ("exact_accuracy", "mean over batches, padded",
        lambda parts: 100 * fmean((a.argmax(-1) == b).float().mean().item() for part in parts for a, b in part)),
    ("exact_accuracy", "mean over batches",
        lambda parts: 100 * fmean((a.argmax(-1) == b)[b >= 0].float().mean() for part in parts for a, b in part)),
    ("lr_at", "from 0, and up again", lambda step, **options: formula(step, since=0, **options)),
    ("lr_at", "end before the warm-up", lambda step, **options: formula(step, **options)),
]
REFUSED = [
    ("lr_at", "it returns a list, not a number", lambda step, **options: [0.1]),
    ("lr_at", "in float32", lambda step, **options: torch.tensor(answers.lr_at(step, **options))),
    ("lr_at", "different from the expected values",
        lambda step, **options: answers.lr_at(step, **options) + 0.01 * math.sin(step + 1)),
    ("EMA", "remember how they came about", Attached),
    ("EMA", "changes the model's own weights", Meddling),
    ("EMA", "has lost 'scale'", Forgetful),
    ("EMA", "not done yet", Undone),
    ("EMA", "not a copy", Aliased),
    ("EMA", "not a copy", AliasedButForHalf),
    ("EMA", "not a copy", AliasedCounts),
    ("EMA", "different from the expected values", Drifting),
    ("exact_accuracy", "in float32", lambda parts: torch.tensor(answers.exact_accuracy(parts))),
    ("exact_accuracy", "float32 rounds", all_in_float32),
    ("exact_accuracy", "float32 rounds", lambda parts: (100 * torch.tensor(answers.exact_accuracy(parts) / 100)).item()),
    ("exact_accuracy", "different from the expected values", lambda parts: answers.exact_accuracy(parts) + 0.01),
]
