"""What a run learns from, as fingerprints: recipes are compared by them, and not by the places that files are read from."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..data.datasets import fingerprint_data
from ..data.token_labels import fingerprint_labels
from ..errors import UserError
from ..extensions import fingerprint_extensions
from ..weights import fingerprint_weights
from .recipe import Recipe


def find_sources(recipe: Recipe, images: dict[str, str] | None = None) -> dict[str, str]:
    """Fingerprint what a recipe learns from: `Recipe.sources`. What can't be read here is left out, and so not compared.

    `images` is the fingerprint of images that are loaded; None lists the files of the dataset.
    """
    makers: dict[str, tuple[Callable[[Any], str], Any]] = {
        "init_from": (fingerprint_weights, recipe.init_from),
        "token_labels.folder": (fingerprint_labels, recipe.token_labels.folder),
        "imports": (fingerprint_extensions, recipe.imports),
    }
    sources = {}
    for name, (fingerprint, value) in makers.items():
        if value:
            with suppress(UserError, OSError):
                sources[name] = fingerprint(value)
    if images is None:
        with suppress(UserError, OSError):
            images = fingerprint_data(recipe.data)
    return sources | (images or {})
