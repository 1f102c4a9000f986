"""Modes: how a spatial map enters the attention of a layer.

    S = Q Kᵀ / √C                      content scores (B, H, N, N);  f, g: spatial maps (H, N, N), see spatial.py

    mode                class                  weights                                    named attentions
    –                   MHSA                   softmax(S): no map, a bag of tokens        multi-head self-attention
    additive            BiasedAttention        softmax(S + f)                             RelativeBias (Swin), PSA
    contextual          ContextualAttention    softmax(S + q · e_δ / √C)                  Shaw, iRPE
    masked              MaskedAttention        softmax(S + {0, −∞})                       WindowAttention
    position_only       PositionOnlyAttention  softmax(f)
    gated               GatedAttention         (1−σ(λ))·softmax(S) + σ(λ)·softmax(f)      GPSA (ConViT)
    multiplicative      ModulatedAttention     softmax(f ⊙ S)                             SPSA (SP-ViT)
    affine              AffineAttention        softmax(f ⊙ S + g)                         AnchoredSPSA

Every class computes the same result by two methods. `weights(q, k, grid)` is the equation: read this one.
`attend(q, k, v, grid)` is the fast computation that training uses; attend == weights @ v, in value and gradient.

Tokens are x (B, P + R·C, D): P prefix tokens (a class token) first, then the patches of a grid of R rows and C columns.
The grid is an argument, so rectangles and odd sizes need no guessing; P is what remains. A prefix token has no position:
a map is 0 for it where it is added, 1 where it multiplies, True where it masks. A position-only or gated map concerns
patches alone: it gives prefix tokens no weight, and prefix tokens attend by content.

Letters: B batch, N tokens, P prefix, D width, H heads, C = D/H head width (where no grid is near).
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from .attention_backends import attend_modulated, cached_map
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
        self.recorded: list[list[Tensor]] = []  # each of these lists collects the weights: see `recording` in vit.py

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """Mix the tokens x, (B, P + R·C, D), of a grid (R, C): same shape out."""
        q, k, v = self.project(x)
        if not self.recorded:
            mixed = self.attend(q, k, v, grid)
        else:
            weights = self.weights(q, k, grid)
            mixed = self.mix(weights, v)
            for maps in self.recorded:
                maps.append(weights)
        return self.proj(mixed.transpose(1, 2).flatten(2))  # (B, N, D)

    def project(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """Project tokens to queries, keys and values, head by head: q, k, v, each (B, H, N, C)."""
        return self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """Compute the scaled dot product of each query with each key: q, k (B, H, N, C) → S (B, H, N, N)."""
        return q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5

    def weights(self, q: Tensor, k: Tensor, grid: Grid) -> Tensor:
        """Compute the attention weights: (B, H, N, N), each row sums to 1."""
        return self.scores(q, k).softmax(-1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: Grid) -> Tensor:
        """Compute weights @ v, (B, H, N, C), the fast way."""
        return F.scaled_dot_product_attention(q, k, v)

    def mix(self, weights: Tensor, v: Tensor) -> Tensor:
        """Average the values by their weights: weights @ v, (B, H, N, C)."""
        return weights.to(v.dtype) @ v

    def multiply_adds(self, queries: int, keys: int, grid: Grid) -> dict[str, int]:
        """Count the multiply-adds, by part, of `queries` tokens that attend to `keys` tokens, by the rule of flops.py."""
        dim = self.proj.in_features
        return {
            "qkv": (queries + 2 * keys) * dim * dim,
            "scores": queries * keys * dim,
            "values": queries * keys * dim,
            "proj": queries * dim * dim,
        }


class SpatialAttention(MHSA):
    """Attention with a spatial map: what the modes have in common."""

    spatial: Any  # its map, see spatial.py
    mode: str  # its name in the matrix of maps and modes
    map_kind = "number"  # what the map must give for each pair, see attention_registry.py
    neutral: float = 0.0  # the map's value for a prefix token, and where it changes nothing
    map_products = 0  # multiply-adds per head and pair by which the map enters

    def __init__(self, dim: int, heads: int, spatial: nn.Module, *, qkv_bias: bool = False):
        super().__init__(dim, heads, qkv_bias=qkv_bias)
        self.spatial = spatial

    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: Grid) -> Tensor:
        return self.mix(self.weights(q, k, grid), v)

    def multiply_adds(self, queries: int, keys: int, grid: Grid) -> dict[str, int]:
        per_offset = getattr(self.spatial, "multiply_adds_per_offset", 0)
        computed = per_offset * (2 * grid[0] - 1) * (2 * grid[1] - 1)
        entered = self.map_products * self.heads * (grid[0] * grid[1]) ** 2
        return super().multiply_adds(queries, keys, grid) | {"map": computed + entered}


class PaddedAttention(SpatialAttention):
    """Attention whose map has a value for all tokens: `neutral` for a prefix token."""

    def spatial_map(self, tokens: int, grid: Grid) -> Tensor:
        """Compute the map for all tokens, prefix included: (H, N, N)."""
        prefix = prefix_of(tokens, grid)
        return cached_map(self, (tokens, grid), lambda: pad_prefix(self.spatial(grid), prefix, self.neutral))


class BiasedAttention(PaddedAttention):
    """Additive: softmax(S + f). The fused kernels accept the map as a float mask."""

    mode = "additive"

    def weights(self, q: Tensor, k: Tensor, grid: Grid) -> Tensor:
        return (self.scores(q, k) + self.spatial_map(q.shape[-2], grid)).softmax(-1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: Grid) -> Tensor:
        return attend_masked(q, k, v, self.spatial_map(q.shape[-2], grid).to(q.dtype))


class ContextualAttention(SpatialAttention):
    """Contextual: softmax((q·k + q·e_δ)/√C), with an embedding e of each offset (Shaw et al. 2018, eq. 4, keys only).

    The dot product of each query with each of the K embeddings is computed once, then gathered for every pair of patches.
    """

    mode, map_kind = "contextual", "embedding"

    def weights(self, q: Tensor, k: Tensor, grid: Grid) -> Tensor:
        return (self.scores(q, k) + self.position_scores(q, grid)).softmax(-1)

    def position_scores(self, q: Tensor, grid: Grid) -> Tensor:
        """Compute q · e_δ / √C for all pairs of tokens, 0 where a prefix token is one of them: (B, H, N, N)."""
        prefix = prefix_of(q.shape[-2], grid)
        patches = q[:, :, prefix:]
        total: Any = 0
        for vectors, buckets in self.spatial(grid):
            products = patches @ vectors.to(q.dtype).T * q.shape[-1] ** -0.5  # (B, H, R·C, K)
            total = total + products.gather(-1, spread(buckets, grid).expand(*products.shape[:-1], -1))
        return pad_prefix(total, prefix, self.neutral)

    def multiply_adds(self, queries: int, keys: int, grid: Grid) -> dict[str, int]:
        cost = super().multiply_adds(queries, keys, grid)
        cost["map"] += grid[0] * grid[1] * self.proj.in_features * sum(len(vectors) for vectors in self.spatial.vectors)
        return cost


class MaskedAttention(SpatialAttention):
    """Masked: softmax(S + {0, −∞}), keys inside the map's window only. Costs N² even so: a mask saves no work."""

    mode, map_kind = "masked", "in or out"

    def visible(self, q: Tensor, grid: Grid) -> Tensor:
        """Compute which keys each query attends to: (H or 1, N, N) booleans; prefix tokens attend to all, and all to them."""
        with nullcontext() if torch.compiler.is_compiling() else q.device:  # the map makes its tensors there
            spatial = self.spatial(grid).to(q.device)
        return pad_prefix(spatial, prefix_of(q.shape[-2], grid), True)

    def weights(self, q: Tensor, k: Tensor, grid: Grid) -> Tensor:
        return self.scores(q, k).masked_fill(~self.visible(q, grid), float("-inf")).softmax(-1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: Grid) -> Tensor:
        return attend_masked(q, k, v, self.visible(q, grid))


class GatedAttention(SpatialAttention):
    """Gated: (1−σ(λ))·softmax(S) + σ(λ)·softmax(f), with a gate λ per head (ConViT, d'Ascoli et al. 2021, eq. 7).

    Both distributions sum to 1, so the mixture does, and the product with v splits: the content part uses the fused
    kernel, and the positional part, the same for every image, is one matrix product for the whole batch. The scores of an
    image are never stored. The initial λ is 1: σ(1) = 0.73 of the weight is positional.
    """

    mode, map_products = "gated", 1

    def __init__(self, dim: int, heads: int, spatial: nn.Module, *, qkv_bias: bool = False):
        super().__init__(dim, heads, spatial, qkv_bias=qkv_bias)
        self.gate = nn.Parameter(torch.ones(heads))  # λ

    def share(self) -> Tensor:
        """Compute the positional share of a patch's attention: σ(λ), (H, 1, 1)."""
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
        positional = cached_map(self, ("softmax", grid), lambda: self.spatial(grid).softmax(-1))
        mixed = positional.to(v.dtype) @ together
        return mixed.unflatten(-1, (v.shape[0], v.shape[3])).permute(2, 0, 1, 3)


class PositionOnlyAttention(GatedAttention):
    """Position-only: softmax(f). A fixed or learned filter, without content; a gate fixed at 1."""

    mode, map_products = "position_only", 0

    def __init__(self, dim: int, heads: int, spatial: nn.Module, *, qkv_bias: bool = False):
        super().__init__(dim, heads, spatial, qkv_bias=qkv_bias)
        self.register_parameter("gate", None)

    def share(self) -> Tensor:
        return torch.ones(self.heads, 1, 1, device=self.qkv.weight.device, dtype=self.qkv.weight.dtype)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: Grid) -> Tensor:
        prefix = prefix_of(q.shape[-2], grid)
        patches = self.mix_by_position(v[:, :, prefix:], grid)
        return torch.cat([F.scaled_dot_product_attention(q[:, :, :prefix], k, v), patches], 2) if prefix else patches

    def multiply_adds(self, queries: int, keys: int, grid: Grid) -> dict[str, int]:
        by_content = keys - grid[0] * grid[1]  # prefix tokens alone
        return super().multiply_adds(queries, keys, grid) | {"scores": by_content * keys * self.proj.in_features}


class ModulatedAttention(PaddedAttention):
    """Multiplicative: softmax(f ⊙ S).

    f > 1 sharpens where a score is positive and suppresses where it is negative; f = 0 does not mask, since exp(0) = 1.
    """

    mode, neutral, map_products = "multiplicative", 1.0, 1
    backend = "auto"  # one of attention_backends.BACKENDS

    def weights(self, q: Tensor, k: Tensor, grid: Grid) -> Tensor:
        return (self.spatial_map(q.shape[-2], grid) * self.scores(q, k)).softmax(-1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: Grid) -> Tensor:
        return attend_modulated(q, k, v, self.spatial_map(q.shape[-2], grid), backend=self.backend)


class AffineAttention(SpatialAttention):
    """Affine: softmax(f ⊙ S + g), one map multiplies, another is added. Our own; `spatial` gives both, (2, H, N, N)."""

    mode, map_kind, map_products = "affine", "two numbers", 1
    backend = "auto"

    def weights(self, q: Tensor, k: Tensor, grid: Grid) -> Tensor:
        f, g = self.spatial_map(q.shape[-2], grid)
        return (f * self.scores(q, k) + g).softmax(-1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: Grid) -> Tensor:
        return attend_modulated(q, k, v, *self.spatial_map(q.shape[-2], grid), backend=self.backend)

    def spatial_map(self, tokens: int, grid: Grid) -> tuple[Tensor, Tensor]:
        """Compute the factor and the addend for all tokens, prefix included: (H, N, N) each."""
        prefix = prefix_of(tokens, grid)

        def compute() -> tuple[Tensor, Tensor]:
            f, g = self.spatial(grid)
            return pad_prefix(f, prefix, 1), pad_prefix(g, prefix, 0)

        return cached_map(self, (tokens, grid), compute)


# --- Named attentions: a mode with its map. `spatial` replaces the map, for example by another layer's --------------------


def choose_map(spatial: nn.Module | None, build: Callable[..., nn.Module], *arguments: Any, **options: Any) -> nn.Module:
    """Return the given map, or build one. Raises UserError for a map together with options, which would have no effect."""
    options = {name: value for name, value in options.items() if value is not None}
    if spatial is None:
        return build(*arguments, **options)
    for name, value in options.items():
        raise UserError(f"{name} is {value} beside the map {type(spatial).__name__}; expected one of both. Leave out {name}.")
    return spatial


class RelativeBias(BiasedAttention):
    """Relative position bias (Swin, eq. 4) over the whole grid: a learned table of the offsets, additive."""

    def __init__(self, dim: int, heads: int, grid: Grid | None = None, *, spatial=None, qkv_bias: bool = False, **table):
        spatial = choose_map(spatial, lambda grid=None, **o: Table(heads, grid, **o), grid=grid, **table)
        super().__init__(dim, heads, spatial, qkv_bias=qkv_bias)


class WindowAttention(MaskedAttention):
    """Attention inside square windows of `size` patches, moved by `shift` (Swin, §3.2)."""

    def __init__(self, dim: int, heads: int, size: int | None = None, *, spatial=None, qkv_bias: bool = False, **window):
        super().__init__(dim, heads, choose_map(spatial, SquareWindow, size=size, **window), qkv_bias=qkv_bias)


class PSA(BiasedAttention):
    """Positional self-attention with content (ConViT, eq. 4): softmax(S + vᵀ(‖δ‖², δ)), with local initialisation."""

    def __init__(self, dim: int, heads: int, *, spatial=None, qkv_bias: bool = False, **quadratic):
        super().__init__(dim, heads, choose_map(spatial, Quadratic, heads, **quadratic), qkv_bias=qkv_bias)


class GPSA(GatedAttention):
    """Gated positional self-attention (ConViT, eq. 7), with local initialisation: it begins near a convolution."""

    def __init__(self, dim: int, heads: int, *, spatial=None, qkv_bias: bool = False, **quadratic):
        super().__init__(dim, heads, choose_map(spatial, Quadratic, heads, **quadratic), qkv_bias=qkv_bias)
        self.reset_parameters()

    def reset_parameters(self):
        """Initialise W_V as the identity (ConViT, §3), so that the heads begin as the taps of a convolution.

        A map of strength 0 has no centres: then there is no convolution, and W_V keeps the values that were drawn.
        """
        if not getattr(self.spatial, "strength", 1.0):
            return
        dim = self.proj.in_features
        with torch.no_grad():
            self.qkv.weight[2 * dim :].copy_(torch.eye(dim))


class SPSA(ModulatedAttention):
    """SP-SA (SP-ViT, §3): a learned 2D prior per head, softmax(f_h(δ) · S). Begins as exactly MHSA, since f is 1 then.

    Args: those of `MHSA`, `hidden`: width of each head's prior MLP (32), and more arguments of `spatial.PriorMLP` by name.
    """

    def __init__(self, dim: int, heads: int, hidden: int | None = None, *, spatial=None, qkv_bias: bool = False, **prior):
        super().__init__(dim, heads, choose_map(spatial, PriorMLP, heads, hidden=hidden, **prior), qkv_bias=qkv_bias)


class AnchoredSPSA(AffineAttention):
    """SP-SA with PSA's quadratic added, with local initialisation (our own): softmax(f_h(δ) · S + vᵀ(‖δ‖², δ))."""

    def __init__(self, dim: int, heads: int, hidden: int | None = None, *, spatial=None, qkv_bias: bool = False, **prior):
        super().__init__(dim, heads, choose_map(spatial, Anchored, heads, hidden=hidden, **prior), qkv_bias=qkv_bias)


def attend_masked(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attend through a fused kernel with a mask (H or 1, N, N): booleans, or numbers to add, of the dtype of q."""
    # cuDNN misreads a float32 mask beside bfloat16 scores, and with any mask its gradients may be NaN at 64 tokens
    # (pytorch#191612, #196678): allow two kernels that do neither.
    exact = sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]) if q.is_cuda else nullcontext()
    with exact:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask[None])


def prefix_of(tokens: int, grid: Grid) -> int:
    """Count the prefix tokens, which are no patches of the grid. Raises UserError if there are fewer tokens than patches."""
    prefix = tokens - grid[0] * grid[1]
    if prefix < 0:
        raise UserError(f"{tokens} tokens are fewer than the {grid[0] * grid[1]} patches of a grid of {grid[0]}×{grid[1]}")
    return prefix
