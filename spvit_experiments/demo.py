"""python -m spvit_experiments demo: the course in under two minutes. Which way is the ship from the lighthouse?

Trains a plain ViT and an SP-ViT of the same size on Compass, and draws both accuracy curves, a few images with both
predictions, and the learned prior of each head of the SP-ViT.
"""

import dataclasses
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import torch

from spvit_mini import plots
from spvit_mini.cli.arguments import parse
from spvit_mini.data import load_data
from spvit_mini.errors import UserError
from spvit_mini.fields import Seed, Steps
from spvit_mini.recipes import get_recipe
from spvit_mini.training.loop import Result, train

from .report import choose_limits

MODELS = {"vit_mini": "vit", "spvit_mini": "spsa"}  # colours


@dataclass
class Options:
    """Train vit_mini and spvit_mini on Compass, and compare them in a table and a figure."""

    out: Path = Path("runs/demo.png")
    """File of the figure."""
    seed: Seed = 0
    """Seed of the initialisation and of the order of the images; the same seed gives the same numbers."""
    max_steps: Steps | None = None
    """Steps of each model. None: as in the recipe."""


def train_both(seed: int, max_steps: int | None = None) -> dict[str, tuple[Result, float]]:
    """Train both models by their recipes; returns the result and the seconds of each."""
    results = {}
    for name in MODELS:
        recipe = dataclasses.replace(get_recipe(f"{name}_compass"), seed=seed, evaluate_every="20 steps")
        start = time.perf_counter()
        results[name] = train(recipe, max_steps=max_steps), time.perf_counter() - start
    return results


def make_table(results: dict[str, tuple[Result, float]], classes: int) -> str:
    """Make the table of parameters, seconds, accuracy and chance."""
    lines = [f"{'model':<12}{'parameters':>12}{'seconds':>10}{'accuracy':>11}"]
    for name, (result, seconds) in results.items():
        parameters = sum(p.numel() for p in result.model.parameters())
        lines.append(f"{name:<12}{parameters:>12,}{seconds:>10.0f}{result.rows[-1]['val_top1']:>10.1f}%")
    return "\n".join([*lines, f"{'chance':<12}{'':>22}{100 / classes:>10.1f}%"])


def draw_figure(results: dict[str, tuple[Result, float]], seed: int) -> plt.Figure:
    """Draw the curves, images with both models' predictions, and the prior of each head."""
    plots.style()
    recipe = get_recipe("spvit_mini_compass")
    data = load_data(recipe.data, recipe.augment, seed=seed)
    figure = plt.figure(figsize=(13, 6.6))
    left, right = figure.subfigures(1, 2, width_ratios=[1.15, 1])
    upper, lower = left.subfigures(2, 1, height_ratios=[1.25, 1])

    axes = upper.subplots()
    runs = {name: [get_curve(result)] for name, (result, _) in results.items()}
    plots.curves(axes, runs, colours={name: plots.COLOURS[colour] for name, colour in MODELS.items()})
    chance = 100 / len(data.classes)
    plots.level(axes, chance, "chance")
    limits = choose_limits([chance, *(value for ((_, values),) in runs.values() for value in values)])
    axes.set(xlabel="training steps (100 images each)", ylabel="validation accuracy (%)", ylim=limits)
    axes.set_title("Which way is the ship (green) from the lighthouse (red)?")
    axes.legend(loc="center left")

    shown = range(4)
    images = torch.stack([data.val[i][0] for i in shown])
    predictions = {}
    with torch.no_grad():
        for name, (result, _) in results.items():
            device = next(result.model.parameters()).device
            predictions[name] = result.model.eval()(images.to(device)).argmax(-1).cpu()
    for i, ax in zip(shown, lower.subplots(1, len(shown)), strict=True):
        lines = "\n".join(f"{name}: {data.classes[classes[i]]}" for name, classes in predictions.items())
        plots.image(ax, images[i], title=f"truth: {data.classes[data.val[i][1]]}\n{lines}")

    draw_priors(right, results["spvit_mini"][0])
    return figure


def get_curve(result: Result) -> tuple[list[float], list[float]]:
    """Get the steps and the validation accuracies of a run."""
    return [row["step"] for row in result.rows], [row["val_top1"] for row in result.rows]


def draw_priors(figure, result: Result) -> None:
    """Draw the tables of all priors, a row per layer and a column per head, with a common colour scale around 1."""
    priors = [block.attention.spatial.table(result.model.grid) for block in result.model.blocks]
    plots.table_grid(
        figure,
        torch.stack(priors),
        title="The priors that SP-ViT has learned: what multiplies a score, by where the key lies",
        neutral=1.0,
        label="prior f(δ)",
    )


def main(argv: list[str] | None = None) -> None:
    """Run the program on command-line arguments."""
    argv = sys.argv[1:] if argv is None else argv
    options = parse(argv, default=Options(), prog="python -m spvit_experiments demo", description=__doc__)
    try:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.touch()
    except OSError as error:
        raise UserError(f"the figure {options.out} cannot be written ({error.strerror}). Name another with --out.") from None
    results = train_both(options.seed, options.max_steps)
    print("\n" + make_table(results, classes=8))
    figure = draw_figure(results, options.seed)
    figure.savefig(options.out)
    plt.close(figure)
    print(f"\nThe curves, some answers and the learned priors: {options.out}")
