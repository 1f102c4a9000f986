"""The recipes by name, MODEL_DATA, or finetune_images: spvit_mini_compass, vit_mini_cifar10, spvit_s_imagenet, …

A recipe is a function of the model's name: `compass("spvit_mini")` is spvit_mini_compass. Therefore the models on one dataset
differ in that name alone, except on ImageNet, where each model has the recipe of its paper. The function's docstring states the
command, the sources of its numbers, the cost and the expected accuracy. `register_recipe` adds a recipe of your own.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import UserError, near
from ..renamed import current_names
from ..zoo import MODELS, configure
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
            small_images.flowers17, small_images.imagenette, small_images.images,
        ),
    ),
    (SMALL, (large.imagenet100, large.imagenet100_first)),
    ((*SMALL, "spvit_m", "spvit_l"), (large.imagenet,)),
    (("lvvit_s", "spvit_s", "spvit_m", "spvit_l"), (large.imagenet_384,)),
    (PAIR, (large.imagenet_5pct, large.imagenet_10pct, large.imagenet_30pct, large.imagenet_50pct)),
    (("spvit_l",), (large.imagenet_fsdp,)),
)  # fmt: skip
RECIPES: dict[str, Callable[[], Recipe]] = {
    f"{model}_{make.__name__}": partial(make, model) for models, makes in FAMILIES for make in makes for model in models
}
RECIPES["finetune_images"] = partial(small_images.finetune_images, "deit_small")


def register_recipe(name: str, recipe: Recipe | Callable[[], Recipe]) -> None:
    """Register a recipe under a name, for `get_recipe`, the command line and studies.

    A function is called at each use; the first line of its docstring describes the recipe in lists. Raises UserError for a
    name that is invalid or taken by a different recipe, and for something else than a recipe or a function.
    """
    if not isinstance(name, str) or not name.isidentifier() or name != name.lower():
        raise UserError(f"the name of the recipe is {name!r}; expected a lowercase identifier, such as my_recipe")
    if not isinstance(recipe, Recipe) and not callable(recipe):
        raise UserError(f"recipe {name} is {recipe!r}; expected a Recipe, or a function that returns one")
    make = (lambda: recipe) if isinstance(recipe, Recipe) else recipe
    if name in RECIPES and RECIPES[name]() != make():
        raise UserError(f"the name {name!r} is taken by another recipe; expected a new name")
    RECIPES[name] = make


def list_recipes() -> list[str]:
    """List the names of all recipes."""
    return list(RECIPES)


def get_recipe(name: str) -> Recipe:
    """Build the recipe of a name. Raises UserError, with similar names, for an unknown one."""
    if name not in RECIPES:
        hint = "python -m spvit_mini recipes lists the recipes; --import FILE adds those of a file of yours"
        raise UserError(f"no recipe is called {name!r}.{near(name, RECIPES)} {hint}")
    recipe = RECIPES[name]()
    return replace(recipe, name=name, model=drop_unknown_options(recipe.model))


def drop_unknown_options(options: ModelOptions) -> ModelOptions:
    """Set the options to None that the model's configuration does not have, such as the heads of a CNN."""
    known = {field.name for field in fields(MODELS[options.name])}
    unknown: dict[str, Any] = {name: None for name in vars(options) if name != "name" and name not in known}
    return replace(options, **unknown)


def adopt_model(recipe: Recipe, path: Path) -> Recipe:
    """Give a recipe the model of pretrained weights, a run folder or a file, except for its stochastic depth.

    A recipe with a model in its own name, MODEL_DATA, stays as it is for weights of another model, which do not fit then.
    """
    from ..weights import find_weights, load_metadata, read_metadata  # the help needs no torch

    metadata = load_metadata(file := find_weights(path))
    config, name = read_metadata(metadata, "config", source=file), metadata.get("model", "")
    if config is None or name not in MODELS or (recipe.name.startswith(recipe.model.name) and name != recipe.model.name):
        return recipe
    named, own = (vars(configure(name, changes)) for changes in ({}, current_names(config, "model")))
    options = {n: own[n] for n in vars(recipe.model) if n in own and own[n] != named[n] and n != "drop_path"}
    if "spatial_layers" in options:
        options["spatial_layers"] = own["depth"] if own["spatial_layers"] is None else own["spatial_layers"]
    return replace(recipe, model=ModelOptions(name=name, drop_path=recipe.model.drop_path, **options))


def describe_recipe(name: str) -> str:
    """Describe a recipe in one line: the first line of its function's docstring."""
    make = getattr(RECIPES[name], "func", RECIPES[name])
    return (make.__doc__ or "A recipe without a docstring.").splitlines()[0]
