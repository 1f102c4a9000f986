"""The engine of the checks, on small exercises made for it: what it says to whom."""

import numpy as np
import pytest
import torch
from torch import nn

from spvit_course.checks.engine import Case, Exercise, Property, Trial, examine, is_equal


def halve(values):
    return values / 2


def cases(generator):
    shapes = [(3,), (2, 3), (1,), (4, 4)]
    return [Case(f"shape {shape}", (torch.randn(shape, dtype=torch.float64, generator=generator),)) for shape in shapes]


def scaled(values, factor=0.5):
    return factor * values


def one_axis_only(values):
    if values.ndim > 1:
        raise ValueError("one axis only")
    return values / 2


def doubled_where_square(values):
    square = values.ndim == 2 and values.shape[0] == values.shape[1]
    return values * 2 if square else values / 2


HALVE = Exercise(
    name="halve",
    solution=halve,
    cases=cases,
    answer=scaled,
    mistakes={
        "doubled": ("it doubles.", {"factor": 2}),
        "one axis": ("it knows one axis only.", one_axis_only),
        "doubled where square": ("squares are doubled.", doubled_where_square),
    },
    properties=(
        Property(
            "whole numbers too",
            "whole numbers are refused.",
            lambda answer: answer(torch.tensor([2])).tolist() == [1.0],
        ),
    ),
)


@pytest.fixture
def unlisted():
    return Exercise("halve", halve, cases)


def test_right_answers_pass_and_say_what_was_looked_at():
    result = examine(HALVE, lambda values: 0.5 * values)
    assert str(result) == "PASS halve: 4 shapes, whole numbers too, gradients"
    assert result.passed


def test_the_stub_is_not_done_yet():
    def stub(values):
        raise NotImplementedError()

    result = examine(HALVE, stub)
    assert (result.status, result.passed) == ("not done yet", False)
    assert str(result) == "not done yet halve: write your answer where the cell says YOUR CODE HERE."


def test_what_torch_does_not_implement_is_an_error_like_others():
    def answer(values):
        raise NotImplementedError("no such kernel")

    result = examine(HALVE, answer)
    assert result.status == "NOT YET" and "NotImplementedError: no such kernel" in str(result)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("mistake", HALVE.bank, ids=lambda mistake: mistake.name)
def test_a_known_mistake_gets_its_hint(mistake, seed):
    result = examine(HALVE, mistake.answer, seed=seed)
    assert result.status == "NOT YET"
    assert result.mistake == mistake.name and mistake.hint in result.lines
    assert len(result.lines) <= 3


def test_a_mistake_that_fits_on_some_cases_only_gets_no_hint():
    result = examine(HALVE, lambda values: values * 2 if values.ndim == 1 else values / 3)
    assert result.status == "NOT YET" and result.mistake is None


def test_a_trial_that_was_made_before_gives_the_same_result_and_computes_no_mistake_twice():
    calls = []

    def count(values):
        calls.append(values)
        return values + 1

    exercise = Exercise("halve", halve, cases, scaled, HALVE.mistakes | {"one more": ("one more.", count)})
    trial = Trial(exercise, seed=3)
    for answer in (lambda values: values + 1, lambda values: values + 1, lambda values: values * 2, halve):
        result = examine(exercise, answer, trial=trial)
        assert len(calls) <= len(trial.cases)
        before = len(calls)
        assert result == examine(exercise, answer, seed=3)
        del calls[before:]
    assert len(calls) == len(trial.cases)


def test_outcomes_are_equal_to_nine_digits_and_errors_to_errors():
    one = torch.tensor([1.0, torch.nan], dtype=torch.float64)
    assert is_equal(one, one + 1e-11) and not is_equal(one, one + 1e-7)
    assert not is_equal(one, one.float()) and not is_equal(one, one[:1]) and not is_equal(one, ValueError())
    assert not is_equal(None, ValueError()) and not is_equal(NameError("the size"), IndexError("too many indices"))
    assert is_equal(KeyError("a"), KeyError("b")) and is_equal(ValueError("sizes differ"), RuntimeError("the shape"))


def test_two_mistakes_that_fit_give_no_hint():
    twice = {"also doubled": ("again.", lambda values: values + values)}
    exercise = Exercise("halve", halve, cases, scaled, HALVE.mistakes | twice)
    assert examine(exercise, lambda values: values * 2).mistake is None


def test_the_first_difference_is_told(unlisted):
    def answer(values):
        result = values / 2
        if values.ndim == 2:
            result = result + torch.tensor([0.0, 0.0, 1.0, 0.0], dtype=torch.float64)[: values.shape[1]]
        return result

    lines = examine(unlisted, answer).lines
    values = cases(torch.Generator().manual_seed(0))[1].arguments[0][0, 2].item() / 2
    assert lines[0] == "different from the expected values for shape (2, 3): 2 of 6 values differ."
    assert lines[1] == f"First at [0, 2]: {values:.4g} expected, {values + 1:.4g} returned."


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda values: None, "it returns None, not a torch.Tensor. Is the `return` missing?"),
        (lambda values: np.asarray(values) / 2, "it returns a ndarray, not a torch.Tensor"),
        (lambda values: [values], "it returns a list, not a torch.Tensor"),
        (lambda values: (values / 2).float(), "it returns torch.float32 for an input of torch.float64"),
        (lambda values: (values / 2)[None], "the shape differs for shape (3,): (3,) expected, (1, 3) returned"),
        (lambda values: values.div_(2), "it changes its input in place"),
        (lambda values: values.detach() / 2, "the values are right, but no gradient comes back"),
        (
            lambda values: values / 4 + values.detach() / 4,
            "the values are right, but the gradients differ for shape (3,)",
        ),
        (lambda values: halve(values), "it calls the package's own solution"),
        (lambda values: torch.full_like(values, torch.nan), "different from the expected values"),
        (lambda values: values.mul(0.5) if values.is_floating_point() else values, "whole numbers are refused."),
        (lambda values, more: values, "TypeError: "),
        (lambda values: exit(3), "SystemExit: 3"),
        (torch.ones(2), "this is a Tensor, not a function or class"),
    ],
)
def test_other_faults_are_told_for_what_they_are(unlisted, answer, says):
    exercise = HALVE if "whole" in says else unlisted
    result = examine(exercise, answer)
    assert result.status == "NOT YET"
    assert result.lines[0].startswith(says), result.lines
    assert result.mistake is None
    assert len(str(result).splitlines()) <= 3


@pytest.mark.parametrize("unused", [lambda a, b: a / 2, lambda a, b: a / 2 + 0 * b, lambda a, b: a / 2 + (b - b).sum()])
@pytest.mark.parametrize("solution", [lambda a, b: a / 2, lambda a, b: a / 2 + 0 * b])
def test_an_argument_times_0_has_the_gradient_of_one_that_is_not_used(unused, solution):
    def two_arguments(generator):
        return [Case("two", tuple(torch.randn(2, 3, dtype=torch.float64, generator=generator)))]

    exercise = Exercise("halve", solution, two_arguments)
    assert examine(exercise, unused).passed
    assert "Was a part detached?" in str(examine(exercise, lambda a, b: a.detach() / 2 + 0 * b))


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda values: values[::-1], None),
        (lambda values: values.halve(), None),
        (lambda values: {}["half"], None),
        (lambda values: values @ torch.eye(7, dtype=torch.float64), "look at the axes."),
        (lambda values: values.reshape(5, 7), "look at the axes."),
        (lambda values: values[9], "look at the axes."),
        (lambda values: values.flatten() @ torch.ones(values.numel()), "are given a dtype."),
    ],
)
def test_an_error_comes_first_and_a_hint_only_where_it_is_about_the_same(answer, hint):
    result = examine(Exercise("halve", halve, cases, scaled, HALVE.mistakes, shape_hint="look at the axes."), answer)
    assert result.mistake is None and "Error: " in result.lines[0]
    assert result.lines[-1] == "That was for shape (3,)."
    assert len(result.lines) == 2 if hint is None else result.lines[1].endswith(hint)


def test_a_variable_that_hides_a_function_of_python_is_named(unlisted):
    names = {"torch": torch, "sum": 3}
    exec("def answer(values):\n    return torch.stack([sum([row]) / 2 for row in values])", names)
    says = "TypeError: 'int' object is not callable (line 2): the notebook has a variable `sum`, which hides Python's: `del sum`"
    assert examine(unlisted, names["answer"]).lines[0] == says
    del names["sum"]
    assert examine(unlisted, names["answer"]).passed


def test_a_mistake_that_raises_is_no_hint_for_an_error_of_another_kind():
    """`one axis` is right for one axis, and raises elsewhere: as does any answer with a slip in its last lines."""
    result = examine(HALVE, lambda values: values / 2 if values.ndim == 1 else value / 2)  # noqa: F821
    assert (result.mistake, result.lines[0][:44]) == (None, "NameError: name 'value' is not defined (line")


def test_an_error_is_told_with_the_line_of_the_students_own_code(unlisted):
    def answer(values):
        wide = values.reshape(-1)
        return wide @ torch.zeros(7, dtype=torch.float64)

    first = examine(unlisted, answer).lines[0]
    line = answer.__code__.co_firstlineno + 2
    assert first.startswith("RuntimeError: ")
    assert first.endswith(f"(line {line}: return wide @ torch.zeros(7, dtype=torch.float64))")


def test_an_error_on_some_shapes_is_told_with_the_shape(unlisted):
    result = examine(unlisted, lambda values: values / 2 if values.ndim == 1 else values.squash())
    assert result.lines[0].startswith("AttributeError: 'Tensor' object has no attribute 'squash'")
    assert result.lines[1] == "That was for shape (2, 3)."


def test_an_endless_loop_is_stopped(unlisted):
    def answer(values):
        while True:
            pass

    result = examine(unlisted, answer, seconds=0.1)
    assert result.lines == ("stopped after 0.1 seconds. Is there a loop that never ends?",)
    assert halve(torch.ones(1)).item() == 0.5


def test_an_error_on_the_way_to_the_gradients_is_told(unlisted):
    def answer(values):
        return torch.from_numpy(values.numpy()) / 2  # refused by torch only where a gradient is asked for

    result = examine(unlisted, answer)
    assert result.lines[0] == "the values are right, but there is an error on the way to the gradients."
    assert result.lines[1].startswith("RuntimeError: ")


def test_the_notebooks_random_numbers_are_left_alone(unlisted):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    examine(unlisted, lambda values: torch.rand_like(values))
    assert torch.equal(torch.rand(3), expected)


def test_the_solution_is_in_reach_again_afterwards(unlisted):
    for answer in (halve, lambda values: exit(), lambda values: None):
        examine(unlisted, answer)
        assert halve(torch.ones(2)).tolist() == [0.5, 0.5]


class Scale(nn.Module):
    """The package's class in the test below."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, values):
        return values * self.weight


def test_an_exercise_on_a_class_is_built_and_called():
    class Right(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(width))

        def forward(self, values):
            return torch.einsum("bn,n->bn", values, self.weight)

    class Shifted(Right):
        def forward(self, values):
            return values + self.weight

    class Inherited(Scale):
        pass

    def call(kind, weight, values):
        return torch.func.functional_call(kind(len(weight)), {"weight": weight}, (values,))

    def draw_cases(generator):
        def draw(*shape):
            return torch.randn(shape, dtype=torch.float64, generator=generator)

        return [Case("width 3", (draw(3), draw(2, 3))), Case("width 1", (draw(1), draw(1, 1)))]

    exercise = Exercise("Scale", Scale, draw_cases, mistakes={"added": ("it adds.", Shifted)}, call=call)
    assert examine(exercise, Right).passed
    assert examine(exercise, Shifted).mistake == "added"
    assert "calls the package's own solution" in str(examine(exercise, Inherited))
    assert examine(exercise, Right).passed
