"""Lesson 09's bank of mistakes: each is refused with its own hint, nothing else is, and right answers pass."""

import itertools
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from spvit_mini.course.checks.engine import examine, same
from spvit_mini.course.checks.lesson_09 import (
    DENSE_LOSS,
    EXERCISES,
    MIX_LABELS,
    MIXTOKEN,
    UNMIX,
    in_double,
    unmix,
)
from spvit_mini.course.checks.lesson_09_answers import blended, summed, swapped, undone
from spvit_mini.training import token_loss
from spvit_mini.vit import ViT, ViTConfig, swap_box

from .bank import agree, each_mistake, outcomes, table

SEEDS = range(4)
ANSWERS = {"mixtoken": swapped, "unmix": undone, "mix_labels": blended, "dense_loss": summed}
each_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)


# The cases, in order.
# mixtoken, unmix, mix_labels: a wide grid, a tall one, a box in a corner, one image, one row, an empty box, a box of all
# patches, one patch. dense_loss: more classes than patches, targets that are one class, as many patches as classes, one
# image, one patch, two classes.
# "x": another result than the right one, "!": an error, ".": the right result, so nothing to be learned from the case.
TOLD_APART = """
mixtoken
    partner rolled                      xx..x.x.
    partner rolled back                 xx..x.x.
    the first for all                   xxx.x.xx
    nothing exchanged                   xxx.x.xx
    the mean                            xxx.x.xx
    features reversed                   xxxxx.xx
    mirrored                            xxxxx.xx
    upside down                         xxx.x.xx
    all axes reversed                   xxxxx.xx
    outside swapped                     xxx.xxxx
    everywhere                          xxx.xx..
    rows or columns                     xxx.xx..
    half the batch                      xxx.x.xx
    left, top, right, bottom            xxx.x.x.
    top, bottom, left, right            xxx..xxx
    left, right, top, bottom            xxx.xxxx
    top, left, height, width            xx..xx..
    ends included                       xxx.xx..
    rows only                           xxx.x...
    columns only                        xxx..x..
    emptied                             xxxxx.xx
unmix
    partner rolled                      xx..x.x.
    partner rolled back                 xx..x.x.
    the first for all                   xxx.x.xx
    nothing exchanged                   xxx.x.xx
    the mean                            xxx.x.xx
    features reversed                   xxxxx.xx
    mirrored                            xxxxx.xx
    upside down                         xxx.x.xx
    all axes reversed                   xxxxx.xx
    outside swapped                     xxx.xxxx
    everywhere                          xxx.xx..
    rows or columns                     xxx.xx..
    half the batch                      xxx.x.xx
    left, top, right, bottom            xxx.x.x.
    top, bottom, left, right            xxx..xxx
    left, right, top, bottom            xxx.xxxx
    top, left, height, width            xx..xx..
    ends included                       xxx.xx..
    rows only                           xxx.x...
    columns only                        xxx..x..
    column by column                    xxx.....
    sides swapped                       xx..x.x.
    reshaped                            xxx.x...
    a grid                              xxxxxxxx
    classes first                       xxxxxxxx
mix_labels
    λ drawn                             xxx.xxxx
    λ drawn, inverted                   xxx.xxxx
    inverted                            xxx.xxxx
    unmixed                             xxx.x.xx
    half and half                       xxx.xxxx
    the greater part                    xxx.x...
    the height                          xxx.x...
    the width                           xxx..x..
    root of the area                    xxx.x...
    ends included                       xxx.xxxx
    top, bottom, left, right            x.x..xxx
    top, left, height, width            xx..xx..
    R²                                  xx..x.x.
    C²                                  xx..x.x.
    a count                             xxx.x.x.
    added                               xxxxx.xx
    partner whole                       xxxxxx..
    partner rolled                      xx..x.x.
    partner rolled back                 xx..x.x.
    classes reversed                    xxxxx.xx
    partner missing                     xxxxx.xx
dense_loss
    w missing                           xxxxxx
    w on the class head                 xxxxxx
    w on both                           xxxxxx
    1 − w and w                         xxxxxx
    halved                              xxxxxx
    class head only                     xxxxxx
    dense head only                     xxxxxx
    dense head only, no w               xxxxxx
    sum over patches                    xxxx.x
    sum over images                     xxx.xx
    sum of the patches                  xxxxxx
    sum of the classes' part            xxx.xx
    sums                                xxxxxx
    mean over classes                   xxxxxx
    mean over classes, class token      xxxxxx
    means over classes                  xxxxxx
    patches for classes                 xxxxxx
    softmax over patches                xxxxxx
    softmax over images                 xxxxxx
    softmax twice, patches              xxxxxx
    softmax twice, class token          xxxxxx
    softmax twice                       xxxxxx
    softmax of the maps                 xxxxxx
    no log                              xxxxxx
    no softmax                          xxxxxx
    sign                                xxxxxx
    hard maps                           xxxxxx
    hard labels                         x.xxxx
    the image's label for each patch    xxxxxx
    the mean map for each patch         xxxx.x
    pooled                              xxxx.x
    divergence                          xxxxxx
    divergence of the patches           xxxxxx
"""


@pytest.mark.parametrize("seed", SEEDS)
def test_the_table_of_what_each_case_tells(seed):
    assert table(EXERCISES, seed, width=36) == TOLD_APART


@each_exercise
def test_the_answers_with_options_are_right_as_they_stand(exercise):
    assert agree(exercise, ANSWERS[exercise.name], exercise.solution)
    assert {mistake.answer.func for mistake in exercise.mistakes} == {ANSWERS[exercise.name]}


@each_exercise
def test_any_two_mistakes_are_told_apart(exercise):
    for seed in SEEDS:
        found = {mistake.name: outcomes(exercise, mistake.answer, seed) for mistake in exercise.mistakes}
        for one, other in itertools.combinations(found, 2):
            assert not all(same(a, b) for a, b in zip(found[one], found[other], strict=True)), (one, other)


@pytest.mark.parametrize(("exercise", "mistake"), each_mistake(EXERCISES))
def test_each_mistake_is_refused_with_its_own_hint(exercise, mistake):
    for seed in SEEDS:
        result = examine(exercise, mistake.answer, seed=seed)
        assert (result.status, result.mistake, result.lines[0]) == ("NOT YET", mistake.name, mistake.hint)
        assert len(str(result).splitlines()) <= 3


@each_exercise
@pytest.mark.slow
def test_pairs_of_mistakes_are_refused_and_never_taken_for_another(exercise):
    refused = 0
    for one, other in itertools.combinations(exercise.mistakes, 2):
        changes = {**one.answer.keywords, **other.answer.keywords}
        if len(changes) < len(one.answer.keywords) + len(other.answer.keywords):
            continue  # both change the same part
        pair = partial(one.answer.func, **changes)
        result = examine(exercise, pair)
        assert result.passed == agree(exercise, pair, exercise.solution, [0]), (one.name, other.name)
        refused += not result.passed
        if result.mistake:
            named = next(m for m in exercise.mistakes if m.name == result.mistake)
            assert agree(exercise, pair, named.answer, [0]), (one.name, other.name, result.mistake)
    assert refused > 40


@each_exercise
@pytest.mark.parametrize("seed", range(6))
def test_random_wrong_answers_get_no_diagnosis(exercise, seed):
    noise = torch.Generator().manual_seed(seed)

    def disturbed(*arguments):
        right = ANSWERS[exercise.name](*arguments)
        return right + torch.rand(right.shape, dtype=right.dtype, generator=noise)

    result = examine(exercise, disturbed)
    assert result.status == "NOT YET" and result.mistake is None


# The checks' own ways are the package's --------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_package_s_up_to_its_precision(smoothing):
    torch.manual_seed(0)
    cls, dense = torch.randn(3, 5), torch.randn(3, 4, 5)
    y, maps = torch.randn(3, 5).softmax(-1), torch.randn(3, 4, 5).softmax(-1)
    softer = [(1 - smoothing) * target + smoothing / 5 for target in (y, maps)]
    found = in_double(cls, dense, *softer, 0.5)
    expected = token_loss.dense_loss(cls, dense, y, maps, dense_weight=0.5, smoothing=smoothing)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("box", [(0, 1, 2, 3), (1, 0, 3, 1), (1, 1, 1, 2)])
def test_what_is_unmixed_is_what_the_package_s_model_gives(box):
    torch.manual_seed(0)
    config = ViTConfig(image_size=(12, 16), depth=1, dim=16, heads=2, pool="class", dense_head=True)
    model, images = ViT(config).eval(), torch.randn(3, 3, 12, 16)
    with torch.no_grad():
        tokens = model.forward_features(images, mix=box)
        expected = model(images, dense=True, mix=box)[1]
    torch.testing.assert_close(unmix(model.dense_head(tokens[:, 1:]), box, (3, 4)), expected)
    torch.testing.assert_close(undone(model.dense_head(tokens[:, 1:]), box, (3, 4)), expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_labels_are_mixed_as_the_tokens_are(seed):
    """Count, by swapped tokens that name their image, of which image each patch is."""
    for case in MIX_LABELS.cases(torch.Generator().manual_seed(seed)):
        y, box, grid, _ = case.arguments
        names = torch.arange(len(y))[:, None, None, None].expand(-1, 1, *grid)
        mixed = swapped(names, box).flatten(1)
        shares = torch.stack([(mixed == image).double().mean(1) for image in range(len(y))], dim=1)  # (B, B)
        torch.testing.assert_close(blended(*case.arguments), shares @ y)


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


@pytest.mark.parametrize(
    ("exercise", "name", "answer"),
    [
        (MIXTOKEN, "half the batch", one_after_the_other),
        (MIXTOKEN, "upside down", lambda x, box: swapped(x.flip(2), box, partner="the rows", where="outside")),
        (UNMIX, "nothing exchanged", lambda dense, box, grid: dense.clone()),
        (MIX_LABELS, "λ drawn", lambda y, box, grid, lam: lam * y + (1 - lam) * y.flip(0)),
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
    ],
)
def test_what_is_no_answer_is_told_so(exercise, answer, words):
    result = examine(exercise, answer)
    assert words in str(result) and result.status == "NOT YET", str(result)
