"""The variants' banks of mistakes: each is refused with its own hint, nothing else is, and right answers pass."""

import itertools
from functools import partial
from math import e, log2

import pytest
import torch

from spvit_course.checks.engine import examine, same
from spvit_course.checks.lesson_03_answers import lay, ruler
from spvit_course.checks.lesson_04_answers import logged, meet
from spvit_course.checks.lesson_05_answers import windows
from spvit_course.checks.lesson_06_answers import quadratic
from spvit_course.checks.lesson_08_answers import folded
from spvit_course.checks.variants import BANKS, FROM_THE_KEY, LESSONS_OWN
from spvit_course.checks.variants_maps import hills, tents
from spvit_course.checks.variants_windows import holes
from spvit_mini.geometry import offsets, pair_offsets, spread

from .bank import agree, outcomes

SEEDS = range(4)
ALL = {(v, x.name): x for v, lessons in BANKS.items() for bank in lessons.values() for x in bank.values()}
# The answer with options of each, and the options with which it is right.
RIGHT = {
    ("x_first", "offsets"): (ruler, {"sides": "columns, rows"}),
    ("x_first", "log_offsets"): (logged, {"axes": "columns, rows"}),
    ("x_first", "psa_map"): (quadratic, {"order": "column, row, square"}),
    ("x_first", "prior"): (folded, {"seen": "columns, rows"}),
    ("i_minus_j", "offsets"): (ruler, {"down": "turned round", "right": "turned round"}),
    ("i_minus_j", "spread"): (lay, FROM_THE_KEY),
    ("i_minus_j", "shaw2d"): (meet, FROM_THE_KEY),
    ("i_minus_j", "psa_map"): (quadratic, FROM_THE_KEY),
    ("decay", "psa_map"): (tents, {}),
    ("decay", "prior"): (hills, {}),
    ("dilated", "window_mask"): (holes, {}),
}
THE_LESSONS = {"psa_map": quadratic, "prior": folded, "window_mask": windows}  # where the bank has other answers
each_key = pytest.mark.parametrize("key", ALL, ids="-".join)


def keywords(answer) -> dict:
    return answer.keywords if isinstance(answer, partial) else {}


@each_key
def test_the_bank_is_made_of_changes_to_a_right_answer(key):
    exercise, (answer, right) = ALL[key], RIGHT[key]
    assert agree(exercise, partial(answer, **right), exercise.solution)
    own, *others = exercise.mistakes
    assert own.name == LESSONS_OWN
    assert (own.answer.func if isinstance(own.answer, partial) else own.answer) in (answer, THE_LESSONS.get(key[1]))
    assert keywords(own.answer) == {}
    assert {mistake.answer.func for mistake in others} == {answer}
    assert all(keywords(mistake.answer) != right for mistake in others)


@each_key
def test_there_are_enough_mistakes_and_all_are_told_apart(key):
    mistakes = ALL[key].mistakes
    assert len(mistakes) >= 6 and len({mistake.name for mistake in mistakes}) == len(mistakes)
    for seed in SEEDS:
        right = outcomes(ALL[key], ALL[key].solution, seed)
        assert not any(isinstance(found, BaseException) for found in right)
        found = [("right", right), *((m.name, outcomes(ALL[key], m.answer, seed)) for m in mistakes)]
        for name, of in found:
            assert not all(isinstance(one, BaseException) for one in of), name
        for (one, first), (other, second) in itertools.combinations(found, 2):
            assert not all(same(a, b) for a, b in zip(first, second, strict=True)), (one, other)


@each_key
@pytest.mark.parametrize("seed", SEEDS)
def test_each_mistake_is_refused_with_its_own_hint(key, seed):
    for mistake in ALL[key].mistakes:
        result = examine(ALL[key], mistake.answer, seed=seed)
        assert (result.status, result.mistake, result.lines[0]) == ("NOT YET", mistake.name, mistake.hint)
        assert len(str(result).splitlines()) <= 3


@each_key
def test_the_hint_for_the_lessons_answer_says_what_this_one_asks(key):
    hint = ALL[key].mistakes[0].hint
    assert "the lesson's" in hint or "lesson's order" in hint
    assert "this set" in hint.lower()


@pytest.mark.slow
@each_key
def test_pairs_of_mistakes_are_refused_and_never_taken_for_another(key):
    exercise, (answer, right) = ALL[key], RIGHT[key]
    refused = 0
    for one, other in itertools.combinations(exercise.mistakes[1:], 2):
        changed = [{k: v for k, v in keywords(m.answer).items() if right.get(k) != v} for m in (one, other)]
        if changed[0].keys() & changed[1].keys():
            continue  # both change the same part
        pair = partial(answer, **right | changed[0] | changed[1])
        result = examine(exercise, pair)
        if agree(exercise, pair, exercise.solution, [0]):
            assert result.passed, (one.name, other.name)
            continue
        assert result.status == "NOT YET", (one.name, other.name)
        refused += 1
        if result.mistake:
            named = next(mistake for mistake in exercise.mistakes if mistake.name == result.mistake)
            assert agree(exercise, pair, named.answer, [0]), (one.name, other.name, result.mistake)
    assert refused >= 20


@each_key
@pytest.mark.parametrize("seed", range(12))
def test_random_wrong_answers_get_no_diagnosis(key, seed):
    noise = torch.Generator().manual_seed(seed)

    answer, right = RIGHT[key]

    def shuffled(*arguments):
        values = answer(*arguments, **right)
        flat = values.flatten()
        return flat[torch.randperm(len(flat), generator=noise)].reshape(values.shape)

    result = examine(ALL[key], shuffled)
    assert result.status == "NOT YET" and result.mistake is None


@each_key
def test_an_unsolved_answer_is_not_done_yet(key):
    def stub(*arguments):
        raise NotImplementedError()

    assert examine(ALL[key], stub).status == "not done yet"


@pytest.mark.parametrize(
    ("key", "answer"),
    [
        (("i_minus_j", "offsets"), lambda rows, columns: -offsets(rows, columns)),
        (("x_first", "offsets"), lambda rows, columns: offsets(rows, columns).transpose(0, 1).flip(-1)),
        (("i_minus_j", "spread"), lambda table, grid: spread(table, grid).mT),
    ],
)
def test_the_packages_solution_of_the_lesson_is_out_of_reach(key, answer):
    assert "calls the package's own solution" in str(examine(ALL[key], answer))
    assert offsets(2, 3)[0, 0].tolist() == [-1, -2]  # and all is put back


def dilated_by_token_numbers(grid, size, dilation):
    """Count a query's window in token numbers, over the ends of rows."""
    n, mask = grid[0] * grid[1], torch.zeros(grid[0] * grid[1], grid[0] * grid[1], dtype=torch.bool)
    half = range(-(size // 2), size // 2 + 1)
    for query, down, right in itertools.product(range(n), half, half):
        key = query + dilation * (down * grid[1] + right)
        if 0 <= key < n:
            mask[query, key] = True
    return mask


def dilated_by_clamped_places(grid, size, dilation):
    """Move what lies beyond the border onto it."""
    mask = torch.zeros(*grid, *grid, dtype=torch.bool)
    half = range(-(size // 2), size // 2 + 1)
    for (row, column), down, right in itertools.product(places(grid), half, half):
        key = [min(max(x, 0), side - 1) for x, side in zip((row + dilation * down, column + dilation * right), grid, strict=True)]
        mask[row, column, key[0], key[1]] = True
    return mask.flatten(2).flatten(0, 1)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("answer", "name"),
    [(dilated_by_token_numbers, "flat index"), (dilated_by_clamped_places, "clamped to the border")],
)
def test_windows_that_leave_the_grid_get_their_hint(answer, name, seed):
    result = examine(ALL["dilated", "window_mask"], answer, seed=seed)
    assert (result.status, result.mistake) == ("NOT YET", name)


# Right answers that nobody would have thought of ----------------------------------------------------------------------


def places(grid):
    return list(itertools.product(range(grid[0]), range(grid[1])))


def differentiable(grid, of, v):
    """Make a map by loops: `of(v, rows down, columns right)` for δ = key minus query, (H, N, N)."""
    rows = [torch.stack([of(v, r - a, c - b) for r, c in places(grid)], dim=-1) for a, b in places(grid)]
    return torch.stack(rows, dim=-2)


def x_first_offsets_by_loops(rows, columns):
    return torch.tensor([[[c, r] for r in range(1 - rows, rows)] for c in range(1 - columns, columns)])


def x_first_offsets_by_product(rows, columns):
    spans = torch.arange(1 - columns, columns), torch.arange(1 - rows, rows)
    return torch.cartesian_prod(*spans).reshape(2 * columns - 1, 2 * rows - 1, 2)


def x_first_offsets_by_broadcasting(rows, columns):
    table = torch.zeros(2 * columns - 1, 2 * rows - 1, 2, dtype=torch.long)
    table[..., 0] += torch.arange(2 * columns - 1)[:, None] - columns + 1
    table[..., 1] += torch.arange(2 * rows - 1) - rows + 1
    return table


def x_first_log_offsets_by_loops(delta, window):
    sides = window[::-1]
    flat = [8 * x / (sides[k % 2] - 1) for k, x in enumerate(delta.flatten().tolist())]
    found = [(1 if x > 0 else -1) * log2(1 + abs(x)) / 3 if x else 0.0 for x in flat]
    return torch.tensor(found, dtype=delta.dtype if delta.is_floating_point() else torch.float32).reshape(delta.shape)


def x_first_log_offsets_by_flips(delta, window):
    return logged(delta.flip(-1), window).flip(-1)


def x_first_log_offsets_by_log1p(delta, window):
    column, row = (8 * delta[..., k] / (window[1 - k] - 1) for k in (0, 1))
    return torch.stack([x.abs().log1p().copysign(x) / 2.0794415416798357 for x in (column, row)], dim=-1)


def x_first_psa_map_by_loops(v, grid):
    return differentiable(grid, lambda v, r, c: v[:, 0] * c + v[:, 1] * r + v[:, 2] * (r * r + c * c), v)


def x_first_psa_map_by_the_lessons(v, grid):
    return quadratic(v[:, [2, 1, 0]], grid) + 7


def x_first_psa_map_by_a_table(v, grid):
    delta = offsets(*grid).to(v)
    row, column = delta.unbind(-1)
    return spread(torch.tensordot(v, torch.stack([column, row, row**2 + column**2]), dims=1), grid)


def x_first_prior_by_turned_weights(delta, w1, b1, w2, b2):
    return folded(delta, w1.flip(-1), b1, w2, b2)


def x_first_prior_by_heads(delta, w1, b1, w2, b2):
    column, row = delta.unbind(-1)
    units = [row[..., None] * w[:, 0] + column[..., None] * w[:, 1] + b for w, b in zip(w1, b1, strict=True)]
    return torch.stack([(u.clamp(min=0) * w).sum(-1) + b for u, w, b in zip(units, w2, b2, strict=True)])


def x_first_prior_by_linear(delta, w1, b1, w2, b2):
    swap = w1.new_tensor([[0, 1], [1, 0]])
    hidden = torch.nn.functional.linear(delta @ swap, w1.flatten(0, 1), b1.flatten()).relu()
    return ((hidden.unflatten(-1, b1.shape) * w2).sum(-1) + b2).movedim(-1, 0)


def i_minus_j_offsets_by_sign(rows, columns):
    return -ruler(rows, columns)


def i_minus_j_offsets_by_flips(rows, columns):
    return ruler(rows, columns).flip(0, 1)


def i_minus_j_offsets_by_loops(rows, columns):
    return torch.tensor([[[-r, -c] for c in range(1 - columns, columns)] for r in range(1 - rows, rows)])


def i_minus_j_spread_by_transposing(table, grid):
    return lay(table, grid).mT


def i_minus_j_spread_by_flips(table, grid):
    return lay(table.flip(-2, -1), grid)


def i_minus_j_spread_by_loops(table, grid):
    rows, columns = grid
    found = [
        torch.stack([table[..., a - r + rows - 1, b - c + columns - 1] for r, c in places(grid)], -1) for a, b in places(grid)
    ]
    return torch.stack(found, dim=-2)


def i_minus_j_shaw2d_by_turned_tables(q, tables, grid, clip):
    return meet(q, tables.flip(1), grid, clip)


def i_minus_j_shaw2d_by_one_hot(q, tables, grid, clip):
    delta = (-pair_offsets(*grid)).clamp(-clip, clip) + clip
    hot = torch.nn.functional.one_hot(delta, 2 * clip + 1).to(q)  # (N, N, 2, 2·clip + 1)
    return torch.einsum("...ic,xkc,ijxk->...ij", q, tables, hot) / q.shape[-1] ** 0.5


def i_minus_j_shaw2d_by_loops(q, tables, grid, clip):
    def near(x):
        return max(-clip, min(clip, x)) + clip

    rows = []
    for i, (a, b) in enumerate(places(grid)):
        vectors = torch.stack([tables[0, near(a - r)] + tables[1, near(b - c)] for r, c in places(grid)])
        rows.append(q[..., i, :] @ vectors.T)
    return torch.stack(rows, dim=-2) / q.shape[-1] ** 0.5


def i_minus_j_psa_map_by_signs(v, grid):
    return quadratic(v * v.new_tensor([1, -1, -1]), grid)


def i_minus_j_psa_map_by_transposing(v, grid):
    return quadratic(v, grid).mT


def i_minus_j_psa_map_by_loops(v, grid):
    return differentiable(grid, lambda v, r, c: v[:, 0] * (r * r + c * c) - v[:, 1] * r - v[:, 2] * c, v)


def decay_psa_map_by_loops(v, grid):
    return differentiable(grid, lambda v, r, c: -((r - v[:, 1]).abs() + (c - v[:, 2]).abs()) / v[:, 0], v)


def decay_psa_map_by_cdist(v, grid):
    at = torch.tensor(places(grid), dtype=v.dtype)
    return 3 - torch.cdist(at + v[:, None, 1:], at.expand(len(v), -1, -1), p=1) / v[:, :1, None]


def decay_psa_map_by_weights(v, grid):
    down, right = pair_offsets(*grid).to(v).unbind(-1)
    falls = [(-(x[None] - v[:, k, None, None]).abs() / v[:, 0, None, None]).exp() for k, x in ((1, down), (2, right))]
    return falls[0].log() + falls[1].log()


def decay_prior_by_products(delta, centres, reach, heights, floor):
    falls = (-(delta[..., None, None, :] - centres).abs() / reach[..., None]).exp().prod(-1)
    return torch.einsum("...hk,hk->...h", falls, heights).movedim(-1, 0) + floor.reshape(-1, *[1] * (delta.ndim - 1))


def decay_prior_by_heads(delta, centres, reach, heights, floor):
    found = []
    for h in range(len(floor)):
        total = floor[h] + 0 * delta[..., 0]
        for k in range(reach.shape[1]):
            total = total + heights[h, k] * (-(delta - centres[h, k]).norm(p=1, dim=-1) / reach[h, k]).exp()
        found.append(total)
    return torch.stack(found)


def decay_prior_by_powers(delta, centres, reach, heights, floor):
    flat = delta.reshape(-1, 1, 1, 2)
    sizes = (flat - centres).abs()
    falls = e ** -((sizes[..., 0] + sizes[..., 1]) * reach.reciprocal())
    return ((falls * heights).sum(2) + floor).T.reshape(-1, *delta.shape[:-1])


def dilated_window_mask_by_loops(grid, size, dilation):
    steps = {dilation * k for k in range(-(size // 2), size // 2 + 1)}
    return torch.tensor([[r - a in steps and c - b in steps for r, c in places(grid)] for a, b in places(grid)])


def dilated_window_mask_by_kron(grid, size, dilation):
    bands = []
    for side in grid:
        band = sum(torch.diag(torch.ones(max(side - dilation * k, 0)), min(dilation * k, side)) for k in range(size // 2 + 1))
        bands.append(((band + band.T)[:side, :side] > 0).float())
    return torch.kron(*bands) > 0


def dilated_window_mask_by_index(grid, size, dilation):
    seen = torch.zeros(*grid, *grid, dtype=torch.bool)
    half = dilation * (size // 2)
    for a, b in places(grid):
        seen[a, b, max(a - half, a % dilation) : a + half + 1 : dilation][
            :, max(b - half, b % dilation) : b + half + 1 : dilation
        ] = True
    return seen.flatten(2).flatten(0, 1)


UNUSUAL = [
    (key, answer)
    for key in ALL
    for name, answer in list(globals().items())
    if callable(answer) and name.startswith(f"{'_'.join(key)}_by_")
]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("key", "answer"), UNUSUAL, ids=[answer.__name__ for _, answer in UNUSUAL])
def test_unusual_right_answers_pass(key, answer, seed):
    result = examine(ALL[key], answer, seed=seed)
    assert result.passed, str(result)


def test_there_are_three_unusual_answers_to_each():
    assert all(sum(of == key for of, _ in UNUSUAL) >= 3 for key in ALL)
