"""Targets: the ratios that this project promises on a CPU, each measured in one run and reported as kept or not.

They are promised for medians of steps that take turns on a quiet machine with two cores, in float32. On a busy machine the
measurements are less reliable. Targets beside timm's layers and models need timm.

    python -m spvit_experiments benchmark targets --rounds 15
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch

from spvit_mini.errors import UserError

from . import attention, model
from .measurements import Measurements
from .timing import CommonOptions, Comparison, Side, choose_device, run_comparisons


@dataclass(frozen=True)
class Options(CommonOptions):
    """Measure the targets."""

    only: tuple[str, ...] = ()
    """Only these comparisons. Default: all of spsa-14, spsa-24, spvit_s, gpsa-24, deit_small, convit_small, convit_small-384."""


@dataclass(frozen=True)
class Target:
    """A promise: limits of the ratio of a side to the first side.

    Attributes:
        name: name of the comparison.
        text: the promise in words.
        side: the side.
        column: "ratio", of the times, or "peak_bytes".
        least, most: limits of the ratio; None: no limit.
    """

    name: str
    text: str
    side: str
    column: str = "ratio"
    least: float | None = None
    most: float | None = None

    def measured(self, rows: list[dict[str, str]]) -> float:
        """Get the measured ratio from the rows of the comparison."""
        row = next(row for row in rows if row["side"] == self.side)
        return float(row[self.column]) / (1 if self.column == "ratio" else float(rows[0][self.column]))

    def holds(self, value: float) -> bool:
        """Test that a measured ratio is within the limits."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)


RELEASED = "released layout, all pairs"
TARGETS = (
    Target("spsa-14", "the released layout of SP-SA takes at least 3.5 times ours at 14×14", RELEASED, least=3.5),
    Target("spsa-14", "and at least 5 times its peak memory", RELEASED, "peak_bytes", least=5),
    Target("spsa-24", "the released layout of SP-SA takes at least 8 times ours at 24×24", RELEASED, least=8),
    Target("spsa-24", "and at least 5 times its peak memory", RELEASED, "peak_bytes", least=5),
    Target("spvit_s", "a training step of SP-ViT-S takes at most 1.15 times its skeleton's with MHSA", "spvit_s", most=1.15),
    Target("gpsa-24", "timm's GPSA layer takes at least 2 times ours at 24×24", "timm GPSA", least=2),
    Target("deit_small", "a training step of DeiT-S takes no longer than timm's", "deit_small", most=1),
    Target("convit_small", "a training step of ConViT-S takes no longer than timm's", "convit_small", most=1),
    Target("convit_small-384", "at 384 pixels timm's ConViT-S takes at least 1.3 times ours", "timm convit_small", least=1.3),
)


def build_layers(name: str, side: int, batch: int, heads: int, counterpart: str) -> dict[str, Side]:
    """Build the training steps of our layer and of its counterpart; ours first."""
    grid, dim = (side, side), 64 * heads if name == "spsa" else 48 * heads
    layers = attention.build_layers(name, attention.Options(dim=dim, heads=heads), grid)
    if counterpart not in layers:
        raise UserError(f"{counterpart} needs timm. Install it: pip install timm")
    x = torch.randn(batch, side * side, dim)
    return {
        key: Side(attention.make_training_step(layers[key], x.clone().requires_grad_(), grid), images=batch)
        for key in (name, counterpart)
    }


def build_models(name: str, image: int, batch: int, *, ours_first: bool = False) -> dict[str, Side]:
    """Build the training steps of our model and of its counterpart; the counterpart first, or ours."""
    models = model.build_models(name, image)
    images, labels = torch.randn(batch, 3, image, image), torch.randint(10, (batch,))
    steps = {
        key: Side(model.make_training_step(one.train(), images, labels, dtype=torch.float32), images=batch)
        for key, one in models.items()
    }
    return dict(reversed(steps.items())) if ours_first else steps


BUILD: dict[str, Callable[[], dict[str, Side]]] = {
    "spsa-14": lambda: build_layers("spsa", 14, 8, 6, RELEASED),
    "spsa-24": lambda: build_layers("spsa", 24, 4, 6, RELEASED),
    "spvit_s": lambda: build_models("spvit_s", 224, 4),
    "gpsa-24": lambda: build_layers("gpsa", 24, 4, 9, "timm GPSA"),
    "deit_small": lambda: build_models("deit_small", 224, 4),
    "convit_small": lambda: build_models("convit_small", 224, 4),
    "convit_small-384": lambda: build_models("convit_small", 384, 4, ours_first=True),
}


def judge_targets(measurements: Measurements) -> list[tuple[Target, float]]:
    """List the targets that were measured, with the measured ratios."""
    rows = {target: measurements.select([{"bound": target.name, "dtype": "float32"}]) for target in TARGETS}
    return [(target, target.measured(own)) for target, own in rows.items() if own]


def main(options: Options) -> int:
    """Run this part of the benchmark; returns the exit status: 1 if a target is missed."""
    if unknown := [name for name in options.only if name not in BUILD]:
        raise UserError(f"no target is called {unknown[0]!r}; expected some of {', '.join(BUILD)}")
    if options.device == "cuda":
        raise UserError("device is cuda, but the targets are promised on a CPU. Use the part model for an accelerator.")
    options = dataclasses.replace(options, device="cpu", rounds=min(options.rounds, 3) if options.quick else options.rounds)
    choose_device(options)
    names = [name for name in BUILD if name in options.only or not options.only]
    comparisons = [Comparison({"bound": name, "dtype": "float32"}, BUILD[name]) for name in names]
    measurements = run_comparisons("benchmark_bounds", comparisons, options, title="Targets on a CPU: forward and backward")
    results = [(target, ratio) for target, ratio in judge_targets(measurements) if target.name in names]
    for target, ratio in results:
        print(f"{'holds' if target.holds(ratio) else 'DOES NOT HOLD':<14} {ratio:7.3f}   {target.text}")
    return 0 if all(target.holds(ratio) for target, ratio in results) else 1
