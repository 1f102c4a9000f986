"""Train a model by a recipe.

    python -m spvit_mini recipes                                        lists the recipes
    python -m spvit_mini train spvit_mini_compass                       trains by one, into runs/spvit_mini_compass
    python -m spvit_mini train spvit_mini_compass --help                explains its options and shows their values
    python -m spvit_mini train spvit_mini_compass --optim.lr 1e-3 --seed 1 --run-dir runs/slower
    python -m spvit_mini train spvit_mini_compass --run-dir runs/slower --resume
    torchrun --nproc-per-node 8 -m spvit_mini train spvit_s_imagenet --run-dir runs/spvit_s

Resuming reads the options from the run's recipe.json, so that they need not be repeated; --import must be repeated.
"""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from ..errors import UserError
from ..extensions import read_imports
from ..recipes import describe_recipe, get_recipe
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
    max_steps: int | None = None
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
    name, options = PROGRAM.split(argv)
    arguments = parse(name, options, replace(get_recipe(name), imports=imports), Path("runs") / name)

    from ..training import train  # the help needs no torch
    from ..training.checkpoint import read_recipe
    from ..training.distributed import is_main_process
    from ..training.metrics import best_top1

    run_dir = arguments.run_dir
    if arguments.resume and (recorded := read_recipe(run_dir)) is not None:
        if recorded.name != name:
            raise UserError(f"{run_dir} holds a run of {recorded.name}, not of {name}; use that recipe or another folder")
        if missing := [extension for extension in recorded.imports if Path(extension).name not in map(os.path.basename, imports)]:
            raise UserError(f"the run in {run_dir} needs an extension that is not imported; add --import {' '.join(missing)}")
        arguments = parse(name, options, replace(recorded, imports=imports), run_dir)

    how = {name: getattr(arguments, name) for name in ("resume", "max_steps", "tensorboard")}
    result = train(arguments.recipe, run_dir=run_dir, **how)
    if is_main_process() and (best := result.best) is not None:
        print(f"best validation accuracy {best_top1(best):.2f} % at step {best['step']}: {run_dir / 'best.safetensors'}")
    if is_main_process() and (result.step < result.steps or result.stopped_by):
        saved = f"saved in {run_dir}" if result.step else "before the first step"
        command = " ".join([f"{PROGRAM} {name} --run-dir {run_dir} --resume", *(["--import", *imports] if imports else [])])
        print(f"stopped at step {result.step} of {result.steps}, {saved}; resume with: {command}")
    return 128 + result.stopped_by if result.stopped_by else 0


def parse(name: str, options: list[str], recipe: Recipe, run_dir: Path) -> Arguments:
    """Parse the options as changes of a recipe; for --help print the first line of its docstring and all options."""
    program = replace(PROGRAM, about=describe_recipe(name))
    return program.parse(options, Arguments(run_dir=run_dir, recipe=recipe), first=name)
