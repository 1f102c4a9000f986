"""The training loop: from a recipe to a trained model.

`train` does everything in this order: data, model, optimiser, state to resume from, run folder; then steps, one after the other.
Between two steps it evaluates, saves the training state, or stops. A run that is stopped or killed at any moment and then
resumed ends with the same weights as an undisturbed run. Under torchrun every process runs this loop: see distributed.py.
"""

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from ..data import TrainBatches, load_data
from ..data.seeding import derive_seed
from ..data.token_labels import TokenLabelView
from ..errors import UserError
from ..flops import multiply_adds
from ..recipes.duration import count_steps
from ..recipes.identity import find_sources
from ..recipes.recipe import Recipe
from ..vit import VisionModel
from ..weights import init_from_weights
from ..zoo import create_model
from . import distributed
from .checkpoint import Checkpointer, TrainState, check_run_dir, find_state, open_run_dir
from .devices import choose_device, compute_mfu, device_name, peak_flops
from .metrics import ClassificationMetrics, best_top1, evaluate, write_rows
from .objective import Objective
from .optim import freeze, lr_at, make_ema_update, make_optimiser
from .progress import ProgressDisplay, describe_run, list_notes
from .signals import StopSignal, open_workers
from .summary import begin_session, end_session
from .tensorboard import TensorBoardWriter

MAX_SKIPPED = 5  # steps in a row whose gradient is not finite, before a run is given up


@dataclass
class Result:
    """The result of a run: the model after the last step, a row per evaluation, and the number of steps."""

    model: VisionModel
    rows: list[dict[str, Any]]  # dictionaries with the keys of metrics.COLUMNS
    step: int
    steps: int  # of the whole recipe
    stopped_by: int | None = None  # the signal that stopped the run early, if any
    ema: VisionModel | None = None  # the model with the EMA weights, if the recipe has any

    @property
    def best(self) -> dict[str, Any] | None:
        """The first row with the highest validation accuracy, of the last or of the EMA weights; None if all have diverged."""
        return max((row for row in self.rows if best_top1(row) > -math.inf), key=best_top1, default=None)


def train(
    recipe: Recipe,
    *,
    run_dir: Path | None = None,
    resume: bool = False,
    max_steps: int | None = None,
    progress: bool = True,
    on_evaluation: Callable[[int, VisionModel, dict[str, Any]], None] | None = None,
    tensorboard: bool = False,
) -> Result:
    """Train a model with a recipe.

    Args:
        recipe: model, data, optimiser, duration.
        run_dir: folder for metrics, states and weights; None writes nothing.
        resume: continue the run in that folder, or begin it if there is no state yet. A process that torchrun has restarted
            resumes by itself.
        max_steps: stop after this step, with an evaluation and a save. The learning rate follows the recipe's duration, so the
            steps are those of the whole run, which `resume` can finish.
        progress: print a description of the run and a line per evaluation; on a terminal a progress bar as well.
        on_evaluation: called as on_evaluation(step, model, row) after each evaluation, with the model in eval mode. It may
            draw random numbers, because each step is seeded.
        tensorboard: write the rows for TensorBoard too (tensorboard.py).

    With a run folder, SIGINT, SIGTERM and SIGHUP save and end the run after the current step, or during an evaluation, which the
    resumed run repeats; a second signal ends it at once.
    Raises UserError for mistakes of the user (checkpoint.py for run folders), and if the gradient stays not finite.
    """
    if max_steps is not None and max_steps < 1:
        raise UserError(f"max_steps is {max_steps}; expected at least 1")
    device, precision = choose_device(recipe)
    run_dir = run_dir and Path(run_dir)
    with ExitStack() as stack:
        group = stack.enter_context(distributed.open_process_group(device))
        resume = resume or bool(group.max(distributed.count_restarts(), device))  # each host's torchrun counts its own restarts
        board = stack.enter_context(TensorBoardWriter(run_dir)) if tensorboard else None
        if run_dir is not None:
            group.run_on_main(lambda: check_run_dir(run_dir, recipe, resume=resume))
        trainer = Trainer(recipe, run_dir, group, device, precision)
        trainer.set_up_data(max_steps)
        checkpoint = find_state(run_dir) if run_dir is not None and resume else None
        notice = trainer.set_up_model(recipe.init_from if checkpoint is None else None)
        if checkpoint is not None:
            trainer.state = trainer.checkpointer.restore(*checkpoint)
            notice = f"resumed from {checkpoint[1]} at step {trainer.state.step}"
            notice += ": this run is finished, and nothing is left to train" * (trainer.state.step >= trainer.steps)
        elif resume and recipe.init_from is None:
            notice = "no state to resume from yet: starting at step 0"
        trainer.open_run(stack, board, notice, progress=progress)
        stopped_by = trainer.run(on_evaluation)
        trainer.close_run()
    return Result(
        trainer.model, trainer.state.rows, trainer.state.step, trainer.steps, stopped_by, trainer.ema and trainer.ema.module
    )


class Trainer:
    """One run in one process: its data, model, optimiser and state. `train` calls the methods in the order of this file."""

    def __init__(
        self, recipe: Recipe, run_dir: Path | None, group: distributed.ProcessGroup, device: torch.device, precision: torch.dtype
    ):
        self.recipe, self.run_dir, self.group, self.device, self.precision = recipe, run_dir, group, device, precision
        self.state = TrainState(counts=ClassificationMetrics.zero(device))

    # --- Set-up

    def set_up_data(self, max_steps: int | None) -> None:
        """Load the data, split the batch into micro-batches, and convert all durations to steps."""
        recipe, optim, world_size = self.recipe, self.recipe.optim, self.group.world_size
        with self.group.silence_others():
            self.data = load_data(recipe.data, recipe.augment, seed=recipe.seed, token_labels=recipe.token_labels.folder)
        self.recipe = replace(recipe, sources=find_sources(recipe, self.data.fingerprint))
        assert self.data.train is not None
        self.train_data = self.data.train
        self.micro_batch_size = recipe.micro_batch_size or max(1, recipe.batch_size // world_size)
        self.micro_batches = max(1, recipe.batch_size // (self.micro_batch_size * world_size))
        self.steps_per_epoch = self.order_images(0).steps_per_epoch

        def steps(duration: str) -> int:
            return count_steps(duration, steps_per_epoch=self.steps_per_epoch, batch_size=recipe.batch_size)

        self.steps = steps(recipe.duration)
        self.last_step = self.steps if max_steps is None else min(self.steps, max_steps)
        self.evaluate_every, self.save_every = steps(recipe.evaluate_every), steps(recipe.save_every)
        scale = recipe.batch_size / (optim.lr_base_batch_size or recipe.batch_size)
        self.lr_schedule: dict[str, Any] = {
            "start": scale * optim.warmup_lr, "peak": scale * optim.lr, "final": scale * optim.final_lr,
            "warmup": steps(optim.warmup), "total": self.steps, "cooldown": steps(optim.cooldown),
        }  # fmt: skip

    def order_images(self, start_step: int) -> TrainBatches:
        """Order the training images of all steps from one on, for this process."""
        recipe, group = self.recipe, self.group
        shares = {"rank": group.rank, "world_size": group.world_size, "micro_batch_size": self.micro_batch_size}
        return TrainBatches(
            len(self.train_data), recipe.batch_size, recipe.seed,
            start_step=start_step, repeats=recipe.augment.repeats, **shares,
        )  # fmt: skip

    def set_up_model(self, init_from: Path | None) -> str | None:
        """Build the model, the same in every process, its EMA and the optimiser; return a notice about pretrained weights."""
        recipe, data, group, device = self.recipe, self.data, self.group, self.device
        torch.manual_seed(recipe.seed)
        options = {"image_size": data.preprocessing.image_size, **recipe.model.overrides()}
        model = create_model(recipe.model.name, num_classes=len(data.classes), **options).to(device)
        model.preprocessing, model.activation_checkpointing = data.preprocessing, recipe.activation_checkpointing
        self.multiply_adds = multiply_adds(model)["total"]
        notice = None
        if init_from is not None:
            notice = f"initialised with {init_from_weights(model, init_from, classes=data.classes)}"
        freeze(model, recipe.optim.freeze)
        self.ema: Any = None
        if recipe.ema is not None:
            self.ema = AveragedModel(model, multi_avg_fn=make_ema_update(recipe.ema), use_buffers=True)
        self.model = distributed.synchronise_batch_norms(model, group, device)
        if recipe.compile:
            self.model.compile()  # in place, and before the model is wrapped: its weights keep their names
        self.parallel_model = distributed.parallelise(self.model, group, device, sharding=recipe.sharding)
        self.optimiser = make_optimiser(self.model, recipe.optim)
        self.objective = Objective(recipe, len(data.classes), precision=self.precision)
        self.checkpointer = Checkpointer(recipe, data, self.model, self.optimiser, self.ema, group, device)
        return notice

    def open_run(self, stack: ExitStack, board: TensorBoardWriter | None, notice: str | None, *, progress: bool) -> None:
        """Open the run folder, the loaders, the display and the stop signal until the stack closes."""
        recipe, data, group, run_dir, state = self.recipe, self.data, self.group, self.run_dir, self.state
        facts: dict[str, Any] = {"steps": self.steps, "device": self.device, "precision": self.precision}
        facts["processes"] = group.world_size
        if run_dir is not None:
            group.run_on_main(lambda: stack.enter_context(open_run_dir(run_dir, recipe, state)))
            if group.is_main:
                write_rows(run_dir / "metrics.csv", state.rows)  # without the rows after a resumed state, which will come again
            session = {"step": state.step, "multiply_adds": self.multiply_adds, **facts}
            group.run_on_main(lambda: begin_session(run_dir, self.model, data, **session))
        self.board = board if group.is_main else None
        if self.board is not None:
            self.board.begin(state.rows)
        loading: dict[str, Any] = {
            "num_workers": recipe.data.workers,
            "persistent_workers": recipe.data.workers > 0,
            "worker_init_fn": stack.enter_context(open_workers()),
            "pin_memory": self.device.type == "cuda",
            # A loader draws a random number when it starts; with a generator of its own the global one is unchanged.
            "generator": torch.Generator(),
        }
        self.batches = self.train_data.load_batches(self.order_images(state.step), **loading)
        self.val_loader = DataLoader(distributed.ValidationShard(data.val, group), batch_size=self.micro_batch_size, **loading)
        self.display = stack.enter_context(
            ProgressDisplay(
                recipe, enabled=progress and group.is_main, start=state.step, last=self.last_step, classes=len(data.classes)
            )
        )
        self.stop = stack.enter_context(StopSignal(run_dir is not None, is_main=group.is_main))
        where = f"{run_dir}" if run_dir else "not saved (no run folder)"
        self.display.print(describe_run(self.model, recipe, data, run_dir=where, **facts))
        for line in [*([notice] if notice else []), *list_notes(self.model, recipe, **self.lr_schedule)]:
            self.display.print(line)

    # --- The loop

    def run(self, on_evaluation: Callable[[int, VisionModel, dict[str, Any]], None] | None) -> int | None:
        """Train up to the last step; return the signal that stopped the run earlier, if any."""
        state = self.state
        self.started = time.perf_counter() - state.seconds
        self.model.train()
        last_save = (state.step, len(state.rows))
        while True:
            # A step of a resumed state is evaluated already, unless a signal interrupted its evaluation.
            if self.is_due(self.evaluate_every) and not (state.rows and state.rows[-1]["step"] == state.step):
                self.evaluate(on_evaluation)
            stopped_by = self.group.max(self.stop.signal or 0, self.device)
            is_due = self.is_due(self.save_every) and not state.skipped_in_a_row  # a diverging run keeps the last good state
            if self.run_dir is not None and (is_due or stopped_by) and (state.step, len(state.rows)) != last_save:
                state.seconds = time.perf_counter() - self.started
                self.checkpointer.save(self.run_dir, state)
                last_save = (state.step, len(state.rows))
            if state.step >= self.last_step or stopped_by:
                return stopped_by or None
            self.train_step()

    def is_due(self, every: int) -> bool:
        """Whether something that is done `every` so many steps, and after the last one, is due now."""
        step = self.state.step
        return step > 0 and (step % max(1, every) == 0 or step >= self.last_step)

    def train_step(self) -> None:
        """Make one step: accumulate the gradients of this process's micro-batches, then update the weights."""
        recipe, state, device = self.recipe, self.state, self.device
        seeds = (recipe.seed, state.step, self.group.rank)
        torch.manual_seed(derive_seed(*seeds))  # a resumed run draws the same numbers
        state.lr = lr_at(state.step, **self.lr_schedule)
        for parameters in self.optimiser.param_groups:
            parameters["lr"] = state.lr * parameters["lr_scale"]
        self.optimiser.zero_grad(set_to_none=True)
        counts, started, waited = ClassificationMetrics.zero(device), time.perf_counter(), 0.0
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        for i in range(self.micro_batches):
            waiting = time.perf_counter()
            images, labels, *views = next(self.batches)  # decoded and cropped by the loader's workers
            waited += time.perf_counter() - waiting
            images = self.train_data.to_device(images, device)  # the rest of the augmentation, (B, 3, height, width)
            labels = labels.to(device, non_blocking=True)
            view = TokenLabelView(*(part.to(device, non_blocking=True) for part in views[0])) if views else None
            with distributed.gradient_sync(self.parallel_model, enabled=i == self.micro_batches - 1):
                loss, logits = self.objective(self.parallel_model, images, labels, view, seeds=(*seeds, i, 0))
                (loss / self.micro_batches).backward()
            counts.update(logits, labels, loss * len(labels))
        distributed.average_batch_norms(self.model, self.group)
        self.update_weights(counts, buffers)
        state.step += 1
        seconds = time.perf_counter() - started
        state.training_seconds, state.data_seconds = state.training_seconds + seconds, state.data_seconds + waited
        self.display.update(state.counts, seconds=seconds, waited=waited)

    def update_weights(self, counts: ClassificationMetrics, buffers: list[torch.Tensor]) -> None:
        """Clip the gradient and update weights and EMA; skip a gradient that is not finite, which would destroy all weights."""
        model, state, clip = self.model, self.state, self.recipe.optim.clip_grad_norm
        norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
        if torch.isfinite(distributed.gather_full(norm)):
            if clip is not None:
                torch.nn.utils.clip_grads_with_norm_(model.parameters(), clip, norm)
            self.optimiser.step()
            if self.ema is not None:
                self.ema.update_parameters(model)
            state.counts.merge(counts)
            state.skipped_in_a_row = 0
            return
        for buffer, before in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(before)  # batch norms have already used the bad batch
        state.skipped, state.skipped_in_a_row = state.skipped + 1, state.skipped_in_a_row + 1
        if state.skipped_in_a_row >= MAX_SKIPPED:
            raise UserError(
                f"the gradient was not finite in {MAX_SKIPPED} steps in a row, up to step {state.step}; the weights are as they "
                "were before. Use a lower optim.lr, a longer optim.warmup or a smaller optim.clip_grad_norm, in a new run folder."
            )

    def evaluate(self, on_evaluation: Callable[[int, VisionModel, dict[str, Any]], None] | None) -> None:
        """Evaluate the weights and the EMA weights on the validation set, and write a row of metrics, unless a signal comes."""
        state, images = self.state, self.state.step * self.recipe.batch_size
        val, ema = self.score(self.model), self.ema and self.score(self.ema.module)
        if any(int(scores.images) < len(self.data.val) for scores in (val, ema) if scores):
            return
        state.seconds = time.perf_counter() - self.started
        epoch = state.step / self.steps_per_epoch
        row = state.add_row(epoch=epoch, images=images, train=self.group.sum(state.counts), val=val, ema=ema)
        peak, devices = peak_flops(device_name(self.device), self.precision), self.group.world_size
        row["mfu"] = compute_mfu(row["images_per_second"], multiply_adds=self.multiply_adds, peak=peak, devices=devices)
        self.display.show_row(row)
        if self.run_dir is not None:
            self.checkpointer.record(self.run_dir, state.rows)
        if self.board is not None:
            self.board.add(row)
        if on_evaluation is not None:
            self.model.eval()
            on_evaluation(state.step, self.model, row)
            self.model.train()

    def score(self, model: Any) -> ClassificationMetrics:
        """Score a model on the validation images of all processes, up to a stop signal."""
        # With FSDP the processes need each other for each image: they stop early together, or not at all.
        loader = takewhile(lambda _: not self.stop.signal or self.recipe.sharding == "fsdp", self.val_loader)
        return self.group.sum(evaluate(model, loader, device=self.device, precision=self.precision))

    def close_run(self) -> None:
        """Report corrupt images, and complete the history and the summary of the run."""
        corrupt, run_dir = self.data.skipped_files, self.run_dir
        if corrupt:
            self.display.print(f"{len(corrupt)} corrupt image files were skipped, the first is {corrupt[0]}")
        if run_dir is not None:
            self.group.run_on_main(lambda: end_session(run_dir, step=self.state.step, bad_images=len(corrupt)))
