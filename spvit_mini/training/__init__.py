"""Training: recipes, the loop, and what a run keeps so that it can be resumed."""

from ..recipes import get_recipe, list_recipes
from ..recipes.recipe import Recipe
from .loop import Result, train

__all__ = ["Recipe", "Result", "get_recipe", "list_recipes", "train"]
