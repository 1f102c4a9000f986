"""What a study is: some arms, each a recipe with changes of its own, and the seeds that every arm is run with.

Tuning, where a study has any, is a study itself: every arm with every candidate, on seeds of its own, scored on images
that were held out of the training part. The test part of the set is seen only by runs whose options are settled.
"""

import itertools
import re
from dataclasses import dataclass, field, replace

from spvit_mini.errors import UserError, near
from spvit_mini.recipes import get_recipe
from spvit_mini.recipes.recipe import Recipe

TUNING = "-tuning"  # behind a study's name: the study that settles its options


@dataclass(frozen=True)
class Arm:
    """One side of a comparison.

    Attributes:
        recipe: the name of its recipe.
        changes: what it changes of that, by dotted names as in `Recipe.but`.
        colour: a name in `plots.COLOURS`; without one it gets a colour that no other arm has.
    """

    recipe: str
    changes: dict[str, object] = field(default_factory=dict)
    colour: str | None = None


@dataclass(frozen=True)
class Study:
    """A grid of arms and seeds. All arms with one seed see the same images: differences are taken seed by seed.

    Attributes:
        name: also that of its records.
        question: in one line, what it is to answer.
        arms: by their labels.
        seeds: every arm is run with each.
        changes: options that are changed for all arms; an arm's own go before them.
        baseline: the label of the arm that the others are compared with.
        level: the validation accuracy in percent from which on the task counts as solved.
        tuning: options and the values that are tried, all combinations of them, the same for every arm.
        tuning_seeds: each candidate is tried with each of these, none of which may be among `seeds`.
        holdout: the part of each class's training images that the candidates are scored on.
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

    def __post_init__(self):
        for label in self.arms:
            if not re.fullmatch(r"[\w.,=@+-]+", label):  # it names a folder
                raise UserError(f"an arm is called {label!r}; letters, digits and any of . , = @ + - may be used")
        if self.baseline is not None:
            self.check_arm(self.baseline)
        if self.tuning and set(self.seeds) & set(self.tuning_seeds):
            raise UserError(f"study {self.name}: a seed is in seeds and in tuning_seeds; tune on seeds of their own")

    def check_arm(self, label: str) -> None:
        """Raise UserError, with the near ones, if there is no arm of this name."""
        if label not in self.arms:
            hint = near(label, self.arms)
            raise UserError(f"study {self.name} has no arm {label!r}.{hint} Its arms: {', '.join(self.arms)}")

    def recipe(self, arm: str, seed: int) -> Recipe:
        """Make the recipe of a run."""
        return get_recipe(self.arms[arm].recipe).but(self.changes | self.arms[arm].changes | {"seed": seed})

    def runs(self) -> list[tuple[str, int]]:
        """List all runs, (arm, seed), in the order in which they are best made: pairs are complete early."""
        return [(arm, seed) for seed in self.seeds for arm in self.arms]

    def candidates(self, arm: str) -> dict[str, dict[str, object]]:
        """List what is tried for an arm: changes by the label of the arm in `tuning_study`."""
        tried = (dict(zip(self.tuning, values, strict=True)) for values in itertools.product(*self.tuning.values()))
        return {f"{arm}@{','.join(f'{name}={value}' for name, value in one.items())}": one for one in tried}

    def tuning_study(self) -> "Study":
        """Make the study whose records settle this one's options."""
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
        )

    def tuned(self, finals: dict[tuple[str, int], float]) -> "Study":
        """Give each arm the candidate with the best mean accuracy; of equals the first.

        Args:
            finals: the final accuracy of every run of `tuning_study`, by (arm, seed).
        """

        def mean(label: str) -> float:
            return sum(finals[label, seed] for seed in self.tuning_seeds) / len(self.tuning_seeds)

        arms = {}
        for name, arm in self.arms.items():
            candidates = self.candidates(name)
            arms[name] = replace(arm, changes=arm.changes | candidates[max(candidates, key=mean)])
        return replace(self, arms=arms)
