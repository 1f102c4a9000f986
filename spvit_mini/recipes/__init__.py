"""The recipes by name, MODEL_DATA: spvit_mini_compass, vit_mini_cifar10, spvit_s_imagenet, …

A recipe is a function of the model's name: `compass("spvit_mini")` is spvit_mini_compass. So models on one set of images
differ in that name alone; but for ImageNet, where each has the recipe of its paper. The function's docstring says how to
run it, where its numbers are from, what it costs and what to expect.
"""

from collections.abc import Callable
from dataclasses import fields, replace

from ..errors import UserError, near
from ..zoo import MODELS
from . import imagenet as large
from . import small_images, synthetic
from .options import ModelOptions
from .recipe import Recipe

MINIS = ("spvit_mini", "vit_mini", "rpb_mini", "window_mini", "psa_mini", "convit_mini", "anchored_mini", "cnn_mini")
PAIR = ("deit_small", "convit_small")
SMALL = (*PAIR, "lvvit_s", "spvit_s")

# Which models have which recipes.
FAMILIES: tuple[tuple[tuple[str, ...], tuple[Callable[[str], Recipe], ...]], ...] = (
    (
        MINIS,
        (
            synthetic.compass, synthetic.compass6, synthetic.textures, synthetic.textures6, synthetic.rings,
            synthetic.rings6, small_images.cifar10, small_images.cifar100, small_images.tiny_imagenet,
            small_images.flowers17, small_images.imagenette,
        ),
    ),
    (SMALL, (large.imagenet100, large.imagenet100_first)),
    ((*SMALL, "spvit_m", "spvit_l"), (large.imagenet,)),
    (("lvvit_s", "spvit_s", "spvit_m", "spvit_l"), (large.imagenet_384,)),
    (PAIR, (large.imagenet_5pct, large.imagenet_10pct, large.imagenet_30pct, large.imagenet_50pct)),
    (("spvit_l",), (large.imagenet_fsdp,)),
)  # fmt: skip
RECIPES = {
    f"{model}_{make.__name__}": (make, model) for models, makes in FAMILIES for make in makes for model in models
}


def list_recipes() -> list[str]:
    """List the names that `get_recipe` knows."""
    return list(RECIPES)


def get_recipe(name: str) -> Recipe:
    """Make the recipe of a name. Raises UserError, with the near names, if there is none."""
    if name not in RECIPES:
        raise UserError(
            f"no recipe is called {name!r}.{near(name, RECIPES)} python -m spvit_mini train --list names them all"
        )
    make, model = RECIPES[name]
    recipe = make(model)
    return replace(recipe, name=name, model=own_options(recipe.model))


def own_options(options: ModelOptions) -> ModelOptions:
    """Leave out of a recipe what its model does not have, such as the heads of a CNN."""
    known = {field.name for field in fields(MODELS[options.name])}
    return replace(options, **{name: None for name in vars(options) if name != "name" and name not in known})


def describe(name: str) -> str:
    """Say in one line what a recipe is about."""
    return about(RECIPES[name][0])


def about(make: Callable[[str], Recipe]) -> str:
    """Give the first line of what a recipe's function says of itself."""
    return make.__doc__.splitlines()[0]
