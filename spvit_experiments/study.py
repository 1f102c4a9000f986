"""A study: arms, each a recipe with changes of its own, and the seeds that every arm is run with.

The tuning of a study is a study too: every arm with every candidate, on separate seeds, evaluated on images held out of the
training split. The test split is used only by runs whose options are final.
"""

import itertools
import re
from dataclasses import dataclass, field, replace

from spvit_mini.errors import UserError, near
from spvit_mini.recipes import get_recipe
from spvit_mini.recipes.recipe import Recipe

TUNING = "-tuning"  # suffix of the name of the study that tunes another study
TIE = 0.05  # points of accuracy; candidates that differ by less are equal as printed


@dataclass(frozen=True)
class Arm:
    """One side of a comparison.

    Attributes:
        recipe: name of a recipe.
        changes: changes of that recipe, by dotted names as in `Recipe.override`.
        colour: a name in `plots.COLOURS`; None: a colour that no other arm has.
    """

    recipe: str
    changes: dict[str, object] = field(default_factory=dict)
    colour: str | None = None


@dataclass(frozen=True)
class Study:
    """A grid of arms and seeds. All arms with one seed see the same images, so differences are paired by seed.

    Attributes:
        name: also the name of its records.
        question: the question that the study answers, in one line.
        arms: arms by label.
        seeds: every arm is run with each seed.
        changes: changes of all arms; the changes of an arm take precedence.
        baseline: label of the arm that the other arms are compared with.
        level: validation accuracy in percent at which the task counts as solved.
        tuning: options and their candidate values; every arm is tuned over all combinations.
        tuning_seeds: seeds of every candidate; must be disjoint from `seeds`.
        holdout: fraction of each class's training images on which the candidates are evaluated.
        imports: files and modules that register the user's own parts (`--import`).
        ties: lines about arms whose best candidates were equal, from `apply_tuning`.
    """

    name: str
    question: str
    arms: dict[str, Arm]
    seeds: tuple[int, ...]
    changes: dict[str, object] = field(default_factory=dict)
    baseline: str | None = None
    level: float = 90.0
    tuning: dict[str, tuple] = field(default_factory=dict)
    tuning_seeds: tuple[int, ...] = (100, 101)
    holdout: float = 0.2
    imports: tuple[str, ...] = ()
    ties: tuple[str, ...] = ()

    def __post_init__(self):
        for label in self.arms:
            if not re.fullmatch(r"[\w.,=@+-]+", label):  # it names a folder
                raise UserError(f"the label of an arm is {label!r}; expected letters, digits and . , = @ + -. Rename the arm.")
        if self.baseline is not None:
            self.check_arm(self.baseline)
        if both := set(self.seeds) & set(self.tuning_seeds) if self.tuning else ():
            raise UserError(f"study {self.name}: seed {min(both)} is in seeds and in tuning_seeds; use separate seeds for tuning")

    def check_arm(self, label: str) -> None:
        """Raise UserError, with the nearest labels, if no arm has this label."""
        if label not in self.arms:
            hint = near(label, self.arms)
            raise UserError(f"study {self.name} has no arm {label!r}.{hint} Its arms: {', '.join(self.arms)}")

    def recipe(self, arm: str, seed: int) -> Recipe:
        """Make the recipe of a run."""
        changes = self.changes | self.arms[arm].changes | {"seed": seed}
        return get_recipe(self.arms[arm].recipe).override(changes | ({"imports": self.imports} if self.imports else {}))

    def runs(self) -> list[tuple[str, int]]:
        """List all runs as (arm, seed), seed by seed, so that pairs are complete early."""
        return [(arm, seed) for seed in self.seeds for arm in self.arms]

    def commands(self) -> list[str]:
        """List the commands that make the records: the tuning first, where there is one."""
        names = [self.name + TUNING, self.name] if self.tuning else [self.name]
        imports = "".join(f" --import {name}" for name in self.imports)
        return [f"python -m spvit_experiments study {name}{imports}" for name in names]

    def candidates(self, arm: str) -> dict[str, dict[str, object]]:
        """List the candidates of an arm: changes, by the label of the arm in `tuning_study`."""
        grid = (dict(zip(self.tuning, values, strict=True)) for values in itertools.product(*self.tuning.values()))
        return {f"{arm}@{','.join(f'{name}={value}' for name, value in changes.items())}": changes for changes in grid}

    def tuning_study(self) -> "Study":
        """Make the study whose records decide the tuned options of this study."""
        arms = {
            label: replace(arm, changes=arm.changes | changes)
            for name, arm in self.arms.items()
            for label, changes in self.candidates(name).items()
        }
        return Study(
            name=self.name + TUNING,
            question=f"Which {' and '.join(self.tuning)} serves each arm of {self.name} best?",
            arms=arms,
            seeds=self.tuning_seeds,
            changes=self.changes | {"data.holdout": self.holdout},
            level=self.level,
            imports=self.imports,
        )

    def apply_tuning(self, finals: dict[tuple[str, int], float]) -> "Study":
        """Give each arm its candidate with the highest mean accuracy; the first one if several are equal.

        Args:
            finals: final accuracy of every run of `tuning_study`, by (arm, seed).
        """

        def mean(label: str) -> float:
            return sum(finals[label, seed] for seed in self.tuning_seeds) / len(self.tuning_seeds)

        arms, ties = {}, []
        for name, arm in self.arms.items():
            candidates = self.candidates(name)
            best = max(candidates, key=mean)
            arms[name] = replace(arm, changes=arm.changes | candidates[best])
            equal = [label.partition("@")[2] for label in candidates if abs(mean(label) - mean(best)) < TIE]
            if len(equal) > 1:
                chosen = best.partition("@")[2]
                ties.append(f"{name}: the candidates {' and '.join(equal)} are tied at {mean(best):.1f} %; {chosen} is used.")
        return replace(self, arms=arms, ties=tuple(ties))
