"""What a run shows of itself: what it is, a line per evaluation, and on a terminal a bar in between.

Not on a terminal (a file, a notebook, a cluster's log) there is no bar, only the lines.
"""

import sys
import time
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from ..data import Data
from ..spatial import PriorMLP
from .metrics import Counts
from .recipe import Recipe

SECONDS_BETWEEN_LOOKS = 0.5  # reading a loss waits for the device, so the bar does it seldom


def introduce(
    model: nn.Module, recipe: Recipe, data: Data, *, steps: int, device: torch.device, precision: torch.dtype, run: str
) -> str:
    """Say in a few lines what will be trained, on what, for how long, and where."""
    height, width = model.config.image_size
    parameters = sum(parameter.numel() for parameter in model.parameters())
    train, val, epoch = len(data.train), len(data.val), len(data.train) // recipe.batch
    place = f"{device}, {torch.get_num_threads()} threads" if device.type == "cpu" else str(device)
    if device.type == "cuda":
        place = f"{device}, {torch.cuda.get_device_name(device)}"
    lines = (
        f"model   {model.name}, {parameters:,} parameters, {model.grid[0]}×{model.grid[1]} patches of "
        f"{model.config.patch} px{about_prior(model)}",
        f"data    {data.name}, {train:,} training and {val:,} validation images of {height}×{width} px, "
        f"{len(data.classes)} classes",
        f"steps   {steps:,} of {recipe.batch} images, {epoch:,} an epoch; learning rate {recipe.optim.lr:g}, "
        f"seed {recipe.seed}",
        f"device  {place}, {str(precision).removeprefix('torch.')}, torch {torch.__version__}",
        f"run     {run}",
    )
    return "\n".join(lines)


def about_prior(model: nn.Module) -> str:
    """Say how wide the learned priors are and how they start, which decides how fast they are found; "" without any."""
    prior = next((module for module in model.modules() if isinstance(module, PriorMLP)), None)
    if prior is None:
        return ""
    return f", priors {prior.w1.shape[1]} wide, started at {prior.weight_std:g} (bias {prior.bias_std:g})"


class Display:
    """Shows the progress of a run; with `progress=False` nothing at all."""

    def __init__(self, *, progress: bool, start: int, last: int):
        self.progress, self.last = progress, last
        self.looked, self.val_top1 = time.perf_counter(), None
        self.bar = tqdm(
            total=last,
            initial=start,
            unit="step",
            dynamic_ncols=True,
            leave=False,
            disable=not (progress and sys.stderr.isatty()),
            bar_format="{percentage:3.0f}% {bar} {n_fmt}/{total_fmt} [{elapsed}<{remaining}]{postfix}",
        )

    def __enter__(self) -> "Display":
        return self

    def __exit__(self, *_) -> None:
        self.bar.close()

    def say(self, text: str) -> None:
        """Print a line, above the bar if there is one."""
        if self.progress:
            tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()

    def stepped(self, counts: Counts, seconds: float) -> None:
        """Move the bar by one step. `counts` and the `seconds` spent on them are those since the last row."""
        if self.bar.disable:
            return
        self.bar.update()
        if (now := time.perf_counter()) - self.looked > SECONDS_BETWEEN_LOOKS:
            self.looked = now
            val = "" if self.val_top1 is None else f", val {self.val_top1:.1f} %"
            self.bar.set_postfix_str(
                f"loss {counts.loss:.3f}, acc {counts.top1:.1f} %{val}, {counts.images / seconds:,.0f} images/s",
                refresh=False,
            )

    def evaluated(self, row: dict[str, Any]) -> None:
        """Print a row of the metrics."""
        self.val_top1 = row["val_top1"]
        minutes, seconds = divmod(round(row["seconds"]), 60)
        self.say(
            f"step {row['step']:>{len(str(self.last))}}/{self.last}  epoch {row['epoch']:.2f}  lr {row['lr']:.2e}  "
            f"train loss {row['train_loss']:.4f} top-1 {row['train_top1']:.2f} %  "
            f"val loss {row['val_loss']:.4f} top-1 {row['val_top1']:.2f} %  "
            f"{row['images_per_second']:,.0f} images/s  {minutes}:{seconds:02d}"
        )
