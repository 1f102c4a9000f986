"""Lesson 13's answers with options: each is right as it stands, and each changed option is one mistake."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from spvit_mini.geometry import Grid

from ..composition import spread_table


def lay_out(table: Tensor, lies: str) -> Tensor:
    """Give a table of the same values that lies otherwise in memory."""
    if lies == "transposed":
        return table.mT.contiguous().mT
    if lies == "cut from a larger one":
        return F.pad(table, (2, 1, 1, 1, 1, 0))[1:, 1:-1, 2:-1]
    return table


def read_memory(table: Tensor, steps: str) -> Tensor:
    """Read the memory of a table, (H, R, C), by its own steps or by those of a table in one piece, from its own start or not."""
    first = 0 if "from 0" in steps else table.storage_offset()
    strides = table.stride() if "own" in steps else (table[0].numel(), table.shape[2], 1)
    return table.as_strided(table.shape, strides, first)


def spread_fast(
    table: Tensor, grid: Grid, *, heads: str = "own", joined: str = "both", steps: str = "own", **how: str
) -> Tensor:
    """Spread a table over the pairs of patches; `how` are options of `spread_table`."""
    table = read_memory(table, steps)
    if heads == "the first's":
        table = table[:1].expand_as(table)
    elif heads == "turned round":
        table = table.flip(0)
    result = spread_table(table, grid, **how)
    if joined == "both":
        return result
    rows, columns = grid
    split = result.unflatten(-1, (rows, columns)).unflatten(-3, (rows, columns))
    return {"none": split, "queries": split.flatten(-4, -3), "keys": split.flatten(-2)}[joined]


def compute_threshold(prior: Tensor, density: float, by: str) -> Tensor:
    """Say from which value on an offset is kept, where values are compared with a number and not with each other."""
    if by == "above the density":
        return torch.full_like(prior[:, :1, :1], density)
    low, high = prior.amin((1, 2), keepdim=True), prior.amax((1, 2), keepdim=True)
    if by == "part of the range":
        return high - density * (high - low)
    return (1 - density) * high  # part of the largest


def count_offsets(prior: Tensor, density: float, count: str, of: str) -> int:
    """Count the offsets that a head keeps."""
    offsets = prior[0].numel()
    whole = {
        "up": math.ceil,
        "down": math.floor,
        "down, but 1": lambda number: max(1, math.floor(number)),
        "to the nearest": round,
        "to the nearest, but 1": lambda number: max(1, round(number)),
        "one more": lambda number: math.ceil(number) + 1,
        "one fewer": lambda number: math.ceil(number) - 1,
    }[count]
    return {
        "offsets": lambda: whole(density * offsets),
        "others": lambda: whole(density * (offsets - 1)) + 1,
        "patches": lambda: whole(density * ((prior.shape[1] + 1) // 2) * ((prior.shape[2] + 1) // 2)),
        "dropped": lambda: whole((1 - density) * offsets),
    }[of]()


def count_pairs(prior: Tensor) -> Tensor:
    """Count the pairs of patches of each offset: (2R−1, 2C−1)."""
    rows, columns = ((side + 1) // 2 for side in prior.shape[1:])
    down, right = (n - torch.arange(1 - n, n).abs() for n in (rows, columns))
    return down[:, None] * right[None, :]


def sparsify(
    prior: Tensor,
    density: float,
    *,
    by: str = "rank",
    sizes: str = "signed",
    order: str = "largest",
    ties: str = "first",
    who: str = "head",
    middle: str = "among",
    count: str = "up",
    of: str = "offsets",
    result: str = "booleans",
) -> Tensor:
    """Say which offsets each head keeps."""
    heads, offsets = len(prior), prior[0].numel()
    score = prior.abs() if sizes == "absolute" else prior
    score = -score if order == "smallest" else score
    if who == "mean":
        score = score.mean(0, keepdim=True).expand_as(score)
    flat = score.flatten(1).clone()
    if middle == "among":
        flat[:, offsets // 2] = math.inf
    if middle == "first":
        flat[:, 0] = math.inf
    if by != "rank" and by != "ties all kept":
        chosen = (score >= compute_threshold(score, density, by)).flatten(1)
    else:
        flat = flat.flatten()[None] if "network" in who else flat
        places = flat.shape[1]
        if ties == "last":
            ranked = places - 1 - flat.flip(1).argsort(dim=1, descending=True, stable=True)
        else:
            ranked = flat.argsort(dim=1, descending=True, stable=True)
        number = count_offsets(prior, density, count, of if of != "pairs" else "offsets") * (heads if who == "network" else 1)
        if who == "network, rounded once":
            number = math.ceil(density * flat.numel())
        chosen = torch.zeros_like(flat, dtype=torch.bool).scatter(1, ranked[:, :number], True)
        if of == "pairs":
            pairs = count_pairs(prior).flatten()
            before = pairs[ranked].cumsum(1) - pairs[ranked]
            chosen = chosen.scatter(1, ranked, before < density * pairs.sum())
        if by == "ties all kept" and number:
            last = flat.gather(1, ranked[:, number - 1 : number])
            chosen = flat >= last
        chosen = chosen.reshape(heads, offsets)
    if middle == "added" or middle == "among" and by != "rank":
        chosen[:, offsets // 2] = True
    chosen = chosen.view(prior.shape)
    return {
        "booleans": lambda: chosen,
        "turned round": lambda: ~chosen,
        "multiplied": lambda: prior * chosen,
        "scores": lambda: torch.zeros_like(prior).masked_fill(~chosen, -math.inf),
        "one for all heads": lambda: chosen.any(0),
    }[result]()
