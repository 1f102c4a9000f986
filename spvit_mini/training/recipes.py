"""The recipes by name, MODEL_DATA: spvit_mini_compass, vit_mini_cifar10, …

A recipe is a function of the model's name, so that two models on one set of images differ in that name alone.
"""

from collections.abc import Callable
from dataclasses import replace

from ..data import AugmentOptions, DataOptions
from ..errors import UserError, near
from .optim import OptimOptions
from .recipe import ModelOptions, Recipe

MODELS = ("spvit_mini", "vit_mini")


def compass(model: str) -> Recipe:
    """Which way is the ship? Eight directions on 8×8 patches, from 2,000 images.

    Command: python -m spvit_mini.train spvit_mini_compass
    Cost: not measured yet
    Expected: not measured yet; chance is 12.5 %
    """
    return Recipe(
        model=ModelOptions(model, depth=4, dim=64, heads=4),
        data=DataOptions(name="compass"),
        optim=OptimOptions(lr=2e-3, final_lr=1e-5, warmup="24 steps", weight_decay=0.05),
        length="240 steps",
        batch=100,
        evaluate_every="40 steps",
        save_every="40 steps",
    )


def compass6(model: str) -> Recipe:
    """Compass on 6×6 patches of 24-pixel images, for a model of two blocks: the smallest run that shows a prior.

    Command: python -m spvit_mini.train spvit_mini_compass6
    Cost: not measured yet
    Expected: not measured yet; chance is 12.5 %
    """
    return replace(
        compass(model),
        model=ModelOptions(model, depth=2, dim=48, heads=4),
        data=DataOptions(name="compass6"),
    )


def textures(model: str) -> Recipe:
    """Rows, columns, checker or diagonal? Four textures of two-valued patches, from 2,000 images.

    Command: python -m spvit_mini.train spvit_mini_textures
    Cost: not measured yet
    Expected: not measured yet; chance is 25 %
    """
    return replace(compass(model), data=DataOptions(name="textures"), length="160 steps")


def textures6(model: str) -> Recipe:
    """Textures on 6×6 patches, for a model of two blocks.

    Command: python -m spvit_mini.train spvit_mini_textures6
    Cost: not measured yet
    Expected: not measured yet; chance is 25 %
    """
    return replace(compass6(model), data=DataOptions(name="textures6"), length="160 steps")


def rings(model: str) -> Recipe:
    """How far is the ship? Compass's scene; the class is the distance, 1 to 4 patches.

    Command: python -m spvit_mini.train spvit_mini_rings
    Cost: not measured yet
    Expected: not measured yet; chance is 25 %
    """
    return replace(compass(model), data=DataOptions(name="rings"))


def rings6(model: str) -> Recipe:
    """Rings on 6×6 patches, for a model of two blocks.

    Command: python -m spvit_mini.train spvit_mini_rings6
    Cost: not measured yet
    Expected: not measured yet
    """
    return replace(compass6(model), data=DataOptions(name="rings6"))


def cifar10(model: str) -> Recipe:
    """CIFAR-10: ten classes of 32-pixel photographs, flipped, shifted and varied by RandAugment.

    Command: python -m spvit_mini.train spvit_mini_cifar10 --data.root FOLDER
    Cost: not measured yet
    Expected: not measured yet; chance is 10 %
    """
    return Recipe(
        model=ModelOptions(model, drop_path=0.1),
        data=DataOptions(name="cifar10"),
        augment=AugmentOptions(flip=True, crop="shift", randaugment=(2, 9)),
        optim=OptimOptions(lr=1e-3, final_lr=1e-5, warmup="2 epochs", weight_decay=0.05),
        length="30 epochs",
        batch=128,
        label_smoothing=0.1,
    )


def flowers17(model: str) -> Recipe:
    """Flowers17: photographs of seventeen kinds of flowers, at 64 pixels in patches of 8.

    Command: python -m spvit_mini.train spvit_mini_flowers17 --data.root FOLDER --data.name flowers17-256
    Cost: not measured yet
    Expected: not measured yet; chance is 5.9 %
    """
    return Recipe(
        model=ModelOptions(model, patch=8, drop_path=0.1),
        data=DataOptions(name="flowers17", image_size=64),
        augment=AugmentOptions(flip=True, crop="resized", crop_scale=(0.25, 1.0), colour=0.3),
        optim=OptimOptions(lr=1e-3, final_lr=1e-5, warmup="10 epochs", weight_decay=0.05),
        length="100 epochs",
        batch=64,
        label_smoothing=0.1,
        evaluate_every="5 epochs",
        save_every="5 epochs",
    )


DATA: tuple[Callable[[str], Recipe], ...] = (
    compass, compass6, textures, textures6, rings, rings6, cifar10, flowers17,
)  # fmt: skip
RECIPES = {f"{model}_{make.__name__}": (make, model) for make in DATA for model in MODELS}


def list_recipes() -> list[str]:
    """List the names that `get_recipe` knows."""
    return list(RECIPES)


def get_recipe(name: str) -> Recipe:
    """Make the recipe of a name. Raises UserError, with the near names, if there is none."""
    if name not in RECIPES:
        raise UserError(
            f"no recipe is called {name!r}.{near(name, RECIPES)} python -m spvit_mini.train --list names them all"
        )
    make, model = RECIPES[name]
    return replace(make(model), name=name)


def describe(name: str) -> str:
    """Say in one line what a recipe is about."""
    return RECIPES[name][0].__doc__.splitlines()[0]
