"""Training: recipes, the loop, and what a run keeps so that it can be resumed."""

from .loop import Result, train
from .recipe import Recipe
from .recipes import get_recipe, list_recipes

__all__ = ["Recipe", "Result", "get_recipe", "list_recipes", "train"]
