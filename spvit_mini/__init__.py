"""spvit_mini: how vision transformers learn about space, from plain attention to SP-ViT's learned 2D priors."""

try:
    from .zoo import create_model, list_models, load_weights, save_weights, transforms_for
except ModuleNotFoundError as error:
    if error.name is None or error.name.partition(".")[0] == __name__:
        raise
    raise ModuleNotFoundError(
        f"spvit_mini needs {error.name}, which this Python does not have; "
        "in the project's folder, run `python -m pip install --editable .[lab]`",
        name=error.name,
    ) from None

__version__ = "0.1.0"
__all__ = ["create_model", "list_models", "load_weights", "save_weights", "transforms_for"]
