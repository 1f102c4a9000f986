"""Lesson 07: right answers that are written in an unusual way, and wrong ones that the bank does not hold as they stand."""

import torch
import torch.nn.functional as F

from spvit_course.checks.lesson_07 import answers
from spvit_mini.geometry import pair_offsets

from ..bank import stack_pairs


def gpsa_by_loops(scores, positions, gate):
    prefix, rows = scores.shape[-1] - positions.shape[-1], []
    for h in range(len(gate)):
        part = 1 / (1 + (-gate[h]).exp())
        for i in range(scores.shape[-1]):
            row = torch.softmax(scores[:, h, i], dim=-1)
            if i >= prefix:
                place = torch.cat([row.new_zeros(prefix), positions[h, i - prefix].softmax(0)])
                row = (1 - part) * row + part * place
            rows.append(row)
    return torch.stack(rows, dim=1).unflatten(1, scores.shape[1:3])


def gpsa_renormalised(scores, positions, gate):
    share = gate.sigmoid().view(-1, 1, 1)
    prefix = scores.shape[-1] - positions.shape[-1]
    place = F.pad(positions, (prefix, 0), value=float("-inf")).softmax(-1)
    mixed = (1 - share) * scores.softmax(-1)[:, :, prefix:] + share * place
    whole = torch.cat([scores[:, :, :prefix].softmax(-1), mixed], dim=2)
    return whole / whole.sum(-1, keepdim=True)


def gpsa_with_a_share_for_each_row(scores, positions, gate):
    prefix = scores.shape[-1] - positions.shape[-1]
    share = F.pad(gate.sigmoid()[:, None].expand(-1, positions.shape[-1]), (prefix, 0))[..., None]
    place = F.pad(positions.softmax(-1), (prefix, 0, prefix, 0))
    return torch.einsum("bhij,hik->bhij", scores.softmax(-1), 1 - share) + share * place


def gpsa_in_logarithms(scores, positions, gate):
    prefix = scores.shape[-1] - positions.shape[-1]
    content = scores.log_softmax(-1)
    place = F.pad(positions.log_softmax(-1), (prefix, 0), value=-1e9).expand_as(content[:, :, prefix:])
    logs = [F.logsigmoid(sign * gate)[:, None, None] for sign in (-1, 1)]
    patches = torch.logaddexp(content[:, :, prefix:] + logs[0], place + logs[1])
    return torch.cat([content[:, :, :prefix], patches], dim=2).exp()


def nonlocality_by_loops(w, grid):
    distances = stack_pairs(grid, lambda r, c: w.new_tensor((r * r + c * c) ** 0.5))
    w = w[..., -len(distances) :, -len(distances) :]
    return (distances * w / w.sum(-1, keepdim=True)).sum((-2, -1)) / len(distances)


def nonlocality_by_cdist(w, grid):
    n = grid[0] * grid[1]
    places = torch.ones(grid, dtype=w.dtype).nonzero().to(w.dtype)
    distances = (places[:, None] - places).square().sum(-1).sqrt()
    w = F.normalize(w[:, :, -n:, -n:], p=1, dim=-1)
    return torch.einsum("bhij,ij->bh", w, distances) / n


def nonlocality_in_complex_numbers(w, grid):
    prefix = w.shape[-1] - grid[0] * grid[1]
    delta = pair_offsets(*grid).to(w)
    lengths = torch.complex(delta[..., 0], delta[..., 1]).abs()
    patches = w[..., prefix:, prefix:]
    return ((patches * lengths).sum(-1) / patches.sum(-1)).mean(-1)


def late_token_by_an_if(x, cls, blocks, k):
    for i, block in enumerate([*blocks, lambda x: x]):
        if i == k:
            x = torch.cat((cls.expand(x.shape[0], 1, -1), x), 1)
        x = block(x)
    return x


def late_token_by_recursion(x, cls, blocks, k):
    if k == 0:
        x, k = torch.cat([cls + torch.zeros_like(x[:, :1]), x], dim=1), -1
    return late_token_by_recursion(blocks[0](x), cls, blocks[1:], k - 1) if blocks else x


def late_token_by_padding(x, cls, blocks, k):
    for number in range(len(blocks) + 1):
        if number == k:
            x = F.pad(x, (0, 0, 1, 0)) + F.pad(cls, (0, 0, 0, x.shape[1]))
        if number < len(blocks):
            x = blocks[number](x)
    return x


def by_way_of_nan(scores, positions, gate):
    prefix, share = scores.shape[-1] - positions.shape[-1], gate.sigmoid()[:, None, None]
    place = F.pad(positions, (prefix, 0, prefix, 0), value=float("-inf")).softmax(-1)
    patches = (1 - share) * scores.softmax(-1) + share * place
    return torch.cat([scores.softmax(-1)[:, :, :prefix], patches[:, :, prefix:]], dim=2)


def on_keys(scores, positions, gate):
    share, prefix = gate.sigmoid(), scores.shape[-1] - positions.shape[-1]
    return (1 - share) * scores.softmax(-1) + share * F.pad(positions.softmax(-1), (prefix, 0, prefix, 0))


RIGHT = {
    "gpsa": [gpsa_by_loops, gpsa_renormalised, gpsa_with_a_share_for_each_row, gpsa_in_logarithms],
    "nonlocality": [nonlocality_by_loops, nonlocality_by_cdist, nonlocality_in_complex_numbers],
    "late_token": [late_token_by_an_if, late_token_by_recursion, late_token_by_padding],
}
REFUSED = [
    ("gpsa", "gradients are NaN", by_way_of_nan),
    ("late_token", "with k = len(blocks)",
        lambda x, cls, blocks, k: answers.late_token(x, cls, blocks, k)[:, k == len(blocks) :]),
]
STUMBLING = [("gpsa", on_keys)]
