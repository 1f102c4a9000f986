"""The run folder and the training state: what a run writes to disk, so that a kill at any moment loses a few steps at most.

    recipe.json        the recipe of the run
    metrics.csv        a row per evaluation
    last.pt            the training state: weights, optimiser, EMA, step, rows so far
    previous.pt        the state saved before it
    best.safetensors   the weights with the best validation accuracy so far
    history.json       each session of the run: its first step, machine and data (summary.py)
    summary.md         the run on one page, written at its end
    tensorboard/       the rows again, by option

Every file is written atomically. Between the two renames of a save there may be no last.pt; then previous.pt is the state to
resume from. A last.pt that is damaged nevertheless (a failing disk, an incomplete copy) is never ignored silently: resuming
names it and says how to continue from previous.pt. A state contains numbers, texts and tensors only and is read with
`weights_only=True`, so no file can run code.

A state has everything that later steps depend on, except random numbers: the draws of a step are a function of (seed, step,
rank), an image's augmentation of (seed, epoch, index, copy), and the order of the images of (seed, epoch).
"""

import json
import math
import os
import shutil
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock, Timeout
from torch.optim.swa_utils import AveragedModel

from ..data import Data
from ..data.images import ImageFiles
from ..errors import UserError
from ..extensions import check_attention
from ..fields import check_fields
from ..files import atomic_write, compose, write_text
from ..recipes.recipe import Recipe
from ..renamed import RENAMED_SUMS
from ..vit import VisionModel
from ..weights import find_weights, fingerprint_weights, load_metadata, load_state, save_weights
from ..zoo import model_from_weights
from .distributed import ProcessGroup, full_state_dicts, gather_full, load_full_state_dicts
from .metrics import COLUMNS, ClassificationMetrics, best_top1, best_weights, write_rows

FORMAT = "spvit_mini training state 2"
KEYS: dict[str, Any] = {  # of a state, beside "format"
    "recipe": str, "classes": list, "train_images": int, "position": dict, "model": dict, "optimiser": dict, "ema": dict | None,
}  # fmt: skip
OPTIONAL = ("ema_loss", "ema_top1", "mfu")  # columns of metrics.csv that may be empty
WeightsChoice = Literal["best", "last", "ema"]

# --- The run folder


def check_run_dir(run_dir: Path, recipe: Recipe, *, resume: bool) -> None:
    """Check, before any computation, that a run can be written to this folder. Changes nothing.

    Raises UserError if the folder is not writable, and, once it has a state, a row or weights, if `resume` is False or its run
    has another recipe. A folder without any of these is free, whatever an attempt to start has left.
    """
    parent = next(path for path in (run_dir.absolute(), *run_dir.absolute().parents) if path.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        reason = "is not writable" if parent.is_dir() else "is a file"
        raise UserError(f"the run folder {run_dir} cannot be created, since {parent} {reason}. Use another --run-dir.")
    if (existing := find_progress(run_dir)) and not resume:
        raise UserError(f"{run_dir} has a run already ({existing}). Use --resume to continue it, or another --run-dir.")
    if existing and (recorded := read_recipe(run_dir)) is not None:
        check_same_recipe(recorded, recipe, source=run_dir / "recipe.json")


def find_progress(run_dir: Path) -> str | None:
    """Find the first file of a run folder that must not be lost; None if the folder is free for a new run."""
    files = [name for name in ("metrics.csv", "last.pt", "previous.pt", "best.safetensors") if (run_dir / name).exists()]
    if "metrics.csv" in files and (run_dir / "metrics.csv").read_bytes().strip() == ",".join(COLUMNS).encode():
        files.remove("metrics.csv")  # without a row
    return files[0] if files else None


@contextmanager
def open_run_dir(run_dir: Path, recipe: Recipe, state: "TrainState") -> Iterator[None]:
    """Create the run folder, write recipe.json unless its run has progress, and lock the folder against a second writer.

    The lock is released at the end of the block or of the process. If the block fails before the first step, everything that
    it has written is removed.
    """
    lock, is_new = FileLock(run_dir / ".lock", timeout=0), not run_dir.exists()
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise UserError(f"another process is training in {run_dir}. Wait for it or stop it, or use another --run-dir.") from None
    except OSError as error:
        raise UserError(f"the run folder {run_dir} cannot be created ({error.strerror}). Use another --run-dir.") from None
    try:
        if not find_progress(run_dir) or not (run_dir / "recipe.json").exists():
            write_text(run_dir / "recipe.json", recipe.to_json())
        yield
    except BaseException:
        if state.step == 0 and not find_progress(run_dir):
            for name in ("recipe.json", "metrics.csv", "history.json", ".lock"):
                (run_dir / name).unlink(missing_ok=True)
            shutil.rmtree(run_dir / "tensorboard", ignore_errors=True)
            if is_new:
                with suppress(OSError):  # it holds something else
                    run_dir.rmdir()
        raise
    finally:
        lock.release()


def read_recipe(run_dir: Path) -> Recipe | None:
    """Read the recipe of a run folder; None if it has none."""
    path = run_dir / "recipe.json"
    if not path.is_file():
        return None
    try:
        return Recipe.from_json(path.read_text(encoding="utf-8-sig"), source=str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}). Restore it, or train in another folder.") from None


def check_same_recipe(recorded: Recipe, recipe: Recipe, *, source: Path) -> None:
    """Raise UserError, with the first option that differs, unless both recipes compute the same. `restore` compares the data."""
    recorded = replace(recorded, sources={name: text for name, text in recorded.sources.items() if name[:5] != "data."})
    if difference := recorded.find_difference(recipe):
        name, before, now = difference
        raise UserError(f"{source} has {name} = {before}, not {now}. Resume with the former, or train in another folder.")


# --- The training state


@dataclass
class TrainState:
    """The progress of a run, beside its weights and its optimiser."""

    step: int = 0
    lr: float = 0.0  # of the last step
    seconds: float = 0.0  # spent so far, over all sessions
    rows: list[dict[str, Any]] = field(default_factory=list)
    skipped: int = 0  # steps skipped because their gradient was not finite
    skipped_in_a_row: int = 0
    counts: ClassificationMetrics = field(default_factory=ClassificationMetrics.zero)  # of the training images since the last row
    training_seconds: float = 0.0  # spent on these
    data_seconds: float = 0.0  # of which waiting for images

    def __post_init__(self) -> None:
        check_fields(self)

    def add_row(
        self,
        *,
        epoch: float,
        images: int,
        train: ClassificationMetrics,
        val: ClassificationMetrics,
        ema: ClassificationMetrics | None,
    ) -> dict[str, Any]:
        """Append the row of metrics that ends at this step, and reset the sums. `train` has the sums of all processes."""
        new_images = images - (self.rows[-1]["images"] if self.rows else 0)  # those of skipped steps took their time, too
        row = {
            "step": self.step, "epoch": epoch, "images": images, "lr": self.lr,
            "train_loss": train.loss, "train_top1": train.top1,
            "val_loss": val.loss, "val_top1": val.top1, "val_top5": val.top5,
            "ema_loss": ema and ema.loss, "ema_top1": ema and ema.top1,
            "skipped_steps": self.skipped, "images_per_second": new_images / self.training_seconds,
            "data_seconds": self.data_seconds, "mfu": None, "seconds": self.seconds,
        }  # fmt: skip
        self.rows.append(row)
        self.counts = ClassificationMetrics.zero(self.counts.images.device)
        self.training_seconds = self.data_seconds = 0.0
        return row


@dataclass
class Checkpointer:
    """Save, restore and record one run. All processes of the group call each method."""

    recipe: Recipe
    data: Data
    model: VisionModel
    optimiser: torch.optim.Optimizer
    ema: AveragedModel | None
    group: ProcessGroup
    device: torch.device

    @property
    def train_images(self) -> int:
        """Number of training images."""
        assert self.data.train is not None
        return len(self.data.train)

    def save(self, run_dir: Path, state: TrainState) -> None:
        """Save the training state as last.pt."""
        counts = self.group.sum(state.counts)
        # As in `restore`: an undisturbed run then adds up its sums in the same order as a resumed run.
        state.counts = counts if self.group.is_main else ClassificationMetrics.zero(self.device)
        content = {
            "recipe": self.recipe.to_json(),
            "classes": list(self.data.classes),
            "train_images": self.train_images,
            "position": vars(state) | {"counts": dict(vars(counts))},
            **full_state_dicts(self.model, self.optimiser),
            "ema": self.ema and self.ema.state_dict(),
        }
        self.group.run_on_main(lambda: save_state(run_dir, content))

    def restore(self, content: dict[str, Any], source: Path) -> TrainState:
        """Load a state into model, optimiser and EMA. Raises UserError for another run's state, before any file changes."""
        recorded = Recipe.from_json(content["recipe"], source=str(source))
        check_same_recipe(recorded, self.recipe, source=source)
        if self.recipe.init_from not in (None, recorded.init_from):
            fingerprint_weights(self.recipe.init_from)  # says why weights of another name can't be compared
        self.recipe = replace(self.recipe, sources=recorded.sources | self.recipe.sources)  # files may be gone by now
        classes, images = [compose(str(name)) for name in content["classes"]], content["train_images"]
        if classes != list(self.data.classes) or images != self.train_images:
            raise UserError(
                f"{source} was saved with {len(classes)} classes and {images} training images, but the data here have "
                f"{len(self.data.classes)} classes and {self.train_images} training images, or others. Resume with the same "
                "data, or train in another folder."
            )
        before, now = (of.get("data.name") for of in (recorded.sources, self.data.fingerprint))  # early states don't have it
        if before != now and before and isinstance(self.data.val.source, ImageFiles):
            raise UserError(
                f"{source} was saved with other image files: {before}, but here {now}. Undo what was added, removed or "
                "renamed since, or train in another folder."
            )
        try:
            load_full_state_dicts(content, self.model, self.optimiser)
            if self.ema is not None:
                self.ema.load_state_dict(content["ema"])
            # Only the main process restores the sums; otherwise each process would count them once.
            sums = {RENAMED_SUMS.get(name, name): value for name, value in content["position"]["counts"].items()}
            counts = ClassificationMetrics(**sums) if self.group.is_main else ClassificationMetrics.zero()
            counts = ClassificationMetrics(**{name: value.to(self.device).view(()) for name, value in vars(counts).items()})
            state = TrainState(**content["position"] | {"counts": counts})
            cells = [(row[column], column) for row in state.rows for column in COLUMNS]
            if not all(type(v) in (float, int) or (v is None and column in OPTIONAL) for v, column in cells):
                raise ValueError("its rows are not those of metrics.csv")
        except (UserError, RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
            reason = " ".join(str(error).split())
            what = f"{source} has the state of another model, or is damaged"
            raise UserError(f"{what} ({reason:.200}). Train in another folder.") from None
        for parameters in self.optimiser.param_groups:
            parameters["lr"] = state.lr * parameters["lr_scale"]  # a state that is saved again before a step is the same
        return state

    def record(self, run_dir: Path, rows: list[dict[str, Any]]) -> None:
        """Write metrics.csv, and best.safetensors if the last row is the best so far. A tie keeps the earlier weights."""
        row = rows[-1]
        is_best = best_top1(row) > max(map(best_top1, rows[:-1]), default=-math.inf)
        model: Any = self.model if self.ema is None or best_weights(row) == "last" else self.ema.module
        weights = gather_full(model.state_dict()) if is_best else None
        metadata = {
            "weights": best_weights(row),
            "step": str(row["step"]),
            "val_top1": f"{best_top1(row):.6g}",
            "classes": json.dumps(list(self.data.classes)),
            "recipe": self.recipe.to_json(),
            **({"imports": json.dumps(self.recipe.imports)} if self.recipe.imports else {}),
        }

        def write() -> None:
            if is_best:
                save_weights(model, run_dir / "best.safetensors", state=weights, **metadata)
            write_rows(run_dir / "metrics.csv", rows)

        self.group.run_on_main(write)


def save_state(run_dir: Path, content: dict[str, Any]) -> None:
    """Write a state as last.pt, and keep the state before it as previous.pt."""
    with atomic_write(run_dir / "last.pt", backup=run_dir / "previous.pt") as temporary:
        torch.save({"format": FORMAT, **content}, temporary)


def find_state(run_dir: Path) -> tuple[dict[str, Any], Path] | None:
    """Load the newest state of a run, with its path; None if none was saved yet.

    Raises UserError if that file is damaged or not a training state.
    """
    last, previous = run_dir / "last.pt", run_dir / "previous.pt"
    path = last if last.exists() else previous
    if not path.exists():
        return None
    try:
        return read_state(path), path
    except UserError as error:
        raise UserError(f"{error}; {_suggest_fallback(path, previous)}") from None


def _suggest_fallback(broken: Path, previous: Path) -> str:
    """Suggest how to continue without a broken state."""
    try:
        if broken != previous:
            step = read_state(previous)["position"]["step"]
            return (
                f"the state saved before it, previous.pt (step {step}), is complete: "
                f"move {broken.name} away and repeat the command to resume from it"
            )
    except UserError:
        pass
    best = " (best.safetensors has the best weights)" if broken.with_name("best.safetensors").exists() else ""
    return f"there is no other complete state, so train again in another folder{best}"


def read_state(path: Path) -> dict[str, Any]:
    """Read a state file. Raises UserError if it is missing, incomplete, damaged, or not a training state."""
    try:
        with open(path, "rb") as file:
            signature = file.read(4)
        if signature[:2] in (b"", b"P", b"PK"):  # a zip archive, as torch.save writes it, or a part of one
            with zipfile.ZipFile(path) as archive:
                if (member := archive.testzip()) is not None:
                    raise UserError(f"{path} is damaged (in its member {member})")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's warnings about foreign files
            state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    except zipfile.BadZipFile:
        raise UserError(f"{path} is cut off or damaged") from None
    except UserError:
        raise
    except Exception:  # torch.load raises many types for foreign bytes, or for a pickle with code in it
        state = None
    if not isinstance(state, dict) or state.get("format") != FORMAT or not state.keys() >= KEYS.keys():
        raise UserError(f"{path} is not a training state of this version of spvit_mini")
    wrong = [key for key, kind in KEYS.items() if not isinstance(state[key], kind)]
    wrong += [key for key in ("model", "ema") if key not in wrong and not all(map(torch.is_tensor, (state[key] or {}).values()))]
    if wrong:
        raise UserError(f"{path} is damaged: its {wrong[0]} has values of the wrong type")
    return state


# --- The trained model of a run


def load_trained(
    path: Path, *, weights: WeightsChoice = "best", image_size: int | tuple[int, int] | None = None
) -> tuple[VisionModel, dict[str, str]]:
    """Load a trained model in eval mode, and the metadata of its weights.

    Args:
        path: a run folder or a weights file.
        weights: best: the weights with the best validation accuracy; last or ema: the newest of a run folder.
        image_size: another size of the images; positions are interpolated.

    Raises UserError if there are no such weights, or if their attention is not registered.
    """
    file = find_weights(path)
    metadata = load_metadata(file)
    check_attention(metadata, source=file)
    model = model_from_weights(file, image_size=image_size).eval()
    if weights == "best":
        return model, metadata
    if file == path:
        raise UserError(f"{path} has {metadata.get('weights', 'last')} weights only. Use a run folder for --weights {weights}.")
    if (checkpoint := find_state(path)) is None:
        raise UserError(f"{path} has no training state (last.pt). Use --weights best.")
    state, source = checkpoint
    if weights == "ema" and state["ema"] is None:
        raise UserError(f"{path} has no EMA weights, since its recipe has no ema. Use --weights last.")
    load_state(model, state["model" if weights == "last" else "ema"], source=str(source))
    del metadata["val_top1"]  # of the best weights
    return model, metadata | {"weights": weights, "step": str(state["position"]["step"])}
