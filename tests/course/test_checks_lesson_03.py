"""Lesson 03's bank of mistakes: each is refused with its own hint, nothing else is, and right answers pass."""

import itertools
from functools import partial
from math import isqrt

import pytest
import torch
import torch.nn.functional as F

from spvit_course.checks.engine import examine, same
from spvit_course.checks.lesson_03 import EXERCISES, OFFSETS, PAD_PREFIX, SPREAD
from spvit_course.checks.lesson_03_answers import framed, lay, ruler
from spvit_mini.geometry import pair_offsets

from .bank import agree, each_mistake, outcomes

SEEDS = range(4)
each_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)


# The cases of grids, in order: wide, tall, square, one row, one column, wider, one patch; those of maps: two prefix
# tokens, one with neutral 0, one with neutral 1, three, none, one beside one patch.
# "x": another result than the right one, "!": an error, ".": the right result, so nothing to be learned from the case;
# "*": one or another of these, with the sizes that are drawn.
TOLD_APART = """
offsets
    components swapped                   xxxxxx.
    table transposed                     xxxxxx.
    rows and columns swapped throughout  xx.xxx.
    sign                                 xxxxxx.
    sign of the rows                     xxx.xx.
    sign of the columns                  xxxx.x.
    absolute value                       xxxxxx.
    origin not shifted                   xxxxxx.
    one way only                         xxxxxx.
    square assumed: rows                 xx.xxx.
    square assumed: columns              xx.xxx.
    the last left out                    xxxxxxx
    one too far up and left              xxxxxxx
    one too far at both ends             xxxxxxx
    a list                               xxxxxxx
    components first                     xxxxxxx
    all pairs                            xxxxxx.
spread
    sign                                 xxxxxx.
    sign of the rows                     xxx.xx.
    sign of the columns                  xxxx.x.
    absolute value                       xxxxxx.
    sum for difference                   xxxxxx.
    axes swapped                         !!x!!!.
    origin not shifted                   xxxxxx.
    origin not shifted, one index        xxxxxx.
    rows not shifted                     xxx.xx.
    columns not shifted                  xxxx.x.
    square assumed: rows                 x!.x!x.
    square assumed: columns              !x.!x!.
    half the rows, half the columns      xxxxxx.
    R and C swapped                      !!.!!!.
    square assumed: √N                   xx.!!!.
    square assumed: √N for all tokens    !x.!!!.
    column by column                     xxx..x.
    wrong stride: 2R−1                   x!..!x.
    wrong stride: C                      xxx..x.
    rows with rows                       xxx..x.
    axes in front forgotten              !.!!!!x
    one axis in front                    .!..!..
    δ as one index                       x!xx!xx
    δ as one index, not shifted          x*xx!xx
    row and column on the first axis     !!x!!!!
pad_prefix
    placed last                          xxxx.x
    rows last                            xxxx.x
    columns last                         xxxx.x
    both ends                            xxxx.x
    rows only                            xxxx.x
    columns only                         xxxx.x
    columns left at 0                    x.xx.x
    rows left at 0                       x.xx.x
    corner left at 0                     x.xx.x
    always one token                     x..xx.
    one token at most                    x..x..
    always 0                             x.xx.x
    always 1                             xx.x.x
    patches written over                 xxxx.x
    patches left out                     xxxxxx
    axes in front forgotten              !.!!x!
"""


def marks(exercise, answer, seed):
    pairs = zip(outcomes(exercise, exercise.solution, seed), outcomes(exercise, answer, seed), strict=True)
    return ["!" if isinstance(wrong, Exception) else "." if same(right, wrong) else "x" for right, wrong in pairs]


def test_the_table_of_what_each_case_tells():
    lines = [""]
    for exercise in EXERCISES:
        lines.append(exercise.name)
        for mistake in exercise.mistakes:
            cases = zip(*(marks(exercise, mistake.answer, seed) for seed in SEEDS), strict=True)
            told = "".join(mark if {mark} == set(others) else "*" for mark, *others in cases)
            lines.append(f"    {mistake.name:<37}{told}")
    assert "\n".join([*lines, ""]) == TOLD_APART


@each_exercise
def test_the_answers_with_options_are_right_as_they_stand(exercise):
    answer = {OFFSETS: ruler, SPREAD: lay, PAD_PREFIX: framed}[exercise]
    assert agree(exercise, answer, exercise.solution)
    assert {mistake.answer.func for mistake in exercise.mistakes} == {answer}
    assert agree(SPREAD, partial(lay, stride="2C−1"), SPREAD.solution)


@each_exercise
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


@each_exercise
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
        if result.mistake not in (None, one.name, other.name):  # of two mistakes, the hint on either is true
            named = next(m for m in exercise.mistakes if m.name == result.mistake)
            assert agree(exercise, pair, named.answer), (one.name, other.name, result.mistake)
    assert refused > 40


# Other ways to the numbers of a known mistake: they get its hint. Two of them together may be right.
SAME_NUMBERS = [
    (SPREAD, "sign", lambda table, grid: lay(table, grid).mT),
    (SPREAD, "sign", lambda table, grid: lay(table.flip(-2, -1), grid)),
    (SPREAD, "sign of the rows", lambda table, grid: lay(table.flip(-2), grid)),
    (SPREAD, "sign of the columns", lambda table, grid: lay(table.flip(-2), grid).mT),
    (SPREAD, "sum for difference", lambda table, grid: windows(table, grid)),
    (SPREAD, "R and C swapped", lambda table, grid: lay(table, grid[::-1])),
    (SPREAD, "R and C swapped", partial(lay, shift="C−1, R−1")),
    (SPREAD, None, lambda table, grid: lay(table.flip(-2, -1), grid).mT),
    (OFFSETS, "sign", lambda rows, columns: ruler(rows, columns).flip(0, 1)),
    (OFFSETS, "sign of the rows", lambda rows, columns: ruler(rows, columns).flip(0)),
    (OFFSETS, "rows and columns swapped throughout", lambda rows, columns: ruler(columns, rows)),
    (OFFSETS, None, lambda rows, columns: -ruler(rows, columns).flip(0, 1)),
    (OFFSETS, None, lambda rows, columns: ruler(columns, rows).transpose(0, 1).flip(-1)),
    (PAD_PREFIX, "placed last", lambda spatial, prefix, neutral: F.pad(spatial, (0, prefix) * 2, value=neutral)),
    (PAD_PREFIX, "columns only", lambda spatial, prefix, neutral: F.pad(spatial, (prefix, 0), value=neutral)),
    (PAD_PREFIX, "always 0", lambda spatial, prefix, neutral: F.pad(spatial, (prefix, 0) * 2)),
]


def windows(table, grid):
    """Take the sliding windows in the order in which they come."""
    return table.unfold(-2, grid[0], 1).unfold(-2, grid[1], 1).flatten(-4, -3).flatten(-2, -1)


@pytest.mark.parametrize(("exercise", "name", "answer"), SAME_NUMBERS)
def test_other_ways_to_the_same_numbers_get_the_same_hint(exercise, name, answer):
    result = examine(exercise, answer)
    assert (result.passed, result.mistake) == (name is None, name), str(result)


def shifted_too_far(table, grid):
    delta = pair_offsets(*grid)
    return table[..., delta[..., 0] + grid[0], delta[..., 1] + grid[1]]


def looked_up_one_by_one(table, grid):
    rows, columns = grid
    result = table.new_zeros(rows * columns, rows * columns)
    for i, j in itertools.product(range(rows * columns), repeat=2):
        down, right = j // columns - i // columns, j % columns - i % columns
        result[i, j] = table[down + rows - 1, right + columns - 1]
    return result


def side_guessed(table, grid):
    n, side = torch.arange(grid[0] * grid[1]), isqrt(grid[0] * grid[1])
    down, right = (place[None, :] - place[:, None] for place in (n // side, n % side))
    return table[..., down + grid[0] - 1, right + grid[1] - 1]


def stacked_without_axes_in_front(spatial, prefix, neutral):
    below = torch.cat([torch.full((len(spatial), prefix), neutral), spatial], dim=1)
    return torch.cat([torch.full((prefix, prefix + len(spatial)), neutral), below])


def filled_without_axes_in_front(spatial, prefix, neutral):
    result = torch.full([prefix + spatial.shape[-1]] * 2, neutral)
    result[prefix:, prefix:] = spatial
    return result


STUMBLING = [
    (SPREAD, shifted_too_far),
    (SPREAD, looked_up_one_by_one),
    (SPREAD, side_guessed),
    (PAD_PREFIX, stacked_without_axes_in_front),
    (PAD_PREFIX, filled_without_axes_in_front),
]


@pytest.mark.parametrize(("exercise", "answer"), STUMBLING, ids=[answer.__name__ for _, answer in STUMBLING])
@pytest.mark.parametrize("seed", SEEDS)
def test_an_error_about_shapes_or_indices_comes_with_a_hint(exercise, answer, seed):
    result = examine(exercise, answer, seed=seed)
    assert (result.status, result.mistake, result.lines[0]) == ("NOT YET", None, exercise.stumble)
    assert "Error: " in result.lines[1] and len(str(result).splitlines()) == 3


def test_other_errors_stand_for_themselves():
    result = examine(SPREAD, lambda table, grid: tabel)  # noqa: F821
    assert "NameError" in result.lines[0]


@pytest.mark.parametrize("seed", range(12))
def test_random_wrong_answers_get_no_diagnosis(seed):
    noise = torch.Generator().manual_seed(seed)

    def shuffled(values):
        flat = values.flatten()
        return flat[torch.randperm(len(flat), generator=noise)].reshape(values.shape) + 7

    for exercise, right in ((OFFSETS, ruler), (SPREAD, lay), (PAD_PREFIX, framed)):
        result = examine(exercise, lambda *arguments, right=right: shuffled(right(*arguments)))
        assert result.status == "NOT YET" and result.mistake is None


def test_real_numbers_and_lists_are_not_taken_for_offsets():
    assert "no whole numbers" in str(examine(OFFSETS, lambda rows, columns: ruler(rows, columns).float()))
    assert "returns a list" in str(examine(OFFSETS, lambda rows, columns: ruler(rows, columns).tolist()))
    assert examine(OFFSETS, lambda rows, columns: ruler(rows, columns).int()).passed


# Right answers that nobody would have thought of ----------------------------------------------------------------------


def offsets_by_loops(rows, columns):
    return torch.tensor([[[a, b] for b in range(1 - columns, columns)] for a in range(1 - rows, rows)])


def offsets_by_nonzero(rows, columns):
    places = torch.ones(2 * rows - 1, 2 * columns - 1).nonzero().reshape(2 * rows - 1, 2 * columns - 1, 2)
    return places - torch.tensor([rows - 1, columns - 1])


def offsets_by_broadcasting(rows, columns):
    table = torch.zeros(2 * rows - 1, 2 * columns - 1, 2, dtype=torch.int64)
    table[..., 0] += torch.arange(1 - rows, rows)[:, None]
    table[..., 1] += torch.arange(1 - columns, columns)
    return table


def offsets_from_all_pairs(rows, columns):
    places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
    distinct = (places[None] - places[:, None]).flatten(0, 1).unique(dim=0)  # sorted by row, then by column
    return distinct.reshape(2 * rows - 1, 2 * columns - 1, 2)


def spread_by_loops(table, grid):
    rows, columns = grid
    places = list(itertools.product(range(rows), range(columns)))
    entries = [[table[..., c - a + rows - 1, d - b + columns - 1] for c, d in places] for a, b in places]
    return torch.stack([torch.stack(row, dim=-1) for row in entries], dim=-2)


def spread_by_slices(table, grid):
    rows, columns = grid
    seen = [
        table[..., rows - 1 - r : 2 * rows - 1 - r, columns - 1 - c : 2 * columns - 1 - c].flatten(-2)
        for r in range(rows)
        for c in range(columns)
    ]
    return torch.stack(seen, dim=-2)


def spread_by_one_index(table, grid):
    index = lay(torch.arange(table.shape[-2] * table.shape[-1]).reshape(table.shape[-2:]), grid)
    return table.flatten(-2).index_select(-1, index.flatten()).unflatten(-1, index.shape)


def spread_by_unfold(table, grid):
    images = table.reshape(1, -1, *table.shape[-2:])
    n = grid[0] * grid[1]
    return F.unfold(images, grid).reshape(*table.shape[:-2], n, n).flip(-1).mT


def spread_by_einsum(table, grid):
    rows, columns = (torch.arange(side) for side in grid)

    def hits(places):  # (query, key, offset): 1 where the offset is that of the pair
        shifted = places[None] - places[:, None] + len(places) - 1
        return F.one_hot(shifted, 2 * len(places) - 1).to(table.dtype)

    return torch.einsum("...ab,qka,rlb->...qrkl", table, hits(rows), hits(columns)).flatten(-4, -3).flatten(-2)


def pad_prefix_by_cat(spatial, prefix, neutral):
    above = spatial.new_full((*spatial.shape[:-2], prefix, spatial.shape[-1]), neutral)
    tall = torch.cat([above, spatial], dim=-2)
    return torch.cat([tall.new_full((*tall.shape[:-1], prefix), neutral), tall], dim=-1)


def pad_prefix_by_filling(spatial, prefix, neutral):
    n = prefix + spatial.shape[-1]
    result = torch.full((*spatial.shape[:-2], n, n), neutral, dtype=spatial.dtype)
    result[..., prefix:, prefix:] = spatial
    return result


def pad_prefix_by_recursion(spatial, prefix, neutral):
    return (
        spatial
        if prefix == 0
        else pad_prefix_by_recursion(F.pad(spatial, (1, 0, 1, 0), value=neutral), prefix - 1, neutral)
    )


def pad_prefix_by_shifting(spatial, prefix, neutral):
    return F.pad(spatial - neutral, (prefix, 0, prefix, 0)) + neutral


RIGHT = [
    *((OFFSETS, answer) for name, answer in list(globals().items()) if name.startswith("offsets_")),
    *((SPREAD, answer) for name, answer in list(globals().items()) if name.startswith("spread_by_")),
    *((PAD_PREFIX, answer) for name, answer in list(globals().items()) if name.startswith("pad_prefix_by_")),
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
