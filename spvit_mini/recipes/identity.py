"""What a run learns from, as fingerprints: recipes are compared by them, and not by the places that files are read from."""

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
    makers: dict[str, tuple[Any, Any]] = {
        "init_from": (fingerprint_weights, recipe.init_from),
        "token_labels.folder": (fingerprint_labels, recipe.token_labels.folder),
        "imports": (fingerprint_extensions, recipe.imports),
    }
    sources: dict[str, str] = {}
    for name, (fingerprint, value) in makers.items():
        with suppress(UserError, OSError):
            sources |= {name: fingerprint(value)} if value else {}
    with suppress(UserError, OSError):
        sources |= fingerprint_data(recipe.data) if images is None else images
    return sources
