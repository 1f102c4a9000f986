"""Lesson 13's bank of mistakes: each is refused with its own hint, nothing else is, and right answers pass."""

import itertools
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from spvit_course.checks.engine import examine, same
from spvit_course.checks.lesson_13 import EXERCISES, SPARSIFY, SPREAD_FAST, counted
from spvit_course.checks.lesson_13_answers import kept, laid, pairs_of
from spvit_mini.geometry import pair_offsets

from .bank import agree, each_mistake, outcomes, table

SEEDS = range(4)
each_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)
ANSWERS = [(SPREAD_FAST, laid), (SPARSIFY, kept)]


# The cases of tables, in order: wide, tall, square, one row, one column, wider, one patch, a transposed view (wide), one cut
# from a larger table (tall); of priors: middle low, heads of
# different loudness, equal values, one row, middle high, negative everywhere, density 1, one patch.
# "x": another result than the right one, "!": an error, ".": the right result, so nothing to be learned from the case;
# "*": one or another of these, with the sizes and values that are drawn.
TOLD_APART = """
spread_fast
    not turned round                             xxxxxx.xx
    rows not turned round                        xxx.xx.xx
    columns not turned round                     xxxx.x.xx
    transposed                                   xxxxxx.xx
    sign of the rows                             xxx.xx.xx
    sign of the columns                          xxxx.x.xx
    absolute value                               xxxxxx.xx
    axes swapped                                 !!x!!!.!!
    square assumed: √N                           xx.!!!.xx
    R and C swapped                              !!.!!!.!!
    column by column                             xxx..x.xx
    wrong stride: C                              xxx..x.xx
    wrong stride: 2R−1                           x!..!x.x!
    origin not shifted                           xxxxxx.xx
    rows not shifted                             xxx.xx.xx
    columns not shifted                          xxxx.x.xx
    half the rows, half the columns              xxxxxx.xx
    rows with rows                               xxx..x.xx
    one head's table                             xxxxx.xxx
    heads turned round                           xxxxx.xxx
    axes not joined                              xxxxxxxxx
    keys not joined                              xxxxxxxxx
    queries not joined                           xxxxxxxxx
    steps of one piece                           .......xx
    begins at 0                                  ........x
    steps of one piece, begins at 0              .......xx
sparsify
    threshold: the density                       xxxxxxx.
    threshold: the range                         xxxxxx..
    threshold: the largest                       xxxxxxx.
    ties all kept                                ..x.....
    ties: the last                               ..x.....
    absolute value                               xxx.xx..
    smallest kept                                xxx.xx..
    per network                                  *x*.*...
    per network, rounded once                    xxxxx..x
    per network, (0, 0) on top                   xxxx**..
    per network, rounded once, (0, 0) on top     xxxxx*..
    per network, the diagonal lost               xxxx**..
    per network, rounded once, the diagonal lost xxxxx*.x
    mean of the heads                            xxx.x...
    the diagonal lost                            x*xx.*..
    one too many                                 x*xx.*..
    the corner for the middle                    xxxxxx..
    rounded down                                 xxxxxx.x
    rounded down, but 1                          xxx.xx..
    rounded down, (0, 0) on top                  .x..x*..
    rounded down, the diagonal lost              xxxxxx.x
    rounded to the nearest                       x.xxxx.x
    rounded to the nearest, but 1                x.x.xx..
    rounded to the nearest, (0, 0) on top        .*..x*..
    rounded to the nearest, the diagonal lost    x*xxxx.x
    one fewer                                    xxxxxxxx
    one more                                     xxxxxx..
    of the others                                .x.x....
    of the pairs                                 xxx.xx..
    of the patches                               xxx.xxx.
    share left out                               xxxxxxx.
    turned round                                 xxxxxxxx
    multiplied                                   xxxxxxxx
    0 and −∞                                     xxxxxxxx
    one for all heads                            xxxxxxxx
"""


def test_the_table_of_what_each_case_tells():
    marks = zip(*(table(EXERCISES, seed, width=45) for seed in SEEDS), strict=True)
    assert "".join(mark if {mark} == set(others) else "*" for mark, *others in marks) == TOLD_APART


# What is right, by other means ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("exercise", "answer"), ANSWERS)
def test_the_answers_with_options_are_right_as_they_stand(exercise, answer):
    assert agree(exercise, answer, exercise.solution)
    assert {mistake.answer.func for mistake in exercise.mistakes} == {answer}


@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (4, 2)])
def test_the_pairs_of_each_offset_are_counted(grid):
    found = torch.zeros(2 * grid[0] - 1, 2 * grid[1] - 1, dtype=torch.int64)
    for row, column in pair_offsets(*grid).flatten(0, 1).tolist():
        found[row + grid[0] - 1, column + grid[1] - 1] += 1
    assert torch.equal(pairs_of(torch.zeros(1, *found.shape)), found)


def test_no_case_hangs_on_the_rounding_of_floats():
    for seed in range(20):
        for case in SPARSIFY.cases(torch.Generator().manual_seed(seed)):
            prior, density = case.arguments
            number = density * prior[0].numel()
            assert math.ceil(number) == math.ceil(number - 1e-6) == math.ceil(number + 1e-6) or density == 1


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


@pytest.mark.slow
@each_exercise
def test_pairs_of_mistakes_are_refused_and_never_taken_for_another(exercise):
    refused = 0
    for one, other in itertools.combinations(exercise.mistakes, 2):
        changes = {**one.answer.keywords, **other.answer.keywords}
        if len(changes) < len(one.answer.keywords) + len(other.answer.keywords):
            continue  # both change the same part
        pair = partial(one.answer.func, **changes)
        result = examine(exercise, pair)
        right = agree(exercise, pair, exercise.solution, [0])
        if right and not result.passed:  # of the right values, by an index
            assert exercise is SPREAD_FAST and result.mistake is None
            continue
        assert result.passed == right, (one.name, other.name)
        refused += 1
        if result.mistake:
            named = next(m for m in exercise.mistakes if m.name == result.mistake)
            assert agree(exercise, pair, named.answer, [0]), (one.name, other.name, result.mistake)
    assert refused > 40


def windows(table, grid):
    return table.unfold(1, grid[0], 1).unfold(2, grid[1], 1)  # (H, R, C, R, C)


def joined(five, grid):
    return five.reshape(len(five), grid[0] * grid[1], -1)


def one_stretch(table, grid, *, row=None):
    """Take frames as one view of the whole memory; `row` is the step of one row of the table."""
    table = table.contiguous()
    head, down, right = table.stride()
    down = row or down
    return table.as_strided((len(table), *grid, *grid), (head, down, right, down, right))


def sorted_values(prior, density):
    """Compare with the last value that is kept."""
    flat = prior.flatten(1).clone()
    flat[:, flat.shape[1] // 2] = math.inf
    last = flat.sort(dim=1, descending=True).values[:, math.ceil(density * flat.shape[1]) - 1]
    return (flat >= last[:, None]).view(prior.shape)


def its_own_steps(table, grid, *start):
    """Take frames by the steps that the table itself has."""
    head, down, right = table.stride()
    return table.as_strided((len(table), *grid, *grid), (head, down, right, down, right), *start)


def steps_by_hand(table, grid, *start):
    """Take frames by the steps of a table in one piece, without asking for its own."""
    rows, columns = grid
    wide = 2 * columns - 1
    frames = table.as_strided((len(table), *grid, *grid), ((2 * rows - 1) * wide, wide, 1, wide, 1), *start)
    return joined(frames.flip(1, 2), grid)


def first_of(prior, number, *, middle=True):
    """Keep a number of each head's offsets, (0, 0) first if it is to be among them."""
    flat = prior.flatten(1).clone()
    if middle:
        flat[:, flat.shape[1] // 2] = math.inf
    first = flat.argsort(dim=1, descending=True, stable=True)[:, : number(flat.shape[1])]
    return torch.zeros_like(flat, dtype=torch.bool).scatter(1, first, True).view(prior.shape)


def all_heads(prior, density):
    """Rank the offsets of all heads in one list."""
    flat = prior.flatten(1).clone()
    flat[:, flat.shape[1] // 2] = math.inf
    best = flat.flatten().argsort(descending=True, stable=True)[: math.ceil(density * flat.numel())]
    return torch.zeros(flat.numel(), dtype=torch.bool).index_fill(0, best, True).view(prior.shape)


# Other ways to the numbers of a known mistake: they get its hint. Two of them together may be right.
SAME_NUMBERS = [
    (SPREAD_FAST, "not turned round", lambda table, grid: joined(windows(table, grid), grid)),
    (SPREAD_FAST, "columns not turned round", lambda table, grid: joined(windows(table, grid).flip(1), grid)),
    (SPREAD_FAST, "rows not turned round", lambda table, grid: joined(windows(table, grid).flip(2), grid)),
    (SPREAD_FAST, "transposed", lambda table, grid: joined(windows(table, grid).flip(3, 4), grid)),
    (SPREAD_FAST, "transposed", lambda table, grid: joined(windows(table, grid).flip(1, 2), grid).mT),
    (SPREAD_FAST, "sign of the rows", lambda table, grid: joined(windows(table, grid).flip(3, 2), grid)),
    (SPREAD_FAST, "heads turned round", lambda table, grid: joined(windows(table, grid).flip(0, 1, 2), grid)),
    (SPREAD_FAST, "axes not joined", lambda table, grid: windows(table, grid).flip(1, 2)),
    (SPREAD_FAST, "not turned round", lambda table, grid: joined(one_stretch(table, grid), grid)),
    (
        SPREAD_FAST,
        "rows with rows",
        lambda table, grid: joined(windows(table, grid).flip(1, 2).permute(0, 1, 3, 2, 4), grid),
    ),
    (SPREAD_FAST, "steps of one piece", steps_by_hand),
    (SPREAD_FAST, "steps of one piece, begins at 0", lambda table, grid: steps_by_hand(table, grid, 0)),
    (SPREAD_FAST, "begins at 0", lambda table, grid: joined(its_own_steps(table, grid, 0).flip(1, 2), grid)),
    (SPREAD_FAST, None, lambda table, grid: joined(windows(table.flip(1, 2), grid).flip(3, 4), grid)),
    (SPARSIFY, "ties all kept", sorted_values),
    (SPARSIFY, "smallest kept", lambda prior, density: kept(-prior, density)),
    (SPARSIFY, "multiplied", lambda prior, density: kept(prior, density) * prior),
    (SPARSIFY, "0 and −∞", lambda prior, density: kept(prior, density).double().log()),
    (SPARSIFY, "rounded down", lambda prior, density: first_of(prior, lambda n: int(density * n))),
    (SPARSIFY, "rounded to the nearest", lambda prior, density: first_of(prior, lambda n: round(density * n))),
    (SPARSIFY, "one more", lambda prior, density: first_of(prior, lambda n: math.ceil(density * n) + 1)),
    (SPARSIFY, "one fewer", lambda prior, density: first_of(prior, lambda n: math.ceil(density * n) - 1)),
    (SPARSIFY, None, lambda prior, density: first_of(prior, lambda n: int(density * n) + 1)),
    (
        SPARSIFY,
        "rounded down, the diagonal lost",
        lambda prior, density: first_of(prior, lambda n: int(density * n), middle=False),
    ),
    (SPARSIFY, "per network, rounded once", all_heads),
    (SPARSIFY, "share left out", lambda prior, density: kept(prior, 1 - density)),
]


@pytest.mark.parametrize(("exercise", "name", "answer"), SAME_NUMBERS)
def test_other_ways_to_the_same_numbers_get_the_same_hint(exercise, name, answer):
    result = examine(exercise, answer)
    assert (result.passed, result.mistake) == (name is None, name), str(result)


@pytest.mark.parametrize("seed", range(8))
def test_random_wrong_answers_get_no_diagnosis(seed):
    noise = torch.Generator().manual_seed(seed)
    result = examine(
        SPREAD_FAST, lambda table, grid: torch.randn(len(table), grid[0] * grid[1], grid[0] * grid[1], generator=noise).double()
    )
    assert result.status == "NOT YET" and result.mistake is None
    result = examine(SPARSIFY, lambda prior, density: torch.rand(prior.shape, generator=noise) > 0.5)
    assert result.status == "NOT YET" and result.mistake is None


# What values do not show ----------------------------------------------------------------------------------------------


def by_slices(table, grid):
    rows, columns = grid
    seen = [
        table[:, rows - 1 - r : 2 * rows - 1 - r, columns - 1 - c : 2 * columns - 1 - c].flatten(1)
        for r in range(rows)
        for c in range(columns)
    ]
    return torch.stack(seen, dim=1)


INDEX = laid(torch.arange(35.0).view(1, 5, 7), (3, 4))[0].long()


@pytest.mark.parametrize(("answer", "said"), [(laid, "an index"), (by_slices, "there is a loop")])
def test_an_index_or_a_loop_is_found(answer, said):
    result = examine(SPREAD_FAST, answer)
    assert not result.passed and result.mistake is None and said in result.lines[0]


def test_an_index_that_was_made_before_is_found_too():
    assert counted(lambda table, grid: table.flatten(1)[:, INDEX], (3, 4)).most == 12**2
    assert counted(lambda table, grid: windows(table, grid), (3, 4)).most == 0


def test_numbers_for_booleans_are_told():
    result = examine(SPARSIFY, lambda prior, density: kept(prior, density).double())
    assert not result.passed and "not of booleans" in result.lines[0]


# Right answers that nobody would have thought of ----------------------------------------------------------------------


def spread_by_one_view(table, grid):
    return joined(one_stretch(table, grid).flip(1, 2), grid)


def spread_by_its_own_steps(table, grid):
    return joined(its_own_steps(table, grid).flip(1, 2), grid)


def spread_by_turning_the_table(table, grid):
    return joined(windows(table.flip(1, 2), grid), grid).flip(2)


def spread_by_unfold(table, grid):
    return F.unfold(table[:, None], grid).flip(2).mT


def spread_by_products(table, grid):
    rows, columns = (torch.arange(side) for side in grid)

    def hits(places):  # (query, key, offset): 1 where the offset is that of the pair
        shifted = places[None, :, None] - places[:, None, None] + len(places) - 1
        return (shifted == torch.arange(2 * len(places) - 1)).to(table)

    return torch.einsum("hab,qka,rlb->hqrkl", table, hits(rows), hits(columns)).flatten(3).flatten(1, 2)


def sparsify_by_lists(prior, density):
    result = torch.zeros(prior.shape, dtype=torch.bool)
    for head, table_ in enumerate(prior):
        places = list(itertools.product(range(table_.shape[0]), range(table_.shape[1])))
        middle = places[len(places) // 2]
        places.sort(key=lambda place: (place != middle, -table_[place].item()))
        for place in places[: math.ceil(density * len(places))]:
            result[(head, *place)] = True
    return result


def sparsify_by_counting_the_better(prior, density):
    flat = prior.flatten(1).clone()
    n = flat.shape[1]
    flat[:, n // 2] = math.inf
    earlier = torch.arange(n)[None, :] < torch.arange(n)[:, None]
    better = (flat[:, None, :] > flat[:, :, None]) | ((flat[:, None, :] == flat[:, :, None]) & earlier)
    return (better.sum(-1) < math.ceil(density * n)).view(prior.shape)


def sparsify_by_double_sorting(prior, density):
    flat = prior.detach().flatten(1).clone()
    flat[:, flat.shape[1] // 2] = flat.max() + 1
    ranks = (-flat).argsort(dim=1, stable=True).argsort(dim=1)
    return ranks.lt(math.ceil(density * flat.shape[1])).reshape_as(prior)


RIGHT = [
    *((SPREAD_FAST, answer) for name, answer in list(globals().items()) if name.startswith("spread_by_")),
    *((SPARSIFY, answer) for name, answer in list(globals().items()) if name.startswith("sparsify_by_")),
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
