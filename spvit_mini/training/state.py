"""Where a run stands, and how that goes into a file and comes back.

All that the steps to come depend on is here: weights, their average, the optimiser's memory, the step, and what was
counted since the last row of metrics. Random numbers are not: those of a step are a function of (seed, step, rank), those
of an image's augmentation of (seed, epoch, index, copy), and the order of the images of (seed, epoch).
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from ..data import Data
from ..errors import UserError
from ..recipes.recipe import Recipe
from .checkpoint import check_same
from .distributed import Team, put_back, states
from .metrics import Counts


@dataclass
class Position:
    """Where a run stands, beside its weights and its optimiser."""

    step: int = 0
    lr: float = 0.0  # of the last step
    seconds: float = 0.0  # spent so far, all parts of a resumed run together
    rows: list[dict[str, Any]] = field(default_factory=list)
    skipped: int = 0  # steps that were left out, since their gradient was not finite
    skipped_in_a_row: int = 0
    counts: Counts = field(default_factory=Counts.zero)  # of the training images since the last row
    training_seconds: float = 0.0  # spent on these
    data_seconds: float = 0.0  # of which waiting for images

    def end_row(
        self, *, counts: Counts, scores: Counts, averaged: Counts | None, epoch: float, images: int
    ) -> dict[str, Any]:
        """Close the row of metrics that ends at this step, and begin to count for the next.

        `counts` are those of all processes; `scores` and `averaged` the validation's, of the weights and of their average.
        """
        row = {
            "step": self.step,
            "epoch": epoch,
            "images": images,
            "lr": self.lr,
            "train_loss": counts.loss,
            "train_top1": counts.top1,
            "val_loss": scores.loss,
            "val_top1": scores.top1,
            "val_top5": scores.top5,
            "ema_loss": averaged and averaged.loss,
            "ema_top1": averaged and averaged.top1,
            "skipped_steps": self.skipped,
            "images_per_second": int(counts.images) / self.training_seconds,
            "data_seconds": self.data_seconds,
            "mfu": None,
            "seconds": self.seconds,
        }
        self.rows.append(row)
        self.counts = Counts.zero(self.counts.images.device)
        self.training_seconds = self.data_seconds = 0.0
        return row


def state_of(
    at: Position,
    recipe: Recipe,
    data: Data,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    averaged: AveragedModel | None,
    team: Team,
) -> dict[str, Any]:
    """Collect everything that the steps to come depend on. All processes of a team take part."""
    counts = team.total(at.counts)
    # From here on as in `restore`, so that a run that goes on adds up its sums in the order of one that is resumed.
    at.counts = counts if team.main else Counts.zero(counts.images.device)
    position = {f.name: getattr(at, f.name) for f in dataclasses.fields(at)}
    return {
        "recipe": recipe.to_json(),
        "classes": list(data.classes),
        "train_images": len(data.train),
        "position": position | {"counts": {f.name: getattr(counts, f.name) for f in dataclasses.fields(counts)}},
        **states(model, optimiser),
        "ema": averaged and averaged.state_dict(),
    }


def restore(
    state: dict[str, Any],
    source: Path,
    recipe: Recipe,
    data: Data,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    averaged: AveragedModel | None,
    *,
    team: Team,
    device: torch.device,
) -> Position:
    """Put a saved state back in place. Raises UserError, before any file is touched, if it is not this run's."""
    check_same(Recipe.from_json(state["recipe"], source=str(source)), recipe, source=source)
    for what, saved, here in (
        (f"{len(state['classes'])} classes", state["classes"], list(data.classes)),
        (f"{state['train_images']} training images", state["train_images"], len(data.train)),
    ):
        if saved != here:
            raise UserError(
                f"{source} was saved with {what}, but the data here have {len(data.classes)} classes and {len(data.train)} "
                "training images, or other ones; resume with the data it began with, or train in another folder"
            )
    try:
        put_back(state, model, optimiser)
        if averaged is not None:
            averaged.load_state_dict(state["ema"])
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{source} holds the weights of another model ({reason:.200}); train in another folder"
        ) from None
    # What was counted before is in the sums of the main process alone, or it would be counted once for each.
    counts = Counts(**state["position"]["counts"]) if team.main else Counts.zero()
    counts = Counts(*(getattr(counts, f.name).to(device) for f in dataclasses.fields(counts)))
    return Position(**state["position"] | {"counts": counts})
