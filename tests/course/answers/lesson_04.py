"""Lesson 04: right answers that are written in an unusual way, and wrong ones that the bank does not hold as they stand."""

import math
from functools import partial

import torch
import torch.nn.functional as F

from spvit_course.checks.lesson_04.answers import RelativeBias, log_offsets, shaw2d
from spvit_mini.attention import MHSA
from spvit_mini.geometry import offsets, pair_offsets, spread

from ..bank import stack_pairs


def with_weights(weights):
    """Make a class of the exercise from its one method."""
    own = {"__init__": lambda self, *sizes: RelativeBias.__init__(self, *sizes), "weights": weights}
    return type("RelativeBias", (RelativeBias,), own)


def bias_by_the_map(self, q, k, grid):
    return F.softmax(torch.einsum("bhic,bhjc->bhij", q, k) / math.sqrt(q.shape[-1]) + self.spatial(grid), dim=3)


def bias_by_pairs(self, q, k, grid):
    rows, columns = grid
    delta = pair_offsets(rows, columns) + torch.tensor([rows - 1, columns - 1])
    powers = (self.scores(q, k) + self.spatial.values[:, delta[..., 0], delta[..., 1]]).exp()
    return powers / powers.sum(-1, keepdim=True)


def bias_as_a_factor(self, q, k, grid):  # exp(s + f) = exp(s) · exp(f)
    parts = self.scores(q, k).softmax(-1) * spread(self.spatial.values.exp(), grid)
    return parts / parts.sum(-1, keepdim=True)


def bias_by_sdpa(self, q, k, grid):
    values = torch.eye(q.shape[-2], dtype=q.dtype).expand(*q.shape[:2], -1, -1)
    return F.scaled_dot_product_attention(q, k, values, attn_mask=self.spatial(grid)[None])


def shaw2d_by_loops(q, tables, grid, clip):
    def vector(*delta):
        return sum(table[max(-clip, min(clip, step)) + clip] for table, step in zip(tables, delta, strict=True))

    return torch.einsum("...ic,cij->...ij", q, stack_pairs(grid, vector)) / math.sqrt(q.shape[-1])


def shaw2d_products_first(q, tables, grid, clip):
    index = pair_offsets(*grid).clamp(-clip, clip) + clip
    products = [(q @ tables[k].T).gather(-1, index[..., k].expand(*q.shape[:-1], -1)) for k in (0, 1)]
    return sum(products) / q.shape[-1] ** 0.5


def shaw2d_scaling_the_queries(q, tables, grid, clip):
    table = offsets(*grid).clamp(-clip, clip) + clip
    vectors = (tables[0][table[..., 0]] + tables[1][table[..., 1]]).permute(2, 0, 1)  # (C, 2R−1, 2C−1)
    return ((q / q.shape[-1] ** 0.5)[..., None, :] @ spread(vectors, grid).permute(1, 0, 2))[..., 0, :]


def log_offsets_by_parts(delta, window):
    parts = [8 * delta[..., k] / (window[k] - 1) for k in (0, 1)]
    return torch.stack([part.sign() * torch.log1p(part.abs()) / math.log(8) for part in parts], dim=-1)


def log_offsets_by_copysign(delta, window):
    near = delta * 8 / (torch.tensor(window) - 1)
    return torch.copysign((1 + near.abs()).log2() / 3, near)


def log_offsets_by_numpy_style(delta, window):
    near = delta / ((torch.as_tensor(window, dtype=torch.float64) - 1) / 8)
    return torch.where(near < 0, -1.0, 1.0).double() * torch.log2(near.abs() + 1) / torch.tensor(8.0).double().log2()


def taken_for_a_batch(q, tables, grid, clip):
    index = pair_offsets(*grid).clamp(-clip, clip) + clip
    embeddings = tables[0][index[..., 0]] + tables[1][index[..., 1]]  # (N, N, D/H)
    return q @ embeddings.mT / q.shape[-1] ** 0.5


class Bare(MHSA):
    def __init__(self, dim, heads, grid):
        super().__init__(dim, heads)


RIGHT = {
    "RelativeBias": [with_weights(weights) for weights in (bias_by_the_map, bias_by_pairs, bias_as_a_factor, bias_by_sdpa)],
    "shaw2d": [
        shaw2d_by_loops, shaw2d_products_first, shaw2d_scaling_the_queries,
        lambda q, tables, grid, clip: shaw2d(q, tables.flip(1), grid, clip, down="query − key", right="query − key"),
    ],
    "log_offsets": [
        log_offsets_by_parts, log_offsets_by_copysign, log_offsets_by_numpy_style,
        lambda delta, window: log_offsets(delta, window, log="ln", divided=math.log(8)),
    ],
}
NAMED = [
    ("RelativeBias", "R and C swapped", partial(RelativeBias, shift="C−1, R−1")),
    ("RelativeBias", "sign", with_weights(lambda self, q, k, grid: (self.scores(q, k) + self.spatial(grid).mT).softmax(-1))),
    ("RelativeBias", "left out", with_weights(MHSA.weights)),
    ("RelativeBias", "no root", with_weights(lambda self, q, k, grid: (q @ k.mT + self.spatial(grid)).softmax(-1))),
    ("RelativeBias", "left out",
        with_weights(lambda self, q, k, grid: (self.scores(q, k) + self.spatial.values.mean((1, 2), True)).softmax(-1))),
    ("RelativeBias", "root twice",
        with_weights(lambda self, q, k, grid: (q @ k.mT / q.shape[-1] + self.spatial(grid)).softmax(-1))),
    ("shaw2d", "transposed", lambda q, tables, grid, clip: shaw2d(q, tables, grid, clip).mT),
    ("shaw2d", "sign", lambda q, tables, grid, clip: shaw2d(q, tables.flip(1), grid, clip)),
    ("shaw2d", "axes swapped", lambda q, tables, grid, clip: shaw2d(q, tables.flip(0), grid, clip)),
    ("log_offsets", "clamped",
        lambda delta, window: log_offsets(delta.clamp(1 - torch.tensor(window), torch.tensor(window) - 1), window)),
    ("log_offsets", "no absolute value", lambda delta, window: (1 + 8 * delta / (delta.new_tensor(window) - 1)).log2() / 3),
    ("log_offsets", "no sign", lambda delta, window: log_offsets(delta.abs(), window)),
    ("log_offsets", "axes swapped", lambda delta, window: log_offsets(delta, window[::-1])),
]
REFUSED = [("RelativeBias", "spatial.values", Bare)]
STUMBLING = [("shaw2d", taken_for_a_batch)]
