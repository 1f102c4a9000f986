"""Lesson 01's bank of mistakes: each is refused with its own hint, nothing else is, and right answers pass."""

import itertools
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from spvit_course.checks.engine import examine, same
from spvit_course.checks.exchange import exchange
from spvit_course.checks.lesson_01 import ALL_HEADS, ENTROPY, EXERCISES, ONE_HEAD, by_hand
from spvit_course.checks.lesson_01_answers import Layer, attend, spread_of
from spvit_mini import attention

from .bank import agree, each_mistake, outcomes, table

SEEDS = range(4)


# The cases, in order.
# one_head: by hand, square, fewer queries, more queries, one query, one key, width 1.
# MHSA: two images, wide heads, heads of width 1, one head, as many of everything, one token.
# entropy: a row, rows, a set of rows, of each image and head; rows at one key, at two and at all, one key, tiny weights.
# "x": another result than the right one, "!": an error, ".": the right result, so nothing to be learned from the case.
TOLD_APART = """
one_head
    no root                            xxxxx..
    C for its root                     xxxxx..
    times the root                     xxxxx..
    root of the keys                   xxx.x.x
    over queries                       xxxxx.x
    over all pairs                     .xxx..x
    no softmax                         xxxxxxx
    exp without the sum                xxxxxxx
    scaled after                       xxxxxx.
    queries and keys exchanged         !x!!!.x
    keys averaged                      xxxxxxx
    k not turned                       !!!x!!!
    k turned by reshape                xxxxx..
    given, not taken                   !x!!!.x
    root of the queries                xxxxx.x
    root of the values                 x.xx...
    stops at the weights               xxxxxxx
MHSA
    no root                            xx.xx.
    C for its root                     xx.xx.
    times the root                     xx.xx.
    root of the keys                   xxxx..
    over queries                       xxxxx.
    over all pairs                     xxxxx.
    no softmax                         xxxxxx
    exp without the sum                xxxxxx
    scaled after                       xx.xxx
    queries and keys exchanged         xxxxx.
    keys averaged                      xxxxxx
    k not turned                       !!!!x!
    k turned by reshape                xx.xx.
    given, not taken                   xxxxx.
    √D for √C                          xxx.x.
    over heads                         xxxxxx
    split by reshape                   xxx.x.
    merged by reshape                  xxx.x.
    split and merged by reshape        xxx.x.
    heads look at heads, then moved    xxxxxx
    all axes turned                    !!!!x!
    heads look at heads                xxxxxx
    heads innermost                    xx..xx
    heads outermost                    xxx.xx
    merged with heads innermost        xx..xx
    one head                           xxx.x.
    keys and values exchanged          xxxxxx
    no output projection               xxxxxx
    skip connection                    xxxxxx
    one reshape, three first           xxxxxx
    one reshape, three first, and mergedxxxxxx
    one reshape, images first          xxxxx.
    one reshape, images first, and mergedxxxxx.
    thirds read as k, v, q             xxxxxx
    thirds read as v, q, k             xxxxxx
    thirds read as v, k, q             xxxxxx
entropy
    over queries                       !xxxxxxx
    log2                               xxxx.x.x
    log10                              xxxx.x.x
    sign                               xxxx.x.x
    0 · log 0                          ....xx..
    squares                            xxxxxxxx
    one minus squares                  xxxx.x.x
    mean for sum                       xxxx.x.x
    one number                         .xxxxxxx
    one sum                            .xxxxxxx
    softmax again                      xxxxxx.x
    effective number                   xxxxxxxx
    normalised                         xxxx.xxx
    plus 1e-09                         xxxxxxxx
    plus 1e-08                         xxxxxxxx
    plus 1e-07                         xxxxxxxx
    plus 1e-06                         xxxxxxxx
    plus 1e-05                         xxxxxxxx
    clamped 1e-10                      ....xx..
    clamped 1e-09                      ....xx.x
    clamped 1e-08                      ....xx.x
    clamped 1e-07                      ....xx.x
    clamped 1e-06                      ....xx.x
    clamped 1e-05                      ....xx.x
    log-clamped 1e-08                  .......x
    log-clamped 1e-07                  .......x
    log-clamped 1e-06                  .......x
    log-clamped 1e-05                  .......x
    log-clamped 1e-04                  .......x
"""


@pytest.mark.parametrize("seed", SEEDS)
def test_the_table_of_what_each_case_tells(seed):
    assert table(EXERCISES, seed, width=35) == TOLD_APART


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)
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
    "exercise", [ONE_HEAD, pytest.param(ALL_HEADS, marks=pytest.mark.slow), ENTROPY], ids=lambda exercise: exercise.name
)
def test_pairs_of_mistakes_are_refused_and_never_taken_for_another(exercise):
    refused = 0
    for one, other in itertools.combinations(exercise.mistakes, 2):
        changes = {**one.answer.keywords, **other.answer.keywords}
        if len(changes) < len(one.answer.keywords) + len(other.answer.keywords):
            continue  # both change the same part
        pair = partial(one.answer.func, **changes)
        result = examine(exercise, pair)
        if agree(exercise, pair, exercise.solution, [1]):
            assert result.passed
            continue
        assert result.status == "NOT YET", (one.name, other.name)
        refused += 1
        if result.mistake:
            named = next(m for m in exercise.mistakes if m.name == result.mistake)
            assert agree(exercise, pair, named.answer, [1]), (one.name, other.name, result.mistake)
    assert refused > 40


RESHAPED = ("reshaped", "reshaped, three first", "reshaped, images first")


def test_no_order_of_the_axes_gets_a_wrong_diagnosis():
    passed, named = 0, set()
    splits = [f"({' '.join(order)})" for order in itertools.permutations("shc")]
    for split, merge in itertools.product([*splits, "one head", *RESHAPED], ["(h c)", "(c h)", "reshaped"]):
        answer = partial(Layer, split=split, merge=merge)
        result = examine(ALL_HEADS, answer)
        passed += result.passed
        if result.mistake:
            mistake = next(m for m in ALL_HEADS.mistakes if m.name == result.mistake)
            assert agree(ALL_HEADS, answer, mistake.answer), (split, merge)
            named.add(result.mistake)
    assert passed == 1
    assert len(named) >= 7


@pytest.mark.parametrize("seed", range(12))
def test_random_wrong_answers_get_no_diagnosis(seed):
    noise = torch.Generator().manual_seed(seed)

    def other_tokens(q, k, v):
        right = attend(q, k, v)
        return right[torch.randperm(len(right), generator=noise)] if len(right) > 3 else right + 0.1

    class OtherNumbers(Layer):
        def forward(self, x, grid):
            return super().forward(x, grid)[..., torch.randperm(x.shape[-1], generator=noise)] + 0.1

    def other_sum(w):
        return spread_of(w) * (1 + torch.rand((), generator=noise, dtype=w.dtype))

    for exercise, answer in ((ONE_HEAD, other_tokens), (ALL_HEADS, OtherNumbers), (ENTROPY, other_sum)):
        result = examine(exercise, answer)
        assert result.status == "NOT YET" and result.mistake is None


# Right answers that nobody would have thought of ----------------------------------------------------------------------


def one_head_by_loops(q, k, v):
    rows = []
    for query in q:
        shares = [((query * key).sum() / math.sqrt(len(query))).exp() for key in k]
        rows.append(sum(share * value for share, value in zip(shares, v, strict=True)) / sum(shares))
    return torch.stack(rows)


def one_head_by_einsum(q, k, v):
    weights = torch.einsum("ic,jc->ij", q, k).div(torch.sqrt(torch.tensor(k.shape[1]))).softmax(1)
    return torch.einsum("ij,je->ie", weights, v)


def one_head_by_torch(q, k, v):
    return F.scaled_dot_product_attention(q[None], k[None], v[None]).squeeze(0)


def one_head_with_both_sides_scaled(q, k, v):
    quarter = q.size(1) ** 0.25
    scores = (q / quarter) @ (k / quarter).T
    grown = (scores - scores.max(dim=1, keepdim=True).values).exp()
    return grown @ v / grown.sum(1, keepdim=True)


def one_head_in_columns(q, k, v):
    return (v.T @ (k @ q.T * q.shape[1] ** -0.5).softmax(dim=0)).T


class Given(nn.Module):
    """What the notebook gives."""

    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)


class MHSAHeadByHead(Given):
    def forward(self, x, grid=None):
        q, k, v = (part.split(part.shape[-1] // self.heads, dim=-1) for part in self.qkv(x).chunk(3, dim=-1))
        return self.proj(torch.cat([attend(*head) for head in zip(q, k, v, strict=True)], dim=-1))


class MHSAByEinsum(Given):
    def forward(self, x, grid=None):
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, self.heads, -1).unbind(2)
        scores = torch.einsum("bihc,bjhc->bhij", q, k) / (x.shape[-1] / self.heads) ** 0.5
        return self.proj(torch.einsum("bhij,bjhc->bihc", scores.softmax(-1), v).flatten(2))


class MHSAByTorch(Given):
    def forward(self, x, grid=None):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class MHSAByTorchsOwnLayer(Given):
    def forward(self, x, grid=None):
        dim, none = x.shape[-1], torch.zeros(0, dtype=x.dtype)
        tokens_first = x.transpose(0, 1)
        mixed, _ = F.multi_head_attention_forward(
            *[tokens_first] * 3, dim, self.heads, self.qkv.weight, none.new_zeros(3 * dim), None, None, False, 0.0,
            self.proj.weight, self.proj.bias, training=False, need_weights=False,
        )  # fmt: skip
        return mixed.transpose(0, 1)


class MHSAWithTheWeightsCut(Given):
    def forward(self, x, grid=None):
        width = x.shape[-1] // self.heads
        q, k, v = self.qkv.weight.reshape(3, self.heads, width, -1)
        out = self.proj.bias
        for h in range(self.heads):
            mixed = attend(x @ q[h].T, x @ k[h].T, x @ v[h].T)
            out = out + mixed @ self.proj.weight[:, h * width : (h + 1) * width].T
        return out


def entropy_by_where(w):
    logs = torch.where(w > 0, w, torch.ones_like(w)).log()
    return -(w * logs).sum(dim=-1)


def entropy_by_xlogy(w):
    return -torch.xlogy(w, w).sum(-1)


def entropy_by_distributions(w):
    return torch.distributions.Categorical(probs=w).entropy()


def entropy_by_loops(w):
    rows = [-sum(p * p.log() for p in row if p > 0) for row in w.reshape(-1, w.shape[-1])]
    return torch.stack(rows).reshape(w.shape[:-1])


def entropy_by_nansum(w):
    return -(w * w.log()).nansum(-1)


def entropy_with_nan_taken_out(w):
    return -torch.nan_to_num(w * w.log(), nan=0.0).sum(-1)


def entropy_with_a_tiny_number(w):
    return -(w * (w + 1e-12).log()).sum(-1)


RIGHT = [
    *((ONE_HEAD, answer) for name, answer in list(globals().items()) if name.startswith("one_head_")),
    *((ALL_HEADS, answer) for name, answer in list(globals().items()) if name.startswith("MHSA")),
    *((ENTROPY, answer) for name, answer in list(globals().items()) if name.startswith("entropy_")),
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


def test_the_numbers_by_hand():
    q, k, v = by_hand()
    assert torch.allclose(attend(q, k, v, result="weights"), torch.tensor([[0.25, 0.25, 0.5]], dtype=q.dtype))
    assert torch.allclose(attend(q, k, v), torch.tensor([[2, 5]], dtype=q.dtype))
    assert torch.allclose(attend(q, k, v, root="none"), torch.tensor([[2, 6]], dtype=q.dtype))


def test_weights_go_both_ways_with_the_package_s():
    x = torch.randn(2, 6, 12)
    assert exchange(MHSAByEinsum, attention.MHSA, build={"dim": 12, "heads": 3}, inputs=(x, (2, 3))).passed


def test_weights_of_another_name_and_an_unsolved_class_are_named():
    class Renamed(MHSAByEinsum):
        def __init__(self, dim, heads):
            super().__init__(dim, heads)
            self.out = self.proj
            del self.proj

    class Unsolved(Given):
        def forward(self, x, grid=None):
            raise NotImplementedError()

    assert "the weights do not fit: only the package has: proj.weight, proj.bias" in str(examine(ALL_HEADS, Renamed))
    assert examine(ALL_HEADS, Unsolved).status == "not done yet"
