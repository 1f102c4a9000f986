"""Geometry of the patches: the grid, the offsets between its patches, and the expansion of a table of offsets to N×N.

Tokens are patches in row-major order: patch (r, c) of a grid of R rows and C columns is token n = r·C + c. Everything
spatial in this package is a function of the offset δ[i, j] = (row, column) of patch j minus that of patch i: a vector in
units of patches, rows downwards, columns to the right. Query i attends to key j, so δ points from the query to the key.

N = R·C tokens have N² pairs but only (2R−1)(2C−1) distinct offsets (14×14: 38,416 against 729). So a map is computed on
the offsets, as a *table*, and `spread` expands it to the pairs.

Letters: B batch, N tokens, P prefix tokens (a class token), D width, H heads, R rows, C columns of the grid.
"""

from functools import lru_cache

import torch
from torch import Tensor, nn

from .config import Grid, patch_grid
from .errors import UserError

__all__ = [
    "Grid", "offsets", "offsets_like", "pad_prefix", "pair_offsets", "patch_grid", "patchify", "spread", "unpatchify",
]  # fmt: skip


def offsets(rows: int, columns: int) -> Tensor:
    """List the distinct offsets of a grid: (2·rows−1, 2·columns−1, 2), each (row, column) in patches.

    Entry [a, b] is (a − (rows−1), b − (columns−1)), so the offset (0, 0) is in the middle.
    """
    down = torch.arange(-(rows - 1), rows)
    right = torch.arange(-(columns - 1), columns)
    return torch.stack(torch.meshgrid(down, right, indexing="ij"), dim=-1)


def offsets_like(numbers: Tensor, grid: Grid, dtype: torch.dtype | None = None) -> Tensor:
    """List the distinct offsets of a grid, see `offsets`, on the device and in the dtype of `numbers`, or in another dtype.

    They are computed there, since a copy from the CPU would wait for the device in every layer, and once for each grid.
    """
    if torch.compiler.is_compiling() or type(numbers) not in (Tensor, nn.Parameter):  # a tracer's tensor, or a shard
        return offsets(*grid).to(numbers.device, dtype or numbers.dtype)
    return _offsets(tuple(grid), numbers.device, dtype or numbers.dtype)


@lru_cache(256)
def _offsets(grid: Grid, device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False), device:  # tensors of inference mode could not be used in training
        return offsets(*grid).to(dtype)


def pair_offsets(rows: int, columns: int) -> Tensor:
    """Compute δ[i, j] for all pairs of patches: (N, N, 2). For reading and testing; the package works on `offsets`."""
    positions = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))  # (N, 2)
    return positions[None, :, :] - positions[:, None, :]


def spread(table: Tensor, grid: Grid) -> Tensor:
    """Expand a table of the offsets, (..., 2R−1, 2C−1), to all pairs of patches: (..., N, N).

    spread(t, (R, C))[..., i, j] = t[..., δ_row + R−1, δ_column + C−1]. Two sliding windows do it: the window that begins
    at s has s + t for each key row t, and query row r needs key row − r + R−1, so its window begins at s = R−1−r: the
    windows in reverse order. No index tensor is built, moved between devices or cached for each image size.
    """
    rows, columns = grid
    if table.shape[-2:] != (2 * rows - 1, 2 * columns - 1):
        raise UserError(
            f"the last axes of the table are {'×'.join(map(str, table.shape[-2:]))}; "
            f"expected {2 * rows - 1}×{2 * columns - 1} offsets for a grid of {rows}×{columns} patches"
        )
    windows = table.unfold(-2, rows, 1).unfold(-2, columns, 1)  # (..., query row, query column, key row, key column)
    return windows.flip(-4, -3).flatten(-4, -3).flatten(-2, -1)


def pad_prefix(spatial: Tensor, prefix: int, neutral: float) -> Tensor:
    """Pad a map of the patches, (..., N, N), by `prefix` rows and columns of a neutral value: (..., P+N, P+N).

    Prefix tokens have no position in the image. The neutral value depends on the mode: 0 if the map is added to the
    scores, 1 if it multiplies them.
    """
    return torch.nn.functional.pad(spatial, (prefix, 0, prefix, 0), value=neutral) if prefix else spatial


def patchify(images: Tensor, patch: int) -> Tensor:
    """Cut images (..., channels, R·p, C·p) into tokens (..., R·C, channels·p·p), row by row.

    The order inside a token is channel, row, column, as in a convolution's flattened weight, so that a linear layer on
    these tokens is a convolution with kernel and stride p. Raises UserError if the patch does not fit.
    """
    *batch, channels, height, width = images.shape
    rows, columns = patch_grid((height, width), patch)
    cut = images.reshape(*batch, channels, rows, patch, columns, patch)
    k = len(batch)
    order = (*range(k), k + 1, k + 3, k, k + 2, k + 4)  # ..., row, column, channel, row in patch, column in patch
    return cut.permute(order).reshape(*batch, rows * columns, channels * patch * patch)


def unpatchify(tokens: Tensor, grid: Grid, patch: int) -> Tensor:
    """Invert `patchify`: tokens (..., R·C, channels·p·p) → images (..., channels, R·p, C·p)."""
    return torch.nn.functional.pixel_shuffle(tokens.transpose(-2, -1).unflatten(-1, grid), patch)
