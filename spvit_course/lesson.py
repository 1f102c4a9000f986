"""The set-up of a lesson, `lesson = begin("00")`, and the methods of `lesson`.

The profile sets how much a lesson computes. It is read once, from the variable SPVIT_PROFILE; no cell reads its name, so
the same cells run for seconds in a test and for minutes on a laptop.
"""

import base64
import importlib
import inspect
import io
import math
import os
import platform
import random
import sys
from collections.abc import Callable, Iterable
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
from .explore import explore

# Modules in which `Lesson.source` looks for a name, in reading order.
SOURCE_MODULES = (
    "spvit_mini.geometry", "spvit_mini.spatial", "spvit_mini.attention", "spvit_mini.vit",
    "spvit_mini.attention_backends", "spvit_mini.block_sparse", "spvit_mini.explain.attribution",
    "spvit_mini.explain.faithfulness", "spvit_mini.training.optim", "spvit_mini.training.token_loss",
    "spvit_mini.training.distributed", "spvit_experiments.statistics",
)  # fmt: skip


@dataclass(frozen=True)
class Profile:
    """How much a lesson computes: the share of each training run's duration, a limit of steps, the number of seeds."""

    name: str
    share: float = 1.0
    max_steps: int | None = None
    seeds: int = 1

    def steps(self, full: int) -> int:
        """Scale a number of training steps; at least 1."""
        return min(max(1, math.ceil(full * self.share)), self.max_steps or full)


# Students run `standard`, and stored outputs are of it; tests run lessons in `quick` and student copies in `smoke`.
PROFILES = {
    profile.name: profile
    for profile in (
        Profile("smoke", max_steps=2),
        Profile("quick", share=1 / 6),
        Profile("standard"),
        Profile("full", seeds=5),
    )
}


def begin(number: str) -> "Lesson":
    """Set up a lesson, print its profile, device and versions, and return its `Lesson`. `number` is "00" to "13".

    Sets the figure style and the seeds of torch, numpy and Python. Raises UserError for an unknown SPVIT_PROFILE.
    """
    from spvit_mini import plots
    from spvit_mini.recipes.recipe import Recipe
    from spvit_mini.training.devices import choose_device

    name = os.environ.get("SPVIT_PROFILE", "standard")
    if name not in PROFILES:
        raise UserError(f"SPVIT_PROFILE is {name!r}; expected one of {', '.join(PROFILES)}. Set one of these.")
    plots.style()
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    device = choose_device(Recipe())[0]
    versions = f"spvit_mini {spvit_mini.__version__}, torch {torch.__version__}, Python {platform.python_version()}"
    print(f"Lesson {number}, profile {name}, on {device.type} ({versions})")
    return Lesson(number, PROFILES[name])


class Lesson:
    """Checks, figures, training runs and progress of one lesson, as long as its profile allows.

    The set-up cell imports the library's modules. Later cells use a class through its module (`attention.SPSA`), never
    the class that the student wrote in the notebook, so that a lesson runs to its end over an unsolved exercise.
    """

    explore = staticmethod(explore)

    def __init__(self, number: str, profile: Profile):
        self.number, self.profile = number, profile
        self._exercises = checks.exercises(number)
        self._passed: set[str] = set()
        self._states: dict[str, str] = {}

    def check(
        self, answer: Callable, *, grade: bool = False, name: str | None = None, variant: str | None = None
    ) -> None:
        """Check an answer to an exercise, and print the result.

        With `grade`, print nothing and raise CheckFailed unless the answer passes. `name` is the exercise; by default the
        answer's own name, or that of the notebook's variable. `variant` selects a different mechanism
        (classroom/variants.py). In a folder of student copies the result is saved for `progress`.
        """
        known = checks.exercises(self.number, variant) if variant else self._exercises
        name = name or name_answer(answer, known)
        if name not in known:
            listed = ", ".join(known) or "none"
            asked = f" in the variant {variant!r}" if variant else ""
            raise UserError(f"lesson {self.number} has no exercise {name!r}{asked}; its exercises: {listed}")
        result = examine(known[name], answer)
        if result.passed:
            self._passed.add(name)
        if not grade:
            self._states[name] = records.merge_states(self._states.get(name), records.STATES[result.status])
            records.save_result(self.number, name, result.status)
        self._report(result, grade)

    def exchange(
        self, student: type[nn.Module], package: type[nn.Module], *, build: dict, inputs: tuple, grade: bool = False
    ) -> None:
        """Compare the student's class with the package's: `state_dict` strictly both ways, outputs, gradients.

        Both are constructed with the arguments `build` and called on `inputs`. Prints, or raises if `grade`, as `check`.
        """
        self._report(exchange(student, package, build=build, inputs=inputs), grade)

    def _report(self, result, grade: bool) -> None:
        if not grade:
            print(result)
        elif not result.passed:
            raise CheckFailed(str(result))

    def progress(self) -> None:
        """Print which exercises of this lesson have passed; in a folder of student copies, also those of all lessons."""
        print(records.describe_lesson(self.number, self._states, self._exercises))

    def source(self, name: str, *, after: str | None = None) -> None:
        """Print the package's source of a function, class or method ("SPSA.weights"); of an exercise once it is solved.

        `after` names the exercise that must be solved first if the package's name for its solution is different.
        """
        outer = name.partition(".")[0]
        exercise = after or outer
        if exercise in self._exercises and exercise not in self._passed:
            print(f"The package's {name} is shown here once your own passes its check.")
            return
        value = definition(outer)
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
        """Train a recipe, or the recipe of a name, for the profile's share of its duration. Write no file.

        `changes` are options by their dotted names, as in `Recipe.override`; durations are those of the standard profile.
        Returns the Result of `spvit_mini.training.train`: `.model`, and `.rows` with a dictionary per evaluation.
        """
        from spvit_mini.recipes import get_recipe
        from spvit_mini.recipes.duration import parse_duration
        from spvit_mini.training import train

        recipe = get_recipe(recipe) if isinstance(recipe, str) else recipe
        recipe = recipe.override({"seed": seed} | (changes or {}))
        scaled = {}
        for name in ("duration", "optim.warmup", "evaluate_every"):
            value, unit = parse_duration(recipe.flatten()[name])
            scaled[name] = f"{value * self.profile.share:.6f} {unit}s"
        return train(
            recipe.override(scaled), max_steps=self.profile.max_steps, progress=progress, on_evaluation=on_evaluation
        )

    def show(self, figure: Figure, alt: str) -> None:
        """Display a figure with its alternative text, and close it. `alt` states the figure's finding in words."""
        import matplotlib.pyplot as plt
        from IPython.display import display

        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=144)
        plt.close(figure)
        data = {"image/png": base64.b64encode(compact(png.getvalue())).decode(), "text/plain": alt}
        width = round(figure.get_size_inches()[0] * 96)  # in CSS pixels, 96 to the inch
        display(data, raw=True, metadata={"image/png": {"alt": alt, "width": width}})


def name_answer(answer: Any, known: Iterable[str]) -> str:
    """Name an answer: by its own name, or, if no exercise is called so, by the variable of the caller that holds it.

    Lambdas, partial functions, objects and functions inside a decorator have no name of their own, or a different one.
    """
    frame = sys._getframe(1)
    while frame.f_back and str(frame.f_globals.get("__name__")).partition(".")[0] == __package__:
        frame = frame.f_back
    own = getattr(answer, "__name__", type(answer).__name__)
    return own if own in known else next((name for name in known if frame.f_globals.get(name) is answer), own)


def compact(png: bytes) -> bytes:
    """Encode a PNG with a palette of 256 colours, about half the size: a lesson's figures are stored in its file."""
    smaller = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(256).save(smaller, format="png", optimize=True)
    return min(png, smaller.getvalue(), key=len)


def definition(name: str) -> Any:
    """Find the function or class that a module of SOURCE_MODULES defines under `name`. Raises UserError for other names."""
    known = {}
    for module in SOURCE_MODULES:
        values = vars(importlib.import_module(module))
        own = {key: value for key, value in values.items() if getattr(value, "__module__", None) == module}
        if name in own:
            return own[name]
        known |= own
    raise UserError(f"source name is {name!r}; expected a function or class of the package.{near(name, known)}")
