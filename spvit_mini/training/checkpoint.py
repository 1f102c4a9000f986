"""The run folder: what a run leaves on disk, so written that a kill at any moment loses a few steps and no more.

    recipe.json        the recipe as it was run
    metrics.csv        a row per evaluation
    last.pt            the whole state: weights, optimiser, random numbers, position in the data, rows so far
    previous.pt        the state saved before that one
    best.safetensors   the weights with the best validation accuracy so far
    history.json       each part of the run: from which step, on what machine, with what (see summary.py)
    summary.md         the run on a page, written when it ends
    tensorboard/       the rows again, by option

Every file is written under another name, brought to the disk, and put in place by one rename: what stands under the
names above is whole. Between the two renames of a save there may be no last.pt; then previous.pt is the state to go on
from. A last.pt that is damaged none the less (a failing disk, a broken copy) is never passed over in silence: resuming
names it and says how to go on from previous.pt.

A state holds numbers, text and tensors alone and is read with `weights_only=True`, so no file can run code.
"""

import os
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError

from ..errors import UserError
from ..recipes.recipe import Recipe

FORMAT = "spvit_mini training state 2"
# What a state consists of beside that; `state_of` in state.py fills it.
PARTS = frozenset(("recipe", "classes", "train_images", "position", "model", "optimiser", "ema"))


def check_run(run: Path, recipe: Recipe, *, resume: bool) -> None:
    """Check, before anything is computed, that a run can be kept in this folder. Nothing is made or changed yet.

    Raises UserError if the folder cannot be written, if it holds a run and `resume` was not asked for, or if the run in
    it has another recipe.
    """
    there = next(place for place in (run.absolute(), *run.absolute().parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        reason = "cannot be written" if there.is_dir() else "is a file"
        raise UserError(f"the run folder {run} cannot be made, since {there} {reason}; name another with --run-dir FOLDER")
    held = [
        n for n in ("recipe.json", "metrics.csv", "last.pt", "previous.pt", "best.safetensors") if (run / n).exists()
    ]
    if held and not resume:
        raise UserError(
            f"{run} holds a run already ({held[0]}); go on with it by --resume, or name another folder with --run-dir"
        )
    if (recorded := read_recipe(run)) is not None:
        check_same(recorded, recipe, source=run / "recipe.json")


@contextmanager
def writing(run: Path, recipe: Recipe) -> Iterator[None]:
    """Make the run folder, write recipe.json unless it is there, and lock the folder against a second writer.

    The lock holds until the block ends or the process does, however it ends.
    """
    lock = FileLock(run / ".lock", timeout=0)
    try:
        run.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise UserError(
            f"another process is training in {run}; wait for it or stop it, or name another folder with --run-dir"
        ) from None
    except OSError as error:
        raise UserError(
            f"the run folder {run} cannot be made ({error.strerror}); name another with --run-dir FOLDER"
        ) from None
    try:
        if not (run / "recipe.json").exists():
            with replacing(run / "recipe.json") as temporary:
                temporary.write_text(recipe.to_json(), encoding="utf-8")
        yield
    finally:
        lock.release()


def read_recipe(run: Path) -> Recipe | None:
    """Read the recipe that a run folder was made with; None if there is none."""
    path = run / "recipe.json"
    if not path.is_file():
        return None
    try:
        return Recipe.from_json(path.read_text(encoding="utf-8"), source=str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}); restore it, or train in another folder") from None


def check_same(recorded: Recipe, recipe: Recipe, *, source: Path) -> None:
    """Raise UserError, naming the first option that differs, unless both recipes compute the same."""
    if difference := recorded.find_difference(recipe):
        name, before, now = difference
        raise UserError(
            f"{source} was made with {name} = {before}, not {now}; resume it as it was, or train in another folder"
        )


def save_state(run: Path, state: dict[str, Any]) -> None:
    """Save a state as last.pt, and keep the one before it as previous.pt."""
    with replacing(run / "last.pt", keep=run / "previous.pt") as temporary:
        torch.save({"format": FORMAT, **state}, temporary)


def load_state(run: Path) -> tuple[dict[str, Any], Path] | None:
    """Load the newest state of a run and say which file it came from; None if none was saved yet.

    Raises UserError if that file is damaged or is no training state.
    """
    last, previous = run / "last.pt", run / "previous.pt"
    path = last if last.exists() else previous
    if not path.exists():
        return None
    try:
        return read_state(path), path
    except UserError as error:
        raise UserError(f"{error}; {_way_on(path, previous)}") from None


def _way_on(broken: Path, previous: Path) -> str:
    """Say what a user whose newest state is broken can do."""
    try:
        if broken != previous:
            step = read_state(previous)["position"]["step"]
            return (
                f"the state saved before it, previous.pt (step {step}), is whole: "
                f"move {broken.name} away and give the same command again to go on from there"
            )
    except UserError:
        pass
    return "no other whole state is there, so train again in another folder (best.safetensors keeps the best weights)"


def read_state(path: Path) -> dict[str, Any]:
    """Read one state file. Raises UserError if it is missing, cut off, damaged, or no training state at all."""
    try:
        with open(path, "rb") as file:
            beginning = file.read(4)
        if beginning[:2] in (b"", b"P", b"PK"):  # a zip archive, as torch.save writes, or what is left of one
            with zipfile.ZipFile(path) as archive:
                if (member := archive.testzip()) is not None:
                    raise UserError(f"{path} is damaged (in its part {member})")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's thoughts on foreign files
            state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    except zipfile.BadZipFile:
        raise UserError(f"{path} is cut off or damaged") from None
    except UserError:
        raise
    except Exception:  # what torch.load raises on foreign bytes, or on a pickle with code in it, is no closed list
        state = None
    if not isinstance(state, dict) or state.get("format") != FORMAT or not state.keys() >= PARTS:
        raise UserError(f"{path} is not a training state that this version of spvit_mini has saved")
    return state


@contextmanager
def replacing(path: Path, *, keep: Path | None = None) -> Iterator[Path]:
    """Write a file so that under its name there is always a whole one: give a temporary name, then rename.

    The file that stood there before is kept as `keep`, if that is given. If writing fails, the disk being full for one,
    UserError says so, and what was there stays as it was.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            mode = os.fstat(file.fileno()).st_mode
        yield temporary
        os.chmod(temporary, mode)  # safetensors makes files that no one else may read
        with open(temporary, "r+b") as file:
            os.fsync(file.fileno())  # or the rename could reach the disk before the bytes do
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(temporary, path)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors have their own for a full disk
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        if path.parent.is_dir():
            temporary.unlink(missing_ok=True)
        raise UserError(f"{path} could not be written ({reason}); what was saved before is untouched") from error
