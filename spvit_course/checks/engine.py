"""The engine of the checks: compares an answer with the package and says what is wrong, never what is right.

A check asks for the expected values first, in float64 on the CPU, on several random shapes; then the package's own
solution is out of reach and the answer runs on the same inputs; then come properties, then gradients. A wrong answer is
compared with a bank of known mistakes. A hint is given only where exactly one of them gives the answer's numbers on
*all* cases; each mistake differs from the right answer on some of them (the informative ones), which tests make sure
of. Otherwise the check says where the first difference is.

An exercise is data: see `Exercise`, and lesson_00.py for two of them.
"""

import linecache
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

import spvit_mini

from .resource_limits import OutOfReach, TookTooLong, out_of_reach, time_limit

SECONDS = 20.0  # for all calls of one check together
CLOSE = 1e-9  # absolute and relative, in float64


@dataclass(frozen=True)
class Case:
    """One call of the answer: its arguments, and how messages name them. Tensors are float64 where they are real."""

    label: str
    arguments: tuple


@dataclass(frozen=True)
class Mistake:
    """A known mistake: a short name, a hint that says where to look, and an answer that makes the mistake.

    One entry stands for all ways to the same numbers, so two entries must differ on some case, and none may be right
    on all or raise on all (tests see to it). Where a mistake raises, an answer that makes it raises too.
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


@dataclass(frozen=True)
class Exercise:
    """An exercise: its name, the package's solution, cases from a random generator, known mistakes, properties.

    `call(answer, *arguments)` makes the call and returns a tensor; an exercise on a class builds it there. `gradients`
    says whether gradients with respect to all real tensors among the arguments are compared. `stumble` is said where an
    answer raises an error about shapes or indices that no known mistake explains.
    """

    name: str
    solution: Callable
    cases: Callable[[torch.Generator], Sequence[Case]]
    mistakes: tuple[Mistake, ...]
    properties: tuple[Property, ...] = ()
    gradients: bool = True
    stumble: str | None = None
    call: Callable[..., Tensor] = field(default=lambda answer, *arguments: answer(*arguments))


@dataclass(frozen=True)
class Result:
    """What a check found: one to three lines of text. `mistake` names the known mistake, where there is one."""

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


def examine(exercise: Exercise, answer: Callable, *, seed: int = 0, seconds: float = SECONDS) -> Result:
    """Check an answer. `seed` decides the shapes and values of the cases; `seconds` is the time for all its calls."""
    cases = exercise.cases(torch.Generator().manual_seed(seed))
    expected = [exercise.call(exercise.solution, *copied(case.arguments)) for case in cases]
    slopes = [gradients(exercise, exercise.solution, case) for case in cases] if exercise.gradients else []
    try:
        if not callable(answer):
            raise Verdict(f"this is {article(answer)}, not a function or class. Was its name used for something else?")
        with torch.random.fork_rng(devices=[]), out_of_reach(exercise.solution), time_limit(seconds):
            found = [ask(exercise, answer, case) for case in cases]
            wrong = not all(same(ours, theirs) for ours, theirs in zip(expected, found, strict=True))
            if not wrong:
                for held in exercise.properties:
                    see_property(held, answer)
                for case, ours in zip(cases, slopes, strict=False):
                    see_gradients(exercise, answer, case, ours)
        if wrong:
            raise diagnosis(exercise, cases, expected, found)
    except TookTooLong:
        lines = (f"stopped after {seconds:g} seconds. Is there a loop that never ends?",)
        return Result(exercise.name, "NOT YET", lines)
    except Verdict as verdict:
        return Result(exercise.name, verdict.status, verdict.lines, verdict.mistake)
    extras = [held.name for held in exercise.properties] + ["gradients"] * exercise.gradients
    return Result(exercise.name, "PASS", (", ".join([f"{len(cases)} shapes", *extras]),))


# What an answer gives ---------------------------------------------------------------------------------------------------


def copied(arguments: tuple) -> tuple:
    """Copy the tensors among the arguments, so that nobody else sees what is done to them."""
    return tuple(value.clone() if isinstance(value, Tensor) else value for value in arguments)


def ask(exercise: Exercise, answer: Callable, case: Case) -> Tensor | BaseException:
    """Call the answer on a case: the tensor it returns, or the error it raises. What is no tensor ends the check."""
    arguments = copied(case.arguments)
    try:
        found = exercise.call(answer, *arguments)
    except (Exception, SystemExit) as error:
        return final_or_error(error)
    for before, after in zip(case.arguments, arguments, strict=True):
        if isinstance(before, Tensor) and not same(before, after):
            raise Verdict("it changes its input in place. Whoever called it still needs that: make a new tensor.")
    if not isinstance(found, Tensor):
        forgotten = " Is the `return` missing?" if found is None else ""
        raise Verdict(f"it returns {article(found)}, not a torch.Tensor.{forgotten}")
    return found.detach()


def final_or_error(error: BaseException) -> BaseException:
    """Return an error that the answer raised as an outcome, unless it ends the check by itself."""
    if isinstance(error, Verdict):
        raise error
    if isinstance(error, NotImplementedError) and not error.args:
        raise Verdict("write your answer where the cell says YOUR CODE HERE.", status="not done yet") from None
    if isinstance(error, OutOfReach):
        raise Verdict("it calls the package's own solution. Write it yourself: that is the exercise.") from None
    return error


def gradients(exercise: Exercise, answer: Callable, case: Case) -> list[Tensor | None] | None:
    """Differentiate a random sum of the answer by each real tensor among the arguments; None if no gradient flows."""
    arguments = [
        value.requires_grad_() if isinstance(value, Tensor) and value.is_floating_point() else value
        for value in copied(case.arguments)
    ]
    output = exercise.call(answer, *arguments)
    if not output.requires_grad:
        return None
    mix = torch.randn(output.shape, dtype=output.dtype, generator=torch.Generator().manual_seed(1))
    leaves = [value for value in arguments if isinstance(value, Tensor) and value.requires_grad]
    return list(torch.autograd.grad((output * mix).sum(), leaves, allow_unused=True))


def same(one, other) -> bool:
    """Tell whether two outcomes are the same: tensors of equal shape and values, or two errors."""
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return isinstance(one, BaseException) and isinstance(other, BaseException) or (one is None and other is None)
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.allclose(one, other, rtol=CLOSE, atol=CLOSE, equal_nan=True)


# What is said about it --------------------------------------------------------------------------------------------------


def diagnosis(exercise: Exercise, cases: Sequence[Case], expected: Sequence[Tensor], found: Sequence) -> Verdict:
    """Find what to say about a wrong answer: the hint of the one mistake that fits everywhere, and the first place."""
    place = first_difference(cases, expected, found)
    fitting = [
        mistake
        for mistake in exercise.mistakes
        if all(same(outcome(exercise, mistake.answer, case), theirs) for case, theirs in zip(cases, found, strict=True))
    ]
    if len(fitting) == 1:
        return Verdict(fitting[0].hint, *place[:2], mistake=fitting[0].name)
    if exercise.stumble and any(isinstance(theirs, (IndexError, RuntimeError, ValueError)) for theirs in found):
        return Verdict(exercise.stumble, *place)
    return Verdict(*place)


def outcome(exercise: Exercise, answer: Callable, case: Case) -> Tensor | BaseException:
    """Call a trusted answer, such as one of the bank: its tensor or its error."""
    try:
        return exercise.call(answer, *copied(case.arguments)).detach()
    except Exception as error:
        return error


def first_difference(cases: Sequence[Case], expected: Sequence[Tensor], found: Sequence) -> tuple[str, ...]:
    """Describe the first difference, in values where possible, else the first error."""
    pairs = list(zip(cases, expected, found, strict=True))
    wrong = [pair for pair in pairs if not same(*pair[1:])]
    raised = [pair for pair in wrong if isinstance(pair[2], BaseException)]
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
    differs = ~torch.isclose(theirs, ours, rtol=CLOSE, atol=CLOSE, equal_nan=True)
    index = tuple(differs.nonzero()[0].tolist())
    values = "{} expected, {} returned".format(*told_apart(ours[index], theirs[index]))
    share = f"{int(differs.sum())} of {differs.numel()} values differ"
    return (f"different from the expected values for {case.label}: {share}.", f"First at {list(index)}: {values}.")


def see_property(held: Property, answer: Callable) -> None:
    """Raise a verdict if a property does not hold, or the answer raises an error on the way."""
    try:
        holds = held.holds(answer)
    except (Exception, SystemExit) as error:
        raise Verdict(held.hint, describe_error(final_or_error(error))) from None
    if not holds:
        raise Verdict(held.hint)


def see_gradients(exercise: Exercise, answer: Callable, case: Case, expected: list[Tensor | None] | None) -> None:
    """Raise a verdict if the gradients of an answer whose values are right differ from the expected ones."""
    try:
        found = gradients(exercise, answer, case)
    except (Exception, SystemExit) as error:
        where = describe_error(final_or_error(error))
        raise Verdict("the values are right, but there is an error on the way to the gradients.", where) from None
    if found is None and expected is not None:
        raise Verdict("the values are right, but no gradient comes back. Was a tensor detached, or taken out of torch?")
    if expected is not None and not all(same(ours, theirs) for ours, theirs in zip(expected, found, strict=True)):
        raise Verdict(f"the values are right, but the gradients differ for {case.label}. Was a part detached?")


def describe_error(error: BaseException) -> str:
    """Say in one line which error was raised, and where in the student's own code."""
    message = " ".join(str(error).split())
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    text = text if len(text) <= 240 else text[:237] + "..."
    line = own_line(error)
    return f"{text} (line {line})" if line else text


def own_line(error: BaseException) -> str | None:
    """Find the last line of a traceback that stands in the student's code: its number and its text."""
    others = [Path(torch.__file__).parents[1], Path(os.__file__).parent]
    others += [Path(spvit_mini.__file__).parent, Path(__file__).parents[1]]
    if isinstance(error, SyntaxError):
        return None
    found, step = None, error.__traceback__
    while step is not None:
        name = step.tb_frame.f_code.co_filename
        if not any(Path(name).is_relative_to(folder) for folder in others):
            text = linecache.getline(name, step.tb_lineno, step.tb_frame.f_globals).strip()
            found = f"{step.tb_lineno}: {text}" if text else str(step.tb_lineno)
        step = step.tb_next
    return found


def article(value) -> str:
    """Name a value's type in a sentence: "a list", "an int", "None"."""
    name = type(value).__name__
    if value is None:
        return "None"
    return f"an {name}" if name[0].lower() in "aeiou" else f"a {name}"


def told_apart(*values: Tensor) -> list[str]:
    """Write numbers with four digits, or with as many as it takes to tell them apart."""
    for digits in range(4, 18):
        written = [f"{value.item():.{digits}g}" for value in values]
        if len(set(written)) == len(values):
            break
    return written
