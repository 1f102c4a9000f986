"""The measurements of a part of the benchmark: a CSV that grows by one comparison at a time, its table and its figure.

A row is identified by its comparison (`case`), its machine (`MACHINE`) and its side. Rows of other machines or other
versions of torch stay in the file, and are not mixed with the rows of this machine.
"""

import csv
from pathlib import Path
from typing import Any

from spvit_mini.errors import UserError
from spvit_mini.files import atomic_write

MEASURED = ("side", "ratio", "ratio_low", "ratio_high", "ms", "ms_low", "ms_high")
MEASURED += ("images_per_second", "peak_bytes", "multiply_adds", "mfu", "rounds")
MACHINE = ("device", "threads", "torch", "timm")
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#F0E442")
PANELS = 12  # of a figure


class Measurements:
    """The rows of a CSV, dictionaries of texts. Raises UserError for a file with other columns.

    Args:
        path: of the CSV; it need not exist.
        case: the columns that identify a comparison.
        machine: a value for each of `MACHINE`.
    """

    def __init__(self, path: Path, *, case: list[str], machine: dict[str, Any]):
        self.path, self.case = path, tuple(case)
        self.machine = {column: str(machine[column]) for column in MACHINE}
        self.columns = (*self.case, *MEASURED, *MACHINE)
        self.rows = read_rows(path) if path.is_file() else []
        if self.rows and tuple(self.rows[0]) != self.columns:
            raise UserError(f"{path} has other columns than this benchmark. Move the file, or name another folder with --out.")

    def has(self, case: dict[str, Any]) -> bool:
        """Test that a comparison was measured on this machine."""
        return bool(self.select([case]))

    def select(self, cases: list[dict[str, Any]]) -> list[dict[str, str]]:
        """Select the rows of some comparisons on this machine, in the order of `cases`."""
        by_case: dict[tuple[str, ...], list[dict[str, str]]] = {}
        for row in self.rows:
            if all(row[column] == value for column, value in self.machine.items()):
                by_case.setdefault(tuple(row[column] for column in self.case), []).append(row)
        return [row for case in cases for row in by_case.get(tuple(str(case[column]) for column in self.case), [])]

    def add(self, case: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        """Add the rows of a comparison, and write the file by one rename."""
        for row in rows:
            self.rows.append({column: str(value) for column, value in {**case, **row, **self.machine}.items()})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)

    def make_table(self, cases: list[dict[str, Any]], *, title: str) -> str:
        """Make a text with a heading for each comparison and a line for each side."""
        rows, machine = self.select(cases), self.machine
        versions = f"torch {machine['torch']}" + (f", timm {machine['timm']}" if machine["timm"] else "")
        lines = [f"{title}; {machine['device']}, threads: {machine['threads']}, {versions}"]
        lines.append("medians (and quartiles) of steps that took turns; ratios to the first line, within each round")
        width = max([len(row["side"]) for row in rows], default=0) + 2
        before = None
        for row in rows:
            heading = ", ".join(f"{column} {row[column]}" for column in self.case)
            if heading != before:
                lines += ["", heading]
            before = heading
            lines.append(f"  {row['side']:<{width}}" + describe_row(row))
        return "\n".join(lines)

    def draw_figure(self, cases: list[dict[str, Any]], *, title: str) -> Path:
        """Draw the ratios of at most 12 comparisons, spread evenly over all, to NAME.png; returns the path."""
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        from spvit_mini import plots

        plots.style()
        measured = [case for case in cases if self.has(case)]
        shown = measured[:: -(-len(measured) // PANELS)]
        columns = min(3, len(shown))
        lines = -(-len(shown) // columns)
        figure, axes = plt.subplots(lines, columns, figsize=(4.6 * columns, 0.7 + 2.1 * lines), squeeze=False)
        for ax in axes.flat[len(shown) :]:
            ax.set_visible(False)
        for ax, case in zip(axes.flat, shown, strict=False):
            rows = self.select([case])
            ratios = [float(row["ratio"]) for row in rows]
            spread = [[abs(float(row[side]) - float(row["ratio"])) for row in rows] for side in ("ratio_low", "ratio_high")]
            positions = range(len(rows))
            ax.barh(positions, ratios, xerr=spread, color=[COLOURS[i % len(COLOURS)] for i in positions], ecolor="#7f7f7f")
            ax.set_yticks(positions, [row["side"] for row in rows], fontsize=8)
            ax.invert_yaxis()
            ax.axvline(1, color="#7f7f7f", linewidth=1, linestyle="--")
            ax.set_title(", ".join(map(str, case.values())), fontsize=8)
            ax.set_xlabel("time, as a multiple of the first bar", fontsize=8)
        more = f"; {len(shown)} of {len(measured)} comparisons" if len(shown) < len(measured) else ""
        figure.suptitle(f"{title} ({self.machine['device']}{more})", x=0.01, ha="left", fontsize=10.5)
        path = self.path.with_suffix(".png")
        figure.savefig(path, dpi=100)
        plt.close(figure)
        return path


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read the rows of a CSV as texts. Raises UserError for a file that is not a CSV."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({error}). Move the file, and it is made again.") from None


def describe_row(row: dict[str, str]) -> str:
    """Format the numbers of a row: milliseconds, ratio, and the others that were measured."""
    ms, ms_low, ms_high, ratio, ratio_low, ratio_high = (
        float(row[column]) for column in ("ms", "ms_low", "ms_high", "ratio", "ratio_low", "ratio_high")
    )
    text = f"{ms:9.2f} ms ({ms_low:.2f} to {ms_high:.2f}) {ratio:7.2f} × ({ratio_low:.2f} to {ratio_high:.2f})"
    if row["images_per_second"]:
        text += f" {float(row['images_per_second']):10.1f} images/s"
    if row["peak_bytes"]:
        text += f" {int(row['peak_bytes']) / 2**20:9.1f} MiB"
    if row["multiply_adds"]:
        text += f" {int(row['multiply_adds']) / 1e6:10.1f} M multiply-adds"
    if row["mfu"]:
        text += f"  MFU {float(row['mfu']):.1f} %"
    return text
