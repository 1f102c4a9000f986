"""All exercises of lessons and variants, one after the other: what passes, what is refused, and with which words.

The answers that an exercise has of its own stand in answers/: RIGHT (unusual right answers), NAMED (other ways to the
numbers of a known mistake), REFUSED (with words that the result holds), STUMBLING (errors about shapes or indices), and
OTHER_OPTIONS (of the right answer, that the bank may know or not).
"""

import ast
import importlib
import inspect
import itertools
import math
import random
import re
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from spvit_course import checks
from spvit_course.checks.engine import Exercise, examine, is_equal
from spvit_course.checks.variants import LESSONS_OWN
from spvit_course.classroom.variants import solution_name
from spvit_course.lessons import lesson_files, read

from .answers import variants
from .bank import EXERCISES, LESSONS, VARIED, change_outcome, is_same, list_outcomes, make_trial

SEEDS = range(4)
ALL = EXERCISES | VARIED
MODULES = {f"{lesson} ": importlib.import_module(f".answers.lesson_{lesson}", __package__) for lesson in LESSONS}
MODULES[""] = variants  # whose tables hold whole keys
PAIRS = 60  # of an exercise's mistakes; there are up to 700
SLOW = {"01 MHSA", "02 ViT", "04 RelativeBias", "08 SPSA"}  # pairs of their mistakes


def each(keys: Iterable[str], slow: Iterable[str] = ()) -> pytest.MarkDecorator:
    """Parametrise a test by the keys of exercises."""
    return pytest.mark.parametrize("key", [pytest.param(k, marks=[pytest.mark.slow] * (k in slow)) for k in keys])


def rows(table: str) -> list:
    """List the rows of a table of all modules, as parameters: the key of the exercise, then the rest."""
    listed = []
    for prefix, module in MODULES.items():
        for number, (name, *rest) in enumerate(getattr(module, table, [])):
            listed.append(pytest.param(prefix + name, *rest, id=f"{prefix}{name} {number}"))
    return listed


RIGHT = {prefix + name: answers for prefix, module in MODULES.items() for name, answers in module.RIGHT.items()}
each_exercise = each(ALL)


def check(key: str, answer, seed: int = 0, exercise: Exercise | None = None):
    """Examine an answer to an exercise, or to a changed one, on the cases of a seed."""
    return examine(exercise or ALL[key], answer, trial=make_trial(ALL[key], seed))


def right_answer(key: str):
    """Give the right answer with options; where it has the right values only, a really right one."""
    return RIGHT[key][0] if key == "13 spread_fast" else ALL[key].answer


def is_class(exercise: Exercise) -> bool:
    """Tell whether the student writes a class."""
    return inspect.isclass(exercise.answer)


# Right answers ----------------------------------------------------------------------------------------------------------


@each_exercise
def test_the_answer_with_options_is_right_as_it_stands_and_the_solution_raises_nothing(key):
    exercise = ALL[key]
    assert is_same(exercise, exercise.answer, exercise.solution, SEEDS)
    for seed in SEEDS:
        assert not any(isinstance(outcome, BaseException) for outcome in make_trial(exercise, seed).expected)
        assert check(key, right_answer(key), seed).passed


@pytest.mark.parametrize(
    ("key", "answer"),
    [pytest.param(key, answer, id=f"{key} {n}") for key, answers in RIGHT.items() for n, answer in enumerate(answers)],
)
def test_unusual_right_answers_pass(key, answer):
    for seed in SEEDS[:2]:
        result = check(key, answer, seed)
        assert result.passed, str(result)


@each_exercise
def test_right_answers_in_other_forms_pass(key):
    """A partial function, an object that can be called, one more argument; results that use all inputs and are not contiguous."""
    answer, exercise = right_answer(key), ALL[key]

    class Called:
        def __call__(self, *arguments, verbose=False, **options):
            return answer(*arguments, **options)

    def use_all(answer, *arguments):
        output = exercise.call(answer, *arguments)
        if exercise.gradients:
            output = output + 0 * sum(x.sum() for x in arguments if isinstance(x, Tensor) and x.is_floating_point())
        return torch.stack([output, output], dim=-1)[..., 0]

    for form in (partial(answer), Called(), lambda *arguments, **options: answer(*arguments, **options)):
        assert check(key, form).passed, str(check(key, form))
    result = check(key, answer, exercise=replace(exercise, call=use_all))
    assert result.passed, str(result)


@each_exercise
def test_there_are_enough_mistakes_and_unusual_right_answers(key):
    assert len(ALL[key].mistakes) >= 6
    assert len(RIGHT[key]) >= 3


# Known mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "mistake"),
    [pytest.param(key, m, id=f"{key}: {m.name}") for key, exercise in ALL.items() for m in exercise.bank],
)
def test_each_mistake_is_refused_with_its_own_hint_and_no_other(key, mistake):
    """That a hint is given says that no other mistake of the bank has these numbers."""
    for seed in SEEDS[: 2 if key in EXERCISES else 1]:
        result = check(key, mistake.answer, seed)
        assert (result.status, result.mistake) == ("NOT YET", mistake.name)
        outcomes = list_outcomes(ALL[key], mistake, seed)
        is_error = [isinstance(outcome, BaseException) for outcome in outcomes]
        assert result.lines[any(is_error)] == mistake.hint  # an error is quoted first
        assert len(str(result).splitlines()) <= 3
        if numbers := re.search(r": (.*) expected, (.*) returned\.$", result.lines[-1]):
            assert numbers[1] != numbers[2]
        assert not all(is_error)
        if mistake.hint.startswith("right for square"):
            assert any(is_equal(*pair) for pair in zip(outcomes, make_trial(ALL[key], seed).expected, strict=True))


@each_exercise
def test_each_case_tells_some_mistake_from_the_right_answer(key):
    """But for a single patch: there an answer only shows that it raises nothing."""
    trial = make_trial(ALL[key], 0)
    for number, (case, expected) in enumerate(zip(trial.cases, trial.expected, strict=True)):
        tells = not all(is_equal(trial.outcome(mistake, number), expected) for mistake in ALL[key].bank)
        assert tells or "the grid (1, 1)" in case.label, case.label


@each(ALL, slow=SLOW)
def test_pairs_of_mistakes_are_refused_and_never_taken_for_another(key):
    exercise, refused = ALL[key], 0
    seeds = [0] if key == "13 sparsify" else SEEDS  # there, whether roundings agree is a matter of the sizes drawn
    changes = {name: change for name, (_, change) in exercise.mistakes.items() if not callable(change)}
    pairs = [two for two in itertools.combinations(changes, 2) if not changes[two[0]].keys() & changes[two[1]].keys()]
    for one, other in random.Random(key).sample(pairs, min(PAIRS, len(pairs))):  # that change different parts
        pair = partial(exercise.answer, **changes[one], **changes[other])
        result = check(key, pair)
        if result.passed or result.lines[0].startswith("the values are right"):
            assert is_same(exercise, pair, exercise.solution, seeds), (one, other)
            assert result.passed or key == "13 spread_fast"  # of the right values, by an index
            continue
        refused += 1
        if result.mistake not in (None, one, other):  # of two mistakes, the hint on either is true
            named = next(mistake for mistake in exercise.bank if mistake.name == result.mistake)
            assert is_same(exercise, pair, named, seeds), (one, other, result.mistake)
    assert refused > PAIRS // 2


@pytest.mark.filterwarnings("ignore:The use of `x.T`")
@pytest.mark.parametrize(("key", "mistake", "answer"), rows("NAMED"))
def test_other_ways_to_the_numbers_of_a_mistake_get_its_hint(key, mistake, answer):
    for seed in SEEDS:
        result = check(key, answer, seed)
        assert (result.status, result.mistake) == ("NOT YET", mistake), str(result)


@each([prefix + name for prefix, module in MODULES.items() for name in getattr(module, "OTHER_OPTIONS", {})])
def test_other_options_get_no_wrong_diagnosis(key):
    exercise, named, passed = ALL[key], set(), 0
    for options in MODULES[key[:3]].OTHER_OPTIONS[exercise.name]:
        answer = partial(exercise.answer, **options)
        result = check(key, answer)
        passed += result.passed
        if result.mistake:
            mistake = next(mistake for mistake in exercise.bank if mistake.name == result.mistake)
            assert is_same(exercise, answer, mistake, SEEDS), options
            named.add(result.mistake)
    assert passed == 1
    assert len(named) >= 3


# Other wrong answers ----------------------------------------------------------------------------------------------------


@each_exercise
def test_random_wrong_answers_get_no_diagnosis(key):
    for seed in range(12):
        noise = torch.Generator().manual_seed(seed)

        def disturb(values: Tensor, noise=noise, shuffle=seed % 2) -> Tensor:
            if not shuffle:
                return values + torch.rand(values.shape, dtype=values.dtype, generator=noise)
            return values.flatten()[torch.randperm(values.numel(), generator=noise)].reshape(values.shape) + 0.1

        exercise = ALL[key]
        result = check(key, exercise.answer, exercise=change_outcome(exercise, exercise.answer, disturb))
        assert result.status == "NOT YET" and result.mistake is None


@pytest.mark.parametrize(("key", "words", "answer"), rows("REFUSED"))
def test_what_no_numbers_tell_is_told_in_words(key, words, answer):
    for seed in SEEDS:
        result = check(key, answer, seed)
        assert not result.passed and result.mistake is None
        assert words in str(result), str(result)
        assert len(str(result).splitlines()) <= 3


@pytest.mark.parametrize(("key", "answer"), rows("STUMBLING"))
def test_an_error_about_shapes_or_indices_comes_with_a_hint(key, answer):
    for seed in SEEDS:
        result = check(key, answer, seed)
        assert (result.status, result.mistake, result.lines[1]) == ("NOT YET", None, ALL[key].shape_hint)
        assert "Error: " in result.lines[0] and len(result.lines) <= 3


@each_exercise
def test_what_is_no_answer_is_told_so(key):
    def stub(*arguments, **options):
        raise NotImplementedError()

    def broken(*arguments, **options):
        return tabel  # noqa: F821

    assert check(key, stub).status == "not done yet"
    assert check(key, broken).lines[0].startswith("NameError: name 'tabel' is not defined")
    assert "this is a Tensor, not a function or class" in str(check(key, torch.ones(2)))
    nothing = check(key, lambda *arguments, **options: None)
    assert nothing.status == "NOT YET" and nothing.mistake is None
    assert is_class(ALL[key]) or key == "12 EMA" or "Is the `return` missing?" in str(nothing)


JUNK = {
    "a string": "12.5", "strings": ["1", "2", "3"], "a number": 0.25, "a boolean": True, "NaN": math.nan, "a list": [[0.0, 1.0]],
    "a dictionary": {0: "1"}, "a set": {"w1", 2}, "an array": np.ones((2, 3)), "a type": int, "a complex number": 1j,
    "NaN in a tensor": torch.tensor([math.nan, 1.0]), "a meta tensor": torch.ones(2, 3, device="meta"),
    "a sparse tensor": torch.eye(3).to_sparse(), "complex numbers": torch.ones(2, 3, dtype=torch.complex128),
    "an empty tensor": torch.ones(0), "nested": [torch.ones(2), None],
}  # fmt: skip


@each_exercise
def test_what_is_of_another_type_is_refused_in_plain_words(key):
    """What an answer returns, what stands in its dictionary, list or pair, and what the forward pass of a class returns."""
    solutions = {"None": None, "a generator": (x for x in ()), **JUNK}
    for name, junk in solutions.items():
        answers = [lambda *arguments, junk=junk, **options: junk, lambda *arguments, junk=junk, **options: (junk, junk, junk)]
        if is_class(ALL[key]):
            method = "weights" if hasattr(ALL[key].answer, "weights") else "update" if key == "12 EMA" else "forward"
            answers.append(type("Own", (ALL[key].answer,), {method: answers[0]}))
        for answer in answers:
            result = check(key, answer)
            assert result.status == "NOT YET", (name, str(result))
            assert len(str(result).splitlines()) <= 3 and len(str(result)) < 1200
            assert not re.search(r"(exercises|engine|cases|exchange)\.py", str(result))


@each([key for key, exercise in ALL.items() if exercise.gradients and not is_class(exercise)])
def test_entries_that_are_all_the_last_one_are_told(key):
    """As a list holds that was given one tensor again and again."""

    def keep_last(values: Tensor) -> Tensor:
        return values[-1:].expand_as(values) if values.ndim else values

    answer = right_answer(key)
    result = check(key, answer, exercise=change_outcome(ALL[key], answer, keep_last))
    expected = make_trial(ALL[key], 0).expected
    case = next((ours for ours in expected if not is_equal(ours, keep_last(ours))), None)
    assert result.mistake or (case is None) == result.passed
    assert case is None or case.ndim == 1 or result.mistake or "All entries along axis 0 are the same" in str(result)


@each_exercise
def test_the_solution_and_what_inherits_from_it_are_out_of_reach(key):
    solution = ALL[key].solution
    inherited = type("Borrowed", (solution,), {}) if inspect.isclass(solution) else lambda *a, **o: solution(*a, **o)
    for answer in (solution, inherited) if solution.__name__ not in ("SquareWindow", "Quadratic") else (solution,):
        assert "it calls the package's own solution" in str(check(key, answer))


@each([key for key, exercise in ALL.items() if exercise.gradients])
def test_a_detached_answer_is_refused(key):
    answer = right_answer(key)
    assert "no gradient comes back" in str(check(key, answer, exercise=change_outcome(ALL[key], answer, Tensor.detach)))


@each([key for key, x in ALL.items() if any(p.name == "float32 stays float32" for p in x.properties) and not is_class(x)])
def test_an_answer_in_another_type_is_refused(key):
    def doubled(*arguments):
        return ALL[key].answer(*(x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for x in arguments))

    result = check(key, doubled)
    assert result.lines[0] == next(p.hint for p in ALL[key].properties if p.name == "float32 stays float32")


# Hints, and modules -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lesson", LESSONS)
def test_no_hint_holds_a_line_of_the_solution(lesson):
    notebook = read(next(path for path in lesson_files() if path.name.startswith(lesson)))
    cells = [cell.source for cell in notebook.cells if solution_name(cell)]
    regions = [re.search(r"### BEGIN SOLUTION\n(.*?)### END SOLUTION", source, re.DOTALL)[1] for source in cells]
    lines = [line.strip() for region in regions for line in region.splitlines() if len(line.strip()) > 20]
    hints = [m.hint for key, exercise in EXERCISES.items() if key.startswith(lesson) for m in exercise.bank]
    assert lines and hints
    assert not [line for line in lines if any(line in hint for hint in hints)]


@each(VARIED)
def test_a_variant_knows_the_lessons_own_answer_and_says_what_is_asked_instead(key):
    first = ALL[key].bank[0]
    lesson = next(exercise for name, exercise in EXERCISES.items() if name == key.partition(" ")[2])
    assert first.name == LESSONS_OWN and lesson.name == ALL[key].name
    assert "the lesson's" in first.hint or "lesson's order" in first.hint
    assert "this set" in first.hint.lower()


@pytest.mark.parametrize("lesson", LESSONS)
def test_the_exercises_of_a_lesson_import_those_of_no_other(lesson):
    folder = Path(checks.__file__).parent / f"lesson_{lesson}"
    assert sorted(path.name for path in folder.glob("*.py")) == ["__init__.py", "answers.py", "exercises.py", "mistakes.py"]
    for path in [*folder.glob("*.py"), *folder.parent.glob("*.py")]:
        imports = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        assert not [node.module for node in imports if "lesson_" in (node.module or "")]
