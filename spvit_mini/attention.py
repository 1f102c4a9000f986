"""Ways in: how a spatial map enters the attention of a layer.

    S = Q Kᵀ / √C               content scores, (B, H, N, N)
    softmax(S)                  MHSA: no map, tokens are a bag
    softmax(f ⊙ S)              Multiplied, and with a learned prior f: SPSA (SP-ViT)

Every class offers two ways to the same result. `weights(q, k, grid)` is the equation, written out: read this one.
`attend(q, k, v, grid)` is how it is computed in training; attend == weights @ v, in value and gradient.

Tokens come as x (B, P + R·C, D): P prefix tokens (a class token) first, then the patches of a grid of R rows and C
columns. The grid is always told, so rectangles and odd sizes need no guessing; P is what remains.

Letters: B batch, N tokens, P prefix, D width, H heads, C = D/H width of a head (where no grid is near).
"""

import torch.nn.functional as F
from torch import Tensor, nn

from .errors import UserError
from .geometry import Grid, pad_prefix
from .spatial import OffsetMap, PriorMLP


class MHSA(nn.Module):
    """Vanilla multi-head self-attention (Vaswani et al. 2017, §3.2): softmax(Q Kᵀ / √C) V, heads joined by a linear layer.

    Args: width `dim` of the tokens, number of `heads` that divides it, `qkv_bias`: whether q, k and v have a bias.
    Raises UserError if the heads do not divide the width.
    """

    def __init__(self, dim: int, heads: int, *, qkv_bias: bool = False):
        super().__init__()
        if heads < 1 or dim % heads:
            raise UserError(f"{heads} heads do not divide a width of {dim}; choose a width that is a multiple of them")
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.recorded: list[Tensor] | None = None  # a list here asks for the weights: see `recording` in vit.py

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """Mix the tokens x, (B, P + R·C, D), of a grid (R, C): same shape out."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, H, N, C)
        if self.recorded is None:
            mixed = self.attend(q, k, v, grid)
        else:
            self.recorded.append(self.weights(q, k, grid))
            mixed = self.recorded[-1] @ v
        return self.proj(mixed.transpose(1, 2).flatten(2))  # (B, N, D)

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """Compare each query with each key: q, k (B, H, N, C) → S (B, H, N, N)."""
        return q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5

    def weights(self, q: Tensor, k: Tensor, grid: Grid) -> Tensor:
        """Write the attention weights out: (B, H, N, N), each row sums to 1."""
        return self.scores(q, k).softmax(-1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: Grid) -> Tensor:
        """Compute weights @ v, (B, H, N, C), the fast way."""
        return F.scaled_dot_product_attention(q, k, v)


class SpatialAttention(MHSA):
    """Attention with a spatial map: what the ways in share. `neutral` is the map's value where a prefix token is involved."""

    neutral: float

    def __init__(self, dim: int, heads: int, spatial: OffsetMap, *, qkv_bias: bool = False):
        super().__init__(dim, heads, qkv_bias=qkv_bias)
        self.spatial = spatial

    def spatial_map(self, tokens: int, grid: Grid) -> Tensor:
        """Make the map for all tokens, prefix included: (H, N, N)."""
        return pad_prefix(self.spatial(grid), tokens - grid[0] * grid[1], self.neutral)


class Multiplied(SpatialAttention):
    """The map multiplies the scores: softmax(f ⊙ S).

    f > 1 sharpens where a score is positive and suppresses where it is negative; f = 0 does not mask, since exp(0) = 1.
    """

    neutral = 1.0

    def weights(self, q: Tensor, k: Tensor, grid: Grid) -> Tensor:
        return (self.spatial_map(q.shape[-2], grid) * self.scores(q, k)).softmax(-1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: Grid) -> Tensor:
        return self.weights(q, k, grid) @ v


class SPSA(Multiplied):
    """SP-SA (SP-ViT, §3): a learned 2D prior per head, softmax(f_h(δ) · S). It starts as exactly MHSA, since f starts as 1.

    Args: as `MHSA`, and `hidden`: width of each head's prior MLP; more of `spatial.PriorMLP`'s arguments by name.
    """

    def __init__(self, dim: int, heads: int, hidden: int = 32, *, qkv_bias: bool = False, **prior):
        super().__init__(dim, heads, PriorMLP(heads, hidden, **prior), qkv_bias=qkv_bias)
