"""Training: the loop, the loss and the optimiser, and the run folder. `train` is imported on first use (PEP 562)."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name not in ("Result", "train"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import loop

    return getattr(loop, name)
