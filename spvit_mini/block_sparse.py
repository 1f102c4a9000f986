"""Block-sparse attention by binarised priors: selected offsets, their mask, and the work that it saves.

SP-ViT's authors name it as future work: a learned prior, binarised, could make a cheaper transformer. Two facts matter. The
selection must *mask* the scores, {0, −∞}: multiplied by 0 a score still has the weight exp(0) = 1. And a mask alone saves
nothing, since all N² scores are computed and most then discarded. Work is saved if a kernel skips whole blocks of b×b pairs
without a selected offset: `blocks_left` counts them, `attend_blocks` runs such a kernel.

    prior (H, 2R−1, 2C−1) → sparsify → selection, same shape → visible → mask (H, P+N, P+N) → attend_sparse
                                                                                            → block_mask → attend_blocks

Letters: B batch, N tokens, P prefix tokens, H heads, C head width, R rows and C columns of the grid where one is near.
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
    """Select the offsets of each head with the largest prior: floats (H, 2R−1, 2C−1) in, booleans of that shape out.

    Each head has ⌈density · (2R−1)(2C−1)⌉ offsets: always the offset (0, 0), so that no query is without a key, and the
    others by their value, largest first, among equals the first in reading order. Raises UserError if the density is not
    in (0, 1], or the table has no offset (0, 0) in its middle.
    """
    if not 0 < density <= 1:
        raise UserError(f"density is {density}; expected the share of selected offsets, above 0 and at most 1")
    if prior.ndim != 3 or not all(side % 2 for side in prior.shape[1:]):
        raise UserError(
            f"the shape of the table is {tuple(prior.shape)}; expected (heads, 2·rows−1, 2·columns−1). "
            "Use a map's table(grid), before it is expanded to the pairs."
        )
    ranked = prior.detach().flatten(1).clone()
    offsets = ranked.shape[1]
    ranked[:, offsets // 2] = math.inf
    # A product of floats may exceed an integer by rounding: 0.07 · 100 is 7.000000000000001.
    count = math.ceil(density * offsets - 1e-9)
    first = ranked.argsort(dim=1, descending=True, stable=True)[:, : max(count, 1)]
    return torch.zeros_like(ranked, dtype=torch.bool).scatter_(1, first, True).view(prior.shape)


def visible(selection: Tensor, grid: Grid, prefix: int = 0) -> Tensor:
    """Compute the mask of selected offsets (H, 2R−1, 2C−1): booleans (H, P+N, P+N), True where a query attends to a key.

    The `prefix` tokens, which come first, attend to all tokens, and all attend to them.
    """
    return pad_prefix(spread(selection, grid), prefix, True)


def blocks_left(mask: Tensor, size: int) -> Tensor:
    """Find the blocks of `size` queries and `size` keys with a pair in the mask: (H, N, N) → (H, ⌈N/size⌉, ⌈N/size⌉).

    Only the other blocks save work. The mean of the result is the share of blocks that remain.
    """
    if size < 1:
        raise UserError(f"the block size is {size}; expected at least 1 token")
    if mask.numel() == 0:
        raise UserError(f"the shape of the mask is {tuple(mask.shape)}, without pairs; expected booleans (heads, tokens, tokens)")
    return F.max_pool2d(mask.float(), size, ceil_mode=True) > 0


def attend_sparse(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, factor: Tensor | None = None) -> Tensor:
    """Attend inside a mask: softmax(f ⊙ S + {0, −∞}) @ v, (B, H, N, C). Costs N², as every mask does.

    Args:
        q, k, v: queries, keys and values (B, H, N, C).
        mask: booleans (H or 1, N, N), True where a query attends to a key, at least once in each row.
        factor: f, (H or 1, N, N), for heads with SP-SA's prior beside the mask. Without it a fused kernel is used.
    """
    if factor is None:
        return attend_masked(q, k, v, mask)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = factor * (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5)
        return scores.masked_fill(~mask, -math.inf).softmax(-1).to(v.dtype) @ v

    return in_cache(attend, q, k, v)


def block_mask(mask: Tensor, size: int = 128):
    """Build FlexAttention's `BlockMask`, which lists the blocks to compute, from a mask (H or 1, N, N)."""
    flex = import_flex_attention()
    heads, queries, keys = mask.shape
    return flex.create_block_mask(
        lambda b, h, i, j: mask[h, i, j], None, heads, queries, keys, device=mask.device.type, BLOCK_SIZE=size
    )


def attend_blocks(
    q: Tensor, k: Tensor, v: Tensor, blocks, factor: Tensor | None = None, *, compiled: bool = True
) -> Tensor:
    """Attend block by block, without the empty ones: the values of `attend_sparse`, (B, H, N, C).

    Args:
        q, k, v: queries, keys and values (B, H, N, C).
        blocks: of `block_mask`.
        factor: f as in `attend_sparse`, for all heads: (H, N, N).
        compiled: False computes all blocks and skips none, only to check values. True compiles a kernel, which on a CPU
            needs a C++ compiler and up to a minute, the first time for each shape.

    For inference: on a CPU it has no gradient, and with a factor the gradient may be NaN if N is no multiple of 128
    (pytorch#153799). Train with `attend_sparse`.
    """
    flex = import_flex_attention()
    function = torch.compile(flex.flex_attention, dynamic=False) if compiled else flex.flex_attention
    multiply = None if factor is None else lambda score, b, h, i, j: score * factor[h, i, j]
    return function(q, k, v, score_mod=multiply, block_mask=blocks)
