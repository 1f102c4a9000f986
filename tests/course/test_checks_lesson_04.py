"""Lesson 04's bank of mistakes: each is refused with its own hint, nothing else is, and right answers pass."""

import itertools
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from spvit_course.checks.engine import examine, same
from spvit_course.checks.lesson_04 import EXERCISES, LOG_OFFSETS, RELATIVE_BIAS, SHAW2D, log_offsets, shaw2d
from spvit_course.checks.lesson_04_answers import Biased, logged, meet
from spvit_experiments import read_records
from spvit_mini.attention import MHSA, ContextualAttention
from spvit_mini.geometry import offsets, pair_offsets, spread
from spvit_mini.spatial import LogCPB, Shaw2D

from .bank import agree, each_mistake, outcomes, table

SEEDS = range(4)
AS_IT_STANDS = {RELATIVE_BIAS.name: Biased, SHAW2D.name: meet, LOG_OFFSETS.name: logged}
each_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)


# The cases of grids, in order: wide, tall, square, wider with one head, one row, one column, one patch; of Shaw's: no
# offset beyond the clip, then wide, tall, square, one row, one column, one patch; of windows: nine patches a side, tall or
# square, wide or square, seven a side, two rows, any offsets.
# "x": another result than the right one, "!": an error, ".": the right result, so nothing to be learned from the case.
TOLD_APART = """
RelativeBias
    sign                           xxxxxx.
    sign of the rows               xxxx.x.
    sign of the columns            xxxxx..
    absolute value                 xxxxxx.
    axes swapped                   !!x!!!.
    origin not shifted             xxxxxx.
    origin not shifted, one index  xxxxxx.
    square assumed: rows           x!.xx!.
    square assumed: columns        !x.!!x.
    square assumed: tokens         !!.!!!.
    column by column               xxxx...
    wrong stride: 2R−1             x!.x.!.
    wrong stride: C                xxxx...
    multiplied                     xxxxxx.
    subtracted                     xxxxxx.
    added after                    xxxxxxx
    multiplied after               xxxxxxx
    alone                          xxxxxx.
    left out                       xxxxxx.
    one map for all heads          xxx.xx.
    tables averaged                xxx.xx.
    softmax before                 xxxxxx.
    softmax after                  xxxxxx.
    over queries                   xxxxxx.
    no softmax                     xxxxxxx
    no root                        xxxx.x.
    root of the bias               xxxx.x.
    root twice                     xxxx.x.
    root twice, of the bias too    xxxx.x.
shaw2d
    no clip                        .!!!!!.
    clips the norm                 .xxx...
    clipped above only             .xxxxx.
    all negative ones as −clip     xxxxxxx
    0 beyond                       .xxxxx.
    key for query                  xxxxxx.
    unscaled                       xxxxx.x
    C for its root                 xxxxx.x
    times the root                 xxxxx.x
    flattened                      xxxxxx.
    axes swapped                   xxxxxx.
    sign                           xxxxxx.
    sign of the rows               xxxx.x.
    sign of the columns            xxxxx..
    transposed                     xxxxxx.
    absolute value                 xxxxxx.
    origin not shifted             xxxxxxx
    square assumed                 xxx.xx.
    column by column               xxxx...
    rows only                      xxxxxxx
    columns only                   xxxxxxx
    product                        xxxxxxx
    mean                           xxxxxxx
log_offsets
    no sign                        xxxxxx
    no absolute value              xxxxxx
    sign outside only              xxxxxx
    no + 1                         xxxxxx
    rounded down                   .xxx.x
    rounded down, then times 8     xxxxxx
    clamped                        ..x..x
    by the input                   ..xx.x
    by the input, both axes        .xxxxx
    natural logarithm              xxxxxx
    base 10                        xxxxxx
    not divided                    xxxxxx
    natural, not divided           xxxxxx
    divided by 8                   xxxxxx
    R for R − 1                    xxxxxx
    2R − 1 for R − 1               xxxxxx
    not normalised                 xxxxxx
    raw                            .xxxxx
    no factor 8                    xxxxxx
    axes swapped                   .xx.xx
    square assumed: rows           .xx.xx
    square assumed: columns        .xx.xx
"""


@pytest.mark.parametrize("seed", SEEDS)
def test_the_table_of_what_each_case_tells(seed):
    assert table(EXERCISES, seed, width=31) == TOLD_APART


def test_the_references_are_what_the_package_computes():
    torch.manual_seed(0)
    grid, clip = (3, 5), 2
    attention = ContextualAttention(8, 2, Shaw2D(4, clip=clip)).double()
    q = torch.randn(2, 2, 15, 4, dtype=torch.float64)
    tables = torch.stack(list(attention.spatial.vectors))
    torch.testing.assert_close(shaw2d(q, tables, grid, clip), attention.position_scores(q, grid))
    cpb = LogCPB(3, (4, 6), hidden=8).double()
    ours = 16 * cpb.mlp(log_offsets(offsets(7, 7).double(), (4, 6))).sigmoid()
    torch.testing.assert_close(ours.permute(2, 0, 1), cpb.table((7, 7)))


@each_exercise
def test_the_answers_with_options_are_right_as_they_stand(exercise):
    answer = AS_IT_STANDS[exercise.name]
    assert agree(exercise, answer, exercise.solution)
    assert {mistake.answer.func for mistake in exercise.mistakes} == {answer}


@each_exercise
def test_any_two_mistakes_are_told_apart(exercise):
    for seed in SEEDS:
        wrong = {mistake.name: outcomes(exercise, mistake.answer, seed) for mistake in exercise.mistakes}
        for one, other in itertools.combinations(wrong, 2):
            assert not all(map(same, wrong[one], wrong[other])), (one, other)


@pytest.mark.parametrize(("exercise", "mistake"), each_mistake(EXERCISES))
@pytest.mark.parametrize("seed", SEEDS)
def test_each_mistake_is_refused_with_its_own_hint(exercise, mistake, seed):
    result = examine(exercise, mistake.answer, seed=seed)
    assert (result.status, result.mistake, result.lines[0]) == ("NOT YET", mistake.name, mistake.hint)
    assert len(str(result).splitlines()) <= 3


@pytest.mark.parametrize(
    "exercise",
    [pytest.param(RELATIVE_BIAS, marks=pytest.mark.slow), pytest.param(SHAW2D, marks=pytest.mark.slow), LOG_OFFSETS],
    ids=lambda exercise: exercise.name,
)
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


def with_weights(weights):
    """Make a class of the exercise from its one method."""
    own = {"__init__": lambda self, *sizes: Biased.__init__(self, *sizes), "weights": weights}
    return type("RelativeBias", (Biased,), own)


def edge(delta, window):
    return delta.new_tensor(window) - 1


# Other ways to the numbers of a known mistake: they get its hint. Two of them together may be right.
SAME_NUMBERS = [
    (RELATIVE_BIAS, "sign", lambda self, q, k, grid: (self.scores(q, k) + self.spatial(grid).mT).softmax(-1)),
    (RELATIVE_BIAS, "left out", lambda self, q, k, grid: MHSA.weights(self, q, k, grid)),
    (RELATIVE_BIAS, "no root", lambda self, q, k, grid: (q @ k.mT + self.spatial(grid)).softmax(-1)),
    (
        RELATIVE_BIAS,
        "left out",
        lambda self, q, k, grid: (self.scores(q, k) + self.spatial.values.mean((1, 2))[:, None, None]).softmax(-1),
    ),
    (RELATIVE_BIAS, "root twice", lambda self, q, k, grid: (q @ k.mT / q.shape[-1] + self.spatial(grid)).softmax(-1)),
    (SHAW2D, "transposed", lambda q, tables, grid, clip: meet(q, tables, grid, clip).mT),
    (SHAW2D, "sign", lambda q, tables, grid, clip: meet(q, tables.flip(1), grid, clip)),
    (SHAW2D, "axes swapped", lambda q, tables, grid, clip: meet(q, tables.flip(0), grid, clip)),
    (SHAW2D, None, lambda q, tables, grid, clip: meet(q, tables.flip(1), grid, clip, down="query − key", right="query − key")),
    (
        LOG_OFFSETS,
        "clamped",
        lambda delta, window: logged(torch.maximum(torch.minimum(delta, edge(delta, window)), -edge(delta, window)), window),
    ),
    (LOG_OFFSETS, "no absolute value", lambda delta, window: (1 + 8 * delta / edge(delta, window)).log2() / 3),
    (LOG_OFFSETS, "no sign", lambda delta, window: logged(delta.abs(), window)),
    (LOG_OFFSETS, "axes swapped", lambda delta, window: logged(delta, window[::-1])),
    (LOG_OFFSETS, None, lambda delta, window: logged(delta, window, log="ln", divided=math.log(8))),
]


@pytest.mark.parametrize(("exercise", "name", "answer"), SAME_NUMBERS)
def test_other_ways_to_the_same_numbers_get_the_same_hint(exercise, name, answer):
    result = examine(exercise, with_weights(answer) if exercise is RELATIVE_BIAS else answer)
    assert (result.passed, result.mistake) == (name is None, name), str(result)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_error_about_shapes_comes_with_a_hint(seed):
    def taken_for_a_batch(q, tables, grid, clip):
        index = pair_offsets(*grid).clamp(-clip, clip) + clip
        embeddings = tables[0][index[..., 0]] + tables[1][index[..., 1]]  # (N, N, D/H)
        return q @ embeddings.mT / q.shape[-1] ** 0.5

    result = examine(SHAW2D, taken_for_a_batch, seed=seed)
    assert (result.status, result.mistake, result.lines[0]) == ("NOT YET", None, SHAW2D.stumble)
    assert "Error: " in result.lines[1] and len(str(result).splitlines()) == 3


@pytest.mark.parametrize("seed", range(12))
def test_random_wrong_answers_get_no_diagnosis(seed):
    noise = torch.Generator().manual_seed(seed)

    def shuffled(values):
        flat = values.flatten()
        return flat[torch.randperm(len(flat), generator=noise)].reshape(values.shape) + 7

    answers = {
        RELATIVE_BIAS: with_weights(lambda self, *given: shuffled(Biased.weights(self, *given))),
        SHAW2D: lambda *arguments: shuffled(meet(*arguments)),
        LOG_OFFSETS: lambda *arguments: shuffled(logged(*arguments)),
    }
    for exercise, answer in ((e, a) for e, a in answers.items()):
        result = examine(exercise, answer)
        assert result.status == "NOT YET" and result.mistake is None


def test_a_class_without_its_table_is_told_so():
    class Bare(MHSA):
        def __init__(self, dim, heads, grid):
            super().__init__(dim, heads)

    assert "spatial.values" in str(examine(RELATIVE_BIAS, Bare))


# Right answers that nobody would have thought of ----------------------------------------------------------------------


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
    rows, columns = grid
    places = list(itertools.product(range(rows), range(columns)))

    def vector(query, key):
        steps = (max(-clip, min(clip, b - a)) for a, b in zip(query, key, strict=True))
        return sum(table[step + clip] for table, step in zip(tables, steps, strict=True))

    found = [[q[..., i, :] @ vector(a, b) for b in places] for i, a in enumerate(places)]
    return torch.stack([torch.stack(row, -1) for row in found], -2) / math.sqrt(q.shape[-1])


def shaw2d_products_first(q, tables, grid, clip):
    index = pair_offsets(*grid).clamp(-clip, clip) + clip
    total = 0
    for k in (0, 1):
        products = q @ tables[k].T / q.shape[-1] ** 0.5
        total = total + products.gather(-1, index[..., k].expand(*q.shape[:-1], -1))
    return total


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
    return torch.where(near < 0, -1.0, 1.0).double() * torch.log2(near.abs() + 1) / torch.log2(torch.tensor(8.0)).double()


RIGHT = [
    *((RELATIVE_BIAS, answer) for name, answer in list(globals().items()) if name.startswith("bias_")),
    *((SHAW2D, answer) for name, answer in list(globals().items()) if name.startswith("shaw2d_")),
    *((LOG_OFFSETS, answer) for name, answer in list(globals().items()) if name.startswith("log_offsets_")),
]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("exercise", "answer"), RIGHT, ids=[answer.__name__ for _, answer in RIGHT])
def test_unusual_right_answers_pass(exercise, answer, seed):
    result = examine(exercise, with_weights(answer) if exercise is RELATIVE_BIAS else answer, seed=seed)
    assert result.passed, str(result)


def test_what_the_lesson_says_of_its_records():
    runs = {}
    for row in read_records("lesson_04"):
        runs.setdefault((row["arm"], row["seed"]), []).append(row["val_top1"])
    arms = ("table", "table_0.02", "log_cpb", "shaw1d", "shaw2d")
    assert {arm: sum(runs[arm, seed][-1] > 90 for seed in range(5)) for arm in arms} == dict(
        zip(arms, (2, 1, 5, 4, 2), strict=True)
    )
    between = {key: curve[-1] for key, curve in runs.items() if 60 < curve[-1] < 90}
    assert list(between) == [("table_0.02", 1)]  # "and nearly by another"
    tried = {arm: [] for arm in arms}
    for row in read_records("lesson_04-tuning"):
        if row["step"] == 240:
            tried[row["arm"].partition("@")[0]].append(row["val_top1"])
    assert {arm for arm, finals in tried.items() if max(finals) < 55} == {"table_0.02", "shaw2d"}
    assert {arm for arm, finals in tried.items() if max(finals) > 99} == {"table", "log_cpb", "shaw1d"}
    assert tried["table"][:2] == [100, 100] and tried["table"][2] < 55


def test_there_are_enough_of_each():
    for exercise in EXERCISES:
        assert len(exercise.mistakes) >= 6
        assert sum(of is exercise for of, _ in RIGHT) >= 3
        assert len({mistake.name for mistake in exercise.mistakes}) == len(exercise.mistakes)
