"""The variant `decay`: tents in place of PSA's bells, hills in place of the prior's ramps. Each changed option is one mistake."""

import torch
from torch import Tensor

from spvit_mini.geometry import Grid

from ...composition import DIRECTIONS, locate_tokens

# How far two numbers, of rows and of columns, are from 0 together.
DISTANCES = {
    "sum of sizes": lambda down, right: down.abs() + right.abs(),
    "length": lambda down, right: (down.square() + right.square()).sqrt(),
    "squared length": lambda down, right: down.square() + right.square(),
    "the larger": lambda down, right: torch.maximum(down.abs(), right.abs()),
    "with signs": lambda down, right: down + right,
    "size of the sum": lambda down, right: (down + right).abs(),
    "rows only": lambda down, right: down.abs(),
    "columns only": lambda down, right: right.abs(),
}
REACHES = {
    "divided": lambda distance, reach: distance / reach,
    "multiplied": lambda distance, reach: distance * reach,
    "left out": lambda distance, reach: distance,
    "squared": lambda distance, reach: distance / reach**2,
}
AFTER = {
    "nothing": lambda scores: scores,
    "softmax": lambda scores: scores.softmax(-1),
    "exp": torch.exp,
    "minus": lambda scores: -scores,
    "heads last": lambda scores: scores.permute(1, 2, 0),
}


def psa_map(
    v: Tensor,
    grid: Grid,
    *,
    distance: str = "sum of sizes",
    reach: str = "divided",
    centre: str = "subtracted",
    order: tuple[int, int, int] = (0, 1, 2),
    down: str = "key − query",
    right: str = "key − query",
    tokens: str = "row by row",
    after: str = "nothing",
) -> Tensor:
    """Make the map −(|δ_row − Δ_row| + |δ_column − Δ_column|) / τ of heads v = (τ, Δ_row, Δ_column): (H, N, N)."""
    line, place = locate_tokens(tokens, *grid)
    below, beside = (DIRECTIONS[how](at[None, :], at[:, None]).to(v) for how, at in ((down, line), (right, place)))
    tau, row, column = (v[:, k, None, None] for k in order)
    if centre == "of sizes":
        below, beside = below.abs(), beside.abs()
    if centre == "left out":
        row, column = 0 * row, 0 * column
    far = DISTANCES[distance](below - row, beside - column)
    return AFTER[after](-REACHES[reach](far, tau))


def prior(
    delta: Tensor,
    centres: Tensor,
    reach: Tensor,
    heights: Tensor,
    floor: Tensor,
    *,
    distance: str = "sum of sizes",
    divided: str = "divided",
    centre: str = "subtracted",
    axes: str = "row, column",
    slope: float = -1.0,
    shared: str = "nothing",
    total: str = "sum",
    base: str = "own",
    heads: str = "first",
) -> Tensor:
    """Compute floor_h + Σ_k heights_hk · exp(−‖δ − centres_hk‖₁ / reach_hk) for offsets (…, 2): (H, …)."""
    if shared == "centres":
        centres = centres[:1].expand_as(centres)
    elif shared == "reach":
        reach = reach[:1].expand_as(reach)
    elif shared == "heights":
        heights = heights[:1].expand_as(heights)
    seen = delta if axes == "row, column" else delta.flip(-1)
    tops = {"subtracted": centres, "added": -centres, "left out": 0 * centres}[centre]
    down, right = (seen[..., None, None, :] - tops).unbind(-1)  # (…, H, K) each
    decayed = (slope * REACHES[divided](DISTANCES[distance](down, right), reach)).exp()
    weighed = decayed if total == "no heights" else decayed * heights
    result = weighed.mean(-1) if total == "mean" else weighed.amax(-1) if total == "the highest" else weighed.sum(-1)
    result = result + {"own": floor, "left out": 0 * floor, "1": 1 + 0 * floor, "the first": floor[:1]}[base]
    if heads == "added":
        return result.sum(-1)
    return result.movedim(-1, 0) if heads == "first" else result
