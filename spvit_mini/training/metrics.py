"""Loss and accuracy as sums over images, evaluation on a validation set, and metrics.csv.

Sums are stored, not means: sums over parts of a dataset add up exactly, whatever the sizes of the parts.
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

from ..files import write_csv

COLUMNS = (
    "step",  # steps done
    "epoch",  # passes over the training images, with a fraction
    "images",  # training images seen
    "lr",  # learning rate of the last step
    "train_loss",  # mean training loss since the row before, with augmentation and label smoothing
    "train_top1",  # top-1 accuracy on the same images, in percent
    "val_loss",  # mean cross-entropy on the whole validation set
    "val_top1",  # its top-1 accuracy, in percent
    "val_top5",  # its top-5 accuracy, in percent
    "ema_loss",  # loss and top-1 accuracy of the EMA weights, if any
    "ema_top1",
    "skipped_steps",  # steps skipped so far because their gradient was not finite
    "images_per_second",  # training images per second since the row before, without evaluations and saves
    "data_seconds",  # of that time, how long the loop waited for images
    "mfu",  # model FLOPs utilisation in percent, if the peak of the device is known
    "seconds",  # since the start, over all sessions of a resumed run
)
# Only these may differ between two runs with the same seed.
TIME_COLUMNS = ("images_per_second", "data_seconds", "mfu", "seconds")


@dataclass
class ClassificationMetrics:
    """Sums over images. The tensors are on the model's device: nothing waits for the device until a value is read."""

    images: Tensor  # int64
    loss_sum: Tensor  # float64: sum of the cross-entropies
    correct: Tensor  # int64: images whose best class is the true class
    correct5: Tensor  # int64: images whose true class is among the best five

    @classmethod
    def zero(cls, device: torch.device | str = "cpu") -> "ClassificationMetrics":
        """Create sums of 0."""
        dtype = torch.float32 if torch.device(device).type == "mps" else torch.float64  # MPS has no float64
        count = torch.zeros((), dtype=torch.int64, device=device)
        return cls(count, torch.zeros((), dtype=dtype, device=device), count.clone(), count.clone())

    def update(self, logits: Tensor, labels: Tensor, loss_sum: Tensor) -> None:
        """Add a batch: logits (B, classes), labels (B,), the sum of its losses. The label −1 marks padding.

        An image with a NaN or infinite logit is never correct: where `topk` puts NaN depends on the version of torch.
        """
        is_correct = logits.detach().topk(min(5, logits.shape[-1])).indices == labels[:, None]  # (B, 5)
        is_correct &= logits.isfinite().all(-1, keepdim=True)
        self.images += (labels >= 0).sum()
        self.loss_sum += loss_sum.detach()
        self.correct += is_correct[:, 0].sum()
        self.correct5 += is_correct.sum()

    def merge(self, other: "ClassificationMetrics") -> None:
        """Add other sums."""
        for name in ("images", "loss_sum", "correct", "correct5"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def loss(self) -> float:
        """Mean loss per image; nan without images."""
        return float(self.loss_sum) / int(self.images) if self.images else math.nan

    @property
    def top1(self) -> float:
        """Top-1 accuracy in percent; nan without images."""
        return 100 * int(self.correct) / int(self.images) if self.images else math.nan

    @property
    def top5(self) -> float:
        """Top-5 accuracy in percent; nan without images."""
        return 100 * int(self.correct5) / int(self.images) if self.images else math.nan


@torch.no_grad()
def evaluate(
    model: nn.Module,
    loader: Iterable[tuple[Tensor, Tensor]],
    *,
    device: torch.device,
    precision: torch.dtype,
    on_batch: Callable[[Tensor, Tensor], None] | None = None,
) -> ClassificationMetrics:
    """Evaluate a model on the batches of a loader, with plain cross-entropy. The model's mode is restored.

    `on_batch` is called with the logits (B, classes) and the labels (B,) of each batch.
    """
    metrics = ClassificationMetrics.zero(device)
    was_training = model.training
    model.eval()
    for images, labels in loader:
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            logits = model(images)
        metrics.update(logits, labels, F.cross_entropy(logits.float(), labels, ignore_index=-1, reduction="sum"))
        if on_batch is not None:
            on_batch(logits, labels)
    model.train(was_training)
    return metrics


def finite_top1(row: dict[str, Any], which: str) -> float:
    """Get the validation accuracy of the last ("val") or of the EMA weights in percent; −inf without any, or if they diverged."""
    loss, top1 = row[f"{which}_loss"], row[f"{which}_top1"]
    return top1 if loss is not None and math.isfinite(loss) else -math.inf


def best_weights(row: dict[str, Any]) -> str:
    """Select the weights with the higher validation accuracy in a row: "last" or "ema". A tie is "last"."""
    return "ema" if finite_top1(row, "ema") > finite_top1(row, "val") else "last"


def best_top1(row: dict[str, Any]) -> float:
    """Get the higher validation accuracy of a row in percent; −inf if its losses are not finite: such weights are never best."""
    return max(finite_top1(row, "val"), finite_top1(row, "ema"))


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write metrics.csv as a whole: it never has half a row, or a row that a resumed run will write again."""
    cells = ([f"{row[c]:.6g}" if isinstance(row[c], float) else row[c] for c in COLUMNS] for row in rows)
    write_csv(path, [COLUMNS, *cells])


def read_rows(path: Path) -> list[dict[str, float]]:
    """Read a metrics.csv: a dictionary of numbers per row, nan where nothing was measured."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        return [{column: float(value or "nan") for column, value in row.items()} for row in csv.DictReader(file)]
