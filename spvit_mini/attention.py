"""Ways in: how a spatial map enters the attention of a layer.

    S = Q Kᵀ / √C                      content scores (B, H, N, N);  f, g: maps of the layout (H, N, N), see spatial.py

    MHSA                softmax(S)                             no map: the tokens are a bag
    Added               softmax(S + f)                         RelativeBias (Swin), PSA
    Contextual          softmax(S + q · e_δ / √C)              Shaw, iRPE
    Masked              softmax(S + {0, −∞})                   WindowAttention
    Alone               softmax(f)
    Gated               (1−σ(λ))·softmax(S) + σ(λ)·softmax(f)  GPSA (ConViT)
    Multiplied          softmax(f ⊙ S)                         SPSA (SP-ViT)
    MultipliedAdded     softmax(f ⊙ S + g)                     AnchoredSPSA

Every class offers two ways to the same result. `weights(q, k, grid)` is the equation, written out: read this one.
`attend(q, k, v, grid)` is how it is computed in training; attend == weights @ v, in value and gradient.

Tokens come as x (B, P + R·C, D): P prefix tokens (a class token) first, then the patches of a grid of R rows and C
columns. The grid is always told, so rectangles and odd sizes need no guessing; P is what remains. A prefix token has no
place: a map says 0 for it where it is added, 1 where it multiplies, "in" where it masks. Where a map stands alone or
gated it concerns patches only: they give prefix tokens nothing by position, and prefix tokens look by content.

Letters: B batch, N tokens, P prefix, D width, H heads, C = D/H width of a head (where no grid is near).
"""

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from .attention_backends import attend_multiplied, kept
from .errors import UserError
from .geometry import Grid, pad_prefix, spread
from .spatial import Anchored, PriorMLP, Quadratic, SquareWindow, Table


class MHSA(nn.Module):
    """Vanilla multi-head self-attention (Vaswani et al. 2017, §3.2): softmax(Q Kᵀ / √C) V, heads joined linearly.

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
        q, k, v = self.project(x)
        if self.recorded is None:
            mixed = self.attend(q, k, v, grid)
        else:
            self.recorded.append(self.weights(q, k, grid))
            mixed = self.mix(self.recorded[-1], v)
        return self.proj(mixed.transpose(1, 2).flatten(2))  # (B, N, D)

    def project(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """Turn tokens into queries, keys and values, head by head: q, k, v, each (B, H, N, C)."""
        return self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """Compare each query with each key: q, k (B, H, N, C) → S (B, H, N, N)."""
        return q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5

    def weights(self, q: Tensor, k: Tensor, grid: Grid) -> Tensor:
        """Write the attention weights out: (B, H, N, N), each row sums to 1."""
        return self.scores(q, k).softmax(-1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: Grid) -> Tensor:
        """Compute weights @ v, (B, H, N, C), the fast way."""
        return F.scaled_dot_product_attention(q, k, v)

    def mix(self, weights: Tensor, v: Tensor) -> Tensor:
        """Take from each value its share: weights @ v, (B, H, N, C)."""
        return weights.to(v.dtype) @ v


class SpatialAttention(MHSA):
    """Attention with a spatial map: what the ways in share. `neutral` is what the map says of a prefix token."""

    neutral: float = 0.0

    def __init__(self, dim: int, heads: int, spatial: nn.Module, *, qkv_bias: bool = False):
        super().__init__(dim, heads, qkv_bias=qkv_bias)
        self.spatial = spatial

    def spatial_map(self, tokens: int, grid: Grid) -> Tensor:
        """Make the map for all tokens, prefix included: (H, N, N)."""
        prefix = prefix_of(tokens, grid)
        return kept(self, (tokens, grid), lambda: pad_prefix(self.spatial(grid), prefix, self.neutral))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: Grid) -> Tensor:
        return self.mix(self.weights(q, k, grid), v)


class BiasedAttention(SpatialAttention):
    """The map is added to the scores: softmax(S + f). The fused kernels take it as a float mask."""

    def weights(self, q: Tensor, k: Tensor, grid: Grid) -> Tensor:
        return (self.scores(q, k) + self.spatial_map(q.shape[-2], grid)).softmax(-1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: Grid) -> Tensor:
        return attend_masked(q, k, v, self.spatial_map(q.shape[-2], grid).to(q.dtype))


class ContextualAttention(SpatialAttention):
    """Each query asks the embeddings of the offsets: softmax((q·k + q·e_δ)/√C) (Shaw et al. 2018, eq. 4, keys only).

    Each query meets each of the K embeddings once, then every pair of patches takes the product of its offset.
    """

    def weights(self, q: Tensor, k: Tensor, grid: Grid) -> Tensor:
        return (self.scores(q, k) + self.position_scores(q, grid)).softmax(-1)

    def position_scores(self, q: Tensor, grid: Grid) -> Tensor:
        """Compute q · e_δ / √C for all pairs of tokens, 0 where a prefix token is one of them: (B, H, N, N)."""
        prefix = prefix_of(q.shape[-2], grid)
        patches = q[:, :, prefix:]
        total = 0
        for vectors, buckets in self.spatial(grid):
            products = patches @ vectors.to(q.dtype).T * q.shape[-1] ** -0.5  # (B, H, R·C, K)
            total = total + products.gather(-1, spread(buckets, grid).expand(*products.shape[:-1], -1))
        return pad_prefix(total, prefix, self.neutral)


class MaskedAttention(SpatialAttention):
    """Only what the map lets in is seen: softmax(S + {0, −∞}). Costs N² even so: a mask saves no work."""

    def visible(self, q: Tensor, grid: Grid) -> Tensor:
        """Tell which key each query may see: (H or 1, N, N) booleans; prefix tokens see and are seen by all."""
        return pad_prefix(self.spatial(grid).to(q.device), prefix_of(q.shape[-2], grid), True)

    def weights(self, q: Tensor, k: Tensor, grid: Grid) -> Tensor:
        return self.scores(q, k).masked_fill(~self.visible(q, grid), float("-inf")).softmax(-1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: Grid) -> Tensor:
        return attend_masked(q, k, v, self.visible(q, grid))


class GatedAttention(SpatialAttention):
    """Each head mixes two distributions: (1−σ(λ))·softmax(S) + σ(λ)·softmax(f) (ConViT, d'Ascoli et al. 2021, eq. 7).

    Both sum to 1, so the mixture does, and the product with v splits: the content part goes through the fused kernel,
    and the positional part, the same for every image, is one matrix product for the whole batch. No scores of an image
    are ever held. λ starts at 1: σ(1) = 0.73 of the weight is positional.
    """

    def __init__(self, dim: int, heads: int, spatial: nn.Module, *, qkv_bias: bool = False):
        super().__init__(dim, heads, spatial, qkv_bias=qkv_bias)
        self.gate = nn.Parameter(torch.ones(heads))  # λ

    def share(self) -> Tensor:
        """Tell how much of a patch's attention is positional: σ(λ), (H, 1, 1)."""
        return self.gate.sigmoid()[:, None, None]

    def weights(self, q: Tensor, k: Tensor, grid: Grid) -> Tensor:
        content, prefix = self.scores(q, k).softmax(-1), prefix_of(q.shape[-2], grid)
        positional = F.pad(self.spatial(grid).softmax(-1), (prefix, 0))  # (H, R·C, N)
        patches = content[:, :, prefix:].lerp(positional.to(content.dtype), self.share().to(content.dtype))
        return torch.cat([content[:, :, :prefix], patches], dim=2)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: Grid) -> Tensor:
        content, prefix = F.scaled_dot_product_attention(q, k, v), prefix_of(q.shape[-2], grid)
        positional = self.mix_by_position(v[:, :, prefix:], grid)
        patches = content[:, :, prefix:].lerp(positional, self.share().to(v.dtype))
        return torch.cat([content[:, :, :prefix], patches], dim=2) if prefix else patches

    def mix_by_position(self, v: Tensor, grid: Grid) -> Tensor:
        """Compute softmax(f) @ v, (B, H, R·C, C), for all images in one product."""
        together = v.permute(1, 2, 0, 3).flatten(2)  # (H, R·C, B·C)
        positional = kept(self, ("softmax", grid), lambda: self.spatial(grid).softmax(-1))
        mixed = positional.to(v.dtype) @ together
        return mixed.unflatten(-1, (v.shape[0], v.shape[3])).permute(2, 0, 1, 3)


class PositionOnlyAttention(GatedAttention):
    """The map is all there is: softmax(f). A fixed or learned filter, without content; a gate that stands at 1."""

    def __init__(self, dim: int, heads: int, spatial: nn.Module, *, qkv_bias: bool = False):
        super().__init__(dim, heads, spatial, qkv_bias=qkv_bias)
        self.gate = None

    def share(self) -> Tensor:
        return torch.ones(self.heads, 1, 1, device=self.qkv.weight.device, dtype=self.qkv.weight.dtype)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: Grid) -> Tensor:
        prefix = prefix_of(q.shape[-2], grid)
        patches = self.mix_by_position(v[:, :, prefix:], grid)
        return torch.cat([F.scaled_dot_product_attention(q[:, :, :prefix], k, v), patches], 2) if prefix else patches


class ModulatedAttention(SpatialAttention):
    """The map multiplies the scores: softmax(f ⊙ S).

    f > 1 sharpens where a score is positive and suppresses where it is negative; f = 0 does not mask, since exp(0) = 1.
    """

    neutral = 1.0
    path = "auto"  # how it is computed: see paths.py

    def weights(self, q: Tensor, k: Tensor, grid: Grid) -> Tensor:
        return (self.spatial_map(q.shape[-2], grid) * self.scores(q, k)).softmax(-1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: Grid) -> Tensor:
        return attend_multiplied(q, k, v, self.spatial_map(q.shape[-2], grid), path=self.path)


class AffineAttention(SpatialAttention):
    """One map multiplies, another is added: softmax(f ⊙ S + g). Our own; `spatial` makes both, (2, H, N, N)."""

    path = "auto"

    def weights(self, q: Tensor, k: Tensor, grid: Grid) -> Tensor:
        f, g = self.both_maps(q.shape[-2], grid)
        return (f * self.scores(q, k) + g).softmax(-1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: Grid) -> Tensor:
        return attend_multiplied(q, k, v, *self.both_maps(q.shape[-2], grid), path=self.path)

    def both_maps(self, tokens: int, grid: Grid) -> tuple[Tensor, Tensor]:
        """Make the factor and the addend for all tokens, prefix included: (H, N, N) each."""
        prefix = prefix_of(tokens, grid)

        def make() -> tuple[Tensor, Tensor]:
            f, g = self.spatial(grid)
            return pad_prefix(f, prefix, 1), pad_prefix(g, prefix, 0)

        return kept(self, (tokens, grid), make)


# --- The named ones: a way in with its map. `spatial` puts another map, or another layer's, in its place -----------------


class RelativeBias(BiasedAttention):
    """Relative position bias (Swin, eq. 4) over the whole grid: a learned table of the offsets, added."""

    def __init__(self, dim: int, heads: int, grid: Grid | None = None, *, spatial=None, qkv_bias: bool = False):
        super().__init__(dim, heads, spatial or Table(heads, grid), qkv_bias=qkv_bias)


class WindowAttention(MaskedAttention):
    """Attention inside square windows of `size` patches, moved by `shift` (Swin, §3.2)."""

    def __init__(self, dim: int, heads: int, size: int = 4, *, shift: int = 0, spatial=None, qkv_bias: bool = False):
        super().__init__(dim, heads, spatial or SquareWindow(size, shift=shift), qkv_bias=qkv_bias)


class PSA(BiasedAttention):
    """Positional self-attention with content (ConViT, eq. 4): softmax(S + vᵀ(‖δ‖², δ)), from a local start."""

    def __init__(self, dim: int, heads: int, *, strength: float = 1.0, spatial=None, qkv_bias: bool = False):
        super().__init__(dim, heads, spatial or Quadratic(heads, strength=strength), qkv_bias=qkv_bias)


class GPSA(GatedAttention):
    """Gated positional self-attention (ConViT, eq. 7), from a local start: a convolution with a way out."""

    def __init__(self, dim: int, heads: int, *, strength: float = 1.0, spatial=None, qkv_bias: bool = False):
        super().__init__(dim, heads, spatial or Quadratic(heads, strength=strength), qkv_bias=qkv_bias)
        self.start_local()

    def start_local(self):
        """Let v start as the patches themselves (ConViT, §3: W_V = I), so that the heads start as a convolution's taps.

        Of strength 0 the map has no centres: then that is no convolution, and v keeps the start it was drawn with.
        """
        if isinstance(self.spatial, Quadratic) and not self.spatial.strength:
            return
        dim = self.proj.in_features
        with torch.no_grad():
            self.qkv.weight[2 * dim :].copy_(torch.eye(dim))


class SPSA(ModulatedAttention):
    """SP-SA (SP-ViT, §3): a learned 2D prior per head, softmax(f_h(δ) · S). Starts as exactly MHSA, since f starts as 1.

    Args: as `MHSA`, and `hidden`: width of each head's prior MLP; more of `spatial.PriorMLP`'s arguments by name.
    """

    def __init__(self, dim: int, heads: int, hidden: int = 32, *, spatial=None, qkv_bias: bool = False, **prior):
        super().__init__(dim, heads, spatial or PriorMLP(heads, hidden, **prior), qkv_bias=qkv_bias)


class AnchoredSPSA(AffineAttention):
    """SP-SA with PSA's quadratic added, from a local start (our own): softmax(f_h(δ) · S + vᵀ(‖δ‖², δ))."""

    def __init__(self, dim: int, heads: int, hidden: int = 32, *, spatial=None, qkv_bias: bool = False, **prior):
        super().__init__(dim, heads, spatial or Anchored(heads, hidden, **prior), qkv_bias=qkv_bias)


def attend_masked(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attend through a fused kernel with a mask (H or 1, N, N): booleans, or numbers to add, of the type of q."""
    # cuDNN misreads a float32 mask beside bfloat16 scores, and with any mask its gradients may be NaN at 64 tokens
    # (pytorch#191612, #196678): take two kernels that do neither.
    exact = sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]) if q.is_cuda else nullcontext()
    with exact:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask[None])


def prefix_of(tokens: int, grid: Grid) -> int:
    """Count the prefix tokens: those that are no patch of the grid. Raises UserError if there are fewer than patches."""
    prefix = tokens - grid[0] * grid[1]
    if prefix < 0:
        raise UserError(f"{tokens} tokens are fewer than the {grid[0] * grid[1]} patches of a grid of {grid[0]}×{grid[1]}")
    return prefix
