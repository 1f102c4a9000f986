"""What a run shows of itself: what it is, a line per evaluation, and on a terminal a bar in between.

Not on a terminal (a file, a notebook, a cluster's log) there is no bar, only the lines. Of several processes one speaks.
Two things are said aloud, once: a first loss that no sound start has, and that the run waits for its images.
"""

import math
import os
import sys
import time
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from ..data import Data
from ..recipes.recipe import Recipe
from ..spatial import PriorMLP
from .devices import name_of, peak_flops
from .metrics import Counts

SECONDS_BETWEEN_LOOKS = 0.5  # reading a loss waits for the device, so the bar does it seldom
INPUT_BOUND = 0.1  # part of the training time that may go to waiting for images, without a word
LEAST_WAIT = 1.0  # seconds of waiting between two evaluations that are worth a word: workers need a moment to start
ODD_FIRST_LOSS = 1.0  # nats above a guesser's: the scores of a sound start differ little between the classes


def introduce(
    model: nn.Module,
    recipe: Recipe,
    data: Data,
    *,
    steps: int,
    device: torch.device,
    precision: torch.dtype,
    run: str,
    processes: int = 1,
) -> str:
    """Say in a few lines what will be trained, on what, for how long, and where."""
    height, width = model.config.image_size
    parameters = sum(parameter.numel() for parameter in model.parameters())
    train, val, epoch = len(data.train), len(data.val), len(data.train) // recipe.batch_size
    name = name_of(device)
    place = f"{device}, {name}" if device.type == "cuda" else name
    lines = [
        f"model   {model.name}, {parameters:,} parameters, {model.grid[0]}×{model.grid[1]} "
        f"{'patches' if model.attentions() else 'places'} of {model.config.patch} px{about_prior(model)}",
        f"data    {data.name}, {train:,} training and {val:,} validation images of {height}×{width} px, "
        f"{len(data.classes)} classes",
        f"steps   {steps:,} of {recipe.batch_size} images{about_batch(recipe, processes)}, {epoch:,} an epoch; "
        f"learning rate {about_lr(recipe)}, seed {recipe.seed}",
        f"also    {', '.join(extras(recipe, processes))}",
        f"device  {place}, {str(precision).removeprefix('torch.')}, torch {torch.__version__}"
        f"{about_peak(device, precision)}",
        f"run     {run}",
    ]
    return "\n".join(line for line in lines if line.strip() != "also")


def about_prior(model: nn.Module) -> str:
    """Say how wide the learned priors are and how they start, which decides how fast they are found; "" without any."""
    prior = next((module for module in model.modules() if isinstance(module, PriorMLP)), None)
    if prior is None:
        return ""
    return f", priors {prior.w1.shape[1]} wide, started at {prior.weight_std:g} (bias {prior.bias_std:g})"


def about_batch(recipe: Recipe, processes: int) -> str:
    """Say how a batch comes about, if it isn't one process's at once."""
    micro = recipe.micro_batch_size or recipe.batch_size // processes
    parts = recipe.batch_size // max(1, micro * processes)
    if processes == parts == 1:
        return ""
    several = f"{parts} micro-batches of " if parts > 1 else ""
    return f" ({processes} process{'es' if processes > 1 else ''} × {several}{micro})"


def about_lr(recipe: Recipe) -> str:
    """Say the learning rate at its peak, and how it follows from the batch where it does."""
    optim = recipe.optim
    if optim.lr_base_batch_size is None:
        return f"{optim.lr:g}"
    return f"{optim.lr:g} × {recipe.batch_size} / {optim.lr_base_batch_size} = {optim.lr * recipe.batch_size / optim.lr_base_batch_size:g}"


def extras(recipe: Recipe, processes: int) -> list[str]:
    """List what a run does beside the plain thing."""
    labels = recipe.token_labels
    return [
        text
        for wanted, text in (
            (recipe.ema is not None, f"an average of the weights (decay {recipe.ema})"),
            (labels.folder is not None, f"token labels from {labels.folder} (weight {labels.dense_weight:g})"),
            (recipe.compile, "compiled"),
            (recipe.activation_checkpointing, "activations computed twice"),
            (recipe.sharding == "fsdp" and processes > 1, "weights in parts (FSDP)"),
        )
        if wanted
    ]


def about_peak(device: torch.device, precision: torch.dtype) -> str:
    """Say what MFU is measured against on an accelerator, or that it can't be."""
    if device.type != "cuda":
        return ""
    peak = peak_flops(name_of(device), precision)
    return f"; MFU is of {peak / 1e12:g} TFLOP/s" if peak else "; no MFU, since the peak of this device is not known here"


class Display:
    """Shows the progress of a run from step `start` to `last`; with `progress=False` nothing at all."""

    def __init__(self, recipe: Recipe, *, progress: bool, start: int, last: int, classes: int):
        self.recipe, self.progress, self.last, self.classes = recipe, progress, last, classes
        self.looked, self.scores = time.perf_counter(), ""
        self.images, self.seconds, self.waited = 0, 0.0, 0.0  # since the last row
        self.first_loss_unseen = start == 0 and recipe.token_labels.folder is None
        self.told_input_bound = False
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

    @property
    def waiting(self) -> float:
        """The part of the training time since the last row that went to waiting for images."""
        return self.waited / self.seconds if self.seconds else 0.0

    def say(self, text: str) -> None:
        """Print a line, above the bar if there is one."""
        if self.progress:
            tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()

    def stepped(self, counts: Counts, *, seconds: float, waited: float) -> None:
        """Take note of a step that took `seconds`, `waited` of them for images, and move the bar.

        `counts` are those since the last row.
        """
        if not self.progress:
            return
        self.images, self.seconds, self.waited = (
            self.images + self.recipe.batch_size,
            self.seconds + seconds,
            self.waited + waited,
        )
        if self.first_loss_unseen:
            self.first_loss_unseen = False
            self.look_at_first_loss(counts.loss)
        self.bar.update()
        if not self.bar.disable and (now := time.perf_counter()) - self.looked > SECONDS_BETWEEN_LOOKS:
            self.looked = now
            self.bar.set_postfix_str(
                f"loss {counts.loss:.3f}, acc {counts.top1:.1f} %{self.scores}, "
                f"{self.images / self.seconds:,.0f} images/s, {self.waiting:.0%} waiting",
                refresh=False,
            )

    def look_at_first_loss(self, loss: float) -> None:
        """Say it if the first loss is far above that of a model that gives every class the same probability."""
        guessed = math.log(self.classes)
        if not loss < guessed + ODD_FIRST_LOSS:
            self.say(
                f"WARNING: the first loss is {loss:.2f}, but guessing among {self.classes} classes has ln {self.classes} = "
                f"{guessed:.2f}: look at the labels, at how the images are normalised and at the start of the weights"
            )

    def evaluated(self, row: dict[str, Any]) -> None:
        """Print a row of the metrics, and once that the run waits for its images, if it does."""
        self.scores = f", val {row['val_top1']:.1f} %"
        averaged = mfu = skipped = waiting = ""
        if row["ema_top1"] is not None:
            self.scores += f", averaged {row['ema_top1']:.1f} %"
            averaged = f"averaged loss {row['ema_loss']:.4f} top-1 {row['ema_top1']:.2f} %  "
        if row["mfu"] is not None:
            mfu = f"MFU {row['mfu']:.1f} %  "
        if row["skipped_steps"]:
            skipped = f"{row['skipped_steps']} skipped  "
        if input_bound := self.waiting > INPUT_BOUND and self.waited > LEAST_WAIT:
            waiting = f"{self.waiting:.0%} waiting  "
        minutes, seconds = divmod(round(row["seconds"]), 60)
        self.say(
            f"step {row['step']:>{len(str(self.last))}}/{self.last}  epoch {row['epoch']:.2f}  lr {row['lr']:.2e}  "
            f"train loss {row['train_loss']:.4f} top-1 {row['train_top1']:.2f} %  "
            f"val loss {row['val_loss']:.4f} top-1 {row['val_top1']:.2f} %  {averaged}"
            f"{row['images_per_second']:,.0f} images/s  {mfu}{waiting}{skipped}{minutes}:{seconds:02d}"
        )
        if input_bound and not self.told_input_bound:
            self.told_input_bound = True
            self.say(
                f"input-bound: {self.waiting:.0%} of the training time since the last row went to waiting for images. More "
                f"--data.workers help ({self.recipe.data.workers} now, {cores()} cores here), and so do images that were "
                "resized beforehand to a little over the size trained at, on a local disk"
            )
        self.images, self.seconds, self.waited = 0, 0.0, 0.0


def cores() -> int:
    """Count the processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
