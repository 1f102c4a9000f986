"""Lesson 05: right answers that are written in an unusual way, and wrong ones that the bank does not hold as they stand."""

import itertools

import torch
import torch.nn.functional as F

from spvit_course.checks.lesson_05.answers import masked_weights, window_mask
from spvit_mini.spatial import SquareWindow


def roll_and_cut(grid, size, shift):
    """Number the windows of Swin's rolled grid, and roll the numbers back: what leaks where its mask is forgotten."""
    rows, columns = (torch.arange(side) // size for side in grid)
    numbers = (100 * rows[:, None] + columns).roll((shift, shift), (0, 1)).flatten()
    return numbers[:, None] == numbers


def room(scores, mask):
    prefix = scores.shape[-1] - mask.shape[-1]
    return F.pad(mask, (prefix, 0, prefix, 0), value=True)


def by_fill(scores, hidden, low=-torch.inf):
    return scores.masked_fill(hidden, low).softmax(-1)


def share_whole(inside):
    total = inside.sum(-1, keepdim=True)
    return inside / torch.where(total == 0, 1, total)


def renormalised(scores, mask, guard=1.0):
    """Take the outside's exponentials away and let the inside share the whole: that is masking as well."""
    visible = room(scores, mask)
    top = scores.masked_fill(~visible, -1e30).amax(-1, keepdim=True)
    kept = (scores - top).where(visible, -torch.inf).exp()
    total = kept.sum(-1, keepdim=True)
    return kept / (total + guard * (total == 0))


def window_mask_by_loops(grid, size, shift):
    places = list(itertools.product(range(grid[0]), range(grid[1])))
    pieces = [((r - shift) // size, (c - shift) // size) for r, c in places]
    return torch.tensor([[one == other for other in pieces] for one in pieces])


def window_mask_by_kron(grid, size, shift):
    bands = []
    for side in grid:
        band = torch.zeros(side, side)
        for start in range(shift - size, side, size):
            band[max(start, 0) : start + size, max(start, 0) : start + size] = 1
        bands.append(band)
    return torch.kron(*bands).bool()


def window_mask_by_cumsum(grid, size, shift):
    rows, columns = (((torch.arange(side) - shift) % size == 0).int().cumsum(0) for side in grid)
    numbers = (rows[:, None] * 1000 + columns).flatten()
    return numbers[:, None].eq(numbers)


def window_mask_by_one_hot(grid, size, shift):
    hits = [F.one_hot((torch.arange(side) + size - shift) // size, 30).float() for side in grid]
    member = torch.einsum("ra,cb->rcab", *hits).flatten(2).flatten(0, 1)
    return member @ member.T > 0.5


def masked_weights_by_loops(scores, mask):
    prefix, weights = scores.shape[-1] - mask.shape[-1], torch.zeros_like(scores)
    for place in itertools.product(*map(range, scores.shape[:3])):
        seen = torch.ones(scores.shape[-1], dtype=torch.bool)
        if place[2] >= prefix:
            own = mask if mask.ndim == 2 else mask[place[1]]
            seen[prefix:] = own[place[2] - prefix]
        weights[place][seen] = scores[place][seen].softmax(0)
    return weights


def masked_weights_by_sdpa(scores, mask):
    eye, hidden = torch.eye(scores.shape[-1], dtype=scores.dtype).expand_as(scores), ~room(scores, mask)
    low = scores.masked_fill(hidden, -1e30)
    return F.scaled_dot_product_attention(torch.zeros_like(scores), eye, eye, attn_mask=low).masked_fill(hidden, 0)


def nan_replaced_after_dividing(scores, mask):
    visible = room(scores, mask)
    kept = (scores - 1e30 * ~visible).softmax(-1) * visible
    return (kept / kept.sum(-1, keepdim=True)).nan_to_num()


def one_axis_more(scores, mask):
    visible = room(scores, mask)
    return scores.masked_fill(~(visible[:, None] if mask.ndim == 3 else visible), -torch.inf).softmax(-1)


RIGHT = {
    "window_mask": [
        window_mask_by_loops, window_mask_by_kron, window_mask_by_cumsum, window_mask_by_one_hot,
        lambda grid, size, shift: window_mask(grid, size, -((size - shift) % size)),
        lambda grid, size, shift: window_mask(grid[::-1], size, shift, tokens="column by column"),
    ],
    "masked_weights": [
        lambda scores, mask: torch.where(room(scores, mask), scores, -torch.inf).softmax(-1).nan_to_num(0),
        masked_weights_by_loops,
        lambda scores, mask: by_fill(scores, ~room(scores, mask), -1e30) * room(scores, mask),
        masked_weights_by_sdpa, renormalised,
        lambda scores, mask: masked_weights(scores, ~mask, says="outside"),
    ],
}
NAMED = [
    ("window_mask", "wrap leak", roll_and_cut),
    ("window_mask", "axes", lambda grid, size, shift: window_mask(grid[::-1], size, shift)),
    ("window_mask", "sign of the shift", lambda grid, size, shift: window_mask(grid, size, (size - shift) % size)),
    ("window_mask", "not shifted", lambda grid, size, shift: window_mask(grid, size, 0)),
    ("masked_weights", "× 0/1", lambda scores, mask: masked_weights(scores, mask, way="× 0/1").double()),
    ("masked_weights", "0/1 added", lambda scores, mask: (scores - (~room(scores, mask)).double()).softmax(-1)),
    ("masked_weights", "inverted", lambda scores, mask: masked_weights(scores, ~mask)),
    ("masked_weights", "inverted, prefix as well", lambda scores, mask: by_fill(scores, room(scores, mask)).nan_to_num()),
    ("masked_weights", "inverted, prefix NaN", lambda scores, mask: by_fill(scores, room(scores, mask))),
    ("masked_weights", "all 0", lambda scores, mask: (scores + (~room(scores, mask)) * -torch.inf).softmax(-1).nan_to_num()),
    ("masked_weights", "NaN in an empty row", lambda scores, mask: renormalised(scores, mask, 0.0)),
]
REFUSED = [
    ("window_mask", "they are numbers", lambda *arguments: window_mask(*arguments).float()),
    ("window_mask", "the package's own solution", lambda grid, size, shift: SquareWindow(size, shift=shift)(grid)[0]),
    ("masked_weights", "exp on its own cannot", lambda scores, mask: share_whole(scores.exp() * room(scores, mask))),
    ("masked_weights", "too late to mask", lambda scores, mask: share_whole(scores.softmax(-1) * room(scores, mask))),
    ("masked_weights", "not low enough",
        lambda scores, mask: by_fill(scores, ~room(scores, mask), -1e4) * room(scores, mask)),
    ("masked_weights", "not low enough",
        lambda scores, mask: (scores - 1e4 * ~room(scores, mask)).softmax(-1) * room(scores, mask)),
    ("masked_weights", "makes NaN of gradients",
        lambda scores, mask: (scores + scores.new_zeros(()).where(room(scores, mask), -torch.inf)).softmax(-1).nan_to_num()),
    ("masked_weights", "makes NaN of gradients", nan_replaced_after_dividing),
]
STUMBLING = [("masked_weights", one_axis_more)]
