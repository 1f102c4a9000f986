"""Lesson 03: right answers that are written in an unusual way, and wrong ones that the bank does not hold as they stand."""

import itertools
from functools import partial
from math import isqrt

import torch
import torch.nn.functional as F

from spvit_course.checks.lesson_03.answers import offsets, spread
from spvit_mini.geometry import pair_offsets

from ..bank import stack_pairs


def offsets_by_nonzero(rows, columns):
    places = torch.ones(2 * rows - 1, 2 * columns - 1).nonzero().reshape(2 * rows - 1, 2 * columns - 1, 2)
    return places - torch.tensor([rows - 1, columns - 1])


def offsets_by_broadcasting(rows, columns):
    table = torch.zeros(2 * rows - 1, 2 * columns - 1, 2, dtype=torch.int64)
    table[..., 0] += torch.arange(1 - rows, rows)[:, None]
    table[..., 1] += torch.arange(1 - columns, columns)
    return table


def offsets_from_all_pairs(rows, columns):
    places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
    distinct = (places[None] - places[:, None]).flatten(0, 1).unique(dim=0)  # sorted by row, then by column
    return distinct.reshape(2 * rows - 1, 2 * columns - 1, 2)


def spread_by_slices(table, grid):
    starts = itertools.product(range(grid[0] - 1, -1, -1), range(grid[1] - 1, -1, -1))
    return torch.stack([table[..., r : r + grid[0], c : c + grid[1]].flatten(-2) for r, c in starts], dim=-2)


def spread_by_one_index(table, grid):
    index = spread(torch.arange(table.shape[-2] * table.shape[-1]).reshape(table.shape[-2:]), grid)
    return table.flatten(-2).index_select(-1, index.flatten()).unflatten(-1, index.shape)


def spread_by_unfold(table, grid):
    frames = F.unfold(table.reshape(1, -1, *table.shape[-2:]), grid)
    return frames.reshape(*table.shape[:-2], *[grid[0] * grid[1]] * 2).flip(-1).mT


def spread_by_einsum(table, grid):
    rows, columns = (torch.arange(side) for side in grid)

    def hits(places):  # (query, key, offset): 1 where the offset is that of the pair
        shifted = places[None] - places[:, None] + len(places) - 1
        return F.one_hot(shifted, 2 * len(places) - 1).to(table.dtype)

    return torch.einsum("...ab,qka,rlb->...qrkl", table, hits(rows), hits(columns)).flatten(-4, -3).flatten(-2)


def pad_prefix_by_cat(spatial, prefix, neutral):
    above = spatial.new_full((*spatial.shape[:-2], prefix, spatial.shape[-1]), neutral)
    tall = torch.cat([above, spatial], dim=-2)
    return torch.cat([tall.new_full((*tall.shape[:-1], prefix), neutral), tall], dim=-1)


def pad_prefix_by_filling(spatial, prefix, neutral):
    n = prefix + spatial.shape[-1]
    result = torch.full((*spatial.shape[:-2], n, n), neutral, dtype=spatial.dtype)
    result[..., prefix:, prefix:] = spatial
    return result


def pad_prefix_by_recursion(spatial, prefix, neutral):
    more = F.pad(spatial, (1, 0, 1, 0), value=neutral)
    return pad_prefix_by_recursion(more, prefix - 1, neutral) if prefix else spatial


def windows(table, grid):
    """Take the sliding windows in the order in which they come."""
    return table.unfold(-2, grid[0], 1).unfold(-2, grid[1], 1).flatten(-4, -3).flatten(-2, -1)


def shifted_too_far(table, grid):
    delta = pair_offsets(*grid)
    return table[..., delta[..., 0] + grid[0], delta[..., 1] + grid[1]]


def looked_up_one_by_one(table, grid):
    result = table.new_zeros(*grid, *grid)
    for a, b, r, c in itertools.product(*map(range, grid * 2)):
        result[a, b, r, c] = table[r - a + grid[0] - 1, c - b + grid[1] - 1]
    return result.flatten(2).flatten(0, 1)


def side_guessed(table, grid):
    n, side = torch.arange(grid[0] * grid[1]), isqrt(grid[0] * grid[1])
    down, right = (place[None, :] - place[:, None] for place in (n // side, n % side))
    return table[..., down + grid[0] - 1, right + grid[1] - 1]


def stacked_without_axes_in_front(spatial, prefix, neutral):
    below = torch.cat([torch.full((len(spatial), prefix), neutral), spatial], dim=1)
    return torch.cat([torch.full((prefix, prefix + len(spatial)), neutral), below])


def filled_without_axes_in_front(spatial, prefix, neutral):
    result = torch.full([prefix + spatial.shape[-1]] * 2, neutral)
    result[prefix:, prefix:] = spatial
    return result


RIGHT = {
    "offsets": [
        lambda rows, columns: torch.tensor([[[a, b] for b in range(1 - columns, columns)] for a in range(1 - rows, rows)]),
        offsets_by_nonzero, offsets_by_broadcasting, offsets_from_all_pairs,
        lambda rows, columns: offsets(rows, columns).int(),
        lambda rows, columns: -offsets(rows, columns).flip(0, 1),
        lambda rows, columns: offsets(columns, rows).transpose(0, 1).flip(-1),
    ],
    "spread": [
        lambda table, grid: stack_pairs(grid, lambda r, c: table[..., r + grid[0] - 1, c + grid[1] - 1]),
        spread_by_slices, spread_by_one_index, spread_by_unfold, spread_by_einsum,
        lambda table, grid: spread(table.flip(-2, -1), grid).mT, partial(spread, stride="2C−1"),
    ],
    "pad_prefix": [
        pad_prefix_by_cat, pad_prefix_by_filling, pad_prefix_by_recursion,
        lambda spatial, prefix, neutral: F.pad(spatial - neutral, (prefix, 0, prefix, 0)) + neutral,
    ],
}
NAMED = [
    ("spread", "sign", lambda table, grid: spread(table, grid).mT),
    ("spread", "sign", lambda table, grid: spread(table.flip(-2, -1), grid)),
    ("spread", "sign of the rows", lambda table, grid: spread(table.flip(-2), grid)),
    ("spread", "sign of the columns", lambda table, grid: spread(table.flip(-2), grid).mT),
    ("spread", "sum for difference", lambda table, grid: windows(table, grid)),
    ("spread", "R and C swapped", lambda table, grid: spread(table, grid[::-1])),
    ("spread", "R and C swapped", partial(spread, shift="C−1, R−1")),
    ("offsets", "sign", lambda rows, columns: offsets(rows, columns).flip(0, 1)),
    ("offsets", "sign of the rows", lambda rows, columns: offsets(rows, columns).flip(0)),
    ("offsets", "rows and columns swapped throughout", lambda rows, columns: offsets(columns, rows)),
    ("pad_prefix", "placed last", lambda spatial, prefix, neutral: F.pad(spatial, (0, prefix) * 2, value=neutral)),
    ("pad_prefix", "columns only", lambda spatial, prefix, neutral: F.pad(spatial, (prefix, 0), value=neutral)),
    ("pad_prefix", "always 0", lambda spatial, prefix, neutral: F.pad(spatial, (prefix, 0) * 2)),
]
REFUSED = [
    ("offsets", "no whole numbers", lambda rows, columns: offsets(rows, columns).float()),
    ("offsets", "returns a list", lambda rows, columns: offsets(rows, columns).tolist()),
]
STUMBLING = [
    ("spread", shifted_too_far),
    ("spread", looked_up_one_by_one),
    ("spread", side_guessed),
    ("pad_prefix", stacked_without_axes_in_front),
    ("pad_prefix", filled_without_axes_in_front),
]
