"""Binarised priors: which offsets a head keeps, the mask that makes of them, and what a mask saves.

SP-ViT's authors name it as future work: a learned prior, binarised, could make a cheaper transformer. Two things to know.
A kept or lost offset must *mask* the scores, {0, −∞}: multiplied by 0 a score still has the weight exp(0) = 1. And a mask
alone saves nothing, since all N² scores are computed and most then thrown away. Work is saved where a kernel leaves out
whole blocks of b×b pairs in which nothing is kept: `blocks_left` counts them, `attend_blocks` runs such a kernel.

    prior (H, 2R−1, 2C−1) → sparsify → kept, the same shape → visible → mask (H, P+N, P+N) → attend_sparse
                                                                                           → block_mask → attend_blocks

Letters: B batch, N tokens, P prefix tokens, H heads, C width of a head, R rows and C columns of the grid where one is near.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .attention import attend_masked
from .attention_backends import import_flex_attention, in_cache
from .errors import UserError
from .geometry import Grid, pad_prefix, spread


def sparsify(prior: Tensor, density: float) -> Tensor:
    """Keep the offsets of each head where its prior is largest: floats (H, 2R−1, 2C−1) in, booleans of that shape out.

    Each head keeps ⌈density · (2R−1)(2C−1)⌉ offsets: the offset (0, 0) always, so that no query is left without a key,
    and the others by the rank of their value, largest first, of equals the first in reading order. Raises UserError if
    the density is not in (0, 1], or the table has no offset (0, 0) in its middle.
    """
    if not 0 < density <= 1:
        raise UserError(f"a density of {density}: it must be above 0 and at most 1, the share of the offsets that are kept")
    if prior.ndim != 3 or not all(side % 2 for side in prior.shape[1:]):
        raise UserError(
            f"a table of the offsets has the shape (heads, 2·rows−1, 2·columns−1), this one {tuple(prior.shape)}; "
            "take a map's table(grid), before it is spread to the pairs"
        )
    ranked = prior.detach().flatten(1).clone()
    offsets = ranked.shape[1]
    ranked[:, offsets // 2] = math.inf
    # The products of floats may lie a hair above a whole number: 0.07 · 100 is 7.000000000000001.
    count = math.ceil(density * offsets - 1e-9)
    first = ranked.argsort(dim=1, descending=True, stable=True)[:, : max(count, 1)]
    return torch.zeros_like(ranked, dtype=torch.bool).scatter_(1, first, True).view(prior.shape)


def visible(kept: Tensor, grid: Grid, prefix: int = 0) -> Tensor:
    """Make the attention mask of the kept offsets (H, 2R−1, 2C−1): booleans (H, P+N, P+N), True where a query may look.

    The `prefix` tokens, which come first, see all and are seen by all.
    """
    return pad_prefix(spread(kept, grid), prefix, True)


def blocks_left(mask: Tensor, size: int) -> Tensor:
    """Tell which blocks of `size` queries and `size` keys have a pair to look at: (H, N, N) → (H, ⌈N/size⌉, ⌈N/size⌉).

    Only the others are work saved. The mean of the result is the share of the blocks that remains.
    """
    if size < 1:
        raise UserError(f"blocks of {size} tokens: a block must have at least 1")
    if mask.numel() == 0:
        raise UserError(f"a mask of the shape {tuple(mask.shape)} has no pairs; give booleans (heads, tokens, tokens)")
    return F.max_pool2d(mask.float(), size, ceil_mode=True) > 0


def attend_sparse(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, factor: Tensor | None = None) -> Tensor:
    """Attend where the mask lets in: softmax(f ⊙ S + {0, −∞}) @ v, (B, H, N, C). Costs N², as every mask does.

    Args:
        q, k, v: queries, keys and values (B, H, N, C).
        mask: booleans (H or 1, N, N), True where a query may look, at least once in each row.
        factor: f, (H or 1, N, N), for heads that keep SP-SA's prior beside the mask. Without it a fused kernel is used.
    """
    if factor is None:
        return attend_masked(q, k, v, mask)

    def written_out(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = factor * (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5)
        return scores.masked_fill(~mask, -math.inf).softmax(-1).to(v.dtype) @ v

    return in_cache(written_out, q, k, v)


def block_mask(mask: Tensor, size: int = 128):
    """Make PyTorch's FlexAttention block mask of a mask (H or 1, N, N): it lists the blocks that must be computed.

    Returns a `torch.nn.attention.flex_attention.BlockMask`; raises UserError where PyTorch has none (before 2.5).
    """
    flex = import_flex_attention()
    heads, queries, keys = mask.shape
    return flex.create_block_mask(
        lambda b, h, i, j: mask[h, i, j], None, heads, queries, keys, device=mask.device.type, BLOCK_SIZE=size
    )


def attend_blocks(
    q: Tensor, k: Tensor, v: Tensor, blocks, factor: Tensor | None = None, *, compiled: bool = True
) -> Tensor:
    """Attend block by block, leaving out the empty ones: `attend_sparse` in value, (B, H, N, C).

    Args:
        q, k, v: queries, keys and values (B, H, N, C).
        blocks: of `block_mask`.
        factor: f as in `attend_sparse`, all heads written out: (H, N, N).
        compiled: False computes all blocks and skips none, for a look at the values. True compiles a kernel, which on a
            CPU takes a C++ compiler and up to a minute, the first time for each shape.

    For inference: on a CPU there is no gradient through it, and beside a factor the gradient may be NaN where N is no
    multiple of 128 (pytorch#153799). Train with `attend_sparse`.
    """
    flex = import_flex_attention()
    function = torch.compile(flex.flex_attention, dynamic=False) if compiled else flex.flex_attention
    multiply = None if factor is None else lambda score, b, h, i, j: score * factor[h, i, j]
    return function(q, k, v, score_mod=multiply, block_mask=blocks)
