"""Lesson 00's answers with options: each is right as it stands, and each changed option is one mistake."""

import math

from einops import rearrange
from torch import Tensor


def patchify(
    image: Tensor,
    p: int,
    *,
    pixels: str = "c (r a) (s b)",
    order: str = "(r s)",
    token: str = "(c a b)",
    shape: str = "tokens",
    grid: str = "own",
    step: str = "p",
) -> Tensor:
    """Cut an image into tokens, right as it stands; each changed option is one mistake.

    r and s count rows and columns of the grid, a and b those inside a patch, c channels.
    """
    if step == "one pixel":
        image = image.unfold(1, p, 1).unfold(2, p, 1)  # c, row, column, a, b
        image = rearrange(image, "c r s a b -> c (r a) (s b)")
    rows = columns = None
    if grid != "own":
        rows = columns = image.shape[1] // p
    if grid == "square, the rest left out":
        image = image[:, :, : columns * p]
    if shape == "reshaped":
        return image.reshape(-1, image.shape[0] * p * p)
    sides = {"a": p, "b": p} | ({"r": rows, "s": columns} if rows else {})
    if shape == "channels outermost":
        return rearrange(image, f"{pixels} -> c r s a b", **sides).reshape(-1, image.shape[0] * p * p)
    result = rearrange(image, f"{pixels} -> {order} {token}", **sides)
    return result.T if shape == "transposed" else result


def unpatchify(
    tokens: Tensor,
    grid: tuple[int, int],
    p: int,
    *,
    order: str = "(r s)",
    token: str = "(c a b)",
    pixels: str = "c (r a) (s b)",
    sides: str = "(rows, columns)",
    channels: int | None = None,
    shape: str = "image",
) -> Tensor:
    """Put tokens together to an image, right as it stands; each changed option is one mistake."""
    rows, columns = reversed(grid) if sides == "(columns, rows)" else grid
    if sides == "root":
        rows = columns = math.isqrt(len(tokens))
    if shape == "reshaped":
        return tokens.reshape(-1, rows * p, columns * p)
    lengths = {"r": rows, "s": columns, "a": p, "b": p} | ({"c": channels} if channels else {})
    if shape == "channels first":
        return rearrange(tokens.reshape(-1), f"(c r s a b) -> {pixels}", **lengths)
    if shape != "image":  # the axes in another order, then the right shape by force
        return rearrange(tokens, f"{order} {token} -> {shape}", **lengths).reshape(-1, rows * p, columns * p)
    return rearrange(tokens, f"{order} {token} -> {pixels}", **lengths)
