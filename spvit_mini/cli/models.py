"""List the models by name, a line each: family, image size, patch size, width, depth, heads and attention.

    python -m spvit_mini models

`create_model(NAME)` builds a model in Python; `python -m spvit_mini train RECIPE --model.name NAME` trains one.
"""

from ..zoo import FAMILIES, MODELS, list_models
from .program import refuse_arguments


def main(argv: list[str]) -> int:
    """Run the program on command-line arguments; returns its exit status."""
    refuse_arguments(__doc__, argv)
    width = max(map(len, MODELS))
    print("\n".join(f"{name:<{width}}  {describe_model(name)}" for name in list_models()))
    return 0


def describe_model(name: str) -> str:
    """Describe the configuration of a model in one line."""
    config = MODELS[name]
    heads = f", {config.heads} heads, {getattr(config, 'attention', 'mhsa')}" if hasattr(config, "heads") else ""
    sizes = f"{config.image_size[0]:>3} px, patch {config.patch}, width {config.dim}, depth {config.depth}"
    return f"{FAMILIES[type(config)]:<5}{sizes}{heads}"
