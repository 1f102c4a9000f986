"""The sections of a recipe beside its data: model, optimiser, token labels. The command line offers each field."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import UserError
from .duration import parse_length


@dataclass(frozen=True)
class ModelOptions:
    """Which model, and what of it differs from what the name stands for. None means: as the name has it."""

    name: str = "spvit_mini"
    """The model: one of `spvit_mini.list_models()`."""
    patch: int | None = None
    """Side of a patch in pixels; it must divide both sides of the image."""
    dim: int | None = None
    """Width of a token."""
    depth: int | None = None
    """Number of blocks."""
    heads: int | None = None
    """Attention heads; they must divide the width."""
    mlp_ratio: float | None = None
    """Width of the hidden layer of each MLP, in units of the token's width."""
    positions: bool | None = None
    """Whether learned absolute positions are added to the patches."""
    pool: Literal["mean", "class"] | None = None
    """What the head reads: the mean of the patches, or a class token."""
    class_enters: int | None = None
    """The block before which the class token joins the patches."""
    sharing: Literal["head", "block", "network"] | None = None
    """Who has a spatial map of its own: each head of each block, each block, or the network alone."""
    peg: bool | None = None
    """Whether a position encoding generator, a depthwise convolution, follows each block."""
    dense_head: bool | None = None
    """Whether a second head reads every patch, for token labels; it needs pool class."""
    spatial_layers: int | None = None
    """How many of the first blocks have the model's spatial attention; the rest have plain attention."""
    drop_path: float | None = None
    """Stochastic depth: the rate at which the last block is dropped; it grows from 0 with depth."""
    attention: str | None = None
    """Another attention in its blocks: a name or MAP/WAY, such as `log_cpb/added`; docs/variants.md has them all."""
    attention_options: dict[str, float] | None = None
    """More of the attention module, as name and value: `hidden 64 weight_std 0.02`. Replaces all the model's own."""

    def overrides(self) -> dict[str, Any]:
        """Collect what differs from the name's own configuration, as keywords for `create_model`."""
        changed = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "name"}
        changed = {name: value for name, value in changed.items() if value is not None}
        if self.attention_options is not None:
            # The command line and JSON give every number as a float; widths are whole numbers.
            whole = {k: int(v) if float(v).is_integer() else v for k, v in self.attention_options.items()}
            changed["attention_options"] = whole
        return changed


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
    clip_grad_norm: float | None = 1.0
    """Largest norm of all gradients together: longer ones are scaled down to it. None: no limit."""
    freeze: tuple[str, ...] = ()
    """What keeps its start: every parameter whose name has one of these parts, e.g. `attention.gate`."""

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
        if self.clip_grad_norm is not None and not self.clip_grad_norm > 0:
            raise UserError(f"optim.clip is {self.clip_grad_norm}; it must be above 0, or None for no limit")


@dataclass(frozen=True)
class TokenLabelOptions:
    """Token labels: what a teacher sees in each patch, as a second set of labels (Jiang et al. 2021, LV-ViT)."""

    folder: Path | None = None
    """The label maps of the training images, as `python -m spvit_mini label` makes them. None: no token labels."""
    dense_weight: float = 1.0
    """Weight of the patches' loss beside that of the class token."""
    class_from: Literal["teacher", "label"] = "teacher"
    """What the class token learns: the teacher's view of the whole crop, as in the released code, or the image's label."""
    mixtoken: float = 0.0
    """MixToken: both parameters of the Beta distribution from which it draws the part of the patches that an image keeps
    when two are mixed; 0 switches it off."""

    def __post_init__(self):
        for name in ("dense_weight", "mixtoken"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"token_labels.{name} is {getattr(self, name)}; it must be a number of at least 0")
