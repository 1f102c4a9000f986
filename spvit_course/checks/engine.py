"""The engine of the checks: compares an answer with the package and says what is wrong, never what is right.

A check computes the expected values first, in float64 on the CPU, on several random shapes; then the package's own
solution is out of reach and the answer runs on the same inputs; then come properties, then gradients. A wrong answer is
compared with a bank of known mistakes. A hint is given only where exactly one of them gives the answer's numbers on
*all* cases; each mistake differs from the right answer on some of them (the informative ones), which tests make sure
of. Otherwise the check says where the first difference is. An error of the answer itself is quoted before any hint.
Settings of the notebook, such as a default dtype, have no influence, and are as before afterwards (settings.py).

An exercise is data: see `Exercise`, and lesson_00/ for two of them.
"""

import builtins
import inspect
import linecache
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor, nn

import spvit_mini

from .resource_limits import OutOfReach, TookTooLong, hide_solution, limit_time
from .settings import fixed_settings

TIME_LIMIT = 20.0  # seconds, for all calls of one check together
TOLERANCE = 1e-9  # absolute and relative, in float64
# What messages of torch, NumPy, einops and Python say about shapes and indices, and about types.
SHAPES = re.compile(r"\b((batch_)?sizes?|shapes?|dims?|dimensions?|ind(ex|ices)|broadcast|mat1|unpack|elements|numel|axis)\b")
TYPES = re.compile(r"\b(dtypes?|scalar type|data type)\b")
TYPES_HINT = (
    "types don't fit. Real inputs are torch.float64 here; torch.eye, torch.zeros and torch.ones make torch.float32, and "
    "torch.arange makes integers, unless they are given a dtype."
)


@dataclass(frozen=True)
class Case:
    """One call of the answer: its name in messages, and its arguments. Tensors are float64 where they are real."""

    label: str
    arguments: tuple


@dataclass(frozen=True)
class Mistake:
    """A known mistake: a short name, a hint that says where to look, and an answer that makes the mistake.

    One entry stands for all answers that give the same numbers, so two entries must differ on some case, and none may
    be right on all or raise on all (tests make sure of it). Where a mistake raises, an answer that makes it raises too.
    """

    name: str
    hint: str
    answer: Callable


@dataclass(frozen=True)
class Property:
    """Something that holds for every right answer and that the cases do not show: `holds(answer)` is True or False."""

    name: str  # what a passed check says
    hint: str  # what a failed one says
    holds: Callable[[Callable], bool]


@dataclass(frozen=True, eq=False)
class Exercise:
    """An exercise: its name, the package's solution, cases from a random generator, known mistakes, properties.

    `answer` is right as it stands, and has options. `mistakes` maps a name to a hint and to the options that make the
    mistake, or to an answer of its own. `call(answer, *arguments)` makes the call and returns a tensor; an exercise on a
    class builds it there. `gradients` says whether gradients with respect to all real tensors among the arguments are
    compared. `shape_hint` follows errors about shapes or indices that no known mistake explains.
    """

    name: str
    solution: Callable
    cases: Callable[[torch.Generator], Sequence[Case]]
    answer: Callable | None = None
    mistakes: Mapping[str, tuple[str, Mapping | Callable]] = field(default_factory=dict)
    properties: tuple[Property, ...] = ()
    gradients: bool = True
    shape_hint: str | None = None
    call: Callable[..., Tensor] = field(default=lambda answer, *arguments: answer(*arguments))

    @cached_property
    def bank(self) -> tuple[Mistake, ...]:
        """Compose the known mistakes: the answer, with the options of each."""
        return tuple(
            Mistake(name, hint, change if callable(change) else partial(self.answer, **change))
            for name, (hint, change) in self.mistakes.items()
        )


@dataclass(frozen=True)
class Result:
    """The result of a check: one to three lines of text. `mistake` names the known mistake, where there is one."""

    exercise: str
    status: str  # "PASS", "NOT YET" or "not done yet"
    lines: tuple[str, ...]
    mistake: str | None = None

    @property
    def passed(self) -> bool:
        return self.status == "PASS"

    def __str__(self) -> str:
        first, *rest = self.lines
        return "\n".join([f"{self.status} {self.exercise}: {first}", *(f"  {line}" for line in rest)])


class CheckFailed(AssertionError):
    """Fail a graded cell, with the check's own words."""


class Verdict(Exception):
    """End a check early: what it would say."""

    def __init__(self, *lines: str, status: str = "NOT YET", mistake: str | None = None):
        super().__init__(*lines)
        self.status, self.lines, self.mistake = status, lines, mistake


class Trial:
    """An exercise on the cases of one seed: what is expected, and what known mistakes give, computed when first needed."""

    def __init__(self, exercise: Exercise, seed: int = 0):
        self.exercise = exercise
        self.cases = exercise.cases(torch.Generator().manual_seed(seed))
        self.expected = [exercise.call(exercise.solution, *copy_tensors(case.arguments)) for case in self.cases]
        with_gradients = self.cases if exercise.gradients else []
        self.gradients = [compute_gradients(exercise, exercise.solution, case) for case in with_gradients]
        self._outcomes: dict[tuple[str, int], Tensor | BaseException] = {}

    def outcome(self, mistake: Mistake, number: int) -> Tensor | BaseException:
        """Return what a known mistake gives on a case."""
        key = mistake.name, number
        if key not in self._outcomes:
            self._outcomes[key] = compute_outcome(self.exercise, mistake.answer, self.cases[number])
        return self._outcomes[key]

    def is_right(self, outcomes: Sequence) -> bool:
        """Tell whether outcomes on all cases are the expected ones."""
        return all(is_equal(ours, theirs) for ours, theirs in zip(self.expected, outcomes, strict=True))


def examine(
    exercise: Exercise, answer: Callable, *, seed: int = 0, seconds: float = TIME_LIMIT, trial: Trial | None = None
) -> Result:
    """Check an answer.

    `seed` decides the shapes and values of the cases; `seconds` is the time for all calls of the answer. A `trial` of
    the exercise that was made before saves its computations, and replaces the seed.
    """
    try:
        if not callable(answer):
            raise Verdict(f"this is {name_type(answer)}, not a function or class. Was its name used for something else?")
        if isinstance(answer, nn.Module) and inspect.isclass(exercise.answer):
            raise Verdict("this is an object, made by a class already. Pass the class itself, without brackets.")
        with fixed_settings():
            trial = trial or Trial(exercise, seed)
            with hide_solution(exercise.solution), limit_time(seconds):
                outcomes = [call_answer(exercise, answer, case) for case in trial.cases]
                is_right = trial.is_right(outcomes)
                if is_right:
                    for expected in exercise.properties:
                        check_property(expected, answer)
                    for case, ours in zip(trial.cases, trial.gradients, strict=False):
                        check_gradients(exercise, answer, case, ours)
        if not is_right:
            with fixed_settings():  # the answer may have changed them
                raise diagnose(trial, outcomes)
    except TookTooLong:
        lines = (f"stopped after {seconds:g} seconds. Is there a loop that never ends?",)
        return Result(exercise.name, "NOT YET", lines)
    except Verdict as verdict:
        return Result(exercise.name, verdict.status, verdict.lines, verdict.mistake)
    extras = [expected.name for expected in exercise.properties] + ["gradients"] * exercise.gradients
    return Result(exercise.name, "PASS", (", ".join([f"{len(trial.cases)} shapes", *extras]),))


# What an answer gives ---------------------------------------------------------------------------------------------------


def copy_tensors(arguments: tuple) -> tuple:
    """Copy the tensors among the arguments, so that nobody else sees what is done to them."""
    return tuple(value.clone() if isinstance(value, Tensor) else value for value in arguments)


def call_answer(exercise: Exercise, answer: Callable, case: Case) -> Tensor | BaseException:
    """Call the answer on a case: the tensor it returns, or the error it raises. What is no tensor ends the check."""
    arguments = copy_tensors(case.arguments)
    try:
        output = exercise.call(answer, *arguments)
    except (Exception, SystemExit) as error:
        return as_outcome(error)
    for before, after in zip(case.arguments, arguments, strict=True):
        if isinstance(before, Tensor) and not is_equal(before, after):
            raise Verdict("it changes its input in place. Whoever called it still needs that: make a new tensor.")
    require_type(output, Tensor, "a torch.Tensor")
    if output.device.type != "cpu" or output.layout != torch.strided:
        kind = f"on the device {output.device}" if output.layout == torch.strided else f"with the layout {output.layout}"
        raise Verdict(f"it returns a tensor {kind}. Return an ordinary tensor on the CPU, where the input is.")
    return output.detach()


def require_type(output, kind: type | tuple[type, ...], name: str, *, what: str = "it returns") -> None:
    """Raise a verdict if an answer's output is not of a type, which messages call `name`."""
    if not isinstance(output, kind):
        forgotten = " Is the `return` missing?" if output is None and what == "it returns" else ""
        raise Verdict(f"{what} {name_type(output)}, not {name}.{forgotten}")


def as_outcome(error: BaseException) -> BaseException:
    """Return an error that the answer raised as an outcome, unless it ends the check by itself."""
    if isinstance(error, Verdict):
        raise error
    if isinstance(error, NotImplementedError) and not error.args:
        raise Verdict("write your answer where the cell says YOUR CODE HERE.", status="not done yet") from None
    if isinstance(error, OutOfReach):
        raise Verdict("it calls the package's own solution. Write it yourself: that is the exercise.") from None
    return error


def compute_gradients(exercise: Exercise, answer: Callable, case: Case) -> list[Tensor] | None:
    """Differentiate a random sum of the answer by each real tensor among the arguments; None if no gradient flows.

    An argument that the answer does not use has the gradient 0, as one that is multiplied by 0.
    """
    arguments = [
        value.requires_grad_() if isinstance(value, Tensor) and value.is_floating_point() else value
        for value in copy_tensors(case.arguments)
    ]
    output = exercise.call(answer, *arguments)
    if not output.requires_grad:
        return None
    mix = torch.randn(output.shape, dtype=output.dtype, generator=torch.Generator().manual_seed(1))
    leaves = [value for value in arguments if isinstance(value, Tensor) and value.requires_grad]
    return list(torch.autograd.grad((output * mix).sum(), leaves, allow_unused=True, materialize_grads=True))


def is_equal(one, other) -> bool:
    """Tell whether two outcomes are equal: tensors of equal shape, type and values, or errors of the same kind."""
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        both_errors = isinstance(one, BaseException) and isinstance(other, BaseException)
        return both_errors and (type(one) is type(other) or is_about_shapes(one) and is_about_shapes(other))
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.equal(one, other) or torch.allclose(one, other, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)


def is_about_shapes(error: BaseException) -> bool:
    """Tell whether an error is about shapes or indices that do not fit together."""
    text = str(error).lower()
    return isinstance(error, IndexError | RuntimeError | ValueError) and bool(SHAPES.search(text)) and not TYPES.search(text)


# What is said about it --------------------------------------------------------------------------------------------------


def diagnose(trial: Trial, outcomes: Sequence) -> Verdict:
    """Decide what to say about a wrong answer: the hint of the one mistake that fits everywhere, and the first difference.

    If the answer raised an error, the error comes first, and a hint on shapes follows only if the error is about them.
    """
    difference = describe_difference(trial.cases, trial.expected, outcomes)
    fitting = [
        mistake
        for mistake in trial.exercise.bank
        if all(is_equal(trial.outcome(mistake, number), theirs) for number, theirs in enumerate(outcomes))
    ]
    raised = [theirs for theirs in outcomes if isinstance(theirs, BaseException)]
    hint, mistake = None, None
    if len(fitting) == 1:
        hint, mistake = fitting[0].hint, fitting[0].name
    elif raised and is_about_shapes(raised[0]):
        hint = trial.exercise.shape_hint
    elif raised and TYPES.search(str(raised[0])):
        hint = TYPES_HINT
    lines = [*difference[:1], hint, *difference[1:]] if raised else [hint, *difference]
    return Verdict(*[line for line in lines if line][:3], mistake=mistake)


def compute_outcome(exercise: Exercise, answer: Callable, case: Case) -> Tensor | BaseException:
    """Call a trusted answer, such as one of the bank: its tensor or its error."""
    try:
        return exercise.call(answer, *copy_tensors(case.arguments)).detach()
    except Exception as error:
        return error


def describe_difference(cases: Sequence[Case], expected: Sequence[Tensor], outcomes: Sequence) -> tuple[str, ...]:
    """Describe the first difference, in values where possible, else the first error."""
    triples = list(zip(cases, expected, outcomes, strict=True))
    wrong = [triple for triple in triples if not is_equal(*triple[1:])]
    raised = [triple for triple in wrong if isinstance(triple[2], BaseException)]
    case, ours, theirs = (raised or wrong)[0]
    if isinstance(theirs, BaseException):
        return (f"{describe_error(theirs)}", f"That was for {case.label}.")
    if theirs.shape != ours.shape:
        shapes = f"{tuple(ours.shape)} expected, {tuple(theirs.shape)} returned"
        advice = []
        if theirs.shape == (*ours.shape, 1):
            advice = ["The last axis is left over, with length 1. Was the sum told to keep it?"]
        elif theirs.ndim > ours.ndim and theirs.numel() == ours.numel():
            advice = ["Axes are still split: a last reshape is missing."]
        return (f"the shape differs for {case.label}: {shapes}.", *advice)
    if theirs.dtype != ours.dtype:
        return (f"it returns {theirs.dtype} for an input of {ours.dtype}: keep the type of the input.",)
    differs = ~torch.isclose(theirs, ours, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
    index = tuple(differs.nonzero()[0].tolist())
    values = "{} expected, {} returned".format(*format_distinct(ours[index], theirs[index]))
    share = f"{int(differs.sum())} of {differs.numel()} values differ"
    lines = [f"different from the expected values for {case.label}: {share}.", f"First at {list(index)}: {values}."]
    axes = range(ours.ndim) if ours.ndim > 1 and theirs.isfinite().all() else ()
    repeated = [axis for axis in axes if is_repeated(theirs, axis) and not is_repeated(ours, axis)]
    if repeated:
        lines.append(
            f"All entries along axis {repeated[0]} are the same. If a loop collects them: is it one tensor each time, which is "
            "changed later? Then each needs a copy of its own (`.clone()`)."
        )
    return tuple(lines)


def is_repeated(values: Tensor, axis: int) -> bool:
    """Tell whether all entries along an axis are equal, and there are several."""
    return values.shape[axis] > 1 and is_equal(values, values.narrow(axis, 0, 1).expand_as(values))


def check_property(expected: Property, answer: Callable) -> None:
    """Raise a verdict if a property does not hold, or the answer raises an error on the way."""
    try:
        holds = expected.holds(answer)
    except (Exception, SystemExit) as error:
        raise Verdict(expected.hint, describe_error(as_outcome(error))) from None
    if not holds:
        raise Verdict(expected.hint)


def check_gradients(exercise: Exercise, answer: Callable, case: Case, expected: list[Tensor | None] | None) -> None:
    """Raise a verdict if the gradients of an answer whose values are right differ from the expected ones."""
    try:
        gradients = compute_gradients(exercise, answer, case)
    except (Exception, SystemExit) as error:
        where = describe_error(as_outcome(error))
        raise Verdict("the values are right, but there is an error on the way to the gradients.", where) from None
    if expected is None:
        return
    label = case.label
    if gradients is None:
        if any(value.count_nonzero() for value in expected):
            raise Verdict("the values are right, but no gradient comes back. Was a tensor detached, or taken out of torch?")
    elif any(not theirs.isfinite().all() for theirs in gradients):
        raise Verdict(f"the values are right, but gradients are not finite for {label}: is there a root or logarithm of 0?")
    elif not all(is_equal(ours, theirs) for ours, theirs in zip(expected, gradients, strict=True)):
        raise Verdict(f"the values are right, but the gradients differ for {label}. Was a part detached?")


def describe_error(error: BaseException) -> str:
    """Say in one line which error was raised, and where in the student's own code."""
    message = " ".join(str(error).split())
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    text = text if len(text) <= 240 else text[:237] + "..."
    frame, line = find_own_line(error)
    hidden = [name for name in frame.f_code.co_names if name in frame.f_globals and hasattr(builtins, name)] if frame else []
    if hidden and isinstance(error, TypeError):
        return f"{text} (line {line}): the notebook has a variable `{hidden[0]}`, which hides Python's: `del {hidden[0]}`"
    return f"{text} (line {line})" if line else text


def find_own_line(error: BaseException) -> tuple[FrameType | None, str | None]:
    """Find the last line of a traceback that stands in the student's code: its frame, and its number and text."""
    others = [Path(torch.__file__).parents[1], Path(os.__file__).parent]
    others += [Path(spvit_mini.__file__).parent, Path(__file__).parents[1]]
    if isinstance(error, SyntaxError):
        return None, None
    frame, line, step = None, None, error.__traceback__
    while step is not None:
        name = step.tb_frame.f_code.co_filename
        if not any(Path(name).is_relative_to(folder) for folder in others):
            text = linecache.getline(name, step.tb_lineno, step.tb_frame.f_globals).strip()
            frame, line = step.tb_frame, f"{step.tb_lineno}: {text}" if text else str(step.tb_lineno)
        step = step.tb_next
    return frame, line


def name_type(value) -> str:
    """Name a value's type in a sentence: "a list", "an int", "None"."""
    name = type(value).__name__
    if value is None:
        return "None"
    return f"an {name}" if name[0].lower() in "aeiou" else f"a {name}"


def format_distinct(*values: Tensor) -> list[str]:
    """Write numbers with four digits, or with as many digits as make them distinct."""
    for digits in range(4, 18):
        written = [f"{value.item():.{digits}g}" for value in values]
        if len(set(written)) == len(values):
            break
    return written
