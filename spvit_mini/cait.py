"""CaiT: a vision transformer in two stages (Touvron et al. 2021, "Going deeper with image transformers").

    patches:  depth × [x + γ ⊙ attention(norm(x));  x + γ' ⊙ MLP(norm(x))]             the patches among themselves
    class:    2 × [c + γ ⊙ class attention(norm([c, x]));  c + γ' ⊙ MLP(norm(c))]      one query, the patches stay

Late class-token insertion of another kind than SP-ViT's: the class token joins after the last block of the patches, which
stay as they are. SP-ViT compares itself with this model. Two more parts keep deep models trainable: LayerScale, γ, a learned
factor for each channel of each branch, initially near 0, and talking heads (Shazeer et al. 2020), which mix the heads
linearly before and after the softmax. CaiT has no spatial map; after the second mixing the weights of a head no longer sum
to 1, so it fits no cell of the matrix.

Letters as in attention.py: B batch, N tokens, D width, H heads, (R, C) grid.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import MHSA
from .config import CaiTConfig, Grid, patch_grid
from .vit import Box, Head, StochasticDepth, ViT, resize_grid, swap_box


class TalkingHeads(MHSA):
    """Talking-heads attention (Shazeer et al. 2020): A = softmax(L S + l), then (W A + w) V; L and W mix the heads.

    `weights` is A, whose rows sum to 1; the mixture W A + w multiplies the values. No fused kernel does this.
    """

    def __init__(self, dim: int, heads: int, *, qkv_bias: bool = True):
        super().__init__(dim, heads, qkv_bias=qkv_bias)
        self.before = nn.Linear(heads, heads)  # L, l
        self.after = nn.Linear(heads, heads)  # W, w

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        return talk(self.before, super().scores(q, k))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: Grid) -> Tensor:
        return self.mix(self.weights(q, k, grid), v)

    def mix(self, weights: Tensor, v: Tensor) -> Tensor:
        """Mix the heads, then average the values: (W A + w) V, (B, H, N, C)."""
        return talk(self.after, weights).to(v.dtype) @ v

    def multiply_adds(self, queries: int, keys: int, grid: Grid) -> dict[str, int]:
        return super().multiply_adds(queries, keys, grid) | {"map": 2 * self.heads**2 * queries * keys}


class ClassAttention(MHSA):
    """Class attention (CaiT, §2.2), in which the class token is the only query: x (B, 1 + N, D) in, (B, 1, D) out."""

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project the first token to a query, and all to keys and values: (B, H, 1, C), twice (B, H, 1 + N, C)."""
        dim, weight, bias = x.shape[-1], self.qkv.weight, self.qkv.bias
        q = F.linear(x[:, :1], weight[:dim], None if bias is None else bias[:dim])
        k, v = F.linear(x, weight[dim:], None if bias is None else bias[dim:]).chunk(2, dim=-1)
        return tuple(t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))


class ScaledBlock(nn.Module):
    """A pre-norm block with LayerScale: a learned factor, initially near 0, multiplies each channel of each branch."""

    def __init__(self, attention: MHSA, config: CaiTConfig, drop_path: float):
        super().__init__()
        dim, hidden = config.dim, int(config.dim * config.mlp_ratio)
        self.norm1 = nn.LayerNorm(dim, eps=config.norm_eps)
        self.attention = attention
        self.scale1 = nn.Parameter(torch.full((dim,), config.layer_scale))
        self.norm2 = nn.LayerNorm(dim, eps=config.norm_eps)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
        self.scale2 = nn.Parameter(torch.full((dim,), config.layer_scale))
        self.drop_path = StochasticDepth(drop_path)

    def forward(self, x: Tensor, grid: Grid, patches: Tensor | None = None) -> Tensor:
        """Transform tokens x, (B, N, D); with `patches`, x is the class token, which attends to them too."""
        tokens = x if patches is None else torch.cat([x, patches], dim=1)
        x = x + self.drop_path(self.scale1 * self.attention(self.norm1(tokens), grid))
        return x + self.drop_path(self.scale2 * self.mlp(self.norm2(x)))


class CaiT(ViT):
    """A CaiT: the interface of `ViT`, with other blocks.

    `attention_maps` returns (B, heads, N, N) for each block of the patches, before the heads are mixed after the softmax,
    then (B, heads, 1, 1 + N) for each block of the class token. `spatial_maps` returns None for all of them.
    """

    name = "cait_xxs24"
    positions: nn.Parameter
    class_token: nn.Parameter

    def __init__(self, config: CaiTConfig):
        nn.Module.__init__(self)  # none of ViT's parts, all of its methods
        self.config = config
        dim, heads = config.dim, config.heads
        self.embed = nn.Conv2d(config.channels, dim, config.patch, stride=config.patch)
        self.positions = nn.Parameter(torch.zeros(1, dim, *config.grid))
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.blocks = nn.ModuleList(
            ScaledBlock(TalkingHeads(dim, heads), config, config.drop_path) for _ in range(config.depth)
        )
        self.class_blocks = nn.ModuleList(
            ScaledBlock(ClassAttention(dim, heads, qkv_bias=True), config, 0.0) for _ in range(config.class_depth)
        )
        self.norm = nn.LayerNorm(dim, eps=config.norm_eps)
        self.head = Head(dim, config.num_classes)
        self.dense_head = None
        self.activation_checkpointing = False
        self.reset_parameters()

    def attentions(self) -> list[MHSA]:
        return [block.attention for block in [*self.blocks, *self.class_blocks]]

    def forward_features(self, images: Tensor, *, mix: Box | None = None) -> Tensor:
        """Compute the class token and the patches after the last norm: (B, 1 + R·C, D)."""
        grid = patch_grid(images.shape[-2:], self.config.patch)
        x = self.embed(images)  # (B, D, R, C)
        if mix is not None:
            x = swap_box(x, mix)
        x = (x + resize_grid(self.positions, grid)).flatten(2).transpose(1, 2)  # (B, R·C, D)
        for block in self.blocks:
            x = self.apply_block(block, x, grid)
        token = self.class_token.expand(x.shape[0], -1, -1).to(x.dtype)
        for block in self.class_blocks:
            token = block(token, grid, x)
        return self.norm(torch.cat([token, x], dim=1))


def talk(heads: nn.Linear, x: Tensor) -> Tensor:
    """Mix the heads of x, (B, H, N, N), linearly, the same way for each pair."""
    return (heads.weight @ x.flatten(2)).view_as(x) + heads.bias[:, None, None]
