"""Train a model by a recipe.

    python -m spvit_mini recipes                                        lists the recipes
    python -m spvit_mini train spvit_mini_compass                       trains by one, into runs/spvit_mini_compass
    python -m spvit_mini train spvit_mini_compass --help                explains its options and shows their values
    python -m spvit_mini train spvit_mini_compass --optim.lr 1e-3 --seed 1 --run-dir runs/slower
    python -m spvit_mini train --resume --run-dir runs/slower
    torchrun --nproc-per-node 8 -m spvit_mini train spvit_s_imagenet --run-dir runs/spvit_s

Resuming reads the recipe and its options from the run's recipe.json, so that they need not be repeated; --import must be.
"""

import os
import re
import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from ..errors import UserError
from ..extensions import read_imports
from ..fields import Steps
from ..recipes import adopt_model, describe_recipe, get_recipe, list_recipes
from ..recipes.recipe import Recipe
from .arguments import Imports, Program

PROGRAM = Program("python -m spvit_mini train", __doc__, first="RECIPE")


@dataclass(frozen=True)
class Arguments:
    """A recipe, and how to run it."""

    run_dir: Path
    """Folder of the run: recipe.json, metrics.csv, last.pt, previous.pt, best.safetensors, summary.md."""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Resume the run in that folder, with its own options; start it if the folder holds none."""
    max_steps: Steps | None = None
    """Stop after this step of the recipe; --resume finishes the run. None: train to the end."""
    tensorboard: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Also write the rows of metrics.csv for TensorBoard, into the folder tensorboard of the run."""
    imports: Imports = ()
    recipe: Annotated[Recipe, tyro.conf.arg(name="")] = field(default_factory=Recipe, metadata={"flat": True})


def main(argv: list[str]) -> int:
    """Run the program on command-line arguments; returns its exit status."""
    if not argv or argv[0] in ("--list", "--help", "-h"):
        print(__doc__.strip())
        return 0
    imports, argv = read_imports(argv)
    is_resumed = "--resume" in argv and not {"--help", "-h"} & set(argv)
    name, options = (None, argv) if is_resumed and argv[0].startswith("-") else PROGRAM.split(argv)
    run_dir = find_run_dir(argv) or (Path("runs") / name if name else None)
    recipe = recorded = read_recorded(run_dir, name, imports) if is_resumed and run_dir is not None else None
    if recipe is None:
        if name is None:
            missing = "--run-dir is missing" if run_dir is None else f"{run_dir} has no recipe.json"
            raise UserError(f"{missing}; expected the folder of a run to resume. Use {PROGRAM} RECIPE to begin one.")
        recipe = get_recipe(name)
    defaults = Arguments(run_dir=run_dir or Path(), recipe=replace(recipe, imports=imports))
    program = replace(PROGRAM, about=describe_recipe(name)) if name in list_recipes() else PROGRAM
    arguments = program.parse(options, defaults, first=name or "RECIPE")
    adopted, path = "", arguments.recipe.init_from
    if path is not None and recorded is None:
        own = adopt_model(defaults.recipe, path)
        if own != defaults.recipe:
            arguments = program.parse(options, replace(defaults, recipe=own), first=name or "RECIPE")
            fields = ", ".join(f"{n} {value}" for n, value in vars(own.model).items() if n != "name" and value not in (None, {}))
            adopted = f"architecture of {path}: {own.model.name}{f' with {fields}' if fields else ''}"

    from ..training import train  # the help needs no torch
    from ..training.distributed import is_main_process
    from ..training.metrics import best_top1

    if adopted and is_main_process():
        print(adopted)
    run_dir = find_run_dir(argv) or name_run_dir(name, arguments.recipe) or arguments.run_dir
    how = {name: getattr(arguments, name) for name in ("resume", "max_steps", "tensorboard")}
    result = train(arguments.recipe, run_dir=run_dir, **how)
    if is_main_process() and (best := result.best) is not None:
        print(f"best validation accuracy {best_top1(best):.2f} % at step {best['step']}: {run_dir / 'best.safetensors'}")
    elif is_main_process() and result.rows:
        print("there are no best weights: the run has diverged, and its validation loss was never finite")
    if is_main_process() and (result.step < result.steps or result.stopped_by):
        saved = f"saved in {run_dir}" if result.step else "before the first step"
        words = [*([name] if name else []), "--run-dir", str(run_dir), "--resume", *(["--import", *imports] if imports else [])]
        print(f"stopped at step {result.step} of {result.steps}, {saved}; resume with: {PROGRAM} {shlex.join(words)}")
    return 128 + result.stopped_by if result.stopped_by else 0


def name_run_dir(name: str | None, recipe: Recipe) -> Path | None:
    """Name the run folder of a recipe for images of the user's own by model and dataset; None for other recipes."""
    if not name or not name.endswith("_images"):
        return None
    data, task = recipe.data, name.removesuffix("images").removeprefix(f"{recipe.model.name}_")
    dataset = data.root.resolve().name if data.name == "folder" else data.name.replace("/", "_")
    return Path("runs") / f"{task}{recipe.model.name}_{dataset}"


def find_run_dir(options: list[str]) -> Path | None:
    """Find the value of --run-dir before the other options are read: they are changes of the recipe in that folder."""
    pairs = zip(options, [*options[1:], ""], strict=True)
    found = [word[10:] or after for word, after in pairs if re.fullmatch("--run[-_]dir(=.*)?", word, re.DOTALL)]
    return Path(found[-1]) if found and found[-1] else None


def read_recorded(run_dir: Path, name: str | None, imports: tuple[str, ...]) -> Recipe | None:
    """Read the recipe of a run to resume; None if there is none, or if the folder is free and another recipe is named.

    Raises UserError if the folder has a run of another recipe, or if an extension of the run is not imported.
    """
    from ..training.checkpoint import find_progress, read_recipe  # the help needs no torch

    recorded = read_recipe(run_dir)
    if recorded is not None and name not in (None, recorded.name):
        if find_progress(run_dir):
            fix = f"use --resume without a recipe, since {run_dir / 'recipe.json'} has all options, or another folder"
            raise UserError(f"{run_dir} holds a run of {recorded.name}, not of {name}; {fix}")
        return None
    needed = recorded.imports if recorded else ()
    if missing := [extension for extension in needed if Path(extension).name not in map(os.path.basename, imports)]:
        raise UserError(f"the run in {run_dir} needs an extension that is not imported; add --import {' '.join(missing)}")
    return recorded
