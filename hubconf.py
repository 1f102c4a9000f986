"""Models for `torch.hub`: `torch.hub.load("OWNER/spvit_mini", "spvit_s")`, or `source="local"` with the path of a checkout.

Each model of `spvit_mini.list_models()` is an entry point with the arguments of `create_model`; weights are local files.
"""

from functools import partial as _partial
from functools import update_wrapper as _update_wrapper

from spvit_mini import create_model, list_models

dependencies = ["torch", "safetensors"]
__all__ = ["create_model", "list_models"]
globals().update({name: _update_wrapper(_partial(create_model, name), create_model) for name in list_models()})
