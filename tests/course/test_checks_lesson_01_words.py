"""What lesson 01's check says of answers that students wrote, and of those that are detached, of another type, borrowed."""

from functools import partial

import pytest
import torch
from torch import nn

from spvit_course.checks.engine import examine
from spvit_course.checks.lesson_01 import ALL_HEADS, ENTROPY, ONE_HEAD
from spvit_course.checks.lesson_01_answers import attend, spread_of
from spvit_mini import attention
from spvit_mini.explain import attribution


class Turned(nn.Module):
    """Right but for one step: `turn` makes the scores' second factor of k."""

    def __init__(self, dim, heads, turn):
        super().__init__()
        self.heads, self.turn = heads, turn
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x, grid=None):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        weights = (q @ self.turn(k) / q.shape[-1] ** 0.5).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).flatten(2))


@pytest.mark.filterwarnings("ignore:The use of `x.T`")
@pytest.mark.parametrize(
    ("turn", "said"),
    [
        (lambda k: k.T, "k.mT"),
        (lambda k: k, "k must be transposed"),
        (lambda k: k.reshape(*k.shape[:2], k.shape[3], k.shape[2]), "a reshape is not a transpose"),
    ],
)
def test_a_key_that_is_not_transposed_is_named_whatever_torch_says(turn, said):
    result = examine(ALL_HEADS, partial(Turned, turn=turn))
    assert said in result.lines[0]


def test_an_axis_left_over_and_a_mask_that_forgets_the_rows_are_named():
    kept = examine(ENTROPY, lambda w: torch.special.entr(w).sum(-1, keepdim=True))
    assert "() expected, (1,) returned" in kept.lines[0] and "left over, with length 1" in kept.lines[1]
    masked = examine(ENTROPY, lambda w: -(w[w > 0] * w[w > 0].log()).sum(-1))
    assert masked.mistake == "one sum"


def test_numbers_that_differ_late_are_written_until_they_differ():
    line = examine(ENTROPY, lambda w: -(w * (w + 1e-9).log()).sum(-1)).lines[2]
    expected, returned = line.removeprefix("First at []: ").removesuffix(" returned.").split(" expected, ")
    assert expected != returned and float(expected) == pytest.approx(float(returned), abs=1e-7)


def test_a_detached_answer_and_another_type_are_refused():
    assert "no gradient comes back" in str(examine(ONE_HEAD, lambda q, k, v: attend(q, k, v).detach()))
    assert "the gradients differ" in str(examine(ENTROPY, lambda w: spread_of(w).detach()))
    for exercise, answer in ((ONE_HEAD, attend), (ENTROPY, spread_of)):
        assert "keep the type" in str(
            examine(exercise, lambda *given, answer=answer: answer(*(x.double() for x in given)))
        )


def test_the_packages_own_are_refused_by_any_name():
    class Borrowed(attention.MHSA):
        pass

    for exercise, answer in (
        (ALL_HEADS, attention.MHSA),
        (ALL_HEADS, Borrowed),
        (ENTROPY, lambda w: attribution.entropy(w)),
    ):
        assert "calls the package's own solution" in str(examine(exercise, answer))
