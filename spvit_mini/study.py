"""python -m spvit_mini.study NAME: run a named grid of recipes and seeds, and keep its records in data/results/NAME.csv.

A record is a row of metrics with all that it takes to make it again: recipe, seed, device, versions, commit. What was
recorded already is not run again, so a study that was stopped goes on where it was.
"""

import csv
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro

from . import __version__
from .errors import UserError, near, run_program
from .training.loop import choose_device, train
from .training.recipes import get_recipe


@dataclass(frozen=True)
class Study:
    """A grid: every recipe with every seed, some options changed for all."""

    question: str
    recipes: tuple[str, ...]
    seeds: tuple[int, ...]
    changes: dict[str, object] = field(default_factory=dict)


STUDIES = {
    "lesson_00": Study(
        "Which way is the ship? A plain ViT and an SP-ViT of two blocks on Compass-6.",
        ("vit_mini_compass6", "spvit_mini_compass6"),
        (0, 1, 2, 3, 4),
        {"evaluate_every": "20 steps"},
    ),
    "demo": Study(
        "The same with four blocks on Compass, as `make demo` shows it.",
        ("vit_mini_compass", "spvit_mini_compass"),
        (0, 1, 2),
        {"evaluate_every": "20 steps"},
    ),
}
COLUMNS = ["recipe", "seed", "step", "train_loss", "train_top1", "val_loss", "val_top1", "seconds"]
ORIGIN = ["changes", "device", "torch", "python", "spvit_mini", "commit"]


@dataclass
class Options:
    """Run a study, or list the studies."""

    name: Annotated[str | None, tyro.conf.Positional] = None
    """Which study; without it, they are listed."""
    out: Path = Path("data/results")
    """The folder for its records."""


def read_records(path: Path) -> list[dict[str, str]]:
    """Read a study's records, a dictionary a row; an empty list if there are none yet."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def run(study: Study, path: Path) -> None:
    """Run what the records at `path` lack, and add a finished run's rows at once."""
    finished = {(row["recipe"], row["seed"]) for row in read_records(path)}
    path.parent.mkdir(parents=True, exist_ok=True)
    for seed in study.seeds:
        for name in study.recipes:
            if (name, str(seed)) in finished:
                continue
            recipe = get_recipe(name).but({"seed": seed} | study.changes)
            rows = train(recipe, progress=False).rows
            told = {"recipe": name, "seed": seed} | dict(
                zip(ORIGIN, origin_of(study, choose_device(recipe)[0].type), strict=True)
            )
            with path.open("a", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS + ORIGIN, extrasaction="ignore", lineterminator="\n")
                if file.tell() == 0:
                    writer.writeheader()
                writer.writerows({key: shorten(value) for key, value in row.items()} | told for row in rows)
            print(f"{name}, seed {seed}: {rows[-1]['val_top1']:.1f} % after {rows[-1]['step']} steps", flush=True)


def origin_of(study: Study, device: str) -> tuple[str, ...]:
    """Say where a record comes from: options changed, device, versions, commit."""
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
    changes = " ".join(f"--{key} '{value}'" for key, value in study.changes.items())
    python = ".".join(map(str, sys.version_info[:3]))
    return changes, device, torch.__version__, python, __version__, git.stdout.strip() or "unknown"


def shorten(value: object) -> object:
    """Write floats with six digits, enough to plot and to compare."""
    return f"{value:.6g}" if isinstance(value, float) else value


def main() -> None:
    options = tyro.cli(Options, prog="python -m spvit_mini.study", description=__doc__)
    if options.name is None:
        for name, study in STUDIES.items():
            print(f"{name:<12}{len(study.recipes)} recipes × {len(study.seeds)} seeds. {study.question}")
        return
    if options.name not in STUDIES:
        raise UserError(f"no study is called {options.name!r}.{near(options.name, STUDIES)} Without a name, all are listed")
    path = options.out / f"{options.name}.csv"
    run(STUDIES[options.name], path)
    print(f"records: {path}")


if __name__ == "__main__":
    run_program(main)
