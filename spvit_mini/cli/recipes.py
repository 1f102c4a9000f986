"""List the recipes, a line each, or describe one: what it trains, its source, cost and accuracy, and the value of every option.

    python -m spvit_mini recipes
    python -m spvit_mini recipes spvit_mini_compass
    python -m spvit_mini recipes my_recipe --import my_recipe.py

The name of a recipe is MODEL_DATA. `python -m spvit_mini train RECIPE --help` explains the options.
"""

import inspect

from ..errors import UserError
from ..extensions import read_imports
from ..recipes import RECIPES, describe_recipe, get_recipe, list_recipes


def main(argv: list[str]) -> int:
    """Run the program on command-line arguments; returns its exit status."""
    _, argv = read_imports(argv)
    if argv and argv[0] in ("--help", "-h"):
        print(__doc__.strip())
    elif not argv:
        width = max(map(len, RECIPES))
        print("\n".join(f"{name:<{width}}  {describe_recipe(name)}" for name in list_recipes()))
    elif len(argv) > 1:
        raise UserError(f"the arguments are {' '.join(argv)}; expected the name of one recipe, or none")
    else:
        recipe, make = get_recipe(argv[0]), RECIPES[argv[0]]
        print(inspect.getdoc(getattr(make, "func", make)) or describe_recipe(argv[0]), end="\n\n")
        for name, value in recipe.flatten().items():
            if name not in ("name", "imports"):
                print(f"{name:<28}{' '.join(map(str, value)) if isinstance(value, tuple) else value}")
    return 0
