"""spvit_mini: how vision transformers learn about space, from plain attention to SP-ViT's learned 2D priors.

Names are imported on first use (PEP 562): `import spvit_mini` needs no torch, and `python -m spvit_mini --help` starts at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from .errors import missing_package

if TYPE_CHECKING:
    from .attention_registry import register_attention, register_map
    from .recipes import get_recipe, list_recipes, register_recipe
    from .recipes.recipe import Recipe
    from .training import train
    from .weights import load_weights, save_weights
    from .zoo import create_model, list_models, transforms_for

__version__ = "0.1.0"
__all__ = [
    "Recipe", "create_model", "get_recipe", "list_models", "list_recipes", "load_weights", "register_attention", "register_map",
    "register_recipe", "save_weights", "train", "transforms_for",
]  # fmt: skip
_MODULES = {
    "attention_registry": ("register_attention", "register_map"),
    "recipes": ("get_recipe", "list_recipes", "register_recipe"),
    "recipes.recipe": ("Recipe",),
    "training": ("train",),
    "weights": ("load_weights", "save_weights"),
    "zoo": ("create_model", "list_models", "transforms_for"),
}


def __getattr__(name: str) -> object:
    module = next((module for module, names in _MODULES.items() if name in names), None)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        if name == "create_model":
            import_module("torch")  # zoo imports it in the call: a missing torch is reported at once
        value = getattr(import_module(f".{module}", __name__), name)
    except ModuleNotFoundError as error:
        if message := missing_package(error):
            raise ModuleNotFoundError(message, name=error.name) from None
        raise
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
