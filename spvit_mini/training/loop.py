"""The training loop, whole: from a recipe to a trained model.

Everything that happens in a run happens here, in this order: data, model, optimiser, state to resume from; then steps, each
the same: one batch in, one update out. Between two steps the run may score the validation part, save its whole state, or
stop; a run that is stopped or killed at any moment and then resumed ends with the same weights as one that was not. Started
by torchrun, the same loop runs in every process: see distributed.py.
"""

import json
import math
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from ..data import Data, TrainBatches, load_data
from ..data.seeding import seed_of
from ..errors import UserError
from ..flops import multiply_adds
from ..recipes.duration import count_steps
from ..recipes.recipe import Recipe
from ..vit import ViT
from ..weights import init_from_weights, save_weights
from ..zoo import create_model
from . import checkpoint
from .devices import mfu, name_of, peak_flops
from .distributed import (
    Share,
    Team,
    average_norms,
    gradients_kept,
    joined,
    restarts,
    spread_out,
    synchronised_norms,
    whole,
)
from .metrics import Counts, evaluate, write_rows
from .objective import Objective
from .optim import average, freeze, lr_at, make_optimiser
from .progress import Display, introduce
from .signals import Stop, leave_signals_to_the_parent
from .state import Position, restore, state_of
from .summary import begin_part, end_part
from .tensorboard import Board

MOST_SKIPPED = 5  # steps in a row whose gradient is not finite, before a run is given up


@dataclass
class Result:
    """What a run ends with: the model as it is after the last step, a row per evaluation, and how far it got."""

    model: ViT
    rows: list[dict[str, Any]]  # dictionaries with the keys of metrics.COLUMNS
    step: int
    steps: int  # steps of the whole recipe
    stopped_by: int | None = None  # the signal that ended it early, if one did
    ema: ViT | None = None  # the same model with the averaged weights, if the recipe wants them

    @property
    def best(self) -> dict[str, Any] | None:
        """The first row with the highest validation accuracy, of the weights or of their average."""
        return max(self.rows, key=top1, default=None)


def train(
    recipe: Recipe,
    *,
    run: Path | None = None,
    resume: bool = False,
    max_steps: int | None = None,
    progress: bool = True,
    on_evaluation: Callable[[int, ViT, dict[str, Any]], None] | None = None,
    tensorboard: bool = False,
) -> Result:
    """Train a model by a recipe.

    Args:
        recipe: what to train, on what, how and for how long.
        run: a folder for metrics, states and weights; None writes nothing at all.
        resume: go on with the run in that folder, or begin it if it holds no state yet. A process that torchrun has
            started anew goes on by itself.
        max_steps: stop after this step, with an evaluation and a save. The learning rate keeps to the recipe's length,
            so the steps are those of the whole run, which --resume can finish.
        progress: print what is trained and a line per evaluation; on a terminal a bar as well.
        on_evaluation: called as on_evaluation(step, model, row) after each evaluation, with the model in eval mode. It
            may draw random numbers; a step's own are seeded anew.
        tensorboard: write the rows for TensorBoard too (see board.py).

    With a run folder, SIGINT and SIGTERM save and end the run after the step at hand, or in the middle of an
    evaluation, which the resumed run makes anew; a second signal ends it at once.
    Raises UserError for what a user can do wrong (see checkpoint.py for run folders), and if the gradient stays not finite.
    """
    if max_steps is not None and max_steps < 1:
        raise UserError(f"max_steps is {max_steps}; it must be at least 1")
    device, precision = choose_device(recipe)
    run = run and Path(run)
    with ExitStack() as until_done:
        team = until_done.enter_context(joined(device))
        resume = resume or bool(team.largest(restarts(), device))  # each host's torchrun counts for itself
        board = until_done.enter_context(Board(run)) if tensorboard else None
        if run is not None:
            team.agree(lambda: checkpoint.check_run(run, recipe, resume=resume))
        with team.shown_once():
            data = load_data(recipe.data, recipe.augment, seed=recipe.seed, token_labels=recipe.token_labels.folder)

        # Lengths, in steps; images of a batch, here and at once; learning rates of this batch.
        batch = recipe.batch_size
        micro = recipe.micro_batch_size or max(1, batch // team.world)
        micro_batches = max(1, batch // (micro * team.world))
        shares = {"repeats": recipe.augment.repeats, "rank": team.rank, "world": team.world, "micro": micro}
        steps_per_epoch = TrainBatches(len(data.train), batch, recipe.seed, **shares).steps_per_epoch
        lengths = recipe.duration, recipe.optim.warmup, recipe.optim.cooldown, recipe.evaluate_every, recipe.save_every
        total, warmup, cooldown, evaluate_every, save_every = (
            count_steps(length, steps_per_epoch=steps_per_epoch, batch_size=batch) for length in lengths
        )
        last = total if max_steps is None else min(total, max_steps)
        scale = batch / (recipe.optim.lr_base_batch_size or batch)
        start_lr, peak_lr, final_lr = (
            scale * lr for lr in (recipe.optim.warmup_lr, recipe.optim.lr, recipe.optim.final_lr)
        )

        # The model, the same in every process, and what it begins with: a state of this run, other weights, or chance.
        found = checkpoint.load_state(run) if run is not None and resume else None
        torch.manual_seed(recipe.seed)
        model = create_model(
            recipe.model.name,
            num_classes=len(data.classes),
            image_size=data.preprocessing.image_size,
            **recipe.model.overrides(),
        ).to(device)
        model.preprocessing, model.activation_checkpointing = data.preprocessing, recipe.activation_checkpointing
        cost, peak = multiply_adds(model)["total"], peak_flops(name_of(device), precision)
        begins = "no state to resume from yet: starting at step 0" if resume and not found else None
        if recipe.init_from is not None and not found:
            begins = f"begins with {init_from_weights(model, recipe.init_from, classes=data.classes)}"
        freeze(model, recipe.optim.freeze)
        averaged = None
        if recipe.ema is not None:
            averaged = AveragedModel(model, multi_avg_fn=average(recipe.ema), use_buffers=True)
        model = synchronised_norms(model, team, device)
        if recipe.compile:
            model.compile()  # in place, and before it is wrapped: the names of its weights stay
        learner = spread_out(model, team, device, sharding=recipe.sharding)
        optimiser = make_optimiser(model, recipe.optim)
        finish = data.train.finish
        objective = Objective(recipe, len(data.classes), device=device, precision=precision, finish=finish)

        # How far it has come.
        at = Position(counts=Counts.zero(device))
        if found:
            state, source = found
            at = restore(state, source, recipe, data, model, optimiser, averaged, team=team, device=device)
            begins = f"resumed from {source} at step {at.step}"
        first = at.step
        facts = {"steps": total, "device": device, "precision": precision, "processes": team.world}
        if run is not None:
            team.agree(lambda: until_done.enter_context(checkpoint.writing(run, recipe)) and None)
            if team.main:
                write_rows(run / "metrics.csv", at.rows)  # cuts the rows after a resumed state; they will be made again
            team.agree(lambda: begin_part(run, model, data, step=first, multiply_adds=cost, **facts))
        if board is not None and team.main:
            board.begin(at.rows)

        loading = {
            "num_workers": recipe.data.workers,
            "persistent_workers": recipe.data.workers > 0,
            "worker_init_fn": leave_signals_to_the_parent,
            "pin_memory": device.type == "cuda",
            # A loader draws a random number when it starts. Given a generator, it leaves the global one alone.
            "generator": torch.Generator(),
        }
        order = TrainBatches(len(data.train), batch, recipe.seed, start_step=first, **shares)
        batches = data.train.batches(order, **loading)
        val_loader = DataLoader(Share(data.val, team), batch_size=micro, **loading)

        display = until_done.enter_context(
            Display(recipe, progress=progress and team.main, start=first, last=last, classes=len(data.classes))
        )
        stop = until_done.enter_context(Stop(run is not None, speaks=team.main))
        where = f"{run}" if run else "not kept (no run folder)"
        display.say(introduce(model, recipe, data, run=where, **facts))
        if begins:
            display.say(begins)

        def due(every: int) -> bool:
            return at.step > 0 and (at.step % max(1, every) == 0 or at.step >= last)

        def score(scored: ViT) -> Counts:
            # All processes stop early, or none does: where a model lies in parts, they need one another for each image.
            unless_stopped = takewhile(lambda _: not stop.signal or recipe.sharding == "fsdp", val_loader)
            return team.total(evaluate(scored, unless_stopped, device=device, precision=precision))

        began = time.perf_counter() - at.seconds
        model.train()
        saved = (at.step, len(at.rows))
        while True:
            # Between two steps: score, save, stop, each if it is time. A step that was loaded is scored already, unless
            # a signal came while it was.
            if due(evaluate_every) and not (at.rows and at.rows[-1]["step"] == at.step):
                scores = score(model)
                scores_averaged = averaged and score(averaged.module)
                if all(int(s.images) == len(data.val) for s in (scores, scores_averaged) if s):
                    at.seconds = time.perf_counter() - began
                    row = at.end_row(
                        counts=team.total(at.counts),
                        scores=scores,
                        averaged=scores_averaged,
                        epoch=at.step / steps_per_epoch,
                        images=at.step * batch,
                    )
                    row["mfu"] = mfu(row["images_per_second"], multiply_adds=cost, peak=peak, devices=team.world)
                    display.evaluated(row)
                    if run is not None:
                        record(run, model, averaged, recipe, data, at.rows, team)
                    if board is not None and team.main:
                        board.add(row)
                    if on_evaluation is not None:
                        model.eval()
                        on_evaluation(at.step, model, row)
                        model.train()
            stopped_by = team.largest(stop.signal or 0, device)
            wanted = due(save_every) and not at.skipped_in_a_row  # a run that goes wrong leaves the last good state
            if run is not None and (wanted or stopped_by) and (at.step, len(at.rows)) != saved:
                at.seconds = time.perf_counter() - began
                state = state_of(at, recipe, data, model, optimiser, averaged, team)
                team.agree(lambda state=state: checkpoint.save_state(run, state))
                saved = (at.step, len(at.rows))
            if at.step >= last or stopped_by:
                break

            # One step: the same draws, whichever run makes it.
            torch.manual_seed(seed_of(recipe.seed, at.step, team.rank))
            at.lr = lr_at(
                at.step, peak=peak_lr, final=final_lr, warmup=warmup, total=total, start=start_lr, cooldown=cooldown
            )
            for group in optimiser.param_groups:
                group["lr"] = at.lr * group["lr_scale"]
            optimiser.zero_grad(set_to_none=True)
            counts, started, waited = Counts.zero(device), time.perf_counter(), 0.0
            remembered = [memory.clone() for memory in model.buffers()]
            for i in range(micro_batches):
                waiting = time.perf_counter()
                micro_batch = next(batches)
                waited += time.perf_counter() - waiting
                with gradients_kept(learner, last=i == micro_batches - 1):
                    loss, logits, labels = objective(
                        learner, micro_batch, seeds=(recipe.seed, at.step, team.rank, i, 0)
                    )
                    (loss / micro_batches).backward()
                counts.add(logits, labels, loss * len(labels))
            average_norms(model, team)
            if step_if_finite(model, optimiser, clip=recipe.optim.clip_grad_norm):
                if averaged is not None:
                    averaged.update_parameters(model)
                at.counts.merge(counts)
                at.skipped_in_a_row = 0
            else:
                for memory, before in zip(model.buffers(), remembered, strict=True):
                    memory.copy_(before)  # batch norms have seen the bad batch already
                at.skipped, at.skipped_in_a_row = at.skipped + 1, at.skipped_in_a_row + 1
                check_skipped(at)

            at.step += 1
            took = time.perf_counter() - started
            at.training_seconds, at.data_seconds = at.training_seconds + took, at.data_seconds + waited
            display.stepped(at.counts, seconds=took, waited=waited)

        if data.skipped:
            display.say(f"{len(data.skipped)} bad image files were left out, {data.skipped[0]} first")
        if run is not None:
            team.agree(lambda: end_part(run, step=at.step, bad_images=len(data.skipped)))

    return Result(model, at.rows, at.step, total, stopped_by or None, averaged and averaged.module)


def choose_device(recipe: Recipe) -> tuple[torch.device, torch.dtype]:
    """Find the device that a recipe names, and the precision of the model's passes on it.

    Under torchrun, "auto" and "cuda" give each process the device of its own rank on its host.
    """
    name = recipe.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):  # a torch without CUDA asserts
        raise UserError(f"device {name!r} is not on this machine; choose auto or cpu") from None
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if recipe.precision == "auto":
        return device, torch.bfloat16 if device.type == "cuda" else torch.float32
    return device, getattr(torch, recipe.precision)


def step_if_finite(model: ViT, optimiser: torch.optim.Optimizer, *, clip: float | None) -> bool:
    """Update the weights by their gradients, unless these are not finite: one such step would spoil all weights."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    finite = bool(torch.isfinite(whole(norm)))
    if finite:
        if clip is not None:
            torch.nn.utils.clip_grads_with_norm_(model.parameters(), clip, norm)
        optimiser.step()
    return finite


def check_skipped(at: Position) -> None:
    """Raise UserError if too many steps in a row had to be skipped."""
    if at.skipped_in_a_row >= MOST_SKIPPED:
        raise UserError(
            f"the gradient was not finite in {MOST_SKIPPED} steps in a row, up to step {at.step}; the weights are as they "
            "were before. Try a lower optim.lr, a longer optim.warmup or a smaller optim.clip_grad_norm, in another run folder"
        )


def top1(row: dict[str, Any]) -> float:
    """Take the better accuracy of a row: of the weights, or of their average."""
    return max(row["val_top1"], -math.inf if row["ema_top1"] is None else row["ema_top1"])


def record(
    run: Path,
    model: ViT,
    averaged: AveragedModel | None,
    recipe: Recipe,
    data: Data,
    rows: list[dict[str, Any]],
    team: Team,
) -> None:
    """Write metrics.csv, and best.safetensors if the last row is the best so far. A tie keeps the earlier weights."""
    row = rows[-1]
    best = top1(row) > max(map(top1, rows[:-1]), default=-math.inf)
    better, which = (model, "last") if top1(row) == row["val_top1"] else (averaged.module, "ema")
    weights = whole(better.state_dict()) if best else None  # all processes take part

    def write() -> None:
        if best:
            with checkpoint.replacing(run / "best.safetensors") as temporary:
                save_weights(
                    better,
                    temporary,
                    state=weights,
                    weights=which,
                    step=str(row["step"]),
                    val_top1=f"{top1(row):.6g}",
                    classes=json.dumps(list(data.classes)),
                    recipe=recipe.to_json(),
                )
        write_rows(run / "metrics.csv", rows)

    team.agree(write)
