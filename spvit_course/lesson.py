"""What a notebook begins with: `lesson = begin("00")`, and what `lesson` then offers to its cells.

The profile says how much is computed. It is read once, from the variable SPVIT_PROFILE; no cell asks for its name, so the
same cells run in seconds in a test and in minutes on a desk.
"""

import base64
import importlib
import inspect
import io
import math
import os
import platform
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

import spvit_mini
from spvit_mini.errors import UserError, near

from . import checks
from . import progress as records
from .checks.engine import CheckFailed, examine
from .checks.exchange import exchange

# Where `lesson.NAME` looks for public names, in reading order.
ROOMS = (
    "spvit_mini.geometry", "spvit_mini.spatial", "spvit_mini.attention", "spvit_mini.vit", "spvit_mini.zoo",
    "spvit_mini.explain.attribution", "spvit_mini.explain.faithfulness", "spvit_mini.data", "spvit_mini.data.synthetic",
    "spvit_mini.training", "spvit_mini.recipes", "spvit_experiments.overview", "spvit_mini.training.token_loss",
    "spvit_experiments", "spvit_mini.plots", "spvit_mini.block_sparse", "spvit_course.explore",
)  # fmt: skip


@dataclass(frozen=True)
class Profile:
    """How much a lesson computes: the part of a training's length, a cap on its steps, how many seeds."""

    name: str
    share: float = 1.0
    most_steps: int | None = None
    seeds: int = 1

    def steps(self, full: int) -> int:
        """Shorten a number of training steps; it stays at least 1."""
        return min(max(1, math.ceil(full * self.share)), self.most_steps or full)


# standard is what a student runs and what stored outputs come from. quick serves the tests, smoke those of the copies.
PROFILES = {
    profile.name: profile
    for profile in (
        Profile("smoke", most_steps=2),
        Profile("quick", share=1 / 6),
        Profile("standard"),
        Profile("full", seeds=5),
    )
}


def begin(number: str) -> "Lesson":
    """Set a lesson up, print one line about it, and return what its cells use. `number` is "00" to "13".

    Sets the figure style and the seeds of torch, numpy and Python. Raises UserError for an unknown SPVIT_PROFILE.
    """
    from spvit_mini import plots
    from spvit_mini.recipes.recipe import Recipe
    from spvit_mini.training.loop import choose_device

    name = os.environ.get("SPVIT_PROFILE", "standard")
    if name not in PROFILES:
        raise UserError(f"SPVIT_PROFILE is {name!r}; it must be one of {', '.join(PROFILES)}")
    plots.style()
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    device = choose_device(Recipe())[0]
    versions = f"spvit_mini {spvit_mini.__version__}, torch {torch.__version__}, Python {platform.python_version()}"
    print(f"Lesson {number}, profile {name}, on {device.type} ({versions})")
    return Lesson(number, PROFILES[name])


class Lesson:
    """What the cells of one lesson use. Any public name of the package is an attribute: `lesson.SPSA`, `lesson.Compass`.

    Later cells of a lesson call the package's class by this name, never the one written in the notebook, so that a
    lesson runs to its end over an unsolved exercise.
    """

    def __init__(self, number: str, profile: Profile):
        self.number, self.profile = number, profile
        self._exercises = checks.exercises(number)
        self._passed: set[str] = set()
        self._found: dict[str, str] = {}

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_"):
            if hasattr(spvit_mini, name):
                return getattr(spvit_mini, name)
            public = {}
            for room in ROOMS:
                names = vars(importlib.import_module(room))
                public = {key: value for key, value in names.items() if is_public(key, value)} | public
            if name in public:
                return public[name]
            raise AttributeError(f"the package has no public name {name!r}.{near(name, public)}")
        raise AttributeError(name)

    def check(
        self, answer: Callable, *, grade: bool = False, name: str | None = None, variant: str | None = None
    ) -> None:
        """Check an answer to the exercise of its name, and print what was found.

        With `grade`, print nothing and raise CheckFailed unless it passes. `name` names the exercise where the answer's
        own name does not. `variant` asks for another mechanism than the lesson's (course/variants.py). In a student's
        folder what was found is remembered, for `progress`.
        """
        name = name or getattr(answer, "__name__", str(answer))
        known = checks.exercises(self.number, variant) if variant else self._exercises
        if name not in known:
            listed = ", ".join(known) or "none"
            asked = f" in the variant {variant!r}" if variant else ""
            raise UserError(f"lesson {self.number} has no exercise {name!r}{asked}; its exercises: {listed}")
        result = examine(known[name], answer)
        if result.passed:
            self._passed.add(name)
        if not grade:
            self._found[name] = records.better(self._found.get(name), records.STATES[result.status])
            records.record(self.number, name, result.status)
        self._tell(result, grade)

    def exchange(
        self, student: type[nn.Module], package: type[nn.Module], *, build: dict, inputs: tuple, grade: bool = False
    ) -> None:
        """Compare a class written by hand with the package's: weights strictly both ways, outputs, gradients.

        Both are built by `build` and called on `inputs`. Prints, or raises if `grade`, as `check` does.
        """
        self._tell(exchange(student, package, build=build, inputs=inputs), grade)

    def _tell(self, result, grade: bool) -> None:
        if not grade:
            print(result)
        elif not result.passed:
            raise CheckFailed(str(result))

    def progress(self) -> None:
        """Say which exercises of this lesson have passed; in a student's folder, also what has passed in all lessons."""
        print(records.in_lesson(self.number, self._found, self._exercises))

    def source(self, name: str, *, after: str | None = None) -> None:
        """Print the package's source of a function, class or method ("SPSA.weights"); of an exercise once it is solved.

        `after` names the exercise that has to be solved first, where the package calls its solution by another name.
        """
        outer = name.partition(".")[0]
        exercise = after or outer
        if exercise in self._exercises and exercise not in self._passed:
            print(f"The package's {name} is shown here once your own passes its check.")
            return
        value = getattr(self, outer)
        for part in name.split(".")[1:]:
            value = getattr(value, part)
        print(inspect.getsource(value).rstrip())

    def train(
        self,
        recipe,
        *,
        seed: int = 0,
        changes: dict[str, Any] | None = None,
        progress: bool = True,
        on_evaluation: Callable | None = None,
    ):
        """Train by a recipe, given itself or by name, for as long as the profile says; writes nothing.

        `changes` are options by their dotted names, as in `Recipe.but`; all lengths are those of the standard profile.
        Returns the Result of `spvit_mini.training.train`: `.model`, and `.rows` with a dictionary per evaluation.
        """
        from spvit_mini.recipes.duration import parse_length
        from spvit_mini.training import get_recipe, train

        recipe = get_recipe(recipe) if isinstance(recipe, str) else recipe
        recipe = recipe.but({"seed": seed} | (changes or {}))
        shortened = {}
        for name in ("length", "optim.warmup", "evaluate_every"):
            value, unit = parse_length(recipe.flat()[name])
            shortened[name] = f"{value * self.profile.share:.6f} {unit}s"
        return train(
            recipe.but(shortened), max_steps=self.profile.most_steps, progress=progress, on_evaluation=on_evaluation
        )

    def show(self, figure: Figure, alt: str) -> None:
        """Show a figure, and close it. `alt` says in words what it shows, for those who cannot see it."""
        import matplotlib.pyplot as plt
        from IPython.display import display

        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=144)
        plt.close(figure)
        data = {"image/png": base64.b64encode(compact(picture.getvalue())).decode(), "text/plain": alt}
        width = round(figure.get_size_inches()[0] * 96)  # in the pixels of a page, of which an inch has 96
        display(data, raw=True, metadata={"image/png": {"alt": alt, "width": width}})


def compact(png: bytes) -> bytes:
    """Write a PNG with a palette of 256 colours, about half the size: a lesson's pictures stand in its file."""
    smaller = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(256).save(smaller, format="png", optimize=True)
    return min(png, smaller.getvalue(), key=len)


def is_public(name: str, value: Any) -> bool:
    """Tell whether a name of a module is one of the package's own, not something the module imported from elsewhere."""
    home = getattr(value, "__module__", None) or getattr(value, "__name__", "")
    return not name.startswith("_") and str(home).partition(".")[0] in ("spvit_mini", "spvit_course", "spvit_experiments")
