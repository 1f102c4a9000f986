"""Lesson 12: from notebook to ImageNet. A schedule, a running average of the weights, and accuracy over many processes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spvit_mini.training.optim import lr_at

from ..cases import as_number, draw_integer, draw_normal, format_count
from ..engine import Case, Exercise, Property, Verdict, require_type
from . import answers, mistakes
from .answers import Batch


class EMA:
    """Keep a running average of a model's weights and buffers; in float32 at least.

    The package uses torch's AveragedModel with `training.optim.make_ema_update`; a test compares the two.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.average = {}
        for name, value in model.state_dict().items():
            half = value.dtype in (torch.float16, torch.bfloat16)
            self.average[name] = value.detach().float() if half else value.detach().clone()

    def update(self, model: nn.Module) -> None:
        """Add the model's weights of this step to the average."""
        d = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, value in model.state_dict().items():
            average = self.average[name]
            if self.updates == 0 or not value.is_floating_point():
                average.copy_(value)
            else:
                average.lerp_(value.to(average), 1 - d)
        self.updates += 1


def exact_accuracy(parts: Sequence[Sequence[Batch]]) -> float:
    """Give the percent of images that are right, over all processes: parts[rank] lists batches (logits, labels).

    A label of −1 is no image's. The package uses `ValidationShard` and `ClassificationMetrics`; a test compares the two.
    """
    batches = [batch for part in parts for batch in part]
    right = sum(int((logits.argmax(-1) == labels).sum()) for logits, labels in batches)
    return 100 * right / sum(int((labels >= 0).sum()) for _, labels in batches)


# Schedules --------------------------------------------------------------------------------------------------------------


def draw_schedules(generator: torch.Generator) -> list[Case]:
    """Draw schedules: the section's own, a warm-up from above 0, a cool-down, no warm-up, no cosine, a level one."""
    more, up = (draw_integer(generator, 0, 3) for _ in range(2))
    peak = 0.5 + float(torch.rand((), dtype=torch.float64, generator=generator))
    rates = {"peak": peak, "final": 0.1 * peak, "start": 0.2 * peak}
    return [
        Case("the schedule of *By hand*", ({"peak": 0.8, "final": 0.2, "warmup": 3, "total": 7},)),
        make_schedule(rates | {"warmup": 2 + up, "total": 12 + more + up}),
        make_schedule(rates | {"warmup": 3, "total": 14 + more, "cooldown": 3}),
        make_schedule(rates | {"warmup": 0, "total": 9 + more}),
        make_schedule(rates | {"warmup": 4 + up, "total": 4 + up}),
        make_schedule(rates | {"final": peak, "warmup": 3, "total": 9 + more, "cooldown": 2}),
    ]


def make_schedule(options: dict[str, Any]) -> Case:
    """Make a case of a schedule's options."""
    lengths = ", ".join(f"{name} {options[name]}" for name in ("warmup", "total", "cooldown") if name in options)
    return Case(f"{lengths} (the place is the step)", (options,))


def run_schedule(answer: Callable[..., float], options: dict[str, Any]) -> Tensor:
    """Ask for the rates of all steps, and of three past the end: (total + 3,)."""
    return torch.tensor([as_number(answer(step, **options)) for step in range(options["total"] + 3)], dtype=torch.float64)


# Averages ---------------------------------------------------------------------------------------------------------------


class Toy(nn.Module):
    """A model of seven numbers: a matrix, a single number, a running mean, and a count of batches; or the first two."""

    def __init__(self, dtype: torch.dtype, buffers: bool):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, 2, dtype=dtype))
        self.scale = nn.Parameter(torch.zeros((), dtype=dtype))
        if buffers:
            self.register_buffer("running_mean", torch.zeros(2, dtype=dtype))
            self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def set(self, numbers: Tensor, batches: int) -> None:
        """Change all in place, as an optimiser does: numbers (7,)."""
        self.weight.copy_(numbers[:4].view(2, 2))
        self.scale.copy_(numbers[4])
        if hasattr(self, "batches"):
            self.running_mean.copy_(numbers[5:])
            self.batches.fill_(batches)


def draw_weights(generator: torch.Generator) -> list[Case]:
    """Draw the ways of weights, (updates + 1, 7): by hand, slow and fast averages, without buffers, in half precision."""
    steep = 0.2 + 0.04 * float(torch.rand((), dtype=torch.float64, generator=generator))
    by_hand = torch.tensor([0.0, 11.0, 0.0, 12.0], dtype=torch.float64)[:, None].expand(4, 7).clone()
    cases = [Case("the weights of *By hand*", (0.2, "weights", by_hand))]
    for decay, kind, updates in [(0.999, "buffers", 6), (steep, "buffers", 5), (0.4, "weights", 9)]:
        path = draw_normal(generator, updates + 1, 7)
        has = "a running mean and a count of batches" if kind == "buffers" else "no buffers"
        cases.append(Case(f"decay {decay:.3g}, {updates} updates, {has}", (decay, kind, path)))
    # Odd whole numbers of eight bits: bfloat16 holds them, but not 7/8 of them. float32 holds all that comes of them.
    odd = 2.0 * torch.randint(64, 128, (4, 7), generator=generator).double() + 1
    return [*cases, Case("weights in bfloat16, decay 1/8", (0.125, "bfloat16", odd))]


def run_average(answer: Callable, decay: float, kind: str, path: Tensor) -> Tensor:
    """Update an average along a path of weights: what it holds after each update, and after the weights have moved on."""
    model = Toy(torch.bfloat16 if kind == "bfloat16" else torch.float64, kind == "buffers")
    model.set(path[0], 0)
    ema, rows = answer(model, decay), []
    for t, numbers in enumerate(path[1:], start=1):
        model.set(numbers, 100 * t)
        ema.update(model)
        require_type(ema.average, Mapping, "a dictionary", what="self.average is")
        for name, value in model.state_dict().items():
            if name not in ema.average:
                raise Verdict(f"self.average has lost {name!r}: keep the names that it began with.")
            require_type(ema.average[name], Tensor, "a torch.Tensor", what=f"self.average[{name!r}] is")
            if ema.average[name].shape != value.shape:
                raise Verdict(f"self.average[{name!r}] has the shape {tuple(ema.average[name].shape)}, not {tuple(value.shape)}.")
        if any(ema.average[name].data_ptr() == value.data_ptr() for name, value in model.state_dict().items()):
            raise Verdict(mistakes.ALIAS)
        model.set(torch.full_like(numbers, 77), -1)
        rows.append(torch.cat([ema.average[name].detach().double().flatten() for name in model.state_dict()]))
    averages = torch.stack(rows)
    if kind == "buffers":  # a count that was averaged is float32 or float64, by how the sum was written: one mistake
        averages[:, -1] = (64 * averages[:, -1]).round() / 64
    # What is right is a multiple of 1/64 here; the last digits of float32 need not tell one wrong answer from another.
    return (64 * averages).round() / 64 if kind == "bfloat16" else averages


def update_toy(answer: Callable) -> tuple[Toy, Any]:
    """Update an average three times; the model stands at 3."""
    model = Toy(torch.float32, True)
    ema = answer(model, 0.9)
    for t in range(1, 4):
        model.set(torch.full((7,), float(t)), t)
        ema.update(model)
    return model, ema


def has_no_graph(answer: Callable) -> bool:
    """Tell whether no average remembers how it came about."""
    return not any(value.requires_grad for value in update_toy(answer)[1].average.values())


def is_model_unchanged(answer: Callable) -> bool:
    """Tell whether the model's own weights stay what they are, and go on learning."""
    model = update_toy(answer)[0]
    return all(bool((value == 3).all()) for value in model.state_dict().values()) and model.weight.requires_grad


NO_GRADIENT = Property(
    "no gradients kept",
    "the averages remember how they came about: each update would hold on to the graphs of all before it. No gradient is "
    "wanted here: detach, or torch.no_grad().",
    has_no_graph,
)
HANDS_OFF = Property(
    "the model untouched", "it changes the model's own weights. Only the average is to move.", is_model_unchanged
)

# Accuracies ---------------------------------------------------------------------------------------------------------------


def draw_teams(generator: torch.Generator) -> list[Case]:
    """Draw what processes have seen: the section's own, one alone, one with nothing but padding, three, four and a long one."""
    cases = [Case("the five-of-seven of *By hand*", by_hand())]
    for images, batch, world in [(7, 4, 1), (5, 1, 4), (11, 3, 3), (6, 2, 4), (205, 16, 3)]:
        size = -(-images // world)
        numbers = torch.arange(world * size)
        image = numbers // size + world * (numbers % size)  # process by process, each takes every world-th
        logits = draw_normal(generator, world * size, 6)
        # What stands in for an image looks like one, of class 0 or of the last.
        logits[image >= images] = 4 * torch.eye(6, dtype=torch.float64)[image[image >= images] % 2 * 5] + 0.1
        best = logits.argmax(-1)
        other = (best + 1 + torch.randint(5, best.shape, generator=generator)) % 6
        labels = torch.where((image % 7) % 3 < 2, best, other)
        labels[image >= images] = -1
        label = f"{images} images, {format_count(world, 'process', 'es')}, batches of {batch}"
        cases.append(Case(label, (world, batch, logits, labels)))
    return cases


def by_hand() -> tuple[int, int, Tensor, Tensor]:
    """Give the section's seven images, of two classes, on two processes: four and three, and one made up."""
    labels = torch.tensor([0, 1, 0, 1, 1, 0, 1, -1])
    best = torch.tensor([0, 1, 1, 0, 1, 0, 1, 0])
    return 2, 2, torch.eye(2, dtype=torch.float64)[best], labels


def run_accuracy(answer: Callable, world: int, batch: int, logits: Tensor, labels: Tensor) -> Tensor:
    """Give an answer what each process has seen, batch by batch. Raises Verdict for what is right but for rounding."""
    size = len(labels) // world
    own = zip(logits.split(size), labels.split(size), strict=True)
    parts = [list(zip(a.split(batch), b.split(batch), strict=True)) for a, b in own]
    percent = torch.tensor(as_number(answer(parts)), dtype=torch.float64)
    away = abs(percent.item() - answers.exact_accuracy(parts))
    if 1e-9 < away < 1e-4:
        raise Verdict(mistakes.ROUNDED)
    # Of a wrong answer, the last digits of float32 need not tell it from the same one in float64.
    return (64 * percent).round() / 64 if away > 0.1 else percent


# Exercises --------------------------------------------------------------------------------------------------------------

SCHEDULE = Exercise(
    name="lr_at",
    solution=lr_at,
    cases=draw_schedules,
    call=run_schedule,
    answer=answers.lr_at,
    mistakes=mistakes.LR_AT,
    gradients=False,
)
AVERAGE = Exercise(
    name="EMA",
    solution=EMA,
    cases=draw_weights,
    call=run_average,
    answer=answers.EMA,
    mistakes=mistakes.EMA,
    properties=(NO_GRADIENT, HANDS_OFF),
    gradients=False,
)
ACCURACY = Exercise(
    name="exact_accuracy",
    solution=exact_accuracy,
    cases=draw_teams,
    call=run_accuracy,
    answer=answers.exact_accuracy,
    mistakes=mistakes.EXACT_ACCURACY,
    gradients=False,
)
EXERCISES = (SCHEDULE, AVERAGE, ACCURACY)
