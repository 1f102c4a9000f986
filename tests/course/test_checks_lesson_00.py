"""Lesson 00's bank of mistakes: each is refused with its own hint, nothing else is, and right answers pass."""

import itertools
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange

from spvit_course.checks.engine import examine
from spvit_course.checks.lesson_00 import EXERCISES, PATCHIFY, UNPATCHIFY, cut, join

from .bank import agree, each_mistake, table

SEEDS = range(4)


# The cases, in order: wide, tall, wider, square, one row, one channel, one patch, patches of one pixel.
# "x": another result than the right one, "!": an error, ".": the right result, so nothing to be learned from the case.
TOLD_APART = """
patchify
    column-major                         xxxx.x.x
    no permute                           xxxxxx.x
    channels last                        xxxxx.x.
    rows and columns swapped inside      xxxxxxx.
    square assumed                       !!!.!!.!
    square assumed, the rest left out    x!x.xx.!
    overlap                              xxxxxx..
    every n-th pixel                     xxxxxx..
    tokens across                        xxxxxxxx
    a token for each channel             xxxxx.xx
    channels outermost                   xxxxx..x
    pixel rows before channels           xxxxx.x.
unpatchify
    column-major                         xxxx.x.x
    no permute                           xxxxxx.x
    channels last in the token           xxxxx.x.
    rows and columns swapped inside      xxxxxxx.
    grid swapped                         xxx.xx.x
    square assumed                       !!!.!!.!
    three channels assumed               ..!!.!..
    channels last in the image           xxxxxxxx
    patches taken apart                  xxxxxx..
    image transposed                     xxxxxxxx
    patchify's own permute               xxxxxxxx
    pixel rows not interleaved           xxxxxx..
    channels read first                  xxxxx..x
"""


@pytest.mark.parametrize("seed", SEEDS)
def test_the_table_of_what_each_case_tells(seed):
    assert table(EXERCISES, seed, width=37) == TOLD_APART


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)
def test_any_two_mistakes_are_told_apart(exercise):
    for one, other in itertools.combinations(exercise.mistakes, 2):
        for seed in SEEDS:
            assert not agree(exercise, one.answer, other.answer, [seed]), (one.name, other.name)


@pytest.mark.parametrize(("exercise", "mistake"), each_mistake(EXERCISES))
@pytest.mark.parametrize("seed", SEEDS)
def test_each_mistake_is_refused_with_its_own_hint(exercise, mistake, seed):
    result = examine(exercise, mistake.answer, seed=seed)
    assert (result.status, result.mistake, result.lines[0]) == ("NOT YET", mistake.name, mistake.hint)
    assert len(str(result).splitlines()) <= 3


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)
def test_pairs_of_mistakes_are_refused_and_never_taken_for_another(exercise):
    refused = 0
    for one, other in itertools.permutations(exercise.mistakes, 2):
        changes = {**one.answer.keywords, **other.answer.keywords}
        if len(changes) < len(one.answer.keywords) + len(other.answer.keywords):
            continue  # both change the same part
        pair = partial(one.answer.func, **changes)
        result = examine(exercise, pair)
        if agree(exercise, pair, exercise.solution):
            assert result.passed
            continue
        assert result.status == "NOT YET", (one.name, other.name)
        refused += 1
        if result.mistake:
            named = next(m for m in exercise.mistakes if m.name == result.mistake)
            assert agree(exercise, pair, named.answer), (one.name, other.name, result.mistake)
    assert refused > 40


def all_orders():
    """All 480 ways to make two axes of five: right, known to the bank, or some other mistake."""
    for axes in itertools.permutations("crsab"):
        for split in range(1, 5):
            yield f"({' '.join(axes[:split])})", f"({' '.join(axes[split:])})"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_no_order_of_the_axes_gets_a_wrong_diagnosis(seed):
    passed, named = 0, set()
    for order, token in all_orders():
        for exercise, function in ((PATCHIFY, cut), (UNPATCHIFY, join)):
            answer = partial(function, order=order, token=token)
            result = examine(exercise, answer, seed=seed)
            passed += result.passed
            if result.mistake:
                mistake = next(m for m in exercise.mistakes if m.name == result.mistake)
                assert agree(exercise, answer, mistake.answer), (exercise.name, order, token)
                named.add((exercise.name, result.mistake))
    assert passed == 2  # the right order, in both exercises
    assert len(named) >= 7


@pytest.mark.parametrize("seed", range(12))
def test_random_wrong_answers_get_no_diagnosis(seed):
    noise = torch.Generator().manual_seed(seed)

    def shuffled_tokens(image, p):
        right = cut(image, p)
        return right[torch.randperm(len(right), generator=noise)] if len(right) > 3 else right + 1

    def shuffled_values(values, grid, p):
        return join(values[:, torch.randperm(values.shape[1], generator=noise)], grid, p) + 0.01

    for exercise, answer in ((PATCHIFY, shuffled_tokens), (UNPATCHIFY, shuffled_values)):
        result = examine(exercise, answer)
        assert result.status == "NOT YET" and result.mistake is None


# Right answers that nobody would have thought of ----------------------------------------------------------------------


def patchify_by_loops(image, p):
    tokens = []
    for top in range(0, image.shape[1], p):
        for left in range(0, image.shape[2], p):
            tokens.append(image[:, top : top + p, left : left + p].flatten())
    return torch.stack(tokens)


def patchify_by_unfold(image, p):
    return F.unfold(image[None], p, stride=p)[0].T


def patchify_by_convolution(image, p):
    size = image.shape[0] * p * p
    kernel = torch.eye(size, dtype=image.dtype).reshape(size, image.shape[0], p, p)
    return F.conv2d(image[None], kernel, stride=p)[0].flatten(1).T


def patchify_by_splitting(image, p):
    return torch.stack([b.reshape(-1) for a in image.split(p, dim=1) for b in a.split(p, dim=2)])


def patchify_by_pixel_unshuffle(image, p):
    return F.pixel_unshuffle(image, p).flatten(1).T


def unpatchify_by_loops(tokens, grid, p):
    channels = tokens.shape[1] // p**2
    image = torch.zeros(channels, grid[0] * p, grid[1] * p, dtype=tokens.dtype)
    for n, token in enumerate(tokens):
        r, c = divmod(n, grid[1])
        image[:, r * p : r * p + p, c * p : c * p + p] = token.reshape(channels, p, p)
    return image


def unpatchify_by_fold(tokens, grid, p):
    return F.fold(tokens.T[None], (grid[0] * p, grid[1] * p), p, stride=p)[0]


def unpatchify_by_stacking(tokens, grid, p):
    rows = tokens.reshape(*grid, -1, p, p)
    return torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)


def unpatchify_by_pixel_shuffle(tokens, grid, p):
    return F.pixel_shuffle(tokens.T.reshape(-1, *grid), p)


def unpatchify_by_einops(tokens, grid, p):
    return rearrange(tokens, "(r s) (c a b) -> c (r a) (s b)", r=grid[0], a=p, b=p)


RIGHT = [
    *((PATCHIFY, answer) for name, answer in list(globals().items()) if name.startswith("patchify_by_")),
    *((UNPATCHIFY, answer) for name, answer in list(globals().items()) if name.startswith("unpatchify_by_")),
]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("exercise", "answer"), RIGHT, ids=[answer.__name__ for _, answer in RIGHT])
def test_unusual_right_answers_pass(exercise, answer, seed):
    result = examine(exercise, answer, seed=seed)
    assert result.passed, str(result)


def test_there_are_enough_of_each():
    for exercise in EXERCISES:
        assert len(exercise.mistakes) >= 6
        assert sum(of is exercise for of, _ in RIGHT) >= 3
        assert len({mistake.name for mistake in exercise.mistakes}) == len(exercise.mistakes)


def test_the_packages_own_are_refused_by_any_name():
    from spvit_mini import geometry

    for answer in (geometry.patchify, lambda image, p: geometry.patchify(image[None], p)[0]):
        assert "calls the package's own solution" in str(examine(PATCHIFY, answer))
    assert geometry.patchify(torch.zeros(3, 4, 4), 2).shape == (4, 12)
