"""Rows of metrics for TensorBoard, by option: what metrics.csv holds, as curves that grow while a run does.

    python -m spvit_mini train RECIPE --tensorboard        writes RUN/tensorboard
    tensorboard --logdir runs                              shows all runs side by side
"""

import math
from pathlib import Path
from typing import Any

from ..errors import UserError
from .metrics import COLUMNS

GROUPS = {"loss": "loss", "top1": "top-1", "top5": "top-5"}  # curves that belong into one picture, by a column's ending
SPEED = ("images_per_second", "data_seconds", "mfu", "seconds")


def tag(column: str) -> str:
    """Name a column's curve: its part before the slash is the section of the page that it stands in."""
    which, _, kind = column.rpartition("_")
    if kind in GROUPS:
        return f"{GROUPS[kind]}/{'averaged' if which == 'ema' else which}"
    return f"{'speed' if column in SPEED else 'run'}/{column}"


class Board:
    """Writes rows to RUN/tensorboard; a context that closes the file.

    Raises UserError if the package tensorboard is missing, or without a run folder. Nothing is written before `begin`.
    """

    def __init__(self, run: Path | None):
        if run is None:
            raise UserError("TensorBoard's files lie in the run folder; name one, or leave the option out")
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError("the package tensorboard is missing; pip install tensorboard, or leave the option out") from None
        self.folder, self.make, self.writer = run / "tensorboard", SummaryWriter, None

    def begin(self, rows: list[dict[str, Any]]) -> None:
        """Begin to write behind the rows so far. What an earlier part of the run wrote behind them doesn't count."""
        self.writer = self.make(self.folder, purge_step=rows[-1]["step"] + 1 if rows else 0)

    def add(self, row: dict[str, Any]) -> None:
        """Write a row, at its step; what wasn't measured is left out."""
        for column in COLUMNS[1:]:
            if row[column] is not None and math.isfinite(row[column]):
                self.writer.add_scalar(tag(column), row[column], row["step"])
        self.writer.flush()

    def __enter__(self) -> "Board":
        return self

    def __exit__(self, *_) -> None:
        if self.writer is not None:
            self.writer.close()
