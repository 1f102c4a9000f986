"""Lesson 09's checks: right answers in unusual ways pass, wrong ones in other ways get the hint of their mistake."""

import pytest
import torch
import torch.nn.functional as F

from spvit_course.checks.engine import examine
from spvit_course.checks.lesson_09 import DENSE_LOSS, EXERCISES, MIX_LABELS, MIXTOKEN, UNMIX
from spvit_course.checks.lesson_09_answers import summed, swapped
from spvit_mini.training import token_loss
from spvit_mini.vit import swap_box

SEEDS = range(4)
each_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)


# Right answers that nobody would have thought of ------------------------------------------------------------------------


def mixtoken_by_slices(x, box):
    top, left, bottom, right = box
    mixed = x.clone()
    mixed[:, :, top:bottom, left:right] = x.flip(0)[:, :, top:bottom, left:right]
    return mixed


def mixtoken_by_a_mask(x, box):
    mask = torch.zeros(x.shape[-2:], dtype=x.dtype)
    mask[box[0] : box[2], box[1] : box[3]] = 1
    return (1 - mask) * x + mask * x[range(len(x) - 1, -1, -1)]


def mixtoken_by_pieces(x, box):
    top, left, bottom, right = box
    middle = torch.cat([x[:, :, top:bottom, :left], x.flip(0)[:, :, top:bottom, left:right], x[:, :, top:bottom, right:]], 3)
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
    top, left, bottom, right = box
    back = dense.unflatten(1, grid).clone()
    back[:, top:bottom, left:right] = dense.unflatten(1, grid)[:, top:bottom, left:right].flip(0)
    return back.flatten(1, 2)


def mix_labels_by_counting(y, box, grid, lam):
    mask = torch.zeros(grid, dtype=y.dtype)
    mask[box[0] : box[2], box[1] : box[3]] = 1
    return torch.lerp(y, y.flip(0), mask.mean())


def mix_labels_by_a_matrix(y, box, grid, lam):
    kept = 1 - (box[2] - box[0]) * (box[3] - box[1]) / (grid[0] * grid[1])
    eye = torch.eye(len(y), dtype=y.dtype)
    return (kept * eye + (1 - kept) * eye.flip(0)) @ y


def mix_labels_by_cat(y, box, grid, lam):
    taken = (box[2] - box[0]) * (box[3] - box[1]) / (grid[0] * grid[1])
    return torch.stack([y, y.flip(0)]).mul(torch.tensor([1 - taken, taken], dtype=y.dtype)[:, None, None]).sum(0)


def dense_loss_transposed(cls, dense, y, maps, w):
    return F.cross_entropy(cls, y) + w * F.cross_entropy(dense.mT, maps.mT)


def dense_loss_written_out(cls, dense, y, maps, w):
    of_class = -(cls.log_softmax(-1) * y).sum(-1).mean()
    return of_class - w * (dense.log_softmax(-1) * maps).sum(-1).mean()


def dense_loss_by_logsumexp(cls, dense, y, maps, w):
    def cross(logits, target):
        return (logits.logsumexp(-1) - torch.einsum("...k,...k->...", logits, target)).mean()

    return cross(cls, y) + w * cross(dense, maps)


RIGHT = [
    (exercise, answer)
    for exercise in EXERCISES
    for name, answer in list(globals().items())
    if name.startswith(f"{exercise.name}_")
]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("exercise", "answer"), RIGHT, ids=[answer.__name__ for _, answer in RIGHT])
def test_unusual_right_answers_pass(exercise, answer, seed):
    result = examine(exercise, answer, seed=seed)
    assert result.passed, str(result)


@each_exercise
def test_there_are_enough_of_each(exercise):
    assert len(exercise.mistakes) >= 6
    assert sum(of is exercise for of, _ in RIGHT) >= 3


# Other ways to the numbers of a known mistake, and what is no answer ----------------------------------------------------


def in_place(x, box):
    top, left, bottom, right = box
    x[:, :, top:bottom, left:right] = x.flip(0)[:, :, top:bottom, left:right]
    return x


def one_after_the_other(x, box):
    top, left, bottom, right = box
    mixed = x.clone()
    for b in range(len(x)):
        mixed[b, :, top:bottom, left:right] = mixed[len(x) - 1 - b, :, top:bottom, left:right]
    return mixed


def turned(x, box):
    top, left, bottom, right = box
    mixed = x.clone()
    mixed[:, :, top:bottom, left:right] = x.flip(0, 2, 3)[:, :, top:bottom, left:right]
    return mixed


def by_numbers(y, box, grid, lam):
    taken = (box[2] - box[0]) * (box[3] - box[1])
    return (grid[0] * grid[1] - taken) * y + taken * y.flip(0)


def by_sides(y, box, grid, lam):
    high, wide = (2 * int(side * (1 - lam) ** 0.5 / 2) for side in grid)
    taken = high * wide / (grid[0] * grid[1])
    return (1 - taken) * y + taken * y.flip(0)


@pytest.mark.parametrize(
    ("exercise", "name", "answer"),
    [
        (MIXTOKEN, "half the batch", one_after_the_other),
        (MIXTOKEN, "upside down", lambda x, box: swapped(x.flip(2), box, partner="the rows", where="outside")),
        (UNMIX, "nothing exchanged", lambda dense, box, grid: dense.clone()),
        (MIXTOKEN, "places reversed", turned),
        (UNMIX, "classes last", lambda d, box, grid: swap_box(d.unflatten(1, grid), box).flatten(1, 2)),
        (MIX_LABELS, "λ drawn", lambda y, box, grid, lam: lam * y + (1 - lam) * y.flip(0)),
        (MIX_LABELS, "numbers of patches", by_numbers),
        (MIX_LABELS, "even sides from λ", by_sides),
        (
            DENSE_LOSS,
            "maps across",
            lambda c, d, y, m, w: F.cross_entropy(c, y) + w * F.cross_entropy(d.transpose(1, 2), m),
        ),
        (
            DENSE_LOSS,
            "logits across",
            lambda c, d, y, m, w: F.cross_entropy(c, y) + w * F.cross_entropy(d, m.transpose(1, 2)),
        ),
        (
            DENSE_LOSS,
            "hard targets",
            lambda c, d, y, m, w: F.cross_entropy(c, y.argmax(-1)) + w * F.cross_entropy(d.mT, m.argmax(-1)),
        ),
        (
            DENSE_LOSS,
            "log of a softmax",
            lambda c, d, y, m, w: -(y * c.softmax(-1).log()).sum(-1).mean()
            - w * (m * d.softmax(-1).log()).sum(-1).mean(),
        ),
        (DENSE_LOSS, "patches for classes", lambda c, d, y, m, w: F.cross_entropy(c, y) + w * F.cross_entropy(d, m)),
        (DENSE_LOSS, "softmax twice", lambda c, d, y, m, w: summed(c.softmax(-1), d.softmax(-1), y, m, w)),
        (
            DENSE_LOSS,
            "divergence of the patches",
            lambda c, d, y, m, w: F.cross_entropy(c, y)
            + w * F.kl_div(d.log_softmax(-1).flatten(0, 1), m.flatten(0, 1), reduction="batchmean"),
        ),
        (
            DENSE_LOSS,
            "sum of the patches",
            lambda c, d, y, m, w: F.cross_entropy(c, y)
            + w * F.cross_entropy(d.flatten(0, 1), m.flatten(0, 1), reduction="sum"),
        ),
    ],
)
def test_other_ways_to_the_same_numbers_get_the_same_hint(exercise, name, answer):
    result = examine(exercise, answer)
    assert (result.status, result.mistake) == ("NOT YET", name), str(result)


@pytest.mark.parametrize(
    ("exercise", "answer", "words"),
    [
        (MIXTOKEN, in_place, "it changes its input in place"),
        (MIXTOKEN, swap_box, "the package's own solution"),
        (MIXTOKEN, lambda x, box: None, "Is the `return` missing?"),
        (MIX_LABELS, lambda y, box, grid, lam: token_loss.mix_classes(y, box, grid), "the package's own solution"),
        (
            DENSE_LOSS,
            lambda c, d, y, m, w: token_loss.dense_loss(c, d, y, m, dense_weight=w),
            "the package's own solution",
        ),
        (DENSE_LOSS, lambda c, d, y, m, w: summed(c, d, y, m, w).item(), "it returns a float, not a torch.Tensor"),
        (DENSE_LOSS, lambda c, d, y, m, w: summed(c, d.detach(), y, m, w), "Was a part detached?"),
        (DENSE_LOSS, lambda c, d, y, m, w: c[:, None, None] + d + y, DENSE_LOSS.stumble),
        (DENSE_LOSS, lambda c, d, y, m, w: F.cross_entropy(d, y.argmax(-1)), DENSE_LOSS.stumble),
        (DENSE_LOSS, lambda c, d, y, m, w: F.cross_entropy(d.flatten(0, 1), m), "both need the move"),
    ],
)
def test_what_is_no_answer_is_told_so(exercise, answer, words):
    result = examine(exercise, answer)
    assert words in str(result) and result.status == "NOT YET", str(result)
