"""The ratios that this project promises of a CPU: each is measured, in one run, and said to hold or not.

They are promised of medians of steps that took turns on a quiet machine of two cores, in float32. On a busy one they are
measured all the same, and worth less. Those beside timm need timm.

    python -m spvit_experiments benchmark bounds --rounds 15
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from spvit_mini.errors import UserError

from . import attention, model
from .attention import training_step
from .timing import Comparison, Record, Side, choose_device, run
from .timing import Options as Common


@dataclass(frozen=True)
class Options(Common):
    """Measure what is promised."""

    only: tuple[str, ...] = ()
    """Only these, by their names: spsa-14, spsa-24, spvit_s, gpsa-24, deit_small, convit_small, convit_small-384."""


@dataclass(frozen=True)
class Bound:
    """A promise: what `side` takes, as a multiple of the first side's, is at least or at most so much.

    Attributes:
        what: the name of the comparison.
        says: the promise in words.
        side: the row that is looked at; its ratio is to the first.
        column: "ratio" of the times, or "peak_bytes".
        least, most: the promised limits of side over first; None where there is none.
    """

    what: str
    says: str
    side: str
    column: str = "ratio"
    least: float | None = None
    most: float | None = None

    def found(self, rows: list[dict[str, str]]) -> float:
        """Take the measured ratio out of a comparison's rows."""
        row = next(row for row in rows if row["side"] == self.side)
        return float(row[self.column]) / (1 if self.column == "ratio" else float(rows[0][self.column]))

    def holds(self, value: float) -> bool:
        """Tell whether a measured ratio keeps the promise."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)


RELEASED = "released layout, all pairs"
BOUNDS = (
    Bound("spsa-14", "the released layout of SP-SA takes at least 3.5 times ours at 14×14", RELEASED, least=3.5),
    Bound("spsa-14", "and at least 5 times its peak memory", RELEASED, "peak_bytes", least=5),
    Bound("spsa-24", "the released layout of SP-SA takes at least 8 times ours at 24×24", RELEASED, least=8),
    Bound("spsa-24", "and at least 5 times its peak memory", RELEASED, "peak_bytes", least=5),
    Bound("spvit_s", "a training step of SP-ViT-S takes at most 1.15 times its skeleton's with MHSA", "spvit_s", most=1.15),
    Bound("gpsa-24", "timm's GPSA layer takes at least 2 times ours at 24×24", "timm GPSA", least=2),
    Bound("deit_small", "a training step of DeiT-S takes no longer than timm's", "deit_small", most=1),
    Bound("convit_small", "a training step of ConViT-S takes no longer than timm's", "convit_small", most=1),
    Bound("convit_small-384", "at 384 pixels timm's ConViT-S takes at least 1.3 times ours", "timm convit_small", least=1.3),
)


def layer(name: str, side: int, batch: int, heads: int, theirs: str) -> dict[str, Side]:
    """Build our layer and another's of the same work; ours first."""
    grid, dim = (side, side), 64 * heads if name == "spsa" else 48 * heads
    layers = attention.sides_of(name, attention.Options(dim=dim, heads=heads), grid)
    if theirs not in layers:
        raise UserError("timm's layer is not there: pip install timm")
    x = torch.randn(batch, side * side, dim)
    return {key: Side(training_step(layers[key], x.clone().requires_grad_(), grid), images=batch) for key in (name, theirs)}


def whole(name: str, image: int, batch: int, *, ours_first: bool = False) -> dict[str, Side]:
    """Build the training steps of our model and its counterpart."""
    models = model.sides_of(name, image)
    images, labels = torch.randn(batch, 3, image, image), torch.randint(10, (batch,))
    steps = {
        key: Side(model.training_step(one.train(), images, labels, dtype=torch.float32), images=batch)
        for key, one in models.items()
    }
    return dict(reversed(steps.items())) if ours_first else steps


BUILD: dict[str, Callable[[], dict[str, Side]]] = {
    "spsa-14": lambda: layer("spsa", 14, 8, 6, RELEASED),
    "spsa-24": lambda: layer("spsa", 24, 4, 6, RELEASED),
    "spvit_s": lambda: whole("spvit_s", 224, 4),
    "gpsa-24": lambda: layer("gpsa", 24, 4, 9, "timm GPSA"),
    "deit_small": lambda: whole("deit_small", 224, 4),
    "convit_small": lambda: whole("convit_small", 224, 4),
    "convit_small-384": lambda: whole("convit_small", 384, 4, ours_first=True),
}


def verdicts(record: Record) -> list[dict[str, Any]]:
    """Set each promise beside what was measured: dictionaries of what, says, found, holds; those without rows left out."""
    lines = []
    for bound in BOUNDS:
        if rows := record.of([{"bound": bound.what, "dtype": "float32"}]):
            found = bound.found(rows)
            lines.append({"what": bound.what, "says": bound.says, "found": found, "holds": bound.holds(found)})
    return lines


def main(options: Options) -> int:
    """Run this part of the benchmark; returns the exit status: 1 where a promise is not kept."""
    if unknown := [name for name in options.only if name not in BUILD]:
        raise UserError(f"no bound is called {unknown[0]!r}; there are {', '.join(BUILD)}")
    if options.device == "cuda":
        raise UserError("these ratios are promised of a CPU; for an accelerator there is the part model")
    options = dataclasses.replace(options, device="cpu", rounds=min(options.rounds, 3) if options.quick else options.rounds)
    choose_device(options)
    names = [name for name in BUILD if name in options.only or not options.only]
    asked = [Comparison({"bound": name, "dtype": "float32"}, BUILD[name]) for name in names]
    record = run("benchmark_bounds", asked, options, title="What is promised of a CPU: forward and backward")
    found = [line for line in verdicts(record) if line["what"] in names]
    for line in found:
        print(f"{'holds' if line['holds'] else 'DOES NOT HOLD':<14} {line['found']:7.3f}   {line['says']}")
    return 0 if all(line["holds"] for line in found) else 1
