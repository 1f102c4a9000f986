"""The sections of a recipe for the model, the optimiser and the token labels. The command line has an option for each field."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..config import Depth, Ratio, Width
from ..fields import BelowOne, Count, Fraction, Natural, NonNegative, Pixels, Positive, Share, check_fields
from .duration import Duration


@dataclass(frozen=True)
class ModelOptions:
    """The model, and the fields of its configuration that override those of the name. None: as in the named configuration."""

    name: str = "spvit_mini"
    """Name of the model; `python -m spvit_mini models` lists all."""
    patch: Pixels | None = None
    """Side of a patch in pixels; must divide both sides of the image."""
    dim: Width | None = None
    """Width of a token."""
    depth: Depth | None = None
    """Number of blocks."""
    heads: Width | None = None
    """Number of attention heads; must divide the width."""
    mlp_ratio: Ratio | None = None
    """Hidden width of each MLP, as a multiple of the token width."""
    positions: bool | None = None
    """Add learned absolute position embeddings to the patch tokens."""
    pool: Literal["mean", "class"] | None = None
    """Input of the head: the mean of the patch tokens, or a class token."""
    class_token_block: Natural | None = None
    """Index of the block before which the class token is inserted."""
    sharing: Literal["head", "block", "network"] | None = None
    """One spatial map for each head of each block, for each block, or for the whole network."""
    peg: bool | None = None
    """Add a position encoding generator (a depthwise convolution) after each block."""
    dense_head: bool | None = None
    """Add a second head that classifies every patch, for token labels; needs pool class."""
    spatial_layers: Natural | None = None
    """Number of blocks, from the first, that use the model's spatial attention; the others use plain attention."""
    drop_path: Share | None = None
    """Stochastic depth: drop rate of the last block; it grows linearly from 0 with depth."""
    attention: str | None = None
    """Attention of the blocks: a registered name or MAP/MODE, such as `log_cpb/additive`; docs/variants.md lists them."""
    attention_options: dict[str, float] | None = None
    """Options of the attention, as names and values: `hidden 64 weight_std 0.02`. Replace all options of the named model,
    which apply to its own attention alone."""

    def __post_init__(self) -> None:
        check_fields(self, "model.")

    def overrides(self) -> dict[str, Any]:
        """Collect the fields that differ from the named configuration, as keyword arguments of `create_model`."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "name"}
        fields = {name: value for name, value in fields.items() if value is not None}
        if self.attention_options is not None:
            # The command line and JSON give every number as a float, but widths are integers.
            options = {k: int(v) if float(v).is_integer() else v for k, v in self.attention_options.items()}
            fields["attention_options"] = options
        return fields


@dataclass(frozen=True)
class OptimOptions:
    """AdamW with a linear warm-up and a cosine schedule (Loshchilov and Hutter 2019)."""

    lr: NonNegative = 1e-3
    """Peak learning rate, reached after the warm-up."""
    lr_base_batch_size: Count | None = None
    """Batch size that the three learning rates refer to; for another batch size they are scaled in proportion. None: no
    scaling."""
    final_lr: NonNegative = 1e-5
    """Learning rate at the end of the cosine."""
    warmup: Duration = "0 steps"
    """Duration of the warm-up, such as "5 epochs"."""
    warmup_lr: NonNegative = 0.0
    """Learning rate at the start of the warm-up."""
    cooldown: Duration = "0 steps"
    """Duration at the end of the run with a constant learning rate, `final_lr`."""
    layer_decay: Fraction | None = None
    """Layer-wise learning-rate decay: factor between the learning rates of neighbouring blocks; 0.75 preserves the first
    blocks of a pretrained model. None: one learning rate for all blocks."""
    weight_decay: NonNegative = 0.05
    """Decoupled weight decay of weight matrices and convolutions; no other parameter is decayed."""
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    """AdamW's decay rates of the running means of the gradient and of its square."""
    eps: Positive = 1e-8
    """AdamW's epsilon, added to the root of the mean squared gradient."""
    clip_grad_norm: Positive | None = 1.0
    """Largest norm of the whole gradient; a larger gradient is scaled down. None: no clipping."""
    freeze: tuple[str, ...] = ()
    """Parameters that are not trained: all whose name contains one of these texts, such as `attention.gate`."""

    def __post_init__(self):
        check_fields(self, "optim.")


@dataclass(frozen=True)
class TokenLabelOptions:
    """Token labels: a teacher's soft label for each patch, as a second training target (Jiang et al. 2021, LV-ViT)."""

    folder: Path | None = None
    """Folder with the label maps of the training images, written by `python -m spvit_mini label`. None: no token labels."""
    dense_weight: NonNegative = 1.0
    """Weight of the patch loss relative to the loss of the class token."""
    class_target: Literal["teacher", "label"] = "teacher"
    """Target of the class token: the teacher's label of the whole crop, as in the released code, or the image's label."""
    mixtoken: NonNegative = 0.0
    """MixToken: both parameters of the Beta distribution of the share of patches that an image keeps when two images are
    mixed; 0 switches MixToken off."""

    def __post_init__(self):
        check_fields(self, "token_labels.")
