"""Plot the learning curves of several runs side by side: validation accuracy, validation loss and training loss.

    python -m spvit_mini curves runs/a runs/b runs/c --out runs/curves.png
    python -m spvit_mini curves runs/*_seed* --x seconds --out curves.pdf

Runs that differ only in their seed, and learned from the same images, weights and token labels, form a group: one colour, a thin
line per run and a thick line for the mean. The name of a group says what sets it apart. Dashed lines are those of the EMA
weights. A table of the final values is printed.
"""

import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from tyro.conf import Positional

from .. import plots
from ..errors import UserError
from ..files import atomic_write
from ..recipes.recipe import Recipe
from ..training.checkpoint import read_recipe
from ..training.metrics import best_top1
from ..training.summary import format_time, format_value, read_history, read_metrics
from .arguments import Imports, Program

PROGRAM = Program("python -m spvit_mini curves", __doc__)
SUFFIXES = (".png", ".pdf", ".svg")
# Options in which the runs of a group may differ, beside devices and folders: the seed and the intervals.
FREE = ("seed", "evaluate_every", "save_every")
# The colour of a model by the first word of its name, where it isn't that word.
METHODS = {"deit": "vit", "lvvit": "added", "convit": "gpsa", "spvit": "spsa", "cait": "cnn"}
SPARE = ("gpsa", "anchored", "added", "psa", "rpb", "spsa", "vit", "cnn", "window")  # for other groups, the clearest first
X = {"epochs": "epoch", "steps": "step", "images": "images", "seconds": "seconds"}
PANELS = (
    ("Validation accuracy", "top-1 accuracy (%)", "val_top1", "ema_top1"),
    ("Validation loss", "cross-entropy (nats)", "val_loss", "ema_loss"),
    ("Training loss, with augmentation", "loss (nats)", "train_loss", None),
)


@dataclass(frozen=True)
class Arguments:
    """Which runs to plot, and how."""

    runs: Positional[tuple[Path, ...]] = ()
    """Run folders."""
    out: Path = Path("runs/curves.png")
    """Figure to write: .png, .pdf or .svg."""
    x: Literal["epochs", "steps", "images", "seconds"] = "epochs"
    """Unit of the horizontal axis."""
    imports: Imports = ()


@dataclass(frozen=True)
class Run:
    """A run folder, its recipe and its rows of metrics."""

    folder: Path
    recipe: Recipe
    rows: list[dict[str, float]]
    classes: int | None  # None without a history

    @property
    def has_ema(self) -> bool:
        """Whether the EMA weights were evaluated too."""
        return not math.isnan(self.rows[-1]["ema_top1"])


def main(argv: list[str]) -> int:
    """Run the program on command-line arguments; returns its exit status."""
    arguments = PROGRAM.parse(argv, Arguments())
    if arguments.out.suffix.lower() not in SUFFIXES:
        raise UserError(f"--out is {arguments.out}; expected a file that ends with {', '.join(SUFFIXES)}")
    groups = group_runs(read_runs(arguments.runs))
    with plt.rc_context():
        plots.style()
        figure = draw(groups, x=arguments.x)
        try:
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(arguments.out) as temporary:
                figure.savefig(temporary, format=arguments.out.suffix[1:].lower())
        except OSError as error:
            raise UserError(f"cannot write {arguments.out} ({error.strerror}); use another file with --out") from None
    print(f"{table(groups)}\n\nThe curves: {arguments.out}")
    return 0


def read_runs(folders: tuple[Path, ...]) -> list[Run]:
    """Read run folders. Raises UserError for no folder, for a folder given twice, and for a folder without a row of metrics."""
    if not folders:
        raise UserError(f"no run is named; expected run folders: {PROGRAM} runs/a runs/b")
    runs: list[Run] = []
    for folder in folders:
        rows, recipe, sessions = read_metrics(folder), read_recipe(folder), read_history(folder)
        if recipe is None or not rows:
            what = "recipe.json" if recipe is None else "row in its metrics.csv yet"
            raise UserError(f"{folder} holds no {what}; leave it out, or plot it after its first evaluation")
        if folder.resolve() in (run.folder.resolve() for run in runs):
            raise UserError(f"{folder} is given twice; name each run once")
        runs.append(Run(folder, recipe, rows, sessions[-1].classes if sessions else None))
    return runs


def group_runs(runs: list[Run]) -> dict[str, list[Run]]:
    """Group the runs that differ only in FREE options, by the recipe's name and the options in which groups differ."""
    found: list[list[Run]] = []
    for run in runs:
        group = next((group for group in found if not any(find_differences(run, other) for other in group)), None)
        if group is None:
            found.append(group := [])
        group.append(run)
    if len(found) > len(plots.COLOURS):
        raise UserError(f"the runs form {len(found)} groups; expected at most {len(plots.COLOURS)}, one per colour")
    groups: dict[str, list[Run]] = {}
    for group in found:
        first = group[0].recipe
        others = [other[0] for other in found if other[0].recipe.name == first.name]
        names = dict.fromkeys(name for other in others for name in find_differences(group[0], other))
        label = ", ".join([first.name, *(f"{name} {describe_option(first, name)}" for name in first.flatten() if name in names)])
        groups[label if label not in groups else f"{label} ({group[0].folder})"] = group
    return groups


def find_differences(run: Run, other: Run) -> list[str]:
    """List the options whose difference keeps two runs from being seeds of one recipe."""
    own = run.recipe.flatten()
    return [name for name, *_ in run.recipe.list_differences(other.recipe.override({name: own[name] for name in FREE}))]


def describe_option(recipe: Recipe, name: str) -> str:
    """Format an option, with the fingerprint of the files that it names, if it is known."""
    value = format_value(recipe.flatten()[name])
    return f"{value} ({recipe.sources[name]})" if name in recipe.sources else value


def choose_colours(groups: dict[str, list[Run]]) -> dict[str, str]:
    """Choose a colour for each group: its method's, if it is the first group of the method, else one that no method here has."""
    first: dict[str, str] = {}
    for label, group in groups.items():
        model = group[0].recipe.model.name.split("_")[0]
        first.setdefault(METHODS.get(model, model), label)
    methods = {label: method for method, label in first.items()}
    others = (method for method in SPARE if method not in first)
    return {label: plots.COLOURS[methods.get(label) or next(others)] for label in groups}


def common_steps(group: list[Run]) -> list[float]:
    """List the steps that all runs of a group have evaluated."""
    return sorted(set.intersection(*({row["step"] for row in run.rows} for run in group)))


def mean_curve(group: list[Run], column: str, x: str) -> tuple[list[float], list[float]]:
    """Average a column and its x values over the runs of a group, at their common steps."""
    by_step = [{row["step"]: row for row in run.rows} for run in group]
    steps = common_steps(group)
    x_values, values = ([statistics.fmean(rows[step][name] for rows in by_step) for step in steps] for name in (x, column))
    return x_values, values


def draw(groups: dict[str, list[Run]], *, x: str) -> Figure:
    """Draw the three panels, with one legend below them that gives the final accuracies."""
    colours = choose_colours(groups)
    figure = Figure(figsize=(12.5, 4.2 + 0.22 * len(groups)))
    for axes, (title, unit, last, ema) in zip(figure.subplots(1, 3), PANELS, strict=True):
        for label, group in groups.items():
            draw_group(axes, group, last, x=X[x], colour=colours[label])
            if ema and all(run.has_ema for run in group):
                draw_group(axes, group, ema, x=X[x], colour=colours[label], style="--")
        axes.set(title=title, ylabel=unit, xlabel=f"{x} of training" if x != "seconds" else "seconds since the start")
    top1_axes = figure.axes[0]
    top1_axes.set_ylim(bottom=0)
    classes = {run.classes or 0 for group in groups.values() for run in group}
    if len(classes) == 1 and (count := classes.pop()):
        plots.level(top1_axes, 100 / count, "chance")
    names = {label: f"{plots.escape(label)}: {final_accuracy(group)}" for label, group in groups.items()}
    entries = [(Line2D([], [], color=colours[label]), name) for label, name in names.items()]
    if any(run.has_ema for group in groups.values() for run in group):
        entries.append((Line2D([], [], color="#595959", linestyle="--"), "EMA weights"))
    if any(len(group) > 1 for group in groups.values()):
        entries.append((Line2D([], [], color="#595959", linewidth=0.8, alpha=0.5), "one seed (thick: mean of the seeds)"))
    figure.legend(*zip(*entries, strict=True), loc="outside lower left", ncols=1)
    return figure


def draw_group(axes: Axes, group: list[Run], column: str, *, x: str, colour: str, style: str = "-") -> None:
    """Draw a thin line for each run of a group, if there are several, and a thick line for their mean."""
    if len(group) > 1:
        for run in group:
            x_values, values = [row[x] for row in run.rows], [row[column] for row in run.rows]
            axes.plot(x_values, values, linewidth=0.8, alpha=0.5, color=colour, linestyle=style)
    mean = mean_curve(group, column, x)
    axes.plot(*mean, marker="." if len(mean[0]) == 1 else None, color=colour, linestyle=style)


def final_accuracy(group: list[Run]) -> str:
    """Format the accuracies of a group at the last common step: mean ± standard deviation (n)."""
    steps = common_steps(group)
    if not steps:
        return f"{len(group)} runs without a common step"
    rows = [next(row for row in run.rows if row["step"] == steps[-1]) for run in group]
    text = format_mean([row["val_top1"] for row in rows])
    if all(run.has_ema for run in group):
        text += f", EMA {format_mean([row['ema_top1'] for row in rows])}"
    seeds = len({run.recipe.seed for run in group})
    count = f" (n = {len(group)}{', but the same seeds' if seeds < len(group) else ''})"
    return f"{text} at step {steps[-1]:,.0f}" + (count if len(group) > 1 else "")


def format_mean(values: list[float]) -> str:
    """Format a percentage, or the mean of several ± their standard deviation."""
    if len(values) == 1:
        return f"{values[0]:.2f} %"
    return f"{statistics.fmean(values):.2f} ± {statistics.stdev(values):.2f} %"


def table(groups: dict[str, list[Run]]) -> str:
    """Format the last and the best accuracy of each run, group by group."""
    lines = [f"{'':<30}{'seed':>6}{'step':>10}{'epoch':>9}{'last %':>9}{'EMA %':>9}{'best %':>9}{'time':>11}"]
    for label, group in groups.items():
        lines.append(f"{label}: {final_accuracy(group)}")
        for run in group:
            last, best = run.rows[-1], max(map(best_top1, run.rows))
            ema, best_text = (f"{v:.2f}" if math.isfinite(v) else "-" for v in (last["ema_top1"], best))  # "-": none, or diverged
            lines.append(
                f"  {str(run.folder)[-28:]:<28}{run.recipe.seed:>6}{last['step']:>10,.0f}{last['epoch']:>9.2f}"
                f"{last['val_top1']:>9.2f}{ema:>9}{best_text:>9}{format_time(last['seconds']):>11}"
            )
    return "\n".join(lines)
