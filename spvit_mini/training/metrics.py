"""What is counted while training and evaluating, and the file it is written to, metrics.csv.

Sums are kept, not means: sums of parts add up exactly, whatever their sizes, also over batches of unequal length.
"""

import csv
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checkpoint import replacing

COLUMNS = (
    "step",  # steps done
    "epoch",  # passes over the training images, a fraction inside one
    "images",  # training images seen
    "lr",  # learning rate of the last step
    "train_loss",  # mean over the steps since the row before, as trained: augmented, with label smoothing
    "train_top1",  # percent right of the same images
    "val_loss",  # mean cross-entropy over the whole validation part
    "val_top1",  # percent right of it
    "val_top5",  # percent of it whose true class is among the best five
    "ema_loss",  # the same of the averaged weights, where there are any
    "ema_top1",
    "skipped_steps",  # steps left out so far, since their gradient was not finite
    "images_per_second",  # training images a second since the row before, time for evaluations and saves left out
    "data_seconds",  # of that time, how long the loop waited for images
    "mfu",  # percent of the device's peak that the model's arithmetic makes use of, where the peak is known
    "seconds",  # since the start, all parts of a resumed run together
)
# The only ones that may differ between two runs of one seed.
TIME_COLUMNS = ("images_per_second", "data_seconds", "mfu", "seconds")


@dataclass
class Counts:
    """Sums over images. The tensors live where the model does: nothing waits for the device until one is read."""

    images: Tensor  # int64
    loss_sum: Tensor  # float64: cross-entropies, summed
    right: Tensor  # int64: images whose best class is the true one
    right5: Tensor  # int64: images whose true class is among the best five

    @classmethod
    def zero(cls, device: torch.device | str = "cpu") -> "Counts":
        """Start at nothing."""
        # MPS has no float64.
        kind = torch.float32 if torch.device(device).type == "mps" else torch.float64
        nothing = torch.zeros((), dtype=torch.int64, device=device)
        return cls(nothing, torch.zeros((), dtype=kind, device=device), nothing.clone(), nothing.clone())

    def add(self, logits: Tensor, labels: Tensor, loss_sum: Tensor) -> None:
        """Count a batch: logits (B, classes), labels (B,), the sum of its losses. A label of −1 is no image's."""
        best = logits.detach().topk(min(5, logits.shape[-1])).indices == labels[:, None]  # (B, 5)
        self.images += (labels >= 0).sum()
        self.loss_sum += loss_sum.detach()
        self.right += best[:, 0].sum()
        self.right5 += best.sum()

    def merge(self, other: "Counts") -> None:
        """Add other counts."""
        for name in ("images", "loss_sum", "right", "right5"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def loss(self) -> float:
        """Mean loss per image; nan of none."""
        return float(self.loss_sum) / int(self.images) if self.images else math.nan

    @property
    def top1(self) -> float:
        """Percent of images whose best class is right."""
        return 100 * int(self.right) / int(self.images) if self.images else math.nan

    @property
    def top5(self) -> float:
        """Percent of images whose true class is among the best five."""
        return 100 * int(self.right5) / int(self.images) if self.images else math.nan


@torch.no_grad()
def evaluate(
    model: nn.Module,
    loader: Iterable[tuple[Tensor, Tensor]],
    *,
    device: torch.device,
    precision: torch.dtype,
    watch: Callable[[Tensor, Tensor], None] | None = None,
) -> Counts:
    """Score all images of a loader (or of any batches) with plain cross-entropy. The model's mode is left as it was.

    `watch` sees the logits (B, classes) and the labels (B,) of each batch.
    """
    counts = Counts.zero(device)
    was_training = model.training
    model.eval()
    for images, labels in loader:
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            logits = model(images)
        counts.add(logits, labels, F.cross_entropy(logits.float(), labels, ignore_index=-1, reduction="sum"))
        if watch is not None:
            watch(logits, labels)
    model.train(was_training)
    return counts


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write metrics.csv anew, whole: a reader never meets half a row, and a resumed run never leaves one too many."""
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        table.writerows([f"{row[c]:.6g}" if isinstance(row[c], float) else row[c] for c in COLUMNS] for row in rows)


def read_rows(path: Path) -> list[dict[str, float]]:
    """Read a metrics.csv: a dictionary of numbers per row, nan where nothing was measured."""
    with open(path, newline="", encoding="utf-8") as file:
        return [{column: float(value or "nan") for column, value in row.items()} for row in csv.DictReader(file)]
