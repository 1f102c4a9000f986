"""What moves the weights: AdamW, what it decays and what it leaves alone, and the learning rate of each step."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from ..errors import UserError
from .lengths import parse_length


@dataclass(frozen=True)
class OptimOptions:
    """AdamW with a linear warm-up and a cosine (Loshchilov and Hutter 2019)."""

    lr: float = 1e-3
    """Learning rate at its peak, after the warm-up."""
    lr_batch: int | None = None
    """The batch that the three learning rates are meant for: with another one they are scaled in proportion. None: as
    they are."""
    final_lr: float = 1e-5
    """Learning rate to which the cosine falls at the end."""
    warmup: str = "0 steps"
    """How long the learning rate rises to its peak, e.g. "5 epochs"."""
    warmup_lr: float = 0.0
    """Learning rate from which the warm-up rises."""
    cooldown: str = "0 steps"
    """The last part of the run, which keeps to the final learning rate."""
    layer_decay: float | None = None
    """The learning rate of each block, as a part of the next one's: 0.75 keeps the first blocks of a trained model.
    None: the same for all."""
    weight_decay: float = 0.05
    """Decoupled weight decay of weight matrices and convolutions; nothing else is decayed."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Memory of AdamW's running mean of the gradient, and of its square."""
    eps: float = 1e-8
    """Added to the root of AdamW's running mean of the square."""
    clip: float | None = 1.0
    """Largest norm of all gradients together: longer ones are scaled down to it. None: no limit."""

    def __post_init__(self):
        for name in ("lr", "final_lr", "warmup_lr", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"optim.{name} is {getattr(self, name)}; it must be a number of at least 0")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"optim.betas are {self.betas}; both must be at least 0 and below 1")
        parse_length(self.warmup, name="optim.warmup")
        parse_length(self.cooldown, name="optim.cooldown")
        if self.lr_batch is not None and self.lr_batch < 1:
            raise UserError(f"optim.lr_batch is a number of images, at least 1, not {self.lr_batch}")
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise UserError(f"optim.layer_decay is {self.layer_decay}; it must be above 0 and at most 1")
        if not self.eps > 0:
            raise UserError(f"optim.eps is {self.eps}; it must be above 0")
        if self.clip is not None and not self.clip > 0:
            raise UserError(f"optim.clip is {self.clip}; it must be above 0, or None for no limit")


def lr_at(step: int, *, peak: float, final: float, warmup: int, total: int) -> float:
    """Give the learning rate of a step, counted from 0: up in a straight line, then down along half a cosine.

    The line would start from 0 one step before the first, so no step is wasted on a rate of 0; step `warmup` has the
    peak; the cosine reaches `final` at step `total`, one after the last, and stays there.
    """
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    done = min(1.0, (step - warmup) / max(1, total - warmup))
    return final + (peak - final) * 0.5 * (1 + math.cos(math.pi * done))


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Sort a model's trainable parameters into those that decay and those that do not.

    Decay pulls a number towards 0. For weight matrices and convolutions that is a mild wish for a smooth function, and
    the norm after them undoes the change of scale. A bias, a norm's gain, a position or a class token has no such
    reason to be small. A spatial prior least of all: 0 in its second layer means "the same for every offset", so decay
    would unlearn the layout. What not to decay is the model's to say (`model.no_decay()`).
    """
    spared = model.no_decay()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    return [
        {"params": [p for name, p in trained.items() if name not in spared], "weight_decay": weight_decay},
        {"params": [p for name, p in trained.items() if name in spared], "weight_decay": 0.0},
    ]


def make_optimiser(model: nn.Module, options: OptimOptions) -> torch.optim.AdamW:
    """Build AdamW over a model's parameter groups. `fused` updates all of them in one pass."""
    groups = parameter_groups(model, options.weight_decay)
    return torch.optim.AdamW(groups, lr=options.lr, betas=options.betas, fused=True)
