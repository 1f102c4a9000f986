"""Variants in notebooks: lessons and assembled sets get another task, solution and check, and everything else stays."""

import math
import re

import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell
from torch import nn

from spvit_course import checks
from spvit_course.checks.engine import CheckFailed
from spvit_course.checks.variants import BANKS, LESSONS_OWN
from spvit_course.classroom.assignments import assemble
from spvit_course.classroom.copies import student_copy
from spvit_course.classroom.problem_sets import SETS
from spvit_course.classroom.variants import VARIANTS, solution_name, vary
from spvit_course.lesson import PROFILES, Lesson
from spvit_course.lessons import grading, lesson_files, read
from spvit_mini import geometry
from spvit_mini.errors import UserError
from spvit_mini.geometry import pair_offsets

VARIED = [(name, varied) for name, variant in VARIANTS.items() for varied in variant.exercises]
IDS = [f"{name}-{varied.exercise}" for name, varied in VARIED]
each_varied = pytest.mark.parametrize(("name", "varied"), VARIED, ids=IDS)


def lesson_of(number: str) -> nbformat.NotebookNode:
    return next(read(path) for path in lesson_files() if path.name.startswith(number))


def sets_of(name: str) -> list[str]:
    """Name the sets that a variant changes."""
    known = {varied.exercise for varied in VARIANTS[name].exercises}
    return [one for one, found in SETS.items() if known & {getattr(part, "exercise", None) for part in found.parts}]


def run(notebook: nbformat.NotebookNode) -> dict[str, bool]:
    """Run a set's cells one after another, as a kernel would; tell for each graded code cell whether it passed."""
    space, passed = {}, {}
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        try:
            exec(cell.source, space)
        except (NotImplementedError, NameError, CheckFailed) as error:
            if not grading(cell).get("grade"):
                raise AssertionError(f"{cell.id}: {error!r}") from error
            passed[grading(cell)["grade_id"]] = False
        else:
            if grading(cell).get("grade"):
                passed[grading(cell)["grade_id"]] = True
    return passed


def refilled(copy: nbformat.NotebookNode, solved: nbformat.NotebookNode, which=lambda name: True) -> nbformat.NotebookNode:
    """Put solutions into a student's copy, by name; hidden tests come back, as they do when it is graded."""
    full = nbformat.from_dict(copy)
    for cell, whole in zip(full.cells, solved.cells, strict=True):
        if grading(cell).get("grade") or (solution_name(whole) and which(solution_name(whole))):
            cell.source = whole.source
    return full


# The registry -----------------------------------------------------------------------------------------------------------


def test_the_banks_and_the_texts_name_the_same_exercises():
    found = {(name, number, x) for name, lessons in BANKS.items() for number, bank in lessons.items() for x in bank}
    assert found == {(name, varied.lesson, varied.exercise) for name, varied in VARIED}
    assert list(BANKS) == list(VARIANTS) and len(VARIANTS) >= 4


def test_every_set_but_the_project_has_a_variant_and_every_varied_exercise_a_set():
    covered = {one for name in VARIANTS for one in sets_of(name)}
    assert covered == {"set_1", "set_2", "set_3", "set_4"}
    parts = {part.exercise for one in SETS.values() for part in one.parts if hasattr(part, "exercise")}
    assert {varied.exercise for _, varied in VARIED} <= parts


def test_names_of_varied_exercises_are_those_of_one_lesson_only():
    names = [solution_name(cell) for path in lesson_files() for cell in read(path).cells if solution_name(cell)]
    assert all(names.count(varied.exercise) == 1 for _, varied in VARIED)


# Checks by variant ------------------------------------------------------------------------------------------------------


@each_varied
def test_the_solution_passes_its_own_check_and_no_other(name, varied, capsys):
    lesson = Lesson(varied.lesson, PROFILES["smoke"])
    space = {"torch": torch, "math": math, "geometry": geometry}
    exec(varied.solution, space)
    answer = space[varied.exercise]
    lesson.check(answer, variant=name)
    assert capsys.readouterr().out.startswith(f"PASS {varied.exercise}: ")
    lesson.check(answer, variant=name, grade=True)
    with pytest.raises(CheckFailed, match="NOT YET"):
        lesson.check(answer, grade=True)
    for other, variant in VARIANTS.items():
        if other != name and varied.exercise in [one.exercise for one in variant.exercises]:
            with pytest.raises(CheckFailed, match="NOT YET"):
                lesson.check(answer, variant=other, grade=True)


@each_varied
def test_the_lessons_own_solution_is_refused_with_the_variants_hint(name, varied):
    lesson = Lesson(varied.lesson, PROFILES["smoke"])
    space = {"torch": torch, "nn": nn, "math": math, "geometry": geometry, "pair_offsets": pair_offsets}
    cell = next(cell for cell in lesson_of(varied.lesson).cells if solution_name(cell) == varied.exercise)
    exec(cell.source, space)
    lesson.check(space[varied.exercise], grade=True)
    mistake = BANKS[name][varied.lesson][varied.exercise].bank[0]
    assert mistake.name == LESSONS_OWN
    with pytest.raises(CheckFailed) as refused:
        lesson.check(space[varied.exercise], variant=name, grade=True)
    assert mistake.hint in str(refused.value)


# What each text works out by hand: the arguments, and what comes out (of maps, the row of one query).
BY_HAND = {
    ("x_first", "offsets"): ((1, 2), lambda found: found.tolist(), [[[-1, 0]], [[0, 0]], [[1, 0]]]),
    ("x_first", "log_offsets"): ((torch.tensor([3.5, 1.0]), (9, 5)), lambda found: found.tolist(), [1, 1 / 3]),
    ("x_first", "psa_map"): ((torch.tensor([[1.0, 0, -1]]), (1, 3)), lambda found: found[0, 1].tolist(), [-2, 0, 0]),
    ("x_first", "prior"): (
        (torch.tensor([5.0, 2.0]), torch.tensor([[[1.0, 0]]]), torch.zeros(1, 1), torch.ones(1, 1), torch.zeros(1)),
        lambda found: found.tolist(),
        [2],
    ),
    ("i_minus_j", "offsets"): ((1, 2), lambda found: found.tolist(), [[[0, 1], [0, 0], [0, -1]]]),
    ("i_minus_j", "spread"): ((torch.tensor([[10, 20, 30]]), (1, 2)), lambda found: found.tolist(), [[20, 10], [30, 20]]),
    ("i_minus_j", "shaw2d"): (
        (torch.ones(2, 1), torch.tensor([[[0.0], [0], [0]], [[5], [0], [7]]]), (1, 2), 1),
        lambda found: found.tolist(),
        [[0, 5], [7, 0]],
    ),
    ("i_minus_j", "psa_map"): ((torch.tensor([[-1.0, 0, 1]]), (1, 3)), lambda found: found[0, 1].tolist(), [0, 0, -2]),
    ("decay", "psa_map"): ((torch.tensor([[2.0, 0, 1]]), (1, 3)), lambda found: found[0, 0].tolist(), [-0.5, 0, -0.5]),
    ("decay", "prior"): (
        (torch.tensor([[0.0, 1], [2, 1], [90, 90]]), torch.tensor([[[0.0, 1]]]), torch.full((1, 1), 2.0))
        + (torch.full((1, 1), 3.0), torch.ones(1)),
        lambda found: found[0].tolist(),
        [4, 1 + 3 / math.e, 1],
    ),
    ("dilated", "window_mask"): (
        ((1, 7), 3, 2),
        lambda found: [found[query].nonzero().flatten().tolist() for query in (3, 0, 1)],
        [[1, 3, 5], [0, 2], [1, 3]],
    ),
}


@each_varied
def test_what_a_text_works_out_by_hand_is_so(name, varied):
    space = {"torch": torch, "math": math, "geometry": geometry}
    exec(varied.solution, space)
    arguments, look, expected = BY_HAND[name, varied.exercise]
    found = look(space[varied.exercise](*arguments))
    if name == "dilated":  # lists of keys, of several lengths
        assert found == expected
    else:
        assert torch.allclose(torch.tensor(found).double(), torch.tensor(expected).double())
    assert "By hand: " in varied.text


def test_unknown_variants_and_exercises_are_told():
    lesson = Lesson("03", PROFILES["smoke"])
    with pytest.raises(UserError, match="there is no variant 'x_frist'; the variants: .*Did you mean x_first"):
        lesson.check(pair_offsets, name="offsets", variant="x_frist")
    with pytest.raises(UserError, match="no exercise 'pad_prefix' in the variant 'x_first'; its exercises: offsets$"):
        lesson.check(pair_offsets, name="pad_prefix", variant="x_first")
    assert checks.exercises("03", "dilated") == {}


# Notebooks --------------------------------------------------------------------------------------------------------------


@each_varied
def test_a_lesson_is_changed_in_three_cells_and_nowhere_else(name, varied):
    plain = lesson_of(varied.lesson)
    before = nbformat.v4.writes(plain)
    changed = vary(plain, name)
    assert nbformat.v4.writes(plain) == before
    here = [one for one in VARIANTS[name].exercises if one.lesson == varied.lesson]
    pairs = list(zip(plain.cells, changed.cells, strict=True))
    different = [(old, new) for old, new in pairs if old != new]
    assert len(different) == 3 * len(here)
    assert all((old.id, old.metadata) == (new.id, new.metadata) for old, new in pairs)
    place = next(k for k, cell in enumerate(changed.cells) if solution_name(cell) == varied.exercise)
    task, solution, check = changed.cells[place - 1 : place + 2]
    old = plain.cells[place - 1].source
    assert varied.text.strip() in task.source and solution.source == varied.solution
    assert task.source.splitlines()[0] == old.splitlines()[0] and task.source.splitlines()[-1] == old.splitlines()[-1]
    assert check.source.count(f'lesson.check({varied.exercise}, variant="{name}"') == 2
    assert check.source.count(".check(") == 2 and check.source.count("grade=True") == 1


def test_a_variant_that_changes_nothing_says_what_it_could():
    with pytest.raises(UserError) as refused:
        vary(lesson_of("00"), "decay")
    assert str(refused.value) == (
        "the variant 'decay' changes nothing here: it changes psa_map (lesson 06), prior (lesson 08); "
        "the exercises here: patchify, unpatchify"
    )
    with pytest.raises(UserError, match="there is no variant 'decoy'; the variants: x_first, .*Did you mean decay"):
        vary(lesson_of("06"), "decoy")


def test_a_check_that_calls_no_check_is_refused():
    notebook = lesson_of("03")
    place = next(k for k, cell in enumerate(notebook.cells) if grading(cell).get("grade_id") == "check-offsets")
    notebook.cells[place] = new_code_cell("assert offsets", metadata=notebook.cells[place].metadata)
    with pytest.raises(UserError, match="the check of offsets does not call"):
        vary(notebook, "x_first")


@pytest.mark.parametrize(("name", "number"), sorted({(name, varied.lesson) for name, varied in VARIED}))
def test_a_students_copy_of_a_varied_lesson_has_no_solution_line(name, number):
    copy = student_copy(vary(lesson_of(number), name))
    text = "\n".join(cell.source for cell in copy.cells)
    for varied in VARIANTS[name].exercises:
        if varied.lesson == number:
            assert secret_lines(varied.solution)
            assert not [line for line in secret_lines(varied.solution) if line in text]
    assert "BEGIN SOLUTION" not in text and "HIDDEN" not in text


def secret_lines(solution: str) -> list[str]:
    """List the lines of a solution region."""
    region = re.search(r"### BEGIN SOLUTION\n(.*?)\n\s*### END SOLUTION", solution, re.DOTALL)[1]
    return [line.strip() for line in region.splitlines()]


SET_VARIANTS = [(one, name) for name in [None, *VARIANTS] for one in (sets_of(name) if name else SETS)]


@pytest.mark.slow
@pytest.mark.parametrize(("one", "name"), SET_VARIANTS)
def test_sets_score_0_unsolved_and_full_points_refilled(one, name, monkeypatch, capsys):
    monkeypatch.setenv("SPVIT_PROFILE", "smoke")
    solved = assemble(SETS[one], vary=(lambda notebook: vary(notebook, name)) if name else None)
    copy = student_copy(solved)
    text = "\n".join(cell.source for cell in copy.cells)
    for cell in solved.cells:
        if solution_name(cell):
            assert not [line for line in secret_lines(cell.source) if len(line) > 20 and line in text]
    graded = [grading(cell)["grade_id"] for cell in solved.cells if cell.cell_type == "code" and grading(cell).get("grade")]
    assert run(refilled(copy, solved, lambda _: False)) == dict.fromkeys(graded, False)
    assert run(refilled(copy, solved)) == dict.fromkeys(graded, True)
    if name:  # the public key does not answer the variant
        known = {f"check-{varied.exercise}" for varied in VARIANTS[name].exercises}
        assert run(with_public_key(solved, one)) == {check: check not in known for check in graded}
    capsys.readouterr()


def with_public_key(solved: nbformat.NotebookNode, one: str) -> nbformat.NotebookNode:
    """Put the lessons' own solutions into a varied set."""
    key = {solution_name(cell): cell.source for cell in assemble(SETS[one]).cells if solution_name(cell)}
    for cell in solved.cells:
        cell.source = key.get(solution_name(cell), cell.source)
    return solved
