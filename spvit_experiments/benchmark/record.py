"""What a part of the benchmark has measured: a CSV that grows by one comparison at a time, its table and its figure.

A row is known by what is compared (`case`), by what it was measured on (`where`), and by its side. Rows of another
machine, or another version of torch, stay in the file and are not mixed with those of this one.
"""

import csv
from pathlib import Path
from typing import Any

from spvit_mini.errors import UserError
from spvit_mini.training.checkpoint import replacing

MEASURED = ("side", "ratio", "ratio_low", "ratio_high", "ms", "ms_low", "ms_high")
MEASURED += ("images_per_second", "peak_bytes", "multiply_adds", "mfu", "rounds")
WHERE = ("device", "threads", "torch", "timm")
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#F0E442")
PANELS = 12  # of a figure: more cannot be read


class Record:
    """The rows of one CSV, a dictionary of texts each. Raises UserError for a file with other columns.

    Args:
        path: of the CSV; it need not be there yet.
        case: the columns that tell what is compared.
        where: what is measured on: a value for each of `WHERE`.
    """

    def __init__(self, path: Path, *, case: list[str], where: dict[str, Any]):
        self.path, self.case = path, tuple(case)
        self.where = {column: str(where[column]) for column in WHERE}
        self.columns = (*self.case, *MEASURED, *WHERE)
        self.rows = read(path) if path.is_file() else []
        if self.rows and tuple(self.rows[0]) != self.columns:
            raise UserError(f"{path} has other columns than this benchmark writes; name another folder with --out, or move it")

    def has(self, case: dict[str, Any]) -> bool:
        """Tell whether a comparison has been measured here."""
        return bool(self.of([case]))

    def of(self, cases: list[dict[str, Any]]) -> list[dict[str, str]]:
        """Give the rows of some comparisons, in their order, as measured here."""
        found: dict[tuple[str, ...], list[dict[str, str]]] = {}
        for row in self.rows:
            if all(row[column] == value for column, value in self.where.items()):
                found.setdefault(tuple(row[column] for column in self.case), []).append(row)
        return [row for case in cases for row in found.get(tuple(str(case[column]) for column in self.case), [])]

    def add(self, case: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        """Add a comparison's rows, and write the file, by one rename."""
        for row in rows:
            self.rows.append({column: str(value) for column, value in {**case, **row, **self.where}.items()})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, self.columns, lineterminator="\n")
            table.writeheader()
            table.writerows(self.rows)

    def table(self, cases: list[dict[str, Any]], *, title: str) -> str:
        """Lay comparisons out as text: a heading for each, a line for each side."""
        rows, where = self.of(cases), self.where
        versions = f"torch {where['torch']}" + (f", timm {where['timm']}" if where["timm"] else "")
        lines = [f"{title}; {where['device']}, threads: {where['threads']}, {versions}"]
        lines.append("medians (and quartiles) of steps that took turns; a ratio is to the first line, round by round")
        width = max([len(row["side"]) for row in rows], default=0) + 2
        before = None
        for row in rows:
            heading = ", ".join(f"{column} {row[column]}" for column in self.case)
            if heading != before:
                lines += ["", heading]
            before = heading
            lines.append(f"  {row['side']:<{width}}" + describe(row))
        return "\n".join(lines)

    def draw(self, cases: list[dict[str, Any]], *, title: str) -> Path:
        """Draw the ratios of at most 12 comparisons, spread evenly over all, beside the CSV; returns the file."""
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        from spvit_mini import plots

        plots.style()
        there = [case for case in cases if self.has(case)]
        shown = there[:: -(-len(there) // PANELS)]
        columns = min(3, len(shown))
        lines = -(-len(shown) // columns)
        figure, axes = plt.subplots(lines, columns, figsize=(4.6 * columns, 0.7 + 2.1 * lines), squeeze=False)
        for ax in axes.flat[len(shown) :]:
            ax.set_visible(False)
        for ax, case in zip(axes.flat, shown, strict=False):
            rows = self.of([case])
            middle = [float(row["ratio"]) for row in rows]
            spread = [[abs(float(row[side]) - float(row["ratio"])) for row in rows] for side in ("ratio_low", "ratio_high")]
            places = range(len(rows))
            ax.barh(places, middle, xerr=spread, color=[COLOURS[i % len(COLOURS)] for i in places], ecolor="#7f7f7f")
            ax.set_yticks(places, [row["side"] for row in rows], fontsize=8)
            ax.invert_yaxis()
            ax.axvline(1, color="#7f7f7f", linewidth=1, linestyle="--")
            ax.set_title(", ".join(map(str, case.values())), fontsize=8)
            ax.set_xlabel("time, as a multiple of the first bar's", fontsize=8)
        more = f"; {len(shown)} of {len(there)} comparisons" if len(shown) < len(there) else ""
        figure.suptitle(f"{title} ({self.where['device']}{more})", x=0.01, ha="left", fontsize=10.5)
        path = self.path.with_suffix(".png")
        figure.savefig(path, dpi=100)
        plt.close(figure)
        return path


def read(path: Path) -> list[dict[str, str]]:
    """Read a record's rows as they stand. Raises UserError for what is no table."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({error}); move it away, and it is made anew") from None


def describe(row: dict[str, str]) -> str:
    """Say a row's numbers: milliseconds, ratio, and what else was measured."""
    ms, low, high, ratio, at_least, at_most = (
        float(row[column]) for column in ("ms", "ms_low", "ms_high", "ratio", "ratio_low", "ratio_high")
    )
    text = f"{ms:9.2f} ms ({low:.2f} to {high:.2f}) {ratio:7.2f} × ({at_least:.2f} to {at_most:.2f})"
    if row["images_per_second"]:
        text += f" {float(row['images_per_second']):10.1f} images/s"
    if row["peak_bytes"]:
        text += f" {int(row['peak_bytes']) / 2**20:9.1f} MiB"
    if row["multiply_adds"]:
        text += f" {int(row['multiply_adds']) / 1e6:10.1f} M multiply-adds"
    if row["mfu"]:
        text += f"  MFU {float(row['mfu']):.1f} %"
    return text
