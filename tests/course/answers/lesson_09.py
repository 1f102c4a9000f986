"""Lesson 09: right answers that are written in an unusual way, and wrong ones that the bank does not hold as they stand."""

import torch
import torch.nn.functional as F

from spvit_course.checks.lesson_09 import answers
from spvit_mini.training import token_loss
from spvit_mini.vit import swap_box


def inside(box):
    """Give the slices of a box, for the last two axes."""
    return ..., slice(box[0], box[2]), slice(box[1], box[3])


def mixtoken_by_slices(x, box, axes=(0,)):
    mixed = x.clone()
    mixed[inside(box)] = x.flip(axes)[inside(box)]
    return mixed


def mixtoken_by_a_mask(x, box):
    mask = torch.zeros(x.shape[-2:], dtype=x.dtype)
    mask[inside(box)] = 1
    return (1 - mask) * x + mask * x[range(len(x) - 1, -1, -1)]


def mixtoken_by_pieces(x, box):
    top, left, bottom, right = box
    rows = x[:, :, top:bottom]
    middle = torch.cat([rows[..., :left], rows.flip(0)[..., left:right], rows[..., right:]], dim=3)
    return torch.cat([x[:, :, :top], middle, x[:, :, bottom:]], dim=2)


def unmix_by_swap_box(dense, box, grid):
    on_grid = dense.permute(0, 2, 1).reshape(len(dense), dense.shape[2], *grid)
    return swap_box(on_grid, box).flatten(2).permute(0, 2, 1)


def unmix_on_tokens(dense, box, grid):
    n = torch.arange(grid[0] * grid[1])
    r, c = n // grid[1], n % grid[1]
    inside = (box[0] <= r) & (r < box[2]) & (box[1] <= c) & (c < box[3])
    return torch.where(inside[:, None], dense.flip(0), dense)


def unmix_classes_last(dense, box, grid):
    on_grid = dense.unflatten(1, grid)
    back = on_grid.clone()
    here = slice(None), *inside(box)[1:]
    back[here] = on_grid[here].flip(0)
    return back.flatten(1, 2)


def mix_labels_by_counting(y, box, grid, lam):
    mask = torch.zeros(grid, dtype=y.dtype)
    mask[inside(box)] = 1
    return torch.lerp(y, y.flip(0), mask.mean())


def mix_labels_by_a_matrix(y, box, grid, lam):
    kept = 1 - (box[2] - box[0]) * (box[3] - box[1]) / (grid[0] * grid[1])
    eye = torch.eye(len(y), dtype=y.dtype)
    return (kept * eye + (1 - kept) * eye.flip(0)) @ y


def mix_labels_by_cat(y, box, grid, lam):
    taken = (box[2] - box[0]) * (box[3] - box[1]) / (grid[0] * grid[1])
    return torch.stack([y, y.flip(0)]).mul(torch.tensor([1 - taken, taken], dtype=y.dtype)[:, None, None]).sum(0)


def dense_loss_written_out(cls, dense, y, maps, w):
    of_class = -(cls.log_softmax(-1) * y).sum(-1).mean()
    return of_class - w * (dense.log_softmax(-1) * maps).sum(-1).mean()


def dense_loss_by_logsumexp(cls, dense, y, maps, w):
    def cross(logits, target):
        return (logits.logsumexp(-1) - torch.einsum("...k,...k->...", logits, target)).mean()

    return cross(cls, y) + w * cross(dense, maps)


def in_place(x, box):
    x[inside(box)] = x.flip(0)[inside(box)]
    return x


def one_after_the_other(x, box):
    mixed = x.clone()
    for image in range(len(x)):
        mixed[image][inside(box)] = mixed[-1 - image][inside(box)]
    return mixed


def by_numbers(y, box, grid, lam):
    taken = (box[2] - box[0]) * (box[3] - box[1])
    return (grid[0] * grid[1] - taken) * y + taken * y.flip(0)


def by_sides(y, box, grid, lam):
    high, wide = (2 * int(side * (1 - lam) ** 0.5 / 2) for side in grid)
    taken = high * wide / (grid[0] * grid[1])
    return (1 - taken) * y + taken * y.flip(0)


RIGHT = {
    "mixtoken": [mixtoken_by_slices, mixtoken_by_a_mask, mixtoken_by_pieces],
    "unmix": [unmix_by_swap_box, unmix_on_tokens, unmix_classes_last],
    "mix_labels": [mix_labels_by_counting, mix_labels_by_a_matrix, mix_labels_by_cat],
    "dense_loss": [
        lambda cls, dense, y, maps, w: F.cross_entropy(cls, y) + w * F.cross_entropy(dense.mT, maps.mT),
        dense_loss_written_out, dense_loss_by_logsumexp,
    ],
}
NAMED = [
    ("mixtoken", "half the batch", one_after_the_other),
    ("mixtoken", "upside down", lambda x, box: answers.mixtoken(x.flip(2), box, partner="the rows", where="outside")),
    ("unmix", "nothing exchanged", lambda dense, box, grid: dense.clone()),
    ("mixtoken", "places reversed", lambda x, box: mixtoken_by_slices(x, box, (0, 2, 3))),
    ("unmix", "classes last", lambda d, box, grid: swap_box(d.unflatten(1, grid), box).flatten(1, 2)),
    ("mix_labels", "λ drawn", lambda y, box, grid, lam: lam * y + (1 - lam) * y.flip(0)),
    ("mix_labels", "numbers of patches", by_numbers),
    ("mix_labels", "even sides from λ", by_sides),
    ("dense_loss", "maps across",
        lambda c, d, y, m, w: F.cross_entropy(c, y) + w * F.cross_entropy(d.transpose(1, 2), m)),
    ("dense_loss", "logits across",
        lambda c, d, y, m, w: F.cross_entropy(c, y) + w * F.cross_entropy(d, m.transpose(1, 2))),
    ("dense_loss", "hard targets",
        lambda c, d, y, m, w: F.cross_entropy(c, y.argmax(-1)) + w * F.cross_entropy(d.mT, m.argmax(-1))),
    ("dense_loss", "log of a softmax",
        lambda c, d, y, m, w: -(y * c.softmax(-1).log()).sum(-1).mean() - w * (m * d.softmax(-1).log()).sum(-1).mean()),
    ("dense_loss", "patches for classes", lambda c, d, y, m, w: F.cross_entropy(c, y) + w * F.cross_entropy(d, m)),
    ("dense_loss", "softmax twice", lambda c, d, y, m, w: answers.dense_loss(c.softmax(-1), d.softmax(-1), y, m, w)),
    ("dense_loss", "divergence of the patches",
        lambda c, d, y, m, w: F.cross_entropy(c, y)
        + w * F.kl_div(d.log_softmax(-1).flatten(0, 1), m.flatten(0, 1), reduction="batchmean")),
    ("dense_loss", "sum of the patches",
        lambda c, d, y, m, w: F.cross_entropy(c, y) + w * F.cross_entropy(d.flatten(0, 1), m.flatten(0, 1), reduction="sum")),
]
REFUSED = [
    ("mixtoken", "it changes its input in place", in_place),
    ("mix_labels", "the package's own solution", lambda y, box, grid, lam: token_loss.mix_classes(y, box, grid)),
    ("dense_loss", "the package's own solution",
        lambda c, d, y, m, w: token_loss.dense_loss(c, d, y, m, dense_weight=w)),
    ("dense_loss", "it returns a float, not a torch.Tensor", lambda c, d, y, m, w: answers.dense_loss(c, d, y, m, w).item()),
    ("dense_loss", "Was a part detached?", lambda c, d, y, m, w: answers.dense_loss(c, d.detach(), y, m, w)),
]
STUMBLING = [
    ("dense_loss", lambda c, d, y, m, w: c[:, None, None] + d + y),
    ("dense_loss", lambda c, d, y, m, w: F.cross_entropy(d, y.argmax(-1))),
    ("dense_loss", lambda c, d, y, m, w: F.cross_entropy(d.flatten(0, 1), m)),
]
