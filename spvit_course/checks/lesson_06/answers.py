"""Lesson 06's answers with options: each is right as it stands, and each changed option is one mistake."""

import math

import torch
from torch import Tensor

from spvit_mini.geometry import Grid, offsets

from ..composition import DIRECTIONS, locate_tokens

SQUARES = {
    "sum of squares": lambda down, right: down.square() + right.square(),
    "norm": lambda down, right: (down.square() + right.square()).sqrt(),
    "sum": lambda down, right: down + right,
    "sum of sizes": lambda down, right: down.abs() + right.abs(),
    "square of the sum": lambda down, right: (down + right).square(),
    "rows only": lambda down, right: down.square(),
    "none": lambda down, right: 0 * down,
}
AFTER = {
    "nothing": lambda scores, grid: scores,
    "softmax": lambda scores, grid: scores.softmax(-1),
    "minus": lambda scores, grid: -scores,
    "by √3": lambda scores, grid: scores / math.sqrt(3),
    "by √C": lambda scores, grid: scores / math.sqrt(grid[1]),
    "heads last": lambda scores, grid: scores.permute(1, 2, 0),
}


def psa_map(
    v: Tensor,
    grid: Grid,
    *,
    square: str = "sum of squares",
    order: str = "square, row, column",
    linear: str = "own",
    down: str = "key − query",
    right: str = "key − query",
    tokens: str = "row by row",
    reading: str = "numbers of a sum",
    layout: str = "pairs",
    after: str = "nothing",
) -> Tensor:
    """Make PSA's map of heads v, (H, 3), on a grid: (H, N, N)."""
    rows, columns = grid
    line, place = locate_tokens(tokens, rows, columns)
    below, beside = (DIRECTIONS[how](at[None, :], at[:, None]).to(v) for how, at in ((down, line), (right, place)))
    if layout == "table":
        below, beside = offsets(*grid).to(v).unbind(-1)
    names = order.split(", ")
    if reading == "strength and centre":
        distance = (below - v[:, 1, None, None]).square() + (beside - v[:, 2, None, None]).square()
        return -v[:, 0, None, None] * distance
    features = {"square": SQUARES[square](below, beside), "row": below, "column": beside}
    if linear == "left out":
        names = ["square"]
    return AFTER[after](sum(v[:, k, None, None] * features[name] for k, name in enumerate(names)), grid)


def conv_heads(
    kernel: Tensor,
    strength: float,
    *,
    order: str = "row by row",
    axes: str = "row, column",
    down: int = 1,
    right: int = 1,
    origin: str = "middle",
    sides: str = "rows, columns",
    alpha: str = "both",
    linear: float = 2,
    mixes: str = "in, out",
    share: str = "sum",
    rows: str = "each",
) -> tuple[Tensor, Tensor]:
    """Make the heads of a kernel (out, in, rows, columns): v (heads, 3) and w (heads, in, out)."""
    high, wide = kernel.shape[2:]
    if sides == "rows, rows":
        wide = high
    taps = [(a, b) for a in range(high) for b in range(wide)]
    w = torch.stack([kernel[:, :, a, b].T for a, b in taps])
    if mixes == "out, in":
        w = w.transpose(1, 2)
    if mixes == "as they lie":
        w = kernel.reshape(len(taps), kernel.shape[1], kernel.shape[0])
    if share == "mean":
        w = w / len(taps)

    if order == "column by column":
        taps = [(a, b) for b in range(wide) for a in range(high)]
    middle = {"middle": (high // 2, wide // 2), "corner": (0, 0), "(1, 1)": (1, 1)}[origin]
    centres = torch.tensor([(down * (a - middle[0]), right * (b - middle[1])) for a, b in taps]).to(kernel)
    if axes == "column, row":
        centres = centres.flip(1)
    first, second = {
        "both": (-strength, strength),
        "sign turned": (strength, -strength),
        "on the square alone": (-strength, 1.0),
        "left out": (-1.0, 1.0),
    }[alpha]
    ones = torch.ones(len(taps), 1).to(kernel)
    v = torch.cat([first * ones, second * linear * centres], dim=1)
    # A list that holds one tensor again and again has its last values only.
    return v[-1:].expand_as(v) if rows == "one v" else v, w[-1:].expand_as(w) if rows == "one w" else w


def attend_by_position(heads: tuple[Tensor, Tensor], tokens: Tensor, grid: Grid) -> Tensor:
    """Add up the heads (v, w): each takes an average of the tokens (N, in) by its map, then turns it by w: (N, out)."""
    v, w = heads
    return torch.einsum("hij,jc,hco->io", psa_map(v, grid).softmax(-1), tokens, w)
