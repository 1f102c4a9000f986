"""A convolutional network beside the transformers: a residual net for small images (He et al. 2016).

image → stem of 3×3 convolutions → stages of [ReLU(x + BN(conv(ReLU(BN(conv(x))))))] → mean → linear

What a ViT must learn is built in here: a 3×3 convolution has the same weights for the neighbour above at every position,
and none for positions beyond. From stage to stage the resolution halves and the width doubles. The image is not cut into
patches; but a position of the last stage stands for `patch` pixels per side, as a patch of a ViT does, so that two models
can be compared on one grid. Zero padding around the image leaks the distance to the border, here too.

Letters: B batch, D width, (R, C) grid of the last stage, N = R·C.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from .config import CNNConfig
from .errors import UserError
from .vit import Box, Head, StochasticDepth, VisionModel


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions beside a skip (He et al. 2016, fig. 2 and eq. 1): (B, w, r, c) → (B, width, ⌈r/s⌉, ⌈c/s⌉).

    If the shape changes, the skip is a 1×1 convolution of the same stride s (their option B).
    """

    def __init__(self, inputs: int, width: int, *, stride: int, drop_path: float):
        super().__init__()
        self.branch = nn.Sequential(
            convolution(inputs, width, stride=stride), nn.BatchNorm2d(width), nn.ReLU(),
            convolution(width, width), nn.BatchNorm2d(width),
        )  # fmt: skip
        self.skip: nn.Module = nn.Identity()
        if (inputs, stride) != (width, 1):
            self.skip = nn.Sequential(convolution(inputs, width, 1, stride=stride), nn.BatchNorm2d(width))
        self.drop_path = StochasticDepth(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.skip(x) + self.drop_path(self.branch(x)))


class CNN(VisionModel):
    """A residual net with the interface of `ViT`, and without attention.

    Images are (B, channels, height, width) of any size. `attention_maps` and `spatial_maps` return empty lists.
    """

    name = "cnn_mini"

    def __init__(self, config: CNNConfig):
        super().__init__()
        self.config = config
        widths = config.widths
        # The stem keeps the resolution, unless there are more halvings than steps between stages.
        layers, inputs = [], config.channels
        for stride in [2] * (config.halvings - config.stages + 1) or [1]:
            layers += [convolution(inputs, widths[0], stride=stride), nn.BatchNorm2d(widths[0]), nn.ReLU()]
            inputs = widths[0]
        self.embed = nn.Sequential(*layers)
        rates = [config.drop_path * i / max(1, config.depth - 1) for i in range(config.depth)]
        self.blocks = nn.ModuleList(
            ResidualBlock(before, width, stride=1 if width == before else 2, drop_path=rate)
            for before, width, rate in zip(widths[:1] + widths, widths, rates, strict=False)
        )
        self.head = Head(config.dim, config.num_classes)
        self.class_token = self.dense_head = None
        self.activation_checkpointing = False
        self.reset_parameters()

    def reset_parameters(self):
        """Initialise the convolutions such that gradients keep their size through a ReLU (He et al. 2015)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def attentions(self) -> list:
        """List the attention of each block: there is none."""
        return []

    def forward(self, images: Tensor, *, dense: bool = False, mix: Box | None = None) -> Tensor:
        """Classify images (B, channels, height, width): logits (B, num_classes).

        Raises UserError for `dense` logits or a `mix` of patches.
        """
        if dense or mix is not None:
            raise UserError("a CNN has no dense head and no patches to mix; token labels need a model such as lvvit_s")
        return self.head(self.forward_features(images).mean(1))

    def forward_features(self, images: Tensor) -> Tensor:
        """Compute the features of the last stage, row by row, (B, R·C, D); the head reads their mean."""
        x = self.embed(images)
        for block in self.blocks:
            x = checkpointed(block, x) if self.activation_checkpointing and self.training else block(x)
        return x.flatten(2).transpose(1, 2)

    def no_decay(self) -> set[str]:
        """List the parameters without weight decay: biases and norms."""
        return {name for name, parameter in self.named_parameters() if parameter.ndim < 2}


def convolution(inputs: int, outputs: int, kernel: int = 3, *, stride: int = 1) -> nn.Conv2d:
    """Build a convolution that keeps the resolution except for its stride. The norm after it has the bias."""
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)


@torch.compiler.disable  # it cannot trace a checkpoint that has contexts; so checkpointed blocks are not compiled
def checkpointed(block: nn.Module, x: Tensor) -> Tensor:
    """Apply a block without storing its activations; the backward pass recomputes them."""
    contexts = lambda: (nullcontext(), unchanged_buffers(block))  # noqa: E731
    return torch.utils.checkpoint.checkpoint(block, x, use_reentrant=False, context_fn=contexts)


@contextmanager
def unchanged_buffers(block: nn.Module) -> Iterator[None]:
    """Restore the running statistics of batch norms afterwards: a recomputed block has no new images."""
    before = [buffer.clone() for buffer in block.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(block.buffers(), before, strict=True):
                buffer.copy_(value)
