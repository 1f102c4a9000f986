"""The figure style, and the plots that lessons and programs share.

One colour per method everywhere (Okabe and Ito's palette, safe for colour-blind readers); axes with units; thin lines per
seed and their mean; limits shared by all maps of a figure, so that colours can be compared across heads. A figure's title
is its finding. Every function draws into the axes or the figure that it is given.
"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle
from torch import Tensor

COLOURS = {
    "vit": "#000000", "cnn": "#7f7f7f", "rpb": "#56B4E9", "window": "#F0E442", "psa": "#E69F00", "gpsa": "#D55E00",
    "spsa": "#0072B2", "anchored": "#009E73", "added": "#CC79A7",
}  # fmt: skip
CONTENT = "viridis"  # for non-negative values: attention weights
PRIOR = "PuOr_r"  # for values around a neutral one: priors and biases; orange above it, purple below


def style() -> None:
    """Set the style of all figures: small, plain, sharp on screens and in print, legible on light and dark pages."""
    plt.rcParams.update({
        "figure.dpi": 90, "savefig.dpi": 160, "figure.facecolor": "white", "savefig.facecolor": "white",
        "figure.constrained_layout.use": True, "font.size": 10, "axes.titlesize": 10.5, "axes.titlelocation": "left",
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25, "legend.frameon": False,
        "lines.linewidth": 1.8, "image.interpolation": "nearest",
    })  # fmt: skip


def escape(name: str) -> str:
    """Escape in a name what Matplotlib would not draw as it is: the `$` of a formula, and bytes that are no UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode().replace("$", r"\$")


def curves(
    axes: Axes, runs: dict[str, Sequence[tuple[Sequence[float], Sequence[float]]]], *, colours: dict[str, str]
) -> None:
    """Draw each run as a thin line, and the mean of the runs with one label as a thick line.

    `runs` maps a label to its runs, each (x values, y values); runs with one label share their x values.
    """
    for label, lines in runs.items():
        if len(lines) > 1:
            for x, y in lines:
                axes.plot(x, y, color=colours[label], linewidth=0.8, alpha=0.5)
        axes.plot(lines[0][0], np.mean([y for _, y in lines], axis=0), color=colours[label], label=label)


def level(axes: Axes, value: float, text: str) -> None:
    """Mark a level, such as chance, with a dashed line and a word."""
    axes.axhline(value, color="#7f7f7f", linestyle="--", linewidth=1)
    axes.annotate(text, (1, value), xycoords=("axes fraction", "data"), ha="right", va="top", color="#595959")


def image(axes: Axes, picture: Tensor, *, title: str = "", boxes: Sequence[tuple[int, int, str]] = (), patch: int = 4) -> None:
    """Show an image (3, height, width), scaled to its own range, with frames around patches (row, column, colour)."""
    low, high = picture.min(), picture.max()
    axes.imshow(((picture - low) / (high - low).clamp(min=1e-6)).permute(1, 2, 0).numpy())
    for row, column, colour in boxes:
        frame(axes, row * patch, column * patch, colour=colour, size=patch)
    axes.set(title=title, xticks=[], yticks=[])
    axes.grid(False)


def frame(axes: Axes, row: float, column: float, *, colour: str = "#D55E00", size: float = 1) -> None:
    """Outline the cell (row, column) of a map, `size` pixels wide."""
    corner = (column - 0.5, row - 0.5)
    axes.add_patch(Rectangle(corner, size, size, fill=False, edgecolor=colour, linewidth=2))


def table_grid(figure: Figure | SubFigure, values: Tensor, *, title: str, neutral: float, label: str) -> None:
    """Draw tables over the offsets, (layers, heads, 2R−1, 2C−1), with shared limits around `neutral`.

    The middle of each is the query itself, outlined; keys to the right and below are right of it and below it.
    """
    tables = values.detach().float().cpu().numpy()
    layers, heads, rows, columns = tables.shape
    axes = figure.subplots(layers, heads, squeeze=False, sharex=True, sharey=True)
    colours = diverging_colours(tables, neutral)
    for (layer, head), ax in np.ndenumerate(axes):
        extent = (-columns / 2, columns / 2, rows / 2, -rows / 2)
        shown = ax.imshow(tables[layer, head], extent=extent, **colours)
        frame(ax, 0, 0, colour="black")
        ax.grid(False)
        ax.set_title(f"head {head}" if layers == 1 else f"layer {layer}, head {head}", fontsize=9)
    axes[-1, 0].set(xlabel="columns right", ylabel="rows down")
    figure.colorbar(shown, ax=axes, label=label, shrink=0.8)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10.5)


def diverging_colours(values: np.ndarray, neutral: float) -> dict:
    """Choose colours that diverge from `neutral`, equally far in both directions: arguments for imshow."""
    reach = max(abs(values - neutral).max(), 1e-3)
    return {"cmap": PRIOR, "norm": TwoSlopeNorm(neutral, neutral - reach, neutral + reach)}
