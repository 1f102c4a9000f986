"""spvit_mini: how vision transformers learn about space, from plain attention to SP-ViT's learned 2D priors."""

from .zoo import create_model, list_models, load_weights, save_weights, transforms_for

__version__ = "0.1.0"
__all__ = ["create_model", "list_models", "load_weights", "save_weights", "transforms_for"]
