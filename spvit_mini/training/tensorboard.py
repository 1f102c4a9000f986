"""Metrics for TensorBoard, by option: the rows of metrics.csv as curves that grow during the run.

    python -m spvit_mini train RECIPE --tensorboard        writes RUN/tensorboard
    tensorboard --logdir runs                              shows all runs side by side
"""

import math
from pathlib import Path
from typing import Any

from ..errors import UserError
from .metrics import COLUMNS, TIME_COLUMNS

GROUPS = {"loss": "loss", "top1": "top-1", "top5": "top-5"}  # the section of the page for each ending of a column's name


def make_tag(column: str) -> str:
    """Make the tag of a column's curve; the part before the slash is its section of the page."""
    which, _, ending = column.rpartition("_")
    if ending in GROUPS:
        return f"{GROUPS[ending]}/{which}"
    return f"{'speed' if column in TIME_COLUMNS else 'run'}/{column}"


class TensorBoardWriter:
    """Write rows to RUN/tensorboard; a context that closes the file. Nothing is written before `begin`.

    Raises UserError if the package tensorboard is missing, or without a run folder.
    """

    def __init__(self, run_dir: Path | None):
        if run_dir is None:
            raise UserError("TensorBoard's files need a run folder. Use --run-dir, or leave --tensorboard out.")
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError("the package tensorboard is missing. Use pip install tensorboard, or no --tensorboard.") from None
        self.folder, self.make_writer = run_dir / "tensorboard", SummaryWriter
        self.writer: Any = None

    def begin(self, rows: list[dict[str, Any]]) -> None:
        """Append to the rows so far. Later rows, which a session before a resume wrote, are discarded."""
        self.writer = self.make_writer(self.folder, purge_step=rows[-1]["step"] + 1 if rows else 0)

    def add(self, row: dict[str, Any]) -> None:
        """Write a row at its step, without the values that were not measured."""
        for column in COLUMNS[1:]:
            if row[column] is not None and math.isfinite(row[column]):
                self.writer.add_scalar(make_tag(column), row[column], row["step"])
        self.writer.flush()

    def __enter__(self) -> "TensorBoardWriter":
        return self

    def __exit__(self, *_) -> None:
        if self.writer is not None:
            self.writer.close()
