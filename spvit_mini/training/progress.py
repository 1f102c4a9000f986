"""Progress of a run: a description at the start, a line per evaluation, and on a terminal a progress bar.

Without a terminal (a file, a notebook, a cluster's log) there are only lines. One of several processes prints. Two warnings are
printed once: a first loss that is too high, and an input-bound run.
"""

import math
import os
import sys
import time
from typing import Any

import torch
from tqdm import tqdm

from ..data import Data
from ..recipes.recipe import Recipe
from ..spatial import PriorMLP
from ..vit import VisionModel
from ..zoo import MODELS
from .devices import device_name, peak_flops
from .metrics import ClassificationMetrics
from .optim import lr_at

REFRESH_SECONDS = 0.5  # reading a loss waits for the device, so the bar reads it seldom
INPUT_BOUND = 0.1  # share of the training time spent waiting for images, from which a run is input-bound
MIN_WAIT_SECONDS = 1.0  # shorter waits between two evaluations are ignored: workers need a moment to start
MAX_EXCESS_LOSS = 1.0  # nats above the loss of uniform probabilities: the logits of a sound initialisation differ little


def describe_run(
    model: VisionModel,
    recipe: Recipe,
    data: Data,
    *,
    steps: int,
    device: torch.device,
    precision: torch.dtype,
    run_dir: str,
    processes: int = 1,
) -> str:
    """Describe model, data, duration, device and run folder in a few lines."""
    assert data.train is not None
    height, width = model.config.image_size
    parameters = sum(parameter.numel() for parameter in model.parameters())
    name = device_name(device)
    lines = [
        f"model   {model.name}, {parameters:,} parameters, {model.grid[0]}×{model.grid[1]} "
        f"{'patches' if model.attentions() else 'cells'} of {model.config.patch} px{describe_prior(model)}",
        f"data    {data.name}, {len(data.train):,} training and {len(data.val):,} validation images of {height}×{width} px, "
        f"{len(data.classes)} classes",
        f"steps   {steps:,} of {recipe.batch_size} images{describe_batch(recipe, processes)}, "
        f"{len(data.train) // recipe.batch_size:,} per epoch; learning rate {describe_lr(recipe)}, seed {recipe.seed}",
        f"also    {', '.join(list_features(recipe, processes))}",
        f"device  {f'{device}, {name}' if device.type == 'cuda' else name}, {str(precision).removeprefix('torch.')}, "
        f"torch {torch.__version__}{describe_peak(device, precision)}",
        f"run     {run_dir}",
    ]
    return "\n".join(line for line in lines if line.strip() != "also")


def list_notes(model: VisionModel, recipe: Recipe, *, warmup: int, cooldown: int, total: int, **lrs: float) -> list[str]:
    """List what may surprise: options that do not apply to another attention, and a schedule without a cosine."""
    named, notes = MODELS[model.name], []
    options = getattr(named, "attention_options", {}) if recipe.model.attention_options is None else {}
    if options and model.config.attention != getattr(named, "attention", ""):
        dropped = ", ".join(f"{name} {value}" for name, value in options.items())
        notes.append(f"note    attention is {model.config.attention}; the options of {model.name}'s own, {dropped}, are dropped")
    if 0 < total <= warmup:
        last = lr_at(total - 1, warmup=warmup, cooldown=cooldown, total=total, **lrs)
        what = f"the run of {total:,} steps ends before the warm-up of {warmup:,}, at a learning rate of {last:.2g}"
        notes.append(f"WARNING: {what}, below its peak. Use a shorter --optim.warmup.")
    elif cooldown and 0 < total <= warmup + cooldown:
        what = f"warm-up ({warmup:,} steps) and cool-down ({cooldown:,}) fill the run of {total:,} steps"
        fix = "Use a shorter --optim.warmup or --optim.cooldown."
        notes.append(f"WARNING: {what}, so that the learning rate falls from its peak to final_lr in one step. {fix}")
    return notes


def describe_prior(model: VisionModel) -> str:
    """Describe the width and the initialisation of learned priors, which decide how fast they are learned; "" without any."""
    prior = next((module for module in model.modules() if isinstance(module, PriorMLP)), None)
    if prior is None:
        return ""
    return f", priors of width {prior.w1.shape[1]}, initialised with σ {prior.weight_std:g} (bias {prior.bias_std:g})"


def describe_batch(recipe: Recipe, processes: int) -> str:
    """Describe how a batch is split over processes and micro-batches; "" if it isn't."""
    micro = recipe.micro_batch_size or recipe.batch_size // processes
    count = recipe.batch_size // max(1, micro * processes)
    if processes == count == 1:
        return ""
    micro_batches = f"{count} micro-batches of " if count > 1 else ""
    return f" ({processes} process{'es' if processes > 1 else ''} × {micro_batches}{micro})"


def describe_lr(recipe: Recipe) -> str:
    """Describe the peak learning rate, and how it follows from the batch size if it does."""
    lr, base = recipe.optim.lr, recipe.optim.lr_base_batch_size
    return f"{lr:g}" if base is None else f"{lr:g} × {recipe.batch_size} / {base} = {lr * recipe.batch_size / base:g}"


def list_features(recipe: Recipe, processes: int) -> list[str]:
    """List the features of a run that are not in every run."""
    labels = recipe.token_labels
    features = {
        f"EMA weights (decay {recipe.ema})": recipe.ema is not None,
        f"token labels from {labels.folder} (weight {labels.dense_weight:g})": labels.folder is not None,
        "compiled": recipe.compile,
        "activation checkpointing": recipe.activation_checkpointing,
        "sharded weights (FSDP)": recipe.sharding == "fsdp" and processes > 1,
    }
    return [text for text, is_used in features.items() if is_used]


def describe_peak(device: torch.device, precision: torch.dtype) -> str:
    """State the peak of a GPU to which MFU refers, or that it is unknown; "" for other devices."""
    if device.type != "cuda":
        return ""
    peak = peak_flops(device_name(device), precision)
    return f"; MFU is of {peak / 1e12:g} TFLOP/s" if peak else "; no MFU, since the peak of this device is not known here"


class ProgressDisplay:
    """Show the progress of a run from step `start` to `last`; nothing at all with `enabled=False`."""

    def __init__(self, recipe: Recipe, *, enabled: bool, start: int, last: int, classes: int):
        self.recipe, self.enabled, self.last, self.classes = recipe, enabled, last, classes
        self.refreshed, self.accuracies = time.perf_counter(), ""
        self.images, self.seconds, self.waited = 0, 0.0, 0.0  # since the last row
        self.must_check_loss = start == 0 and recipe.token_labels.folder is None
        self.has_warned = self.has_diverged = False
        self.bar = tqdm(
            total=last,
            initial=start,
            unit="step",
            dynamic_ncols=True,
            leave=False,
            disable=not (enabled and sys.stderr.isatty()),
            bar_format="{percentage:3.0f}% {bar} {n_fmt}/{total_fmt} [{elapsed}<{remaining}]{postfix}",
        )

    def __enter__(self) -> "ProgressDisplay":
        return self

    def __exit__(self, *_) -> None:
        self.bar.close()

    @property
    def wait_share(self) -> float:
        """Share of the training time since the last row that was spent waiting for images."""
        return self.waited / self.seconds if self.seconds else 0.0

    def print(self, text: str) -> None:
        """Print a line, above the bar if there is one."""
        if self.enabled:
            tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()

    def update(self, metrics: ClassificationMetrics, *, seconds: float, waited: float) -> None:
        """Count a step of `seconds`, `waited` of them for images, and move the bar. `metrics` are those since the last row."""
        if not self.enabled:
            return
        self.images, self.seconds, self.waited = (
            self.images + self.recipe.batch_size, self.seconds + seconds, self.waited + waited,
        )  # fmt: skip
        if self.must_check_loss:
            self.must_check_loss = False
            self.check_first_loss(metrics.loss)
        self.bar.update()
        if not self.bar.disable and (now := time.perf_counter()) - self.refreshed > REFRESH_SECONDS:
            self.refreshed = now
            self.bar.set_postfix_str(
                f"loss {metrics.loss:.3f}, acc {metrics.top1:.1f} %{self.accuracies}, "
                f"{self.images / self.seconds:,.0f} images/s, {self.wait_share:.0%} waiting",
                refresh=False,
            )

    def check_first_loss(self, loss: float) -> None:
        """Print a warning if the first loss is far above the loss of uniform probabilities."""
        uniform = math.log(self.classes)
        if not loss < uniform + MAX_EXCESS_LOSS:
            self.print(
                f"WARNING: the first loss is {loss:.2f}, but uniform probabilities over {self.classes} classes give "
                f"ln {self.classes} = {uniform:.2f}. Check the labels, the normalisation of the images and the initialisation."
            )

    def show_row(self, row: dict[str, Any]) -> None:
        """Print a row of the metrics, and a warning at the first row of an input-bound run."""
        self.accuracies = f", val {row['val_top1']:.1f} %"
        ema = mfu = skipped = waiting = diverged = ""
        if row["ema_top1"] is not None:
            self.accuracies += f", EMA {row['ema_top1']:.1f} %"
            ema = f"EMA loss {row['ema_loss']:.4f} top-1 {row['ema_top1']:.2f} %  "
        if row["mfu"] is not None:
            mfu = f"MFU {row['mfu']:.1f} %  "
        if row["skipped_steps"]:
            skipped = f"{row['skipped_steps']} skipped  "
        if not math.isfinite(row["val_loss"]):
            diverged = "DIVERGED  "
        if is_input_bound := self.wait_share > INPUT_BOUND and self.waited > MIN_WAIT_SECONDS:
            waiting = f"{self.wait_share:.0%} waiting  "
        minutes, seconds = divmod(round(row["seconds"]), 60)
        self.print(
            f"step {row['step']:>{len(str(self.last))}}/{self.last}  epoch {row['epoch']:.2f}  lr {row['lr']:.2e}  "
            f"train loss {row['train_loss']:.4f} top-1 {row['train_top1']:.2f} %  "
            f"val loss {row['val_loss']:.4f} top-1 {row['val_top1']:.2f} %  {ema}"
            f"{row['images_per_second']:,.0f} images/s  {mfu}{waiting}{skipped}{diverged}{minutes}:{seconds:02d}"
        )
        if diverged and not self.has_diverged:
            self.has_diverged = True
            self.print(
                "WARNING: the run has diverged: the validation loss is not finite, and such weights are never the best. "
                "Use a lower optim.lr, a longer optim.warmup or a smaller optim.clip_grad_norm, in a new run folder."
            )
        if is_input_bound and not self.has_warned:
            self.has_warned = True
            self.print(
                f"input-bound: {self.wait_share:.0%} of the training time since the last row was spent waiting for images. "
                f"Use more --data.workers ({self.recipe.data.workers} now, {count_cores()} cores here), or images that are "
                "downsized to a little over the training size, on a local disk."
            )
        self.images, self.seconds, self.waited = 0, 0.0, 0.0


def count_cores() -> int:
    """Count the processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
