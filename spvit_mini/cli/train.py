"""Train a model by a recipe.

    python -m spvit_mini train                                          which recipes there are
    python -m spvit_mini train --list                                   all of them, a line each
    python -m spvit_mini train spvit_mini_compass                       run one, into runs/spvit_mini_compass
    python -m spvit_mini train spvit_mini_compass --help                its options, their meaning and their value
    python -m spvit_mini train spvit_mini_compass --optim.lr 1e-3 --seed 1 --run-dir runs/slower
    python -m spvit_mini train spvit_mini_compass --run-dir runs/slower --resume

Resuming takes the options from the run's recipe.json, so they need not be given again.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ..errors import UserError
from ..recipes import FAMILIES, RECIPES, about, describe
from ..training import Recipe, get_recipe, train
from ..training.checkpoint import read_recipe
from ..training.distributed import speaks
from ..training.loop import top1
from .arguments import parse
from .program import run_program

PROGRAM = "python -m spvit_mini train"


@dataclass(frozen=True)
class Arguments:
    """What the command line says: a recipe, and how to run it."""

    run: Path
    """The folder of the run: recipe.json, metrics.csv, last.pt, previous.pt, best.safetensors, summary.md."""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Go on with the run in that folder, with the options it was begun with; begin it if there is none."""
    max_steps: int | None = None
    """Stop after this step, however long the recipe is. --resume finishes the run."""
    tensorboard: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Write the rows of metrics.csv for TensorBoard too, into the run's folder tensorboard."""
    recipe: Annotated[Recipe, tyro.conf.arg(name="")] = field(default_factory=Recipe, metadata={"flat": True})


def main(argv: list[str] | None = None) -> int:
    """Run the program on command-line arguments; returns its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("--list", "--help", "-h"):
        print(listing() if argv == ["--list"] else overview())
        return 0
    name, *options = argv
    if name.startswith("-"):
        raise UserError(
            f"the recipe comes first: {PROGRAM} RECIPE {' '.join(argv)[:60]}; {PROGRAM} --list names the recipes"
        )

    def read(recipe: Recipe, run: Path) -> Arguments:
        default = Arguments(run=run, recipe=recipe)
        return parse(options, default=default, prog=f"{PROGRAM} {name}", description=describe(name))

    arguments = read(get_recipe(name), Path("runs") / name)
    if arguments.resume and (recorded := read_recipe(arguments.run)) is not None:
        if recorded.name != name:
            raise UserError(
                f"{arguments.run} holds a run of {recorded.name}, not of {name}; name that recipe, or another folder"
            )
        arguments = read(recorded, arguments.run)

    run = arguments.run
    result = train(
        arguments.recipe,
        run=run,
        resume=arguments.resume,
        max_steps=arguments.max_steps,
        tensorboard=arguments.tensorboard,
    )
    if speaks() and (best := result.best) is not None:
        print(f"best validation accuracy {top1(best):.2f} % at step {best['step']}: {run / 'best.safetensors'}")
    if speaks() and (result.step < result.steps or result.stopped_by):
        saved = f"saved in {run}" if result.step else "before the first step"
        print(
            f"stopped at step {result.step} of {result.steps}, {saved}; go on with: {PROGRAM} {name} --run-dir {run} --resume"
        )
    return 128 + result.stopped_by if result.stopped_by else 0


def overview() -> str:
    """Say how to run a recipe, and which there are: sets of images, a line each, below the models for them."""
    lines = [f"{PROGRAM} RECIPE [--section.option value]", "", "RECIPE is MODEL_DATA:"]
    for models, makes in FAMILIES:
        width = max(len(make.__name__) for make in makes)
        lines += ["", f"{' | '.join(models)}  with"]
        lines += [f"  _{make.__name__:<{width}}  {about(make)}" for make in makes]
    return "\n".join([*lines, "", "--list names all recipes; RECIPE --help lists the options of one"])


def listing() -> str:
    """List all recipes, a line each."""
    width = max(map(len, RECIPES))
    return "\n".join(f"{name:<{width}}  {describe(name)}" for name in RECIPES)


if __name__ == "__main__":
    run_program(main)
