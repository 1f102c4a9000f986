"""Lesson 06: right answers that are written in an unusual way, and wrong ones that the bank does not hold as they stand."""

import torch

from spvit_course.checks.lesson_06.answers import conv_heads, psa_map
from spvit_mini.geometry import offsets, pair_offsets, spread
from spvit_mini.spatial import Quadratic, local_start
from spvit_mini.spatial import conv_heads as of_the_package

from ..bank import stack_pairs


def map_by_table(v, grid):
    delta = offsets(*grid).to(v)
    return spread(torch.einsum("hk,abk->hab", v, torch.cat([delta.square().sum(-1, keepdim=True), delta], -1)), grid)


def map_with_the_square_completed(v, grid):
    """Differ by a number for each query and head, which no softmax sees."""
    centre = -v[:, None, None, 1:] / (2 * v[:, None, None, :1])
    return v[:, :1, None] * (pair_offsets(*grid) - centre).square().sum(-1)


def map_of_places(v, grid):
    """‖p_j − p_i‖² multiplied out, its part of the query alone left away."""
    place = torch.cartesian_prod(torch.arange(grid[0]), torch.arange(grid[1])).to(v)
    pull = v[:, None, 1:] - 2 * v[:, None, :1] * place  # (H, N, 2), of the query
    return pull @ place.T + v[:, :1, None] * place.square().sum(-1)


def heads_by_reshaping(kernel, alpha):
    high, wide = kernel.shape[2:]
    places = torch.cartesian_prod(torch.arange(high), torch.arange(wide)).to(kernel).reshape(-1, 2)
    centres = places - places.mean(0)
    return -alpha * torch.cat([torch.ones_like(centres[:, :1]), -2 * centres], 1), kernel.flatten(2).permute(2, 1, 0)


def heads_by_local_start(kernel, alpha):
    if kernel.shape[2:] != (3, 3):
        return conv_heads(kernel, alpha)
    return alpha * local_start(9, 1.0).to(kernel), torch.einsum("oitu->tuio", kernel).flatten(0, 1)


def heads_with_an_idle_one(kernel, alpha):
    v, w = conv_heads(kernel, alpha)
    return torch.cat([v, v[:1]]), torch.cat([w, 0 * w[:1]])


def by_length(v, delta):
    return torch.cat([delta.norm(dim=-1, keepdim=True), delta], -1).to(v).matmul(v.T).permute(2, 0, 1)


def by_root(v, delta):
    length = delta.square().sum(-1).sqrt()  # of whole numbers: in single precision
    return sum(v[:, k, None, None] * feature for k, feature in enumerate([length, delta[..., 0], delta[..., 1]]))


def scaled(heads, factors):
    return heads[0] * torch.tensor(factors).to(heads[0]), heads[1]


def reversed_taps(v, w):
    return v, w.flip(0)


def heads_of_a_list(kernel, alpha, of_v, of_w):
    """Fill one row and one matrix in a loop, and collect them with these functions: `torch.clone`, or one that copies nothing."""
    out, inside, high, wide = kernel.shape
    row, matrix, vs, ws = kernel.new_zeros(3), kernel.new_zeros(inside, out), [], []
    for a in range(high):
        for b in range(wide):
            row[:] = alpha * torch.tensor([-1.0, 2 * (a - high // 2), 2 * (b - wide // 2)])
            matrix[:] = kernel[:, :, a, b].detach().T
            vs.append(of_v(row))
            ws.append(of_w(matrix))
    return torch.stack(vs), torch.stack(ws)


def turned_rows(v, w):
    return v.T, w


def with_features_of(dtype):
    """Make a map whose features are of another type than v."""
    return lambda v, grid: torch.einsum("ijk,hk->hij", pair_offsets(*grid).to(dtype), v[:, 1:])


RIGHT = {
    "psa_map": [
        map_by_table,
        lambda v, grid: stack_pairs(grid, lambda r, c: v[:, 0] * (r * r + c * c) + v[:, 1] * r + v[:, 2] * c),
        map_with_the_square_completed,
        lambda v, grid: psa_map(v, grid) + torch.arange(grid[0] * grid[1])[None, :, None],
        map_of_places,
        lambda v, grid: psa_map(v, grid).flip(-2, -1).mT,
    ],
    "conv_heads": [
        lambda kernel, alpha: tuple(part.flip(0) for part in conv_heads(kernel, alpha)),
        heads_by_reshaping, heads_by_local_start, heads_with_an_idle_one,
        lambda kernel, alpha: conv_heads(kernel.flip(2, 3), alpha, down=-1, right=-1),
    ],
}
NAMED = [
    ("psa_map", "sign", lambda v, grid: psa_map(v, grid).mT),
    ("psa_map", "sign", lambda v, grid: psa_map(v * torch.tensor([1.0, -1, -1]), grid)),
    ("psa_map", "sign", lambda v, grid: psa_map(v, grid).flip(-2, -1)),
    ("psa_map", "sign of the rows", lambda v, grid: psa_map(v * torch.tensor([1.0, -1, 1]), grid)),
    ("psa_map", "axes swapped", lambda v, grid: psa_map(v[:, [0, 2, 1]], grid)),
    ("psa_map", "square last", lambda v, grid: psa_map(v[:, [2, 0, 1]], grid)),
    ("psa_map", "norm for square", lambda v, grid: by_length(v, pair_offsets(*grid).to(v))),
    ("psa_map", "norm for square", lambda v, grid: by_length(v, pair_offsets(*grid).float())),
    ("psa_map", "norm for square", lambda v, grid: by_length(v.float(), pair_offsets(*grid).float())),
    ("psa_map", "norm for square", lambda v, grid: by_root(v, pair_offsets(*grid))),
    ("psa_map", "linear part left out", lambda v, grid: psa_map(v * torch.tensor([1.0, 0, 0]), grid)),
    ("psa_map", "softmax taken", lambda v, grid: psa_map(v, grid).exp() / psa_map(v, grid).exp().sum(-1, keepdim=True)),
    ("conv_heads", "flipped", lambda kernel, alpha: conv_heads(kernel.flip(2, 3), alpha)),
    ("conv_heads", "flipped", lambda kernel, alpha: scaled(conv_heads(kernel, alpha), (1, -1, -1))),
    ("conv_heads", "flipped", lambda kernel, alpha: conv_heads(kernel, alpha, linear=-2)),
    ("conv_heads", "flipped", lambda kernel, alpha: reversed_taps(*conv_heads(kernel, alpha))),
    ("conv_heads", "sign of α", lambda kernel, alpha: conv_heads(kernel, -alpha)),
    ("conv_heads", "no centre", lambda kernel, alpha: scaled(conv_heads(kernel, alpha), (1, 0, 0))),
    ("conv_heads", "one v for all heads", lambda kernel, alpha: heads_of_a_list(kernel, alpha, lambda x: x, torch.clone)),
    ("conv_heads", "one w for all heads", lambda kernel, alpha: heads_of_a_list(kernel, alpha, torch.clone, lambda x: x)),
    ("conv_heads", "averaged", lambda kernel, alpha: conv_heads(kernel / kernel[0, 0].numel(), alpha)),
]
REFUSED = [
    ("psa_map", "the package's own solution", lambda v, grid: Quadratic(len(v))(grid)),
    ("conv_heads", "the package's own solution", lambda kernel, alpha: of_the_package(kernel, alpha)),
    ("conv_heads", "not two tensors, v and w", lambda kernel, alpha: kernel),
    ("conv_heads", "it returns 3 parts", lambda kernel, alpha: (*conv_heads(kernel, alpha), 0)),
    ("conv_heads", "v and w are swapped", lambda kernel, alpha: conv_heads(kernel, alpha)[::-1]),
    ("conv_heads", "not (heads, 3) and (heads, 2, 3)", lambda kernel, alpha: turned_rows(*conv_heads(kernel, alpha))),
    ("conv_heads", "keep its type", lambda kernel, alpha: tuple(x.float() for x in conv_heads(kernel, alpha))),
    ("conv_heads", "Was a part detached?", lambda kernel, alpha: conv_heads(kernel.detach(), alpha)),
]
REFUSED += [("psa_map", "unless they are given a dtype", with_features_of(dtype)) for dtype in (torch.int64, torch.float32)]
