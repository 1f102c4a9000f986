"""Lesson 08's bank of mistakes: each is refused with its own hint, nothing else is, and right answers pass."""

import itertools
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from spvit_course.checks.engine import examine, same
from spvit_course.checks.exchange import exchange
from spvit_course.checks.lesson_08 import EXERCISES, MOVES, PRIOR, SPATIAL, prior
from spvit_course.checks.lesson_08_answers import Sharpened, folded, moving
from spvit_mini.attention import MHSA, SPSA
from spvit_mini.geometry import offsets, pair_offsets
from spvit_mini.spatial import PriorMLP

from .bank import agree, each_mistake, outcomes, table

SEEDS = range(4)
ANSWERS = {"prior": folded, "SPSA": Sharpened, "moves_at_step0": moving}
each_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)


# The cases, in order.
# prior: wide, tall, any offsets, one head, one unit, one offset, one patch with f below 0.
# SPSA: wide, tall with a prefix, two prefix tokens, one head, one row, one patch with a prefix, b2 alone.
# moves_at_step0: trained; with b2 = 0; with old gradients; w1 = b1 = 0; w1 = b1 = w2 = 0; three at the start: with b1 = 0, with
# old gradients, as it is.
# "x": another result than the right one, "!": an error, ".": the right result, so nothing to be learned from the case.
TOLD_APART = """
prior
    no ReLU                        xxxxxxx
    GELU                           xxxxxxx
    sigmoid                        xxxxxxx
    tanh                           xxxxxxx
    absolute hidden                xxxxxxx
    step                           xxxxxxx
    no b1                          xxxxxxx
    b1 subtracted                  xxxxxxx
    b1 after the ReLU              xxxxxxx
    no b2                          xxxxxxx
    1 for b2                       xxxxxxx
    1 and b2                       xxxxxxx
    the first b2                   xxx.xxx
    shared hidden layer            xxx.xxx
    mean hidden layer              xxx.xxx
    shared w2                      xxx.xxx
    no w2                          xxxxxxx
    mean over units                xxxx.xx
    normalised                     xxxxxxx
    normalised by axis             xxxxxxx
    logarithm                      xxxxxx.
    from 0                         xxxxxx.
    axes swapped                   xxxxxx.
    sign                           xxxxxx.
    sign of the rows               xxxx.x.
    sign of the columns            xxxxxx.
    absolute value                 xxxxxx.
    rows only                      xxxxxx.
    columns only                   xxxx.x.
    length                         xxxxxx.
    ReLU at the end                xxxxxxx
    ReLU at the end alone          xxxxxxx
    ReLU around the sum            xxxxxxx
    ReLU around the sum too        xxxxxxx
    sigmoid at the end             xxxxxxx
    exp at the end                 xxxxxxx
    heads last                     xxxxx.x
    heads added                    xxxxxxx
SPSA
    added                          xxxxxxx
    multiplied after               xxxxxxx
    multiplied after, shared anew  xxxxxxx
    1 + f                          xxxxxxx
    divided                        xxxxxxx
    signs lost                     xxxxxxx
    scores left out                xxxxxxx
    prior left out                 xxxxxxx
    matrix product                 xxxxxxx
    no root                        xxxxxxx
    C for its root                 xxxxxxx
    √D for √C                      xxx.xxx
    root after the softmax         xxxxxxx
    softmax over queries           xxxxxxx
    softmax over heads             xxxxxxx
    no softmax                     xxxxxxx
    softmax twice                  xxxxxxx
    softmax before too             xxxxxxx
    transposed                     xxxxx..
    one map for all                xxx.xxx
    mean map                       xxx.xxx
    prefix 0                       .xxx.x.
    prefix 0 but for itself        .xxx.x.
    prefix rows 0                  .xxx.x.
    prefix columns 0               .xxx.x.
    prefix not seen                .xxx.x.
    prefix last                    .xxx.x.
    one prefix token               !.!.!.!
    none or one prefix token       ..!....
    no prefix                      .!!!.x.
    prefix cut off                 .xxx.x.
moves_at_step0
    all                            ...xxxxx
    none                           xxxxxxxx
    w1                             ...xxxxx
    b1                             ...xxxxx
    w1 and b1                      ...xxxxx
    w2 left out                    xxx..xxx
    b2 left out                    xxxxxxxx
    values for gradients           .x.x.xxx
    the others                     xxxxxxxx
    every entry                    xxx.....
    old gradients                  ......x.
    always w2 and b2               xxxxx...
    always w1 and b1               xxxxxxxx
"""


@pytest.mark.parametrize("seed", SEEDS)
def test_the_table_of_what_each_case_tells(seed):
    assert table(EXERCISES, seed, width=31) == TOLD_APART


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
        assert result.passed == agree(exercise, pair, exercise.solution, [0]), (one.name, other.name)
        refused += not result.passed
        if result.mistake:
            named = next(m for m in exercise.mistakes if m.name == result.mistake)
            assert agree(exercise, pair, named.answer, [0]), (one.name, other.name, result.mistake)
    assert refused > 20


@pytest.mark.parametrize("seed", range(6))
def test_random_wrong_answers_get_no_diagnosis(seed):
    noise = torch.Generator().manual_seed(seed)

    def changed(values):
        return values + torch.rand(values.shape, dtype=values.dtype, generator=noise)

    class Disturbed(Sharpened):
        def weights(self, q, k, grid):
            return changed(super().weights(q, k, grid))

    answers = ((PRIOR, lambda *given: changed(folded(*given))), (SPATIAL, Disturbed))
    for exercise, answer in answers:
        result = examine(exercise, answer)
        assert result.status == "NOT YET" and result.mistake is None


def test_names_that_no_mistake_explains_get_no_diagnosis():
    odd = itertools.cycle([{"w1"}, {"b1", "b2"}, set(), {"w1", "w2"}])
    result = examine(MOVES, lambda layer, x, grid: next(odd))
    assert result.status == "NOT YET" and result.mistake is None


# The checks' own ways are the package's -------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [(2, 3), (4, 1), (1, 1)])
def test_the_network_is_the_package_s(grid):
    torch.manual_seed(0)
    network = PriorMLP(3, 4).double()
    torch.nn.init.normal_(network.w2)
    weights = [getattr(network, name) for name in ("w1", "b1", "w2", "b2")]
    torch.testing.assert_close(prior(offsets(*grid).double(), *weights), network.table(grid))
    spread = prior(pair_offsets(*grid).double(), *weights)
    torch.testing.assert_close(spread, network(grid))


def test_the_gradients_at_the_start_are_those_of_the_chain_rule():
    """With w2 = 0 only ∂f/∂w2 = ReLU(W1 δ + b1) and ∂f/∂b2 = 1 are left."""
    torch.manual_seed(0)
    network = PriorMLP(2, 4).double()
    arriving = torch.randn(2, 3, 5, dtype=torch.float64)
    (network.table((2, 3)) * arriving).sum().backward()
    hidden = (torch.einsum("hkd,abd->hkab", network.w1, offsets(2, 3).double()) + network.b1[..., None, None]).relu()
    torch.testing.assert_close(network.w2.grad, torch.einsum("hkab,hab->hk", hidden, arriving))
    torch.testing.assert_close(network.b2.grad, arriving.sum((1, 2)))
    assert network.w1.grad.count_nonzero() == network.b1.grad.count_nonzero() == 0


def test_a_common_part_of_the_scores_turns_the_factor_into_a_bias():
    torch.manual_seed(0)
    f, scores = torch.randn(2, 6, 6, dtype=torch.float64)
    torch.testing.assert_close((f * (scores + 1.7)).softmax(-1), (f * scores + 1.7 * f).softmax(-1))


def test_a_class_by_hand_carries_the_package_s_weights():
    build = {"dim": 8, "heads": 2, "hidden": 4}
    inputs = (torch.randn(2, 7, 8, generator=torch.Generator().manual_seed(0)), (2, 3))
    assert exchange(ByScaling, SPSA, build=build, inputs=inputs).passed
    assert not exchange(partial(Sharpened, way="added"), SPSA, build=build, inputs=inputs).passed


# Right answers that nobody would have thought of ----------------------------------------------------------------------


def prior_by_loops(delta, w1, b1, w2, b2):
    heads = []
    for h in range(len(b2)):
        total = b2[h]
        for k in range(w1.shape[1]):
            ramp = delta[..., 0] * w1[h, k, 0] + delta[..., 1] * w1[h, k, 1] + b1[h, k]
            total = total + w2[h, k] * ramp.clamp(min=0)
        heads.append(total)
    return torch.stack(heads)


def prior_by_linear(delta, w1, b1, w2, b2):
    hidden = F.linear(delta, w1.flatten(0, 1), b1.flatten()).unflatten(-1, b1.shape)
    return torch.einsum("...hk,hk->...h", F.relu(hidden), w2).add(b2).movedim(-1, 0)


def prior_with_ones(delta, w1, b1, w2, b2):
    """Take both biases for weights of a 1."""
    longer = torch.cat([delta, torch.ones_like(delta[..., :1])], dim=-1)
    hidden = torch.einsum("hkd,...d->h...k", torch.cat([w1, b1[..., None]], dim=-1), longer).relu()
    hidden = torch.cat([hidden, torch.ones_like(hidden[..., :1])], dim=-1)
    last = torch.cat([w2, b2[:, None]], dim=-1)
    return torch.einsum("h...k,hk->h...", hidden, last)


class ByHand(MHSA):
    """What the right classes share: the given `__init__`."""

    def __init__(self, dim, heads, hidden=32):
        super().__init__(dim, heads)
        self.spatial = PriorMLP(heads, hidden)

    def attend(self, q, k, v, grid):
        return self.weights(q, k, grid) @ v


class ByScaling(ByHand):
    def weights(self, q, k, grid):
        n = grid[0] * grid[1]
        f = self.spatial(grid)
        factor = torch.ones(len(f), q.shape[2], q.shape[2]).to(f)
        factor[:, q.shape[2] - n :, q.shape[2] - n :] = f
        return torch.softmax(q @ k.mT * factor / math.sqrt(q.shape[-1]), dim=-1)


class ByCutting(ByHand):
    def weights(self, q, k, grid):
        f, scores = self.spatial(grid), self.scores(q, k)
        prefix = scores.shape[-1] - f.shape[-1]
        patches = torch.cat([scores[..., prefix:, :prefix], f * scores[..., prefix:, prefix:]], dim=-1)
        return F.softmax(torch.cat([scores[..., :prefix, :], patches], dim=-2), dim=3)


class ByChange(ByHand):
    """f ⊙ S = S + (f − 1) ⊙ S, and 0 is neutral for what is added."""

    def weights(self, q, k, grid):
        scores = self.scores(q, k)
        prefix = q.shape[-2] - grid[0] * grid[1]
        more = F.pad(self.spatial(grid) - 1, (prefix, 0, prefix, 0))
        exponentials = (scores + more * scores).exp()
        return exponentials / exponentials.sum(-1, keepdim=True)


def moves_by_autograd(layer, x, grid):
    named = list(layer.spatial.named_parameters())
    gradients = torch.autograd.grad((layer(x, grid) ** 3).mean(), [p for _, p in named])
    return frozenset(name for (name, _), gradient in zip(named, gradients, strict=True) if gradient.abs().max() > 0)


def moves_by_stepping(layer, x, grid):
    optimiser = torch.optim.SGD(layer.spatial.parameters(), lr=1.0)
    before = {name: value.detach().clone() for name, value in layer.spatial.named_parameters()}
    optimiser.zero_grad()
    layer(x, grid).square().sum().backward()
    optimiser.step()
    return {name for name, value in layer.spatial.named_parameters() if not torch.equal(value, before[name])}


def moves_by_reasoning(layer, x, grid):
    """Follow the chain rule by hand: what stands between a parameter and f, and is it 0?"""
    s = layer.spatial
    hidden = (torch.einsum("hkd,abd->hkab", s.w1, offsets(*grid).to(s.w1)) + s.b1[..., None, None]).relu()
    names = {"b2"}
    if hidden.any():
        names.add("w2")
    if (s.w2[..., None, None] * hidden).any():
        names |= {"w1", "b1"}
    return names


RIGHT = [
    *((PRIOR, answer) for name, answer in list(globals().items()) if name.startswith("prior_")),
    *((SPATIAL, answer) for answer in (ByScaling, ByCutting, ByChange)),
    *((MOVES, answer) for name, answer in list(globals().items()) if name.startswith("moves_")),
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
    assert len({mistake.name for mistake in exercise.mistakes}) == len(exercise.mistakes)


class Detached(ByScaling):
    def weights(self, q, k, grid):
        return super().weights(q, k, grid).detach()


class Renamed(MHSA):
    def __init__(self, dim, heads, hidden=32):
        super().__init__(dim, heads)
        self.prior = PriorMLP(heads, hidden)


class Sliced(ByHand):
    """Cut with [:-P], which is nothing for P = 0."""

    def weights(self, q, k, grid):
        f, scores = self.spatial(grid), self.scores(q, k)
        prefix = scores.shape[-1] - f.shape[-1]
        return (f * scores[..., :-prefix, :-prefix]).softmax(-1)


@pytest.mark.parametrize(
    ("exercise", "answer", "words"),
    [
        (PRIOR, prior, "the package's own solution"),
        (PRIOR, lambda *given: None, "Is the `return` missing?"),
        (PRIOR, lambda *given: folded(*given).detach(), "no gradient comes back"),
        (PRIOR, lambda *given: folded(*(value.double() for value in given)), "keep the type of the input"),
        (PRIOR, lambda delta, w1, b1, w2, b2: (delta @ w1.mT + b1).relu() @ w2 + b2, PRIOR.stumble),
        (SPATIAL, SPSA, "the package's own solution"),
        (SPATIAL, Detached, "no gradient comes back"),
        (SPATIAL, Renamed, "the weights do not fit"),
        (MOVES, lambda layer, x, grid: None, "Is the `return` missing?"),
        (MOVES, lambda layer, x, grid: "w2", "not a set of names"),
        (MOVES, lambda layer, x, grid: ["w2", "b2"], "it returns a list, not a set of names"),
        (MOVES, lambda layer, x, grid: {"w1", "w2", "b1"} if x.shape[1] == 4 else {"w2"}, "[0] to [3] stand for w1, b1, w2, b2"),
        (SPATIAL, Sliced, "P is not always 0 or 1"),
        (MOVES, lambda layer, x, grid: {"spatial.w2"}, "'spatial.w2' is none of the names"),
        (MOVES, lambda layer, x, grid: {"qkv.weight", "w2"}, "is none of the names"),
    ],
)
def test_what_is_no_answer_is_told_so(exercise, answer, words):
    result = examine(exercise, answer)
    assert words in str(result) and result.status == "NOT YET"
