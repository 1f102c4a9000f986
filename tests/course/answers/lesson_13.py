"""Lesson 13: right answers that are written in an unusual way, and wrong ones that the bank does not hold as they stand."""

import itertools
import math

import torch
import torch.nn.functional as F

from spvit_course.checks.lesson_13 import answers


def windows(table, grid):
    return table.unfold(1, grid[0], 1).unfold(2, grid[1], 1)  # (H, R, C, R, C)


def joined(five, grid):
    return five.reshape(len(five), grid[0] * grid[1], -1)


def with_middle_first(prior):
    """Flatten each head's table, (0, 0) the largest of all."""
    flat = prior.flatten(1).clone()
    flat[:, flat.shape[1] // 2] = math.inf
    return flat


def sorted_values(prior, density):
    """Compare with the last value that is kept."""
    flat = with_middle_first(prior)
    last = flat.sort(dim=1, descending=True).values[:, math.ceil(density * flat.shape[1]) - 1]
    return (flat >= last[:, None]).view(prior.shape)


def its_own_steps(table, grid, *start):
    """Take frames by the steps that the table itself has."""
    head, down, right = table.stride()
    return table.as_strided((len(table), *grid, *grid), (head, down, right, down, right), *start)


def steps_by_hand(table, grid, *start):
    """Take frames by the steps of a table in one piece, without asking for its own."""
    rows, columns = grid
    wide = 2 * columns - 1
    frames = table.as_strided((len(table), *grid, *grid), ((2 * rows - 1) * wide, wide, 1, wide, 1), *start)
    return joined(frames.flip(1, 2), grid)


def first_of(prior, number, *, middle=True):
    """Keep a number of each head's offsets, (0, 0) first if it is to be among them."""
    flat = with_middle_first(prior) if middle else prior.flatten(1)
    first = flat.argsort(dim=1, descending=True, stable=True)[:, : number(flat.shape[1])]
    return torch.zeros_like(flat, dtype=torch.bool).scatter(1, first, True).view(prior.shape)


def all_heads(prior, density):
    """Rank the offsets of all heads in one list."""
    flat = with_middle_first(prior)
    best = flat.flatten().argsort(descending=True, stable=True)[: math.ceil(density * flat.numel())]
    return torch.zeros(flat.numel(), dtype=torch.bool).index_fill(0, best, True).view(prior.shape)


def by_slices(table, grid):
    starts = itertools.product(range(grid[0] - 1, -1, -1), range(grid[1] - 1, -1, -1))
    return torch.stack([table[:, r : r + grid[0], c : c + grid[1]].flatten(1) for r, c in starts], dim=1)


def spread_by_products(table, grid):
    rows, columns = (torch.arange(side) for side in grid)

    def hits(places):  # (query, key, offset): 1 where the offset is that of the pair
        shifted = places[None, :, None] - places[:, None, None] + len(places) - 1
        return (shifted == torch.arange(2 * len(places) - 1)).to(table)

    return torch.einsum("hab,qka,rlb->hqrkl", table, hits(rows), hits(columns)).flatten(3).flatten(1, 2)


def sparsify_by_lists(prior, density):
    result = torch.zeros(prior.shape, dtype=torch.bool)
    for head, table_ in enumerate(prior):
        places = list(itertools.product(range(table_.shape[0]), range(table_.shape[1])))
        middle = places[len(places) // 2]
        places.sort(key=lambda place: (place != middle, -table_[place].item()))
        for place in places[: math.ceil(density * len(places))]:
            result[(head, *place)] = True
    return result


def sparsify_by_counting_the_better(prior, density):
    flat, n = with_middle_first(prior), prior[0].numel()
    earlier = torch.arange(n)[None, :] < torch.arange(n)[:, None]
    better = (flat[:, None, :] > flat[:, :, None]) | ((flat[:, None, :] == flat[:, :, None]) & earlier)
    return (better.sum(-1) < math.ceil(density * n)).view(prior.shape)


def sparsify_by_double_sorting(prior, density):
    ranks = (-with_middle_first(prior)).argsort(dim=1, stable=True).argsort(dim=1)
    return ranks.lt(math.ceil(density * ranks.shape[1])).reshape_as(prior)


RIGHT = {
    "spread_fast": [
        lambda table, grid: joined(its_own_steps(table.contiguous(), grid).flip(1, 2), grid),
        lambda table, grid: joined(its_own_steps(table, grid).flip(1, 2), grid),
        lambda table, grid: joined(windows(table.flip(1, 2), grid), grid).flip(2),
        lambda table, grid: F.unfold(table[:, None], grid).flip(2).mT,
        spread_by_products,
        lambda table, grid: joined(windows(table.flip(1, 2), grid).flip(3, 4), grid),
    ],
    "sparsify": [
        sparsify_by_lists, sparsify_by_counting_the_better, sparsify_by_double_sorting,
        lambda prior, density: first_of(prior, lambda n: int(density * n) + 1),
    ],
}
NAMED = [
    ("spread_fast", "not turned round", lambda table, grid: joined(windows(table, grid), grid)),
    ("spread_fast", "columns not turned round", lambda table, grid: joined(windows(table, grid).flip(1), grid)),
    ("spread_fast", "rows not turned round", lambda table, grid: joined(windows(table, grid).flip(2), grid)),
    ("spread_fast", "transposed", lambda table, grid: joined(windows(table, grid).flip(3, 4), grid)),
    ("spread_fast", "transposed", lambda table, grid: joined(windows(table, grid).flip(1, 2), grid).mT),
    ("spread_fast", "sign of the rows", lambda table, grid: joined(windows(table, grid).flip(3, 2), grid)),
    ("spread_fast", "heads turned round", lambda table, grid: joined(windows(table, grid).flip(0, 1, 2), grid)),
    ("spread_fast", "axes not joined", lambda table, grid: windows(table, grid).flip(1, 2)),
    ("spread_fast", "not turned round", lambda table, grid: joined(its_own_steps(table.contiguous(), grid), grid)),
    ("spread_fast", "rows with rows",
        lambda table, grid: joined(windows(table, grid).flip(1, 2).permute(0, 1, 3, 2, 4), grid)),
    ("spread_fast", "steps of one piece", steps_by_hand),
    ("spread_fast", "steps of one piece, begins at 0", lambda table, grid: steps_by_hand(table, grid, 0)),
    ("spread_fast", "begins at 0", lambda table, grid: joined(its_own_steps(table, grid, 0).flip(1, 2), grid)),
    ("sparsify", "ties all kept", sorted_values),
    ("sparsify", "smallest kept", lambda prior, density: answers.sparsify(-prior, density)),
    ("sparsify", "multiplied", lambda prior, density: answers.sparsify(prior, density) * prior),
    ("sparsify", "0 and −∞", lambda prior, density: answers.sparsify(prior, density).double().log()),
    ("sparsify", "rounded down", lambda prior, density: first_of(prior, lambda n: int(density * n))),
    ("sparsify", "rounded to the nearest", lambda prior, density: first_of(prior, lambda n: round(density * n))),
    ("sparsify", "one more", lambda prior, density: first_of(prior, lambda n: math.ceil(density * n) + 1)),
    ("sparsify", "one fewer", lambda prior, density: first_of(prior, lambda n: math.ceil(density * n) - 1)),
    ("sparsify", "rounded down, the diagonal lost",
        lambda prior, density: first_of(prior, lambda n: int(density * n), middle=False)),
    ("sparsify", "per network, rounded once", all_heads),
    ("sparsify", "share left out", lambda prior, density: answers.sparsify(prior, 1 - density)),
]
REFUSED = [
    ("spread_fast", "an index", answers.spread_fast),
    ("spread_fast", "there is a loop", by_slices),
    ("sparsify", "not of booleans", lambda prior, density: answers.sparsify(prior, density).double()),
]
