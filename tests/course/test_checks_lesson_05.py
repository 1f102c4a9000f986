"""Lesson 05's bank of mistakes: each is refused with its own hint, nothing else is, and right answers pass."""

import itertools
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from spvit_course.checks.engine import examine, same
from spvit_course.checks.lesson_05 import EXERCISES, MASKED_WEIGHTS, WINDOW_MASK, masked_weights
from spvit_course.checks.lesson_05_answers import masked, windows
from spvit_mini.attention import MaskedAttention
from spvit_mini.spatial import SquareWindow

from .bank import agree, each_mistake, outcomes, table

SEEDS = range(4)
OWN = {WINDOW_MASK: windows, MASKED_WEIGHTS: masked}
each_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)


# The cases of windows, in order: fitting, shifted, a tall grid, a square, one row, one column, windows larger than the
# grid, windows of one patch, shifted by half; those of masks: no prefix, one, two with a mask a head, none with a mask a
# head, none and a query that sees nothing, one and such a query, large scores.
# "x": another result than the right one, "!": an error, ".": the right result, so nothing to be learned from the case.
TOLD_APART = """
window_mask
    ≤ for <: both ends              xxxxxxxxx
    ≤ for <: one too large          xxx.xx.xx
    sign of the shift               .xxxxxx..
    not shifted                     .xxxxxx.x
    only rows shifted               .xxxx.x.x
    only columns shifted            .xxx.xx.x
    wrap leak                       .xxxxxx.x
    first piece joined              .xxxxxx.x
    sliding for partition           xxxxxxx.x
    sliding, nearer than the size   xxxxxxx.x
    remainder for quotient          xxxxxxxxx
    axes                            xxx...x..
    square assumed: rows            xxx.xxxx.
    square assumed: columns         xxx.xxxx.
    row or column                   xxxxxxxxx
    rows only                       xxxxx.xxx
    columns only                    xxxx.xxxx
    numbers that collide            xxxx..xxx
    numbers: whole windows          .xxx.xx.x
    numbers: and one more           ......x..
    numbers: rounded up             .x....x.x
    inverted                        xxxxxxxxx
masked_weights
    × 0/1                           xxxxxxx
    0/1 added                       xxxxxxx
    −1 filled                       xxxxxxx
    a finite number added           ....x.x
    a finite number filled          ....x..
    0 · ∞                           xxxxxxx
    after the softmax               xxxxxxx
    inverted                        xxxxxxx
    inverted, prefix as well        xxxxxxx
    inverted, prefix NaN            xxxxxxx
    first in, then out              xxxxxxx
    all 0                           xxxxxxx
    sum clamped                     ......x
    sum clamped after the softmax   ......x
    transposed                      xxxxxxx
    one mask for all heads          ..xx.x.
    softmax over queries            xxxxxxx
    NaN in an empty row             ....x..
    prefix forgotten                .!!..!.
    always one prefix token         !.!!!.!
    one prefix token at most        ..!....
    prefix last                     .xx..x.
    prefix shut out                 .xx..x.
    prefix: rows only               .xx..x.
    prefix: columns only            .xx..x.
    prefix: apart                   .xx..x.
"""


@pytest.mark.parametrize("seed", SEEDS)
def test_the_table_of_what_each_case_tells(seed):
    assert table(EXERCISES, seed, width=32) == TOLD_APART


@each_exercise
def test_the_answers_with_options_are_right_as_they_stand(exercise):
    assert agree(exercise, OWN[exercise], exercise.solution)
    assert {mistake.answer.func for mistake in exercise.mistakes} == {OWN[exercise]}


@pytest.mark.parametrize("seed", SEEDS)
def test_masked_weights_are_those_of_the_package_wherever_a_query_sees_something(seed):
    for case in MASKED_WEIGHTS.cases(torch.Generator().manual_seed(seed)):
        scores, mask = case.arguments
        tokens, patches = scores.shape[-1], mask.shape[-1]
        layer = MaskedAttention(scores.shape[1], scores.shape[1], spatial=lambda grid, mask=mask: mask if mask.ndim == 3 else mask[None])
        ours = masked_weights(scores, mask)
        theirs = layer.weights(scores * tokens**0.5, torch.eye(tokens).double(), (1, patches))  # q kᵀ / √C = scores
        empty = theirs.isnan()
        assert torch.allclose(ours[~empty], theirs[~empty], atol=1e-12)
        assert empty.any() == (case.label.endswith("sees no patch") and tokens == patches)
        assert ours[empty].eq(0).all()


@each_exercise
def test_any_two_mistakes_are_told_apart(exercise):
    for seed in SEEDS:
        found = [(mistake.name, outcomes(exercise, mistake.answer, seed)) for mistake in exercise.mistakes]
        for (one, first), (other, second) in itertools.combinations(found, 2):
            assert not all(same(a, b) for a, b in zip(first, second, strict=True)), (one, other)


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
        if agree(exercise, pair, exercise.solution):
            assert result.passed
            continue
        assert result.status == "NOT YET", (one.name, other.name)
        refused += 1
        if result.mistake:
            named = next(m for m in exercise.mistakes if m.name == result.mistake)
            assert agree(exercise, pair, named.answer), (one.name, other.name, result.mistake)
    assert refused > 100


def roll_and_cut(grid, size, shift):
    """Number the windows of Swin's rolled grid, and roll the numbers back: what leaks where its mask is forgotten."""
    rows, columns = (torch.arange(side) // size for side in grid)
    numbers = (100 * rows[:, None] + columns).roll((shift, shift), (0, 1)).flatten()
    return numbers[:, None] == numbers


# Other ways to the numbers of a known mistake: they get its hint. Two of them together may be right.
SAME_NUMBERS = [
    (WINDOW_MASK, "wrap leak", roll_and_cut),
    (WINDOW_MASK, "axes", lambda grid, size, shift: windows(grid[::-1], size, shift)),
    (WINDOW_MASK, "sign of the shift", lambda grid, size, shift: windows(grid, size, (size - shift) % size)),
    (WINDOW_MASK, "not shifted", lambda grid, size, shift: windows(grid, size, 0)),
    (WINDOW_MASK, None, lambda grid, size, shift: windows(grid, size, -((size - shift) % size))),
    (WINDOW_MASK, None, lambda grid, size, shift: windows(grid[::-1], size, shift, tokens="column by column")),
    (MASKED_WEIGHTS, "× 0/1", lambda scores, mask: masked(scores, mask, way="× 0/1").double()),
    (MASKED_WEIGHTS, "0/1 added", lambda scores, mask: (scores - (~room(scores, mask)).double()).softmax(-1)),
    (MASKED_WEIGHTS, "inverted", lambda scores, mask: masked(scores, ~mask)),
    (MASKED_WEIGHTS, "inverted, prefix as well", lambda scores, mask: by_fill(scores, room(scores, mask)).nan_to_num()),
    (MASKED_WEIGHTS, "inverted, prefix NaN", lambda scores, mask: by_fill(scores, room(scores, mask))),
    (MASKED_WEIGHTS, "all 0", lambda scores, mask: (scores + (~room(scores, mask)) * -torch.inf).softmax(-1).nan_to_num()),
    (MASKED_WEIGHTS, "NaN in an empty row", lambda scores, mask: renormalised(scores, mask, 0.0)),
    (MASKED_WEIGHTS, None, lambda scores, mask: masked(scores, ~mask, says="outside")),
]


def room(scores, mask):
    prefix = scores.shape[-1] - mask.shape[-1]
    return F.pad(mask, (prefix, 0, prefix, 0), value=True)


def by_fill(scores, hidden):
    return scores.masked_fill(hidden, -torch.inf).softmax(-1)


def renormalised(scores, mask, guard=1.0):
    """Take the outside's exponentials away and let the inside share the whole: that is masking as well."""
    visible = room(scores, mask)
    top = scores.masked_fill(~visible, -1e30).amax(-1, keepdim=True)
    kept = (scores - top).where(visible, -torch.inf).exp()
    total = kept.sum(-1, keepdim=True)
    return kept / (total + guard * (total == 0))


@pytest.mark.parametrize(("exercise", "name", "answer"), SAME_NUMBERS)
def test_other_ways_to_the_same_numbers_get_the_same_hint(exercise, name, answer):
    result = examine(exercise, answer)
    assert (result.passed, result.mistake) == (name is None, name), str(result)


@pytest.mark.parametrize("seed", range(12))
def test_random_wrong_answers_get_no_diagnosis(seed):
    noise = torch.Generator().manual_seed(seed)

    def shuffled(values):
        flat = values.flatten()
        return flat[torch.randperm(len(flat), generator=noise)].reshape(values.shape)

    for exercise, right in OWN.items():
        result = examine(exercise, lambda *arguments, right=right: shuffled(right(*arguments)))
        assert result.status == "NOT YET" and result.mistake is None


def test_numbers_are_not_taken_for_a_mask():
    assert "they are numbers" in str(examine(WINDOW_MASK, lambda *arguments: windows(*arguments).float()))


def bare_exp(scores, mask):
    kept = scores.exp() * room(scores, mask)
    total = kept.sum(-1, keepdim=True)
    return kept / torch.where(total == 0, 1, total)


def softmax_shared_anew(scores, mask):
    kept = scores.softmax(-1) * room(scores, mask)
    total = kept.sum(-1, keepdim=True)
    return kept / torch.where(total == 0, 1, total)


def filled_with_too_little(scores, mask):
    visible = room(scores, mask)
    return scores.masked_fill(~visible, -1e4).softmax(-1) * visible


def penalised_too_little(scores, mask):
    visible = room(scores, mask)
    return (scores - 1e4 * ~visible).softmax(-1) * visible


def mask_added(scores, mask):
    bias = torch.zeros(()).where(room(scores, mask), -torch.inf).to(scores)
    return (scores + bias).softmax(-1).nan_to_num()


def nan_replaced_after_dividing(scores, mask):
    visible = room(scores, mask)
    kept = (scores - 1e30 * ~visible).softmax(-1) * visible
    return (kept / kept.sum(-1, keepdim=True)).nan_to_num()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (bare_exp, "exp on its own cannot"),
        (softmax_shared_anew, "too late to mask"),
        (filled_with_too_little, "not low enough"),
        (penalised_too_little, "not low enough"),
        (mask_added, "makes NaN of gradients"),
        (nan_replaced_after_dividing, "makes NaN of gradients"),
    ],
)
def test_what_only_extreme_scores_and_gradients_show_is_told(answer, words):
    result = examine(MASKED_WEIGHTS, answer)
    assert result.status == "NOT YET" and words in str(result), str(result)


def test_an_axis_too_many_is_told():
    def one_axis_more(scores, mask):
        visible = room(scores, mask)
        return scores.masked_fill(~(visible[:, None] if mask.ndim == 3 else visible), -torch.inf).softmax(-1)

    result = examine(MASKED_WEIGHTS, one_axis_more)
    assert (result.status, result.mistake, result.lines[0]) == ("NOT YET", None, MASKED_WEIGHTS.stumble)


def test_the_packages_window_is_out_of_reach():
    result = examine(WINDOW_MASK, lambda grid, size, shift: SquareWindow(size, shift=shift)(grid)[0])
    assert "calls the package's own solution" in str(result)


# Right answers that nobody would have thought of ----------------------------------------------------------------------


def window_mask_by_loops(grid, size, shift):
    places = list(itertools.product(range(grid[0]), range(grid[1])))
    pieces = [((r - shift) // size, (c - shift) // size) for r, c in places]
    return torch.tensor([[one == other for other in pieces] for one in pieces])


def window_mask_by_kron(grid, size, shift):
    bands = []
    for side in grid:
        begins = [start for start in range(shift - size, side, size)]
        band = torch.zeros(side, side)
        for start in begins:
            band[max(start, 0) : start + size, max(start, 0) : start + size] = 1
        bands.append(band)
    return torch.kron(*bands).bool()


def window_mask_by_cumsum(grid, size, shift):
    rows, columns = (((torch.arange(side) - shift) % size == 0).int().cumsum(0) for side in grid)
    numbers = (rows[:, None] * 1000 + columns).flatten()
    return numbers[:, None].eq(numbers)


def window_mask_by_one_hot(grid, size, shift):
    hits = [F.one_hot((torch.arange(side) + size - shift).div(size, rounding_mode="floor"), 30).float() for side in grid]
    member = torch.einsum("ra,cb->rcab", *hits).flatten(2).flatten(0, 1)
    return member @ member.T > 0.5


def masked_weights_after_renormalised(scores, mask):
    return renormalised(scores, mask)


def masked_weights_by_where(scores, mask):
    visible = room(scores, mask)
    return torch.where(visible, scores, -torch.inf).softmax(-1).nan_to_num(0)


def masked_weights_by_loops(scores, mask):
    prefix, weights = scores.shape[-1] - mask.shape[-1], torch.zeros_like(scores)
    for place in itertools.product(*map(range, scores.shape[:3])):
        seen = torch.ones(scores.shape[-1], dtype=torch.bool)
        if place[2] >= prefix:
            own = mask if mask.ndim == 2 else mask[place[1]]
            seen[prefix:] = own[place[2] - prefix]
        weights[place][seen] = scores[place][seen].softmax(0)
    return weights


def masked_weights_by_a_finite_number(scores, mask):
    hidden = ~room(scores, mask)
    return scores.masked_fill(hidden, -1e30).softmax(-1) * ~hidden


def masked_weights_by_sdpa(scores, mask):
    tokens = scores.shape[-1]
    eye = torch.eye(tokens, dtype=scores.dtype).expand_as(scores)
    hidden = ~room(scores, mask)
    low = scores.masked_fill(hidden, -1e30)
    return F.scaled_dot_product_attention(torch.zeros_like(scores), eye, eye, attn_mask=low).masked_fill(hidden, 0)


RIGHT = [
    *((WINDOW_MASK, answer) for name, answer in list(globals().items()) if name.startswith("window_mask_")),
    *((MASKED_WEIGHTS, answer) for name, answer in list(globals().items()) if name.startswith("masked_weights_")),
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
