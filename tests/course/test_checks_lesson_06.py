"""Lesson 06's bank of mistakes: each is refused with its own hint, nothing else is, and right answers pass."""

import itertools
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from spvit_course.checks.engine import examine, same
from spvit_course.checks.lesson_06 import CONV_HEADS, EXERCISES, PSA_MAP, by_place
from spvit_course.checks.lesson_06_answers import attend_by_place, quadratic, tap_heads
from spvit_mini.geometry import offsets, pair_offsets, spread
from spvit_mini.spatial import Quadratic, conv_heads, local_start

from .bank import agree, each_mistake, outcomes, table

SEEDS = range(4)
each_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)


# The cases of maps, in order: wide, tall, square, one row, one column, wider, one patch; of kernels: 3 × 3 three times
# (other channels, as many, one), 1 × 3, 3 × 1, 5 × 3, 3 × 3 with α = 60, 1 × 1.
# "x": another result than the right one, "!": an error, ".": the right result, so nothing to be learned from the case.
TOLD_APART = """
psa_map
    no square                            xxxxxx.
    norm for square                      xxxxxx.
    sum for squares                      xxxxxx.
    sizes for squares                    xxxxxx.
    square of the sum                    xxx..x.
    rows only                            xxxx.x.
    linear part left out                 xxxxxx.
    square last                          xxxxxx.
    square last, columns first           xxxxxx.
    axes swapped                         xxxxxx.
    sign                                 xxxxxx.
    sign of the rows                     xxx.xx.
    sign of the columns                  xxxx.x.
    absolute value                       xxxxxx.
    square assumed                       xx.xxx.
    column by column                     xxx..x.
    strength and centre                  xxxxxx.
    minus put in                         xxxxxx.
    divided by √3                        xxxxxx.
    divided by √C                        xxxx.x.
    softmax taken                        xxxxxx.
    not spread                           xxxxxx.
    heads last                           xxxxxx.
conv_heads
    flipped                              xxxxxxx.
    flipped rows                         xxx.xxx.
    flipped columns                      xxxx.xx.
    axes                                 xxxxxxx.
    head order                           xxx..xx.
    origin not shifted                   xxxxxxx.
    middle of 3 × 3                      ...xxx.x
    sign of α                            xxxxxxxx
    no 2                                 xxxxxxx.
    α on the square alone                xxxxxxx.
    α left out                           xxxxxxxx
    no centre                            xxxxxxx.
    in and out swapped                   !x.xx!!!
    channels mixed                       xx.xxxxx
    averaged                             xxxxxxx.
    square assumed                       ...x!!..
"""


@pytest.mark.parametrize("seed", SEEDS)
def test_the_table_of_what_each_case_tells(seed):
    assert table(EXERCISES, seed, width=37) == TOLD_APART


# What is right, by other means ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_the_map_is_a_gaussian_around_the_centre_after_the_softmax(seed):
    draw = torch.Generator().manual_seed(seed)
    alpha, centre = torch.rand((), generator=draw) + 0.5, torch.randn(2, generator=draw)
    v = -alpha * torch.cat([torch.ones(1), -2 * centre])[None]
    bells = torch.exp(-alpha * (pair_offsets(3, 5) - centre).square().sum(-1))[None]
    for answer in (quadratic, Quadratic):
        torch.testing.assert_close(by_place(answer, v, (3, 5)), bells / bells.sum(-1, keepdim=True))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("size", [(3, 3), (1, 3), (5, 3), (1, 1)])
def test_with_a_large_strength_the_heads_are_a_convolution_with_replicate_padding(size, seed):
    draw = torch.Generator().manual_seed(seed)
    kernel = torch.randn(4, 2, *size, dtype=torch.float64, generator=draw)
    image = torch.randn(1, 2, 5, 6, dtype=torch.float64, generator=draw)
    found = attend_by_place(conv_heads(kernel, 60.0), image[0].flatten(1).T, (5, 6))
    padded = F.pad(image, (size[1] // 2, size[1] // 2, size[0] // 2, size[0] // 2), mode="replicate")
    torch.testing.assert_close(found.T.unflatten(1, (5, 6)), F.conv2d(padded, kernel)[0])


@pytest.mark.parametrize(("exercise", "answer"), [(PSA_MAP, quadratic), (CONV_HEADS, tap_heads)])
def test_the_answers_with_options_are_right_as_they_stand(exercise, answer):
    assert agree(exercise, answer, exercise.solution)
    assert {mistake.answer.func for mistake in exercise.mistakes} == {answer}


# What is wrong --------------------------------------------------------------------------------------------------------


@each_exercise
def test_any_two_mistakes_are_told_apart(exercise):
    for seed in SEEDS:
        found = {mistake.name: outcomes(exercise, mistake.answer, seed) for mistake in exercise.mistakes}
        for one, other in itertools.combinations(found, 2):
            assert not all(same(a, b) for a, b in zip(found[one], found[other], strict=True)), (one, other)


@pytest.mark.parametrize(("exercise", "mistake"), each_mistake(EXERCISES))
@pytest.mark.parametrize("seed", SEEDS)
def test_each_mistake_is_refused_with_its_own_hint(exercise, mistake, seed):
    result = examine(exercise, mistake.answer, seed=seed)
    assert (result.status, result.mistake, result.lines[0]) == ("NOT YET", mistake.name, mistake.hint)
    assert len(str(result).splitlines()) <= 3


@each_exercise
def test_pairs_of_mistakes_are_refused_and_never_taken_for_another(exercise):
    refused = 0
    for one, other in itertools.combinations(exercise.mistakes, 2):
        changes = {**one.answer.keywords, **other.answer.keywords}
        if len(changes) < len(one.answer.keywords) + len(other.answer.keywords):
            continue  # both change the same part
        pair = partial(one.answer.func, **changes)
        result = examine(exercise, pair)
        if agree(exercise, pair, exercise.solution, [0]):
            assert result.passed
            continue
        assert result.status == "NOT YET", (one.name, other.name)
        refused += 1
        if result.mistake:
            named = next(m for m in exercise.mistakes if m.name == result.mistake)
            assert agree(exercise, pair, named.answer, [0]), (one.name, other.name, result.mistake)
    assert refused > 40


# Other ways to the numbers of a known mistake: they get its hint. Two of them together may be right.
SAME_NUMBERS = [
    (PSA_MAP, "sign", lambda v, grid: quadratic(v, grid).mT),
    (PSA_MAP, "sign", lambda v, grid: quadratic(v * torch.tensor([1.0, -1, -1]), grid)),
    (PSA_MAP, "sign", lambda v, grid: quadratic(v, grid).flip(-2, -1)),
    (PSA_MAP, None, lambda v, grid: quadratic(v, grid).flip(-2, -1).mT),
    (PSA_MAP, "sign of the rows", lambda v, grid: quadratic(v * torch.tensor([1.0, -1, 1]), grid)),
    (PSA_MAP, "axes swapped", lambda v, grid: quadratic(v[:, [0, 2, 1]], grid)),
    (PSA_MAP, "square last", lambda v, grid: quadratic(v[:, [2, 0, 1]], grid)),
    (PSA_MAP, "norm for square", lambda v, grid: by_length(v, pair_offsets(*grid).to(v))),
    (PSA_MAP, "norm for square", lambda v, grid: by_length(v, pair_offsets(*grid).float())),
    (PSA_MAP, "norm for square", lambda v, grid: by_length(v.float(), pair_offsets(*grid).float())),
    (PSA_MAP, "norm for square", lambda v, grid: by_root(v, pair_offsets(*grid))),
    (PSA_MAP, "linear part left out", lambda v, grid: quadratic(v * torch.tensor([1.0, 0, 0]), grid)),
    (
        PSA_MAP,
        "softmax taken",
        lambda v, grid: quadratic(v, grid).exp() / quadratic(v, grid).exp().sum(-1, keepdim=True),
    ),
    (CONV_HEADS, "flipped", lambda kernel, alpha: tap_heads(kernel.flip(2, 3), alpha)),
    (CONV_HEADS, "flipped", lambda kernel, alpha: scaled(tap_heads(kernel, alpha), (1, -1, -1))),
    (CONV_HEADS, "flipped", lambda kernel, alpha: tap_heads(kernel, alpha, linear=-2)),
    (CONV_HEADS, "flipped", lambda kernel, alpha: reversed_taps(*tap_heads(kernel, alpha))),
    (CONV_HEADS, None, lambda kernel, alpha: tap_heads(kernel.flip(2, 3), alpha, down=-1, right=-1)),
    (CONV_HEADS, "sign of α", lambda kernel, alpha: tap_heads(kernel, -alpha)),
    (CONV_HEADS, "no centre", lambda kernel, alpha: scaled(tap_heads(kernel, alpha), (1, 0, 0))),
    (CONV_HEADS, "averaged", lambda kernel, alpha: tap_heads(kernel / kernel[0, 0].numel(), alpha)),
]


def by_length(v, delta):
    return torch.cat([delta.norm(dim=-1, keepdim=True), delta], -1).to(v).matmul(v.T).permute(2, 0, 1)


def by_root(v, delta):
    length = delta.square().sum(-1).sqrt()  # of whole numbers: in single precision
    return sum(v[:, k, None, None] * feature for k, feature in enumerate([length, delta[..., 0], delta[..., 1]]))


def scaled(heads, factors):
    return heads[0] * torch.tensor(factors).to(heads[0]), heads[1]


def reversed_taps(v, w):
    return v, w.flip(0)


@pytest.mark.parametrize(("exercise", "name", "answer"), SAME_NUMBERS)
def test_other_ways_to_the_same_numbers_get_the_same_hint(exercise, name, answer):
    result = examine(exercise, answer)
    assert (result.passed, result.mistake) == (name is None, name), str(result)


@pytest.mark.parametrize("seed", range(12))
def test_random_wrong_answers_get_no_diagnosis(seed):
    noise = torch.Generator().manual_seed(seed)

    def changed(values):
        return values + torch.randn(values.shape, dtype=values.dtype, generator=noise)

    for exercise, answer in (
        (PSA_MAP, lambda v, grid: changed(quadratic(v, grid))),
        (CONV_HEADS, lambda kernel, alpha: tuple(map(changed, tap_heads(kernel, alpha)))),
    ):
        result = examine(exercise, answer)
        assert result.status == "NOT YET" and result.mistake is None


@pytest.mark.parametrize(
    ("exercise", "answer", "words"),
    [
        (PSA_MAP, lambda v, grid: None, "Is the `return` missing?"),
        (PSA_MAP, lambda v, grid: Quadratic(len(v))(grid), "the package's own solution"),
        (PSA_MAP, lambda v, grid: quadratic(v.double(), grid), "float32 gives a map of another type"),
        (PSA_MAP, lambda v, grid: quadratic(v.detach(), grid), "no gradient comes back"),
        (CONV_HEADS, lambda kernel, alpha: conv_heads(kernel, alpha), "the package's own solution"),
        (CONV_HEADS, lambda kernel, alpha: None, "Is the `return` missing?"),
        (CONV_HEADS, lambda kernel, alpha: kernel, "not two tensors, v and w"),
        (CONV_HEADS, lambda kernel, alpha: (*tap_heads(kernel, alpha), 0), "it returns 3 parts"),
        (CONV_HEADS, lambda kernel, alpha: tap_heads(kernel, alpha)[::-1], "v and w are swapped"),
        (
            CONV_HEADS,
            lambda kernel, alpha: (tap_heads(kernel, alpha)[0].T, tap_heads(kernel, alpha)[1]),
            "not (heads, 3) and (heads, 2, 3)",
        ),
        (CONV_HEADS, lambda kernel, alpha: tuple(x.float() for x in tap_heads(kernel, alpha)), "keep its type"),
        (CONV_HEADS, lambda kernel, alpha: tap_heads(kernel.detach(), alpha), "Was a part detached?"),
    ],
)
def test_what_is_no_answer_is_told_so(exercise, answer, words):
    result = examine(exercise, answer)
    assert words in str(result) and result.status == "NOT YET"


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_features_of_another_type_than_v_get_a_word_about_types(dtype):
    result = examine(PSA_MAP, lambda v, grid: torch.einsum("ijk,hk->hij", pair_offsets(*grid).to(dtype), v[:, 1:]))
    assert (result.status, result.mistake, result.lines[0]) == ("NOT YET", None, PSA_MAP.stumble)
    assert "cast the features to the type of v" in PSA_MAP.stumble


# Right answers that nobody would have thought of ----------------------------------------------------------------------


def map_by_table(v, grid):
    delta = offsets(*grid).to(v)
    return spread(torch.einsum("hk,abk->hab", v, torch.cat([delta.square().sum(-1, keepdim=True), delta], -1)), grid)


def map_by_loops(v, grid):
    n = grid[0] * grid[1]
    rows = []
    for i, j in itertools.product(range(n), range(n)):
        below, beside = j // grid[1] - i // grid[1], j % grid[1] - i % grid[1]
        rows.append(v[:, 0] * (below**2 + beside**2) + v[:, 1] * below + v[:, 2] * beside)
    return torch.stack(rows, dim=-1).unflatten(-1, (n, n))


def map_with_the_square_completed(v, grid):
    """Differ by a number for each query and head, which no softmax sees."""
    centre = -v[:, None, None, 1:] / (2 * v[:, None, None, :1])
    return v[:, :1, None] * (pair_offsets(*grid) - centre).square().sum(-1)


def map_with_another_number_for_each_query(v, grid):
    return quadratic(v, grid) + torch.arange(grid[0] * grid[1])[None, :, None]


def map_of_places(v, grid):
    """‖p_j − p_i‖² multiplied out, its part of the query alone left away."""
    place = torch.cartesian_prod(torch.arange(grid[0]), torch.arange(grid[1])).to(v)
    pull = v[:, None, 1:] - 2 * v[:, None, :1] * place  # (H, N, 2), of the query
    return pull @ place.T + v[:, :1, None] * place.square().sum(-1)


def heads_of_columns_first(kernel, alpha):
    return tuple(part.flip(0) for part in tap_heads(kernel, alpha))


def heads_by_reshaping(kernel, alpha):
    high, wide = kernel.shape[2:]
    places = torch.cartesian_prod(torch.arange(high), torch.arange(wide)).to(kernel).reshape(-1, 2)
    centres = places - places.mean(0)
    return -alpha * torch.cat([torch.ones_like(centres[:, :1]), -2 * centres], 1), kernel.flatten(2).permute(2, 1, 0)


def heads_by_local_start(kernel, alpha):
    if kernel.shape[2:] != (3, 3):
        return tap_heads(kernel, alpha)
    return alpha * local_start(9, 1.0).to(kernel), torch.einsum("oitu->tuio", kernel).flatten(0, 1)


def heads_with_an_idle_one(kernel, alpha):
    v, w = tap_heads(kernel, alpha)
    return torch.cat([v, v[:1]]), torch.cat([w, 0 * w[:1]])


RIGHT = [
    *((PSA_MAP, answer) for name, answer in list(globals().items()) if name.startswith("map_")),
    *((CONV_HEADS, answer) for name, answer in list(globals().items()) if name.startswith("heads_")),
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
