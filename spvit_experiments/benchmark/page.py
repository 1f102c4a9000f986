"""The page docs/speed.md and its figure, made from the records of the parts growth and bounds; no number on it is typed.

    python -m spvit_experiments benchmark page            writes them
    python -m spvit_experiments benchmark page --check    says whether the page is what the records give; exit status 1 if not
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from spvit_mini.errors import UserError

from ..records import RESULTS, ROOT
from .record import read
from .scaling import RECOMPUTED, VALUES
from .targets import BOUNDS

PAGE, FIGURE = ROOT / "docs" / "speed.md", ROOT / "docs" / "results" / "growth.png"
SIDES = {"MHSA, fused kernel": "#000000", "MHSA, written out": "#7f7f7f", "SPSA": "#0072B2", RECOMPUTED: "#009E73"}
HEAD = """# Speed: what a learned prior costs, and how that grows

This page is written by `python -m spvit_experiments benchmark page` from the records in `data/results/`; a test compares the two.

How it is measured: steps of all sides take turns, and a ratio is taken within each round; told are the median and, in
brackets, the quartiles. Memory is the most that tensors of a step take at one time beyond those that were there before it,
counted from what torch allocates and frees. Ratios can be compared between machines, milliseconds cannot. Work that ran
beside widens the quartiles.

## The paths of SP-SA

| path | what it does | choose it for |
|---|---|---|
| `explicit` | scores, product with the prior, softmax, product with v; on a CPU some images at a time | the default (`auto`) |
| `recomputed` | the same, a few scores at a time; none are stored, but made anew for the gradients | large grids |
| `compiled` | `explicit` through `torch.compile` | an accelerator, for a model that is not compiled as a whole |
| `flex` | FlexAttention with the prior spread out to all pairs; scores are not stored | CUDA, opt-in |

The gradients of `flex` are added up in any order, so their last digits differ from run to run; those of the others do not.
`spvit_mini.attention_backends.take_path(model, "recomputed")` sets one, `spvit_mini.attention_backends.choose` says which is taken and why. All give
the same, in value and gradient, as the equation (`tests/test_paths.py`; the gradients of `flex` are tested where there is
CUDA). Without gradients the map of a layer is made once for a grid and kept until one of its numbers changes.

Not built: a Triton kernel. It is to be built if measurements on an accelerator ask for it, and there are none yet.
"""
NOT_MEASURED = """## On an accelerator: not measured

| target, one H200-class accelerator, bfloat16 | |
|---|---|
| SP-ViT-S at 224 pixels trains within 5 % of the same skeleton with `MHSA`, at 35 % MFU or more | not measured |
| at 384 pixels it needs at most 20 % more memory than with `MHSA` | not measured |
| ConViT-S trains at least 2.5 times as fast as timm's | not measured |
| CIFAR-10 with a mini of under 4 M parameters: 94 % in under 3 minutes, 96 % in under 10 | not measured |

The first three are `python -m spvit_experiments benchmark model`, within `python -m spvit_experiments benchmark all`, which takes 25 minutes of
one accelerator and can be stopped and gone on with.
"""


@dataclass(frozen=True)
class Options:
    """Write the page, or compare it."""

    out: Path = RESULTS
    """The folder with the records."""
    check: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Write nothing; say whether the page is what the records give."""


def main(options: Options) -> int:
    """Run this part of the benchmark; returns the exit status."""
    page = make_page(options.out)
    if options.check:
        same = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page
        print(f"{PAGE.name} {'is what the records give' if same else 'is out of date; the same without --check writes it'}")
        return 0 if same else 1
    PAGE.write_text(page, encoding="utf-8")
    draw(growth_rows(options.out), FIGURE)
    print(PAGE, FIGURE)
    return 0


def growth_rows(folder: Path) -> list[dict[str, str]]:
    """Read the record of growth. Raises UserError where there is none, or where it is of several machines."""
    path = folder / "growth.csv"
    if not path.is_file():
        raise UserError(f"there is no record {path}; python -m spvit_experiments benchmark growth makes it")
    rows = read(path)
    if len({tuple(row[column] for column in ("device", "threads", "torch")) for row in rows}) > 1:
        raise UserError(f"{path} has rows of several machines; leave those of one")
    return rows


def make_page(folder: Path) -> str:
    """Compute the whole page as Markdown."""
    return "\n".join([HEAD, growth_section(growth_rows(folder)), bounds_section(folder / "benchmark_bounds.csv"), NOT_MEASURED])


def where(row: dict[str, str]) -> str:
    """Say what rows were measured on."""
    threads = f"{row['threads']} thread{'s' if row['threads'] != '1' else ''}"
    return f"{row['device']}, {threads}, torch {row['torch'].partition('+')[0]}, medians of {row['rounds']} rounds"


def growth_section(rows: list[dict[str, str]]) -> str:
    """Lay out what growth costs: a table for each of the four, and what the largest size says beside the smallest."""
    first = rows[0]
    parts = [
        "## How it grows\n",
        "One layer of attention (or blocks of them, without their MLPs), forward and backward, width "
        f"{first['dim']}, {first['dtype']}; {where(first)}. One thing grows at a time, from 196 patches (14 × 14), 6 heads, 4 "
        "images, one block.\n",
        f"![Time and memory of a layer as patches, heads, images and blocks grow. {finding(rows)}](results/growth.png)\n",
        finding(rows) + "\n",
    ]
    for what in VALUES:
        titles = (what, "MHSA, ms", "SP-SA, times MHSA", "recomputed, times MHSA")
        lines = ["| " + " | ".join([*titles, "MHSA, MiB", "written out", "SP-SA", "recomputed"]) + " |"]
        lines.append("|" + "---|" * 8)
        for sides in sizes(rows, what):
            ratios = [
                f"{float(sides[s]['ratio']):.2f} ({float(sides[s]['ratio_low']):.2f}–{float(sides[s]['ratio_high']):.2f})"
                for s in ("SPSA", RECOMPUTED)
            ]
            memory = [f"{mebibytes(sides[side]):.1f}" for side in SIDES]
            plain = sides["MHSA, fused kernel"]
            lines.append("| " + " | ".join([plain[what], f"{float(plain['ms']):.1f}", *ratios, *memory]) + " |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def sizes(rows: list[dict[str, str]], what: str) -> list[dict[str, dict[str, str]]]:
    """Gather the rows of what grows by size, smallest first: for each a dictionary from side to row."""
    found: dict[int, dict[str, dict[str, str]]] = {}
    for row in rows:
        if row["grows"] == what:
            found.setdefault(int(row[what]), {})[row["side"]] = row
    return [found[value] for value in sorted(found)]


def mebibytes(row: dict[str, str]) -> float:
    """Give a row's peak of memory."""
    return int(row["peak_bytes"]) / 2**20


def finding(rows: list[dict[str, str]]) -> str:
    """Say in a sentence how SP-SA's memory and time stand to plain attention's at the most patches."""
    most = sizes(rows, "patches")[-1]
    plain, written, ours, recomputed = (most[side] for side in SIDES)
    return (
        f"At {plain['patches']} patches SP-SA takes {float(ours['ratio']):.2f} times the time of plain attention and "
        f"{mebibytes(ours) / mebibytes(plain):.1f} times its memory, plain attention written out "
        f"{mebibytes(written) / mebibytes(plain):.1f} times; recomputed, SP-SA takes {float(recomputed['ratio']):.2f} times the "
        f"time and {mebibytes(recomputed) / mebibytes(plain):.1f} times the memory."
    )


def bounds_section(path: Path) -> str:
    """Lay out what is promised of a CPU, and what was measured."""
    rows = read(path) if path.is_file() else []
    groups: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        groups.setdefault(row["bound"], []).append(row)
    parts = ["## What is promised of a CPU\n", "| promise | measured | |", "|---|---|---|"]
    for bound in BOUNDS:
        if bound.what not in groups:
            parts.append(f"| {bound.says} | not measured | |")
            continue
        found = bound.found(groups[bound.what])
        parts.append(f"| {bound.says} | {found:.2f} | {'holds' if bound.holds(found) else '**does not hold**'} |")
    said = f"{where(rows[0])[0].upper()}{where(rows[0])[1:]}. " if rows else ""
    return "\n".join([*parts, "", f"{said}Measured by `python -m spvit_experiments benchmark bounds`.\n"])


def draw(rows: list[dict[str, str]], path: Path) -> None:
    """Draw time, as a multiple of plain attention's, with quartiles, and memory over what grows: two rows of four panels."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from spvit_mini import plots

    plots.style()
    figure, axes = plt.subplots(2, len(VALUES), figsize=(12, 5.6), sharex="col", sharey="row")
    for column, what in enumerate(VALUES):
        grown = sizes(rows, what)
        for side, colour in SIDES.items():
            x = [int(sides[side][what]) for sides in grown]
            look = {"color": colour, "marker": "o", "markersize": 3, "linewidth": 1.4}
            low, middle, high = ([float(s[side][c]) for s in grown] for c in ("ratio_low", "ratio", "ratio_high"))
            spread = [[m - a for m, a in zip(middle, low, strict=True)], [b - m for m, b in zip(middle, high, strict=True)]]
            axes[0, column].errorbar(x, middle, spread, elinewidth=0.8, label=side, **look)
            axes[1, column].plot(x, [mebibytes(sides[side]) for sides in grown], **look)
        for ax in axes[:, column]:
            ax.set(xscale="log")
            ax.set_xticks(x, labels=x, fontsize=7)
            ax.minorticks_off()
        axes[1, column].set(yscale="log")
        axes[1, column].set_xlabel(what)
    axes[0, 0].set(ylabel="time, times fused MHSA", ylim=(0, 2.5))
    axes[1, 0].set_ylabel("peak memory (MiB)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.suptitle("SP-SA grows as attention does", x=0.01, ha="left")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)
