"""Spatial maps: what a head knows about the layout of the image before it has seen one.

A map is a module: grid in, (heads, N, N) out. All maps here are functions of the offset δ = (row, column) of key minus
query, so a map says its values on the (2R−1)(2C−1) distinct offsets (`table`), and `OffsetMap` spreads them over the N²
pairs. What a map means to attention (added, multiplied, …) is none of its business: see attention.py.
"""

import torch
from torch import Tensor, nn

from .geometry import Grid, offsets, spread


class OffsetMap(nn.Module):
    """A function of δ alone: subclasses give `table(grid)`, (heads, 2R−1, 2C−1), the value of each offset."""

    def table(self, grid: Grid) -> Tensor:
        raise NotImplementedError

    def forward(self, grid: Grid) -> Tensor:
        """Make the map of a grid of R rows and C columns: (heads, R·C, R·C), entry [h, i, j] for query i and key j."""
        return spread(self.table(grid), grid)


class PriorMLP(OffsetMap):
    """SP-SA's learned 2D spatial prior (SP-ViT, §3): f_h(δ) = w2_hᵀ ReLU(W1_h δ + b1_h) + b2_h, an own small MLP per head.

    Args:
        heads: number of heads H.
        hidden: width K of the hidden layer of each head.
        neutral: start of the output bias b2. With the second layer at 0 the whole map starts as this constant: 1 leaves
            multiplied scores as they are.
        weight_std: the first layer starts from a normal distribution of this width, cut at ±2 widths. It decides how fast
            a prior is found, since the second layer's gradient is the hidden layer's output: 0.02 as released, 0.5 in
            the minis.
        bias_std: the same for its bias; 0 as released, and by default as wide as the weights. Without it all kinks of
            the ReLUs run through δ = 0.

    Parameters: w1 (H, K, 2), b1 (H, K), w2 (H, K), b2 (H): 4·K·H + H numbers a layer. δ enters raw, in patches, so any
    grid has its map, by linear extrapolation beyond the offsets seen in training.
    """

    def __init__(
        self, heads: int, hidden: int = 32, *, neutral: float = 1.0, weight_std: float = 0.5, bias_std: float | None = None
    ):
        super().__init__()
        self.neutral, self.weight_std = neutral, weight_std
        self.bias_std = weight_std if bias_std is None else bias_std
        self.w1 = nn.Parameter(torch.empty(heads, hidden, 2))
        self.b1 = nn.Parameter(torch.empty(heads, hidden))
        self.w2 = nn.Parameter(torch.empty(heads, hidden))
        self.b2 = nn.Parameter(torch.empty(heads))
        self.reset_parameters()

    def reset_parameters(self):
        """Draw the start: a random first layer, a second layer of 0, so that the map is exactly `neutral` everywhere."""
        for parameter, std in ((self.w1, self.weight_std), (self.b1, self.bias_std)):
            nn.init.trunc_normal_(parameter, std=std, a=-2 * std, b=2 * std) if std else nn.init.zeros_(parameter)
        nn.init.zeros_(self.w2)
        nn.init.constant_(self.b2, self.neutral)

    def table(self, grid: Grid) -> Tensor:
        # In full precision under autocast too: it is a few hundred offsets' work, and the scores are multiplied by it.
        with torch.autocast(self.w1.device.type, enabled=False):
            delta = offsets(*grid).to(self.w1)  # (2R−1, 2C−1, 2)
            hidden = self.w1 @ delta.flatten(0, 1).T + self.b1[:, :, None]  # (H, K, offsets)
            prior = self.w2[:, None, :] @ hidden.relu() + self.b2[:, None, None]  # (H, 1, offsets)
            return prior.unflatten(-1, delta.shape[:2]).squeeze(1)
