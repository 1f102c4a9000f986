"""Lesson 12's answers with options: each is right as it stands, and each changed option is one mistake."""

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import torch
from torch import Tensor, nn

RISES = {
    "from a step before the first": lambda step, warmup: (step + 1) / (warmup + 1),
    "from the first step": lambda step, warmup: step / warmup,
    "up to the step before": lambda step, warmup: (step + 1) / warmup,
    "late": lambda step, warmup: step / (warmup + 1),
    "from end to end": lambda step, warmup: step / max(1, warmup - 1),
    "at once": lambda step, warmup: 1.0,
}
CURVES = {  # from 1 to 0
    "half a cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "a whole cosine": lambda done: 0.5 * (1 + math.cos(2 * math.pi * done)),
    "a quarter": lambda done: math.cos(0.5 * math.pi * done),
    "without π": lambda done: 0.5 * (1 + math.cos(done)),
    "without ½": lambda done: 1 + math.cos(math.pi * done),
    "upside down": lambda done: 0.5 * (1 - math.cos(math.pi * done)),
    "a line": lambda done: 1 - done,
}
FLOORS = {
    "between": lambda peak, final, part: final + (peak - final) * part,
    "at 0": lambda peak, final, part: peak * part,
    "added": lambda peak, final, part: final + peak * part,
    "cut": lambda peak, final, part: max(final, peak * part),
}


def lr_at(
    step: int,
    *,
    peak: float,
    final: float,
    warmup: int,
    total: int,
    start: float = 0.0,
    cooldown: int = 0,
    rise: str = "from a step before the first",
    begins: str = "start",
    curve: str = "half a cosine",
    over: str = "the rest",
    cool: str = "own",
    floor: str = "between",
    past: str = "stays",
    room: str = "a step at least",
    asked: str = "the warm-up first",
) -> float:
    """Give the learning rate of a step, counted from 0."""
    if asked == "the end first" and step >= total - cooldown:
        return final
    low = {"start": start, "0": 0.0, "final": final}[begins]
    if step < warmup:
        return low + (peak - low) * RISES[rise](step, warmup)
    end = {"own": total - cooldown, "ignored": total, "added": total + cooldown}[cool]
    since, length = {
        "the rest": (step - warmup, end - warmup),
        "the total": (step, end),
        "the total, begun late": (step - warmup, end),
        "the rest, from 0": (step, end - warmup),
        "a step less": (step - warmup, end - warmup - 1),
        "begun a step early": (step - warmup + 1, end - warmup),
    }[over]
    done = since / (max(1, length) if room == "a step at least" else length)
    if past == "stays":
        done = min(1.0, done)
    elif past == "begins anew":
        done = done if done <= 1 else done % 1
    return FLOORS[floor](peak, final, CURVES[curve](done))


DECAYS: dict[str, Callable[[float, int], float]] = {
    "warmed up": lambda decay, n: min(decay, (1 + n) / (10 + n)),
    "at once": lambda decay, n: decay,
    "the larger": lambda decay, n: max(decay, (1 + n) / (10 + n)),
    "warm-up alone": lambda decay, n: (1 + n) / (10 + n),
    "product": lambda decay, n: decay * (1 + n) / (10 + n),
    "plain mean": lambda decay, n: n / (n + 1),
    "a step ahead": lambda decay, n: min(decay, (2 + n) / (11 + n)),
    "a step behind": lambda decay, n: min(decay, n / (9 + n)),
    "none": lambda decay, n: 0.0,
}


def EMA(
    model: nn.Module,
    decay: float,
    *,
    decays: str = "warmed up",
    share: str = "d of the average",
    first: str = "copied",
    means: str = "averaged",
    counts: str = "copied",
    precision: str = "of the average",
    stored: str = "put back",
) -> SimpleNamespace:
    """Keep a running average of a model: an object with `average`, a dictionary of tensors, and `update(model)`."""
    average = {
        name: value.detach().to(torch.float32 if value.dtype == torch.bfloat16 else value.dtype, copy=True)
        for name, value in model.state_dict().items()
    }
    updates, parameters = 0, {name for name, _ in model.named_parameters()}

    def update(model: nn.Module) -> None:
        nonlocal updates
        d = DECAYS[decays](decay, updates)
        for name, value in model.state_dict().items():
            whole = not value.is_floating_point()
            if name not in parameters and (means if not whole else counts) == "left out":
                continue
            if stored == "lost":
                continue
            if (updates == 0 and first == "copied") or (whole and counts == "copied"):
                average[name] = value.to(average[name], copy=True)
            elif whole and counts == "in place":
                average[name].mul_(d)
            elif name not in parameters and not whole and means == "copied":
                average[name] = value.clone()
            else:
                average[name] = mix(average[name], value, d, whole)
        updates += 1

    def mix(old: Tensor, new: Tensor, d: float, whole: bool) -> Tensor:
        if precision == "of the weights" and not whole:
            old = old.to(new.dtype)
        if precision != "product of the weights":
            new = new.to(old.dtype if not whole else torch.float64)
        sums = {
            "d of the average": lambda: d * old + (1 - d) * new,
            "swapped": lambda: (1 - d) * old + d * new,
            "weights in full": lambda: d * old + new,
            "average in full": lambda: old + (1 - d) * new,
        }
        return sums[share]().to(new.dtype if whole and counts == "averaged" else old.dtype)

    return SimpleNamespace(average=average, update=update)


Batch = tuple[Tensor, Tensor]


def exact_accuracy(
    parts: Sequence[Sequence[Batch]],
    *,
    padding: str = "left out",
    mean: str = "of all",
    processes: str = "all",
    reduced: str = "once",
    division: str = "exact",
    batches: str = "all",
    best: str = "largest",
    unit: float = 100,
) -> float:
    """Give the accuracy of all processes together, in percent."""
    if processes != "all":
        parts = [parts[{"the first": 0, "the last": -1}[processes]]]
    counts = []  # (right, images) of each batch of each process
    for part in parts:
        most = max(len(labels) for _, labels in part)
        if batches == "last dropped":
            part = part[:-1]
        elif batches == "short ones dropped":
            part = [batch for batch in part if len(batch[1]) == most]
        elif batches == "last alone":
            part = part[-1:]
        counts.append([count_right(*batch, padding, best) for batch in part])
    flat = [pair for part in counts for pair in part]
    if mean == "of batches":
        return unit * compute_mean([divide(*pair) for pair in flat])
    if mean == "of processes":
        return unit * compute_mean([divide(*map(sum, zip(*part, strict=True))) if part else math.nan for part in counts])
    right, images = sum(pair[0] for pair in flat), sum(pair[1] for pair in flat)
    right *= len(parts) if reduced == "right twice" else 1
    images *= len(parts) if reduced == "images twice" else 1
    if division == "of integers":
        return unit * right // images
    if division == "of integers, first":
        return unit * (right // images)
    return unit * right / images


def count_right(logits: Tensor, labels: Tensor, padding: str, best: str) -> tuple[int, int]:
    """Count a batch: images that are right, and all that count."""
    classes = {"largest": logits.argmax(-1), "smallest": logits.argmin(-1), "class 0 for 1": logits.argmax(-1) + 1}[best]
    if padding == "a class":  # −1 as an index is the last class
        return int((classes == labels % logits.shape[-1]).sum()), len(labels)
    if padding == "class 0":
        return int((classes == labels.clamp(min=0)).sum()), len(labels)
    if padding == "right":
        return int(((classes == labels) | (labels < 0)).sum()), len(labels)
    return int((classes == labels).sum()), len(labels) if padding == "counted" else int((labels >= 0).sum())


def divide(right: int, images: int) -> float:
    """Divide as tensors do: 0 by 0 is not a number."""
    return right / images if images else math.nan


def compute_mean(values: Sequence[float]) -> float:
    """Average numbers."""
    return sum(values) / len(values) if values else math.nan
