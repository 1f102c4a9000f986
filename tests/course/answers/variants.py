"""The variants: right answers that are written in an unusual way, and wrong ones that the banks do not hold as they stand."""

import itertools
from math import e, log2

import torch

from spvit_course.checks.lesson_03 import answers as lesson_03
from spvit_course.checks.lesson_04 import answers as lesson_04
from spvit_course.checks.lesson_06 import answers as lesson_06
from spvit_course.checks.lesson_08 import answers as lesson_08
from spvit_mini.geometry import offsets, pair_offsets, spread

from ..bank import stack_pairs

OWN = "calls the package's own solution"


def places(grid):
    return list(itertools.product(range(grid[0]), range(grid[1])))


def x_first_offsets_by_product(rows, columns):
    spans = torch.arange(1 - columns, columns), torch.arange(1 - rows, rows)
    return torch.cartesian_prod(*spans).reshape(2 * columns - 1, 2 * rows - 1, 2)


def x_first_offsets_by_broadcasting(rows, columns):
    table = torch.zeros(2 * columns - 1, 2 * rows - 1, 2, dtype=torch.long)
    table[..., 0] += torch.arange(2 * columns - 1)[:, None] - columns + 1
    table[..., 1] += torch.arange(2 * rows - 1) - rows + 1
    return table


def x_first_log_offsets_by_loops(delta, window):
    sides = window[::-1]
    flat = [8 * x / (sides[k % 2] - 1) for k, x in enumerate(delta.flatten().tolist())]
    found = [(1 if x > 0 else -1) * log2(1 + abs(x)) / 3 if x else 0.0 for x in flat]
    return torch.tensor(found, dtype=delta.dtype if delta.is_floating_point() else torch.float32).reshape(delta.shape)


def x_first_log_offsets_by_log1p(delta, window):
    column, row = (8 * delta[..., k] / (window[1 - k] - 1) for k in (0, 1))
    return torch.stack([x.abs().log1p().copysign(x) / 2.0794415416798357 for x in (column, row)], dim=-1)


def x_first_psa_map_by_a_table(v, grid):
    delta = offsets(*grid).to(v)
    row, column = delta.unbind(-1)
    return spread(torch.tensordot(v, torch.stack([column, row, row**2 + column**2]), dims=1), grid)


def x_first_prior_by_heads(delta, w1, b1, w2, b2):
    column, row = delta.unbind(-1)
    units = [row[..., None] * w[:, 0] + column[..., None] * w[:, 1] + b for w, b in zip(w1, b1, strict=True)]
    return torch.stack([(u.clamp(min=0) * w).sum(-1) + b for u, w, b in zip(units, w2, b2, strict=True)])


def x_first_prior_by_linear(delta, w1, b1, w2, b2):
    swap = w1.new_tensor([[0, 1], [1, 0]])
    hidden = torch.nn.functional.linear(delta @ swap, w1.flatten(0, 1), b1.flatten()).relu()
    return ((hidden.unflatten(-1, b1.shape) * w2).sum(-1) + b2).movedim(-1, 0)


def i_minus_j_shaw2d_by_one_hot(q, tables, grid, clip):
    delta = (-pair_offsets(*grid)).clamp(-clip, clip) + clip
    hot = torch.nn.functional.one_hot(delta, 2 * clip + 1).to(q)  # (N, N, 2, 2·clip + 1)
    return torch.einsum("...ic,xkc,ijxk->...ij", q, tables, hot) / q.shape[-1] ** 0.5


def i_minus_j_shaw2d_by_loops(q, tables, grid, clip):
    def vector(*delta):
        return sum(table[clip - max(-clip, min(clip, step))] for table, step in zip(tables, delta, strict=True))

    return torch.einsum("...ic,cij->...ij", q, stack_pairs(grid, vector)) / q.shape[-1] ** 0.5


def decay_psa_map_by_cdist(v, grid):
    at = torch.tensor(places(grid), dtype=v.dtype)
    return 3 - torch.cdist(at + v[:, None, 1:], at.expand(len(v), -1, -1), p=1) / v[:, :1, None]


def decay_psa_map_by_weights(v, grid):
    down, right = pair_offsets(*grid).to(v).unbind(-1)
    falls = [(-(x[None] - v[:, k, None, None]).abs() / v[:, 0, None, None]).exp() for k, x in ((1, down), (2, right))]
    return falls[0].log() + falls[1].log()


def decay_prior_by_products(delta, centres, reach, heights, floor):
    falls = (-(delta[..., None, None, :] - centres).abs() / reach[..., None]).exp().prod(-1)
    return torch.einsum("...hk,hk->...h", falls, heights).movedim(-1, 0) + floor.reshape(-1, *[1] * (delta.ndim - 1))


def decay_prior_by_heads(delta, centres, reach, heights, floor):
    falls = [[(-(delta - c).norm(p=1, dim=-1) / r).exp() for c, r in zip(*own, strict=True)]
             for own in zip(centres, reach, strict=True)]
    return torch.stack([sum(map(torch.mul, high, own)) + low for high, own, low in zip(heights, falls, floor, strict=True)])


def decay_prior_by_powers(delta, centres, reach, heights, floor):
    flat = delta.reshape(-1, 1, 1, 2)
    sizes = (flat - centres).abs()
    falls = e ** -((sizes[..., 0] + sizes[..., 1]) * reach.reciprocal())
    return ((falls * heights).sum(2) + floor).T.reshape(-1, *delta.shape[:-1])


def dilated_window_mask_by_loops(grid, size, dilation):
    steps = {dilation * k for k in range(-(size // 2), size // 2 + 1)}
    return stack_pairs(grid, lambda r, c: torch.tensor(r in steps and c in steps))


def dilated_window_mask_by_kron(grid, size, dilation):
    bands = []
    for side in grid:
        steps = [dilation * k for k in range(size // 2 + 1) if dilation * k < side]
        band = sum(torch.diag(torch.ones(side - step), step) for step in steps)
        bands.append((band + band.T > 0).float())
    return torch.kron(*bands) > 0


def dilated_window_mask_by_index(grid, size, dilation):
    seen = torch.zeros(*grid, *grid, dtype=torch.bool)
    half = dilation * (size // 2)
    for a, b in places(grid):
        rows, columns = (slice(max(x - half, x % dilation), x + half + 1, dilation) for x in (a, b))
        seen[a, b, rows, columns] = True
    return seen.flatten(2).flatten(0, 1)


def dilated_by_token_numbers(grid, size, dilation):
    """Count a query's window in token numbers, over the ends of rows."""
    n, mask = grid[0] * grid[1], torch.zeros(grid[0] * grid[1], grid[0] * grid[1], dtype=torch.bool)
    half = range(-(size // 2), size // 2 + 1)
    for query, down, right in itertools.product(range(n), half, half):
        key = query + dilation * (down * grid[1] + right)
        if 0 <= key < n:
            mask[query, key] = True
    return mask


def dilated_by_clamped_places(grid, size, dilation):
    """Move what lies beyond the border onto it."""
    mask = torch.zeros(*grid, *grid, dtype=torch.bool)
    half = range(-(size // 2), size // 2 + 1)
    for (row, column), down, right in itertools.product(places(grid), half, half):
        key = row + dilation * down, column + dilation * right
        mask[row, column, min(max(key[0], 0), grid[0] - 1), min(max(key[1], 0), grid[1] - 1)] = True
    return mask.flatten(2).flatten(0, 1)


RIGHT = {
    "x_first 03 offsets": [
        lambda rows, columns: torch.tensor([[[c, r] for r in range(1 - rows, rows)] for c in range(1 - columns, columns)]),
        x_first_offsets_by_product, x_first_offsets_by_broadcasting,
    ],
    "x_first 04 log_offsets": [
        x_first_log_offsets_by_loops,
        lambda delta, window: lesson_04.log_offsets(delta.flip(-1), window).flip(-1),
        x_first_log_offsets_by_log1p,
    ],
    "x_first 06 psa_map": [
        lambda v, grid: stack_pairs(grid, lambda r, c: v[:, 0] * c + v[:, 1] * r + v[:, 2] * (r * r + c * c)),
        lambda v, grid: lesson_06.psa_map(v[:, [2, 1, 0]], grid) + 7,
        x_first_psa_map_by_a_table,
    ],
    "x_first 08 prior": [
        lambda delta, w1, b1, w2, b2: lesson_08.prior(delta, w1.flip(-1), b1, w2, b2),
        x_first_prior_by_heads, x_first_prior_by_linear,
    ],
    "i_minus_j 03 offsets": [
        lambda rows, columns: -lesson_03.offsets(rows, columns),
        lambda rows, columns: lesson_03.offsets(rows, columns).flip(0, 1),
        lambda rows, columns: torch.tensor([[[-r, -c] for c in range(1 - columns, columns)] for r in range(1 - rows, rows)]),
    ],
    "i_minus_j 03 spread": [
        lambda table, grid: lesson_03.spread(table, grid).mT,
        lambda table, grid: lesson_03.spread(table.flip(-2, -1), grid),
        lambda table, grid: stack_pairs(grid, lambda r, c: table[..., grid[0] - 1 - r, grid[1] - 1 - c]),
    ],
    "i_minus_j 04 shaw2d": [
        lambda q, tables, grid, clip: lesson_04.shaw2d(q, tables.flip(1), grid, clip),
        i_minus_j_shaw2d_by_one_hot, i_minus_j_shaw2d_by_loops,
    ],
    "i_minus_j 06 psa_map": [
        lambda v, grid: lesson_06.psa_map(v * v.new_tensor([1, -1, -1]), grid),
        lambda v, grid: lesson_06.psa_map(v, grid).mT,
        lambda v, grid: stack_pairs(grid, lambda r, c: v[:, 0] * (r * r + c * c) - v[:, 1] * r - v[:, 2] * c),
    ],
    "decay 06 psa_map": [
        lambda v, grid: stack_pairs(grid, lambda r, c: -((r - v[:, 1]).abs() + (c - v[:, 2]).abs()) / v[:, 0]),
        decay_psa_map_by_cdist, decay_psa_map_by_weights,
    ],
    "decay 08 prior": [decay_prior_by_products, decay_prior_by_heads, decay_prior_by_powers],
    "dilated 05 window_mask": [dilated_window_mask_by_loops, dilated_window_mask_by_kron, dilated_window_mask_by_index],
}
NAMED = [
    ("dilated 05 window_mask", "flat index", dilated_by_token_numbers),
    ("dilated 05 window_mask", "clamped to the border", dilated_by_clamped_places),
]
REFUSED = [
    ("i_minus_j 03 offsets", OWN, lambda rows, columns: -offsets(rows, columns)),
    ("x_first 03 offsets", OWN, lambda rows, columns: offsets(rows, columns).transpose(0, 1).flip(-1)),
    ("i_minus_j 03 spread", OWN, lambda table, grid: spread(table, grid).mT),
]
