"""The training loop, top to bottom: images in, a trained model out, and what a run needs in order to survive a kill.

The same seed gives the same numbers on the same machine (held by tests on the CPU). A run that was killed and resumed
ends with the same weights, to the last bit, and the same metrics.csv (its two columns of time aside) as one that was
not: the order of the images and their augmentation are functions of the seed and the step, and everything else that a
step depends on is in the state.
"""

import dataclasses
import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from ..data import Data, TrainBatches, load_data
from ..errors import UserError
from ..vit import ViT
from ..zoo import create_model, save_weights
from . import checkpoint
from .display import Display, introduce
from .lengths import steps_in
from .metrics import Counts, evaluate, write_rows
from .optim import lr_at, make_optimiser
from .recipe import Recipe


@dataclass
class Result:
    """What a run ends with: the model as it is after the last step, a row per evaluation, and how far it got."""

    model: ViT
    rows: list[dict[str, Any]]  # dictionaries with the keys of metrics.COLUMNS
    step: int
    steps: int  # steps of the whole recipe
    stopped_by: int | None = None  # the signal that ended it early, if one did

    @property
    def best(self) -> dict[str, Any] | None:
        """The first row with the highest validation accuracy."""
        return max(self.rows, key=lambda row: row["val_top1"], default=None)


@dataclass
class Position:
    """Where a run stands, beside its weights and its optimiser."""

    step: int = 0
    lr: float = 0.0  # of the last step
    seconds: float = 0.0  # spent so far, all parts of a resumed run together
    rows: list[dict[str, Any]] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts.zero)  # of the training images since the last row
    training_seconds: float = 0.0  # spent on these

    def end_row(self, scores: Counts, recipe: Recipe, steps_per_epoch: int, *, seconds: float) -> dict[str, Any]:
        """Close the row of metrics that ends at this step, and begin to count for the next."""
        row = {
            "step": self.step,
            "epoch": self.step / steps_per_epoch,
            "images": self.step * recipe.batch,
            "lr": self.lr,
            "train_loss": self.counts.loss,
            "train_top1": self.counts.top1,
            "val_loss": scores.loss,
            "val_top1": scores.top1,
            "images_per_second": self.counts.images / self.training_seconds,
            "seconds": seconds,
        }
        self.rows.append(row)
        self.counts, self.training_seconds = Counts.zero(self.counts.right.device), 0.0
        return row


def train(
    recipe: Recipe,
    *,
    run: Path | None = None,
    resume: bool = False,
    max_steps: int | None = None,
    progress: bool = True,
    on_evaluation: Callable[[int, ViT, dict[str, Any]], None] | None = None,
) -> Result:
    """Train a model by a recipe.

    Args:
        recipe: what to train, on what, how and for how long.
        run: a folder for metrics, states and weights; None writes nothing at all.
        resume: go on with the run in that folder, or begin it if it holds no state yet.
        max_steps: stop after this step, with an evaluation and a save. The learning rate keeps to the recipe's length,
            so the steps are those of the whole run, which --resume can finish.
        progress: print what is trained and a line per evaluation; on a terminal a bar as well.
        on_evaluation: called as on_evaluation(step, model, row) after each evaluation, with the model in eval mode. It
            may draw random numbers; the run's own are kept apart.

    With a run folder, SIGINT and SIGTERM save and end the run after the step at hand, or in the middle of an
    evaluation, which the resumed run makes anew; a second signal ends it at once.
    Raises UserError for what a user can do wrong (see checkpoint.py for run folders), and if the loss is not finite.
    """
    if max_steps is not None and max_steps < 1:
        raise UserError(f"max_steps is {max_steps}; it must be at least 1")
    if run is not None:
        run = Path(run)
        checkpoint.check_run(run, recipe, resume=resume)
    device, precision = choose_device(recipe)
    data = load_data(recipe.data, recipe.augment, seed=recipe.seed)

    # Lengths, in steps.
    batch = recipe.batch
    steps_per_epoch = TrainBatches(len(data.train), batch, recipe.seed).steps_per_epoch
    total, warmup, evaluate_every, save_every = (
        steps_in(length, steps_per_epoch=steps_per_epoch, batch=batch)
        for length in (recipe.length, recipe.optim.warmup, recipe.evaluate_every, recipe.save_every)
    )
    last = total if max_steps is None else min(total, max_steps)

    # The model, and how far it has come. From here on, every random number is a function of the seed.
    torch.manual_seed(recipe.seed)
    model = create_model(
        recipe.model.name,
        num_classes=len(data.classes),
        image_size=data.preprocessing.image_size,
        **recipe.model.overrides(),
    ).to(device)
    model.preprocessing = data.preprocessing
    optimiser = make_optimiser(model, recipe.optim)
    at = Position(counts=Counts.zero(device))
    resumed_from = None
    if run is not None and resume and (found := checkpoint.load_state(run)):
        state, resumed_from = found
        at = restore(state, resumed_from, recipe, data, model, optimiser)
    first = at.step
    if run is not None:
        checkpoint.begin_run(run, recipe)
        write_rows(run / "metrics.csv", at.rows)  # cuts the rows after a resumed state; they will be made again

    loading = {
        "num_workers": recipe.data.workers,
        "persistent_workers": recipe.data.workers > 0,
        "worker_init_fn": leave_signals_to_the_parent,
        "pin_memory": device.type == "cuda",
        # A loader draws a random number when it starts. Given a generator, it leaves the run's own alone.
        "generator": torch.Generator(),
    }
    order = TrainBatches(len(data.train), batch, recipe.seed, start_step=first)
    train_loader = DataLoader(data.train, batch_sampler=order, **loading)
    val_loader = DataLoader(data.val, batch_size=batch, **loading)
    batches = iter(train_loader)

    def due(every: int) -> bool:
        return at.step > 0 and (at.step % max(1, every) == 0 or at.step >= last)

    with Display(progress=progress, start=first, last=last) as display, Stop(run is not None) as stop:
        where = f"{run}" if run else "not kept (no run folder)"
        display.say(introduce(model, recipe, data, steps=total, device=device, precision=precision, run=where))
        if resumed_from is not None:
            display.say(f"resumed from {resumed_from} at step {first}")
        elif resume:
            display.say(f"no state to resume from in {run} yet: starting at step 0")
        began = time.perf_counter() - at.seconds
        model.train()
        saved = (at.step, len(at.rows))
        while True:
            # Between two steps: score, save, stop, each if it is time. A step that was loaded is scored already, unless
            # a signal came while it was.
            if due(evaluate_every) and not (at.rows and at.rows[-1]["step"] == at.step):
                check_finite(at)
                unless_stopped = takewhile(lambda _: not stop.signal, val_loader)
                scores = evaluate(model, unless_stopped, device=device, precision=precision)
                if scores.images == len(data.val):
                    row = at.end_row(scores, recipe, steps_per_epoch, seconds=time.perf_counter() - began)
                    display.evaluated(row)
                    if run is not None:
                        record(run, model, recipe, data, at.rows)
                    if on_evaluation is not None:
                        with torch.random.fork_rng([device] if device.type == "cuda" else []):
                            model.eval()
                            on_evaluation(at.step, model, row)
                            model.train()
            if run is not None and (due(save_every) or stop.signal) and (at.step, len(at.rows)) != saved:
                check_finite(at)
                at.seconds = time.perf_counter() - began
                checkpoint.save_state(run, state_of(at, recipe, data, model, optimiser))
                saved = (at.step, len(at.rows))
            if at.step >= last or stop.signal:
                break

            # One step.
            started = time.perf_counter()
            at.lr = lr_at(at.step, peak=recipe.optim.lr, final=recipe.optim.final_lr, warmup=warmup, total=total)
            for group in optimiser.param_groups:
                group["lr"] = at.lr
            images, labels = next(batches)
            images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            with torch.autocast(device.type, precision, enabled=precision != torch.float32):
                logits = model(images)
            loss = F.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            if recipe.optim.clip is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.optim.clip)
            optimiser.step()

            at.step += 1
            at.counts.add(logits, labels, loss * len(labels))
            at.training_seconds += time.perf_counter() - started
            display.stepped(at.counts, at.training_seconds)

        if data.skipped:
            display.say(f"{len(data.skipped)} bad image files were left out, {data.skipped[0]} first")

    return Result(model, at.rows, at.step, total, stop.signal)


def choose_device(recipe: Recipe) -> tuple[torch.device, torch.dtype]:
    """Find the device that a recipe names, and the precision of the model's passes on it."""
    name = recipe.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):  # a torch without CUDA asserts
        raise UserError(f"device {name!r} is not on this machine; choose auto or cpu") from None
    if recipe.precision == "auto":
        return device, torch.bfloat16 if device.type == "cuda" else torch.float32
    return device, getattr(torch, recipe.precision)


def check_finite(at: Position) -> None:
    """Raise UserError if the loss since the last row is not a finite number, before anything is written over."""
    if not math.isfinite(at.counts.loss):
        raise UserError(
            f"the loss is not finite any more, somewhere before step {at.step}; nothing was saved since. "
            "Try a lower optim.lr, a longer optim.warmup or a smaller optim.clip"
        )


def record(run: Path, model: ViT, recipe: Recipe, data: Data, rows: list[dict[str, Any]]) -> None:
    """Write metrics.csv, and best.safetensors if the last row is the best so far. A tie keeps the earlier weights."""
    row = rows[-1]
    if row["val_top1"] > max((earlier["val_top1"] for earlier in rows[:-1]), default=-math.inf):
        with checkpoint.replacing(run / "best.safetensors") as temporary:
            save_weights(
                model,
                temporary,
                weights="raw",
                step=str(row["step"]),
                val_top1=f"{row['val_top1']:.6g}",
                classes=json.dumps(list(data.classes)),
                recipe=recipe.to_json(),
            )
    write_rows(run / "metrics.csv", rows)


def state_of(at: Position, recipe: Recipe, data: Data, model: ViT, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """Collect everything that the steps to come depend on."""
    return {
        "recipe": recipe.to_json(),
        "classes": list(data.classes),
        "train_images": len(data.train),
        "step": at.step,
        "lr": at.lr,
        "seconds": at.seconds,
        "rows": at.rows,
        "counts": {f.name: getattr(at.counts, f.name) for f in dataclasses.fields(at.counts)},
        "training_seconds": at.training_seconds,
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "random": checkpoint.random_state(next(model.parameters()).device),
    }


def restore(
    state: dict[str, Any], source: Path, recipe: Recipe, data: Data, model: ViT, optimiser: torch.optim.Optimizer
) -> Position:
    """Put a saved state back in place. Raises UserError, before any file is touched, if it is not this run's."""
    checkpoint.check_same(Recipe.from_json(state["recipe"], source=str(source)), recipe, source=source)
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
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{source} holds the weights of another model ({reason:.200}); train in another folder"
        ) from None
    checkpoint.set_random_state(state["random"])
    device = next(model.parameters()).device
    counts = {name: value.to(device) if torch.is_tensor(value) else value for name, value in state["counts"].items()}
    return Position(
        state["step"], state["lr"], state["seconds"], state["rows"], Counts(**counts), state["training_seconds"]
    )


def leave_signals_to_the_parent(_worker: int) -> None:
    """Make a loader's worker process deaf to what a terminal or a cluster sends to the whole group of processes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


class Stop:
    """Turns the first SIGINT or SIGTERM into a wish, `signal`, that the loop reads between two steps.

    The second signal does what it always did. Off the main thread, and if not `wanted`, signals are left alone.
    """

    def __init__(self, wanted: bool):
        self.wanted = wanted and threading.current_thread() is threading.main_thread()
        self.signal: int | None = None

    def __enter__(self) -> "Stop":
        self.before = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)} if self.wanted else {}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: Any) -> None:
        self.signal = number
        for each, handler in self.before.items():
            signal.signal(each, handler)
        # Not print: the signal may have come in the middle of one.
        os.write(2, b"\nsaving and stopping; a second signal stops at once\n")
