"""The page docs/speed.md and its figure, from the records of the parts scaling and targets.

    python -m spvit_experiments benchmark page            write them
    python -m spvit_experiments benchmark page --check    check that the page agrees with the records; exit status 1 if not
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from spvit_mini.errors import UserError

from ..records import RESULTS, ROOT
from .attention import PLAIN
from .measurements import read_rows
from .scaling import EAGER, RECOMPUTE, VALUES
from .targets import TARGETS

PAGE, FIGURE = ROOT / "docs" / "speed.md", ROOT / "docs" / "results" / "growth.png"
# Sides of the records: label and colour.
SIDES = {
    PLAIN: ("MHSA, fused kernel", "#000000"),
    EAGER: ("MHSA, eager", "#7f7f7f"),
    "SPSA": ("SPSA", "#0072B2"),
    RECOMPUTE: ("SPSA, recompute", "#009E73"),
}
HEAD = """# Speed: what a learned prior costs, and how that grows

This page is written by `python -m spvit_experiments benchmark page` from the records in `data/results/`; a test compares the two.

How it is measured: steps of all sides take turns, and a ratio is taken within each round; told are the median and, in
brackets, the quartiles. Memory is the most that tensors of a step take at one time beyond those that were there before it,
counted from what torch allocates and frees. Ratios can be compared between machines, milliseconds cannot. Work that ran
beside widens the quartiles.

## The backends of SP-SA

| backend | what it does | choose it for |
|---|---|---|
| `eager` | scores, product with the prior, softmax, product with v; on a CPU some images at a time | the default (`auto`) |
| `recompute` | the same, a few scores at a time; none are stored, the backward pass recomputes them | large grids |
| `compile` | `eager` through `torch.compile` | an accelerator, for a model that is not compiled as a whole |
| `flex_attention` | FlexAttention with the prior expanded to all pairs; scores are not stored | CUDA, opt-in |

The gradients of `flex_attention` are summed in any order, so their last digits differ from run to run; those of the others do
not. `spvit_mini.attention_backends.set_backend(model, "recompute")` sets one, `choose_backend` returns the one in use and the
reason. All give the same, in value and gradient, as the equation (`tests/core/test_attention_backends.py`; the gradients of
`flex_attention` are tested where there is CUDA). Without gradients the map of a layer is computed once for a grid and cached
until one of its numbers changes.

Not built: a Triton kernel. It is to be built if measurements on an accelerator ask for it, and there are none yet.
"""
NOT_MEASURED = """## On an accelerator: not measured

| target, one H200-class accelerator, bfloat16 | |
|---|---|
| SP-ViT-S at 224 pixels trains within 5 % of the same skeleton with `MHSA`, at 35 % MFU or more | not measured |
| at 384 pixels it needs at most 20 % more memory than with `MHSA` | not measured |
| ConViT-S trains at least 2.5 times as fast as timm's | not measured |
| CIFAR-10 with a mini of under 4 M parameters: 94 % in under 3 minutes, 96 % in under 10 | not measured |

The first three are `python -m spvit_experiments benchmark model`, within `python -m spvit_experiments benchmark all`, which
takes 25 minutes of one accelerator and can be stopped and resumed.
"""


@dataclass(frozen=True)
class Options:
    """Write the page, or check it."""

    out: Path = RESULTS
    """Folder of the records."""
    check: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Only check that the page agrees with the records."""


def main(options: Options) -> int:
    """Run this part of the benchmark; returns the exit status."""
    page = make_page(options.out)
    if options.check:
        is_current = PAGE.is_file() and PAGE.read_text(encoding="utf-8-sig") == page
        print(f"{PAGE.name} {'agrees with the records' if is_current else 'is out of date; write it without --check'}")
        return 0 if is_current else 1
    PAGE.write_text(page, encoding="utf-8")
    draw_figure(read_scaling(options.out), FIGURE)
    print(PAGE, FIGURE)
    return 0


def read_scaling(folder: Path) -> list[dict[str, str]]:
    """Read growth.csv. Raises UserError if the file is missing or has rows of several machines."""
    path = folder / "growth.csv"
    if not path.is_file():
        raise UserError(f"the record {path} is missing. Make it with python -m spvit_experiments benchmark scaling.")
    rows = read_rows(path)
    if len({tuple(row[column] for column in ("device", "threads", "torch")) for row in rows}) > 1:
        raise UserError(f"{path} has rows of several machines. Keep those of one machine.")
    return rows


def make_page(folder: Path) -> str:
    """Compute the whole page as Markdown."""
    targets = targets_section(folder / "benchmark_bounds.csv")
    return "\n".join([HEAD, scaling_section(read_scaling(folder)), targets, NOT_MEASURED])


def describe_machine(row: dict[str, str]) -> str:
    """Describe the machine and the rounds of a row."""
    threads = f"{row['threads']} thread{'s' if row['threads'] != '1' else ''}"
    return f"{row['device']}, {threads}, torch {row['torch'].partition('+')[0]}, medians of {row['rounds']} rounds"


def scaling_section(rows: list[dict[str, str]]) -> str:
    """Make the section on scaling: a sentence on the most patches, and a table for each number that varies."""
    first, sentence = rows[0], describe_largest(rows)
    parts = [
        "## How it grows\n",
        "One layer of attention (or blocks of them, without their MLPs), forward and backward, width "
        f"{first['dim']}, {first['dtype']}; {describe_machine(first)}. One thing grows at a time, from 196 patches (14 × 14), "
        "6 heads, 4 images, one block.\n",
        f"![Time and memory of a layer as patches, heads, images and blocks grow. {sentence}](results/growth.png)\n",
        sentence + "\n",
    ]
    for what in VALUES:
        titles = (what, "MHSA, ms", "SP-SA, times MHSA", "recompute, times MHSA")
        lines = ["| " + " | ".join([*titles, "MHSA, MiB", "eager", "SP-SA", "recompute"]) + " |"]
        lines.append("|" + "---|" * 8)
        for sides in group_by_size(rows, what):
            ratios = [
                f"{float(sides[s]['ratio']):.2f} ({float(sides[s]['ratio_low']):.2f}–{float(sides[s]['ratio_high']):.2f})"
                for s in ("SPSA", RECOMPUTE)
            ]
            memory = [f"{mebibytes(sides[side]):.1f}" for side in SIDES]
            plain = sides[PLAIN]
            lines.append("| " + " | ".join([plain[what], f"{float(plain['ms']):.1f}", *ratios, *memory]) + " |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def group_by_size(rows: list[dict[str, str]], what: str) -> list[dict[str, dict[str, str]]]:
    """Group the rows of a number that varies by its values, in order: dictionaries from side to row."""
    groups: dict[int, dict[str, dict[str, str]]] = {}
    for row in rows:
        if row["grows"] == what:
            groups.setdefault(int(row[what]), {})[row["side"]] = row
    return [groups[value] for value in sorted(groups)]


def mebibytes(row: dict[str, str]) -> float:
    """Get the peak memory of a row in MiB."""
    return int(row["peak_bytes"]) / 2**20


def describe_largest(rows: list[dict[str, str]]) -> str:
    """Compare time and memory of SP-SA and plain attention at the most patches, in a sentence."""
    largest = group_by_size(rows, "patches")[-1]
    plain, eager, ours, recompute = (largest[side] for side in SIDES)
    return (
        f"At {plain['patches']} patches SP-SA takes {float(ours['ratio']):.2f} times the time of plain attention and "
        f"{mebibytes(ours) / mebibytes(plain):.1f} times its memory, eager plain attention "
        f"{mebibytes(eager) / mebibytes(plain):.1f} times; with recompute, SP-SA takes {float(recompute['ratio']):.2f} times the "
        f"time and {mebibytes(recompute) / mebibytes(plain):.1f} times the memory."
    )


def targets_section(path: Path) -> str:
    """Make the section on targets: each promise, the measured ratio, and the verdict."""
    rows = read_rows(path) if path.is_file() else []
    groups: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        groups.setdefault(row["bound"], []).append(row)
    parts = ["## What is promised of a CPU\n", "| promise | measured | |", "|---|---|---|"]
    for target in TARGETS:
        if target.name not in groups:
            parts.append(f"| {target.text} | not measured | |")
            continue
        ratio = target.measured(groups[target.name])
        parts.append(f"| {target.text} | {ratio:.2f} | {'holds' if target.holds(ratio) else '**does not hold**'} |")
    machine = describe_machine(rows[0]) if rows else ""
    machine = f"{machine[0].upper()}{machine[1:]}. " if rows else ""
    return "\n".join([*parts, "", f"{machine}Measured by `python -m spvit_experiments benchmark targets`.\n"])


def draw_figure(rows: list[dict[str, str]], path: Path) -> None:
    """Draw time, as a multiple of plain attention, with quartiles, and memory, over each number that varies."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from spvit_mini import plots

    plots.style()
    figure, axes = plt.subplots(2, len(VALUES), figsize=(12, 5.6), sharex="col", sharey="row")
    for column, what in enumerate(VALUES):
        groups = group_by_size(rows, what)
        for side, (label, colour) in SIDES.items():
            x = [int(sides[side][what]) for sides in groups]
            look = {"color": colour, "marker": "o", "markersize": 3, "linewidth": 1.4}
            low, middle, high = ([float(s[side][c]) for s in groups] for c in ("ratio_low", "ratio", "ratio_high"))
            spread = [[m - a for m, a in zip(middle, low, strict=True)], [b - m for m, b in zip(middle, high, strict=True)]]
            axes[0, column].errorbar(x, middle, spread, elinewidth=0.8, label=label, **look)
            axes[1, column].plot(x, [mebibytes(sides[side]) for sides in groups], **look)
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
