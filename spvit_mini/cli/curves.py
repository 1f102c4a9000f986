"""Draw the curves of several runs side by side: validation accuracy, validation loss and training loss.

    python -m spvit_mini curves runs/a runs/b runs/c --out runs/curves.png
    python -m spvit_mini curves runs/*_seed* --x seconds --out curves.pdf

Runs that differ in their seed alone are of one kind: they share a colour, a thin line for each and a thick one for their
mean. Dashed lines are those of the averaged weights. A table of the numbers at the end is printed.
"""

import json
import math
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import matplotlib.pyplot as plt
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .. import plots
from ..errors import UserError
from ..recipes.recipe import PLACES, Recipe
from ..training.checkpoint import read_recipe
from ..training.summary import accuracy, clock, read_history, read_metrics, told
from .arguments import parse
from .program import run_program

PROGRAM = "python -m spvit_mini curves"
ENDINGS = (".png", ".pdf", ".svg")
# What runs of one kind may differ in, beside the place of the work: what is left to chance, and how often one looks.
FREE = (*PLACES, "seed", "evaluate_every", "save_every")
# Whose colour a model has, by the first word of its name, where it isn't that word.
METHODS = {"deit": "vit", "lvvit": "added", "convit": "gpsa", "spvit": "spsa", "cait": "cnn"}
SPARE = ("gpsa", "anchored", "added", "psa", "rpb", "spsa", "vit", "cnn", "window")  # for the rest: the clearest first
X = {"epochs": "epoch", "steps": "step", "images": "images", "seconds": "seconds"}
PANELS = (
    ("Validation accuracy", "images right (%)", "val_top1", "ema_top1"),
    ("Validation loss", "cross-entropy (nats)", "val_loss", "ema_loss"),
    ("Training loss, as trained", "loss (nats)", "train_loss", None),
)


@dataclass(frozen=True)
class Arguments:
    """Which runs, and where to draw them."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """The folders of the runs."""
    out: Path = Path("runs/curves.png")
    """The picture to write; its ending decides: .png, .pdf or .svg."""
    x: Literal["epochs", "steps", "images", "seconds"] = "epochs"
    """What the curves are drawn over."""


@dataclass(frozen=True)
class Run:
    """What is drawn of a run."""

    folder: Path
    recipe: Recipe
    rows: list[dict[str, float]]
    classes: int | None  # where its history says so

    @property
    def averaged(self) -> bool:
        """Whether its averaged weights were scored too."""
        return not math.isnan(self.rows[-1]["ema_top1"])


def main(argv: list[str] | None = None) -> int:
    """Run the program on command-line arguments; returns its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv:
        print(__doc__.strip())
        return 0
    arguments = parse(argv, default=Arguments(), prog=PROGRAM, description=__doc__.split("\n\n")[0])
    if arguments.out.suffix.lower() not in ENDINGS:
        raise UserError(f"--out is {arguments.out}; a picture ends with {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")
    kinds = by_kind(read_runs(arguments.runs))
    with plt.rc_context():
        plots.style()
        picture = draw(kinds, x=arguments.x)
        try:
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            picture.savefig(arguments.out)
        except OSError as error:
            raise UserError(f"cannot write {arguments.out} ({error.strerror}); name another picture with --out") from None
    print(f"{table(kinds)}\n\nThe curves: {arguments.out}")
    return 0


def read_runs(folders: tuple[Path, ...]) -> list[Run]:
    """Read run folders. Raises UserError for none at all, for one given twice, and for what is no run with a row yet."""
    if not folders:
        raise UserError(f"no runs to draw; name their folders: {PROGRAM} runs/a runs/b")
    runs = []
    for folder in folders:
        rows, recipe, parts = read_metrics(folder), read_recipe(folder), read_history(folder)
        if recipe is None or not rows:
            what = "recipe.json" if recipe is None else "row in its metrics.csv yet"
            raise UserError(f"{folder} holds no {what}; leave it out, or draw it after its first evaluation")
        if folder.resolve() in (run.folder.resolve() for run in runs):
            raise UserError(f"{folder} is given twice; each run counts once")
        runs.append(Run(folder, recipe, rows, parts[-1].classes if parts else None))
    return runs


def by_kind(runs: list[Run]) -> dict[str, list[Run]]:
    """Put runs together that differ in FREE options alone, under the recipe's name and what else tells them apart."""
    kinds: dict[str, list[Run]] = {}
    for run in runs:
        decides = {name: value for name, value in run.recipe.flat().items() if name not in FREE}
        kinds.setdefault(json.dumps(decides, default=str), []).append(run)
    if len(kinds) > len(plots.COLOURS):
        raise UserError(f"these are runs of {len(kinds)} kinds, and {len(plots.COLOURS)} colours can be told apart; draw fewer")
    named: dict[str, list[Run]] = {}
    for kind in kinds.values():
        first = kind[0].recipe
        others = [other[0].recipe for other in kinds.values() if other[0].recipe.name == first.name]
        mine, theirs = first.flat(), [other.flat() for other in others]
        differing = [name for name in mine if name not in FREE and any(other[name] != mine[name] for other in theirs)]
        named[", ".join([first.name, *(f"{name} {told(mine[name])}" for name in differing)])] = kind
    return named


def colours_of(kinds: dict[str, list[Run]]) -> dict[str, str]:
    """Choose a colour for each kind: its method's, if it is the first kind of it, else one that no method here has."""
    first: dict[str, str] = {}
    for label, kind in kinds.items():
        model = kind[0].recipe.model.name.split("_")[0]
        first.setdefault(METHODS.get(model, model), label)
    methods = {label: method for method, label in first.items()}
    others = (method for method in SPARE if method not in first)
    return {label: plots.COLOURS[methods.get(label) or next(others)] for label in kinds}


def mean_of(kind: list[Run], column: str, x: str) -> tuple[list[float], list[float]]:
    """Average a column, and what it is drawn over, at the steps that all runs of a kind have scored."""
    by_step = [{row["step"]: row for row in run.rows} for run in kind]
    steps = sorted(set.intersection(*map(set, by_step)))
    return tuple([statistics.fmean(rows[step][name] for rows in by_step) for step in steps] for name in (x, column))


def draw(kinds: dict[str, list[Run]], *, x: str) -> Figure:
    """Draw the three panels, with one legend below them that tells the numbers at the end."""
    colours = colours_of(kinds)
    figure = Figure(figsize=(12.5, 4.2 + 0.22 * len(kinds)))
    for axes, (title, unit, raw, averaged) in zip(figure.subplots(1, 3), PANELS, strict=True):
        for label, kind in kinds.items():
            draw_kind(axes, kind, raw, x=X[x], colour=colours[label])
            if averaged and all(run.averaged for run in kind):
                draw_kind(axes, kind, averaged, x=X[x], colour=colours[label], dashed=True)
        axes.set(title=title, ylabel=unit, xlabel=f"{x} of training" if x != "seconds" else "seconds since the start")
    accuracy = figure.axes[0]
    accuracy.set_ylim(bottom=0)
    classes = {run.classes for kind in kinds.values() for run in kind}
    if len(classes) == 1 and None not in classes:
        plots.level(accuracy, 100 / classes.pop(), "guessing")
    entries = [(Line2D([], [], color=colours[label]), f"{label}: {ending(kind)}") for label, kind in kinds.items()]
    if any(run.averaged for kind in kinds.values() for run in kind):
        entries.append((Line2D([], [], color="#595959", linestyle="--"), "the average of the weights"))
    if any(len(kind) > 1 for kind in kinds.values()):
        entries.append((Line2D([], [], color="#595959", linewidth=0.8, alpha=0.5), "a single seed (thick: their mean)"))
    figure.legend(*zip(*entries, strict=True), loc="outside lower left", ncols=1)
    return figure


def draw_kind(axes: Axes, kind: list[Run], column: str, *, x: str, colour: str, dashed: bool = False) -> None:
    """Draw a thin line for each run of a kind, if there are several, and a thick one for their mean."""
    look = {"color": colour, "linestyle": "--" if dashed else "-"}
    if len(kind) > 1:
        for run in kind:
            axes.plot([row[x] for row in run.rows], [row[column] for row in run.rows], linewidth=0.8, alpha=0.5, **look)
    mean = mean_of(kind, column, x)
    axes.plot(*mean, marker="." if len(mean[0]) == 1 else None, **look)


def ending(kind: list[Run]) -> str:
    """Say the accuracies of a kind at the last step that all its runs have scored: mean ± standard deviation (n)."""
    shared = set.intersection(*({row["step"] for row in run.rows} for run in kind))
    if not shared:
        return f"{len(kind)} runs without a common step"
    rows = [next(row for row in run.rows if row["step"] == max(shared)) for run in kind]
    text = spread([row["val_top1"] for row in rows])
    if all(run.averaged for run in kind):
        text += f", averaged {spread([row['ema_top1'] for row in rows])}"
    return f"{text} at step {max(shared):,.0f}" + (f" (n = {len(kind)})" if len(kind) > 1 else "")


def spread(values: list[float]) -> str:
    """Write a percentage, or the mean of several ± their standard deviation."""
    if len(values) == 1:
        return f"{values[0]:.2f} %"
    return f"{statistics.fmean(values):.2f} ± {statistics.stdev(values):.2f} %"


def table(kinds: dict[str, list[Run]]) -> str:
    """Lay out each run's end and best, kind by kind."""
    lines = [f"{'':<30}{'seed':>6}{'step':>10}{'epoch':>9}{'last %':>9}{'averaged %':>12}{'best %':>9}{'time':>11}"]
    for label, kind in kinds.items():
        lines.append(f"{label}: {ending(kind)}")
        for run in kind:
            last, best = run.rows[-1], max(map(accuracy, run.rows))
            averaged = f"{last['ema_top1']:.2f}" if run.averaged else "-"
            lines.append(
                f"  {str(run.folder)[-28:]:<28}{run.recipe.seed:>6}{last['step']:>10,.0f}{last['epoch']:>9.2f}"
                f"{last['val_top1']:>9.2f}{averaged:>12}{best:>9.2f}{clock(last['seconds']):>11}"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    run_program(main)
