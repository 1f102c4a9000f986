"""The lessons themselves: in order, run from top to bottom, and fit to be handed out.

Solved lessons run in the quick profile by nbval, hidden tests included, which compares the cells that are tagged
`nbval-check-output` with their stored outputs. These are of the standard profile (the guard sees to it), so a checked cell
says the same in both. Copies run once, in smoke, with nothing solved and with the hidden tests: to the end and for no points.
A copy with the solutions put back has the text of the lesson, and so the run of the lesson is its run.
"""

import dis
import os
import re
import subprocess
import sys
from copy import deepcopy
from types import CodeType

import pytest

from spvit_course import checks
from spvit_course.classroom.copies import student_copy
from spvit_course.classroom.execution import kernel_environment, run_notebook
from spvit_course.classroom.lint import CHECKED, problems
from spvit_course.lessons import grading, heading, lesson_files, read

CELL_SECONDS = 180  # of one cell, also on a machine that is busy with other things

LESSONS = lesson_files()
each_lesson = pytest.mark.parametrize("path", LESSONS, ids=[path.stem for path in LESSONS])


def graded(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code" and grading(cell).get("grade")]


def by_hand(notebook):
    """Sum up the points of written answers, which no autograder gives."""
    return sum(grading(cell).get("points", 0) for cell in notebook.cells if cell.cell_type == "markdown")


def with_sources(copy, lesson, choose):
    """Put the lesson's sources back into those cells of a student's copy that `choose` lists."""
    ready, sources = deepcopy(copy), {cell.id: cell.source for cell in lesson.cells}
    for cell in choose(ready):
        cell.source = sources[cell.id]
    return ready


def errors(cell):
    return [output for output in cell.get("outputs", []) if output.output_type == "error"]


def printed(cell):
    return "".join(output.get("text", "") for output in cell.outputs)


def test_the_lessons_stand_in_order_and_no_number_comes_twice():
    numbers = [heading(read(path)).number for path in LESSONS]
    assert numbers == sorted(set(numbers)) and numbers[0] == "00"
    assert all(path.name.startswith(heading(read(path)).number) for path in LESSONS)


@each_lesson
def test_the_guard_has_nothing_to_say(path):
    assert problems(read(path)) == []


@each_lesson
def test_every_check_has_its_exercise_and_every_exercise_its_check(path):
    lesson = read(path)
    asked = {name for cell in graded(lesson) for name in re.findall(r"lesson\.check\((\w+)", cell.source)}
    assert asked == set(checks.exercises(heading(lesson).number))
    assert any(CHECKED in cell.metadata.get("tags", []) for cell in lesson.cells)


@each_lesson
def test_no_line_of_a_solution_is_in_the_copy(path):
    lesson = read(path)
    text = "\n".join(" ".join(line.split()) for cell in student_copy(lesson).cells for line in cell.source.split("\n"))
    assert "BEGIN " not in text and "END SOLUTION" not in text
    for cell in lesson.cells:
        for region in re.findall(r"### BEGIN SOLUTION\n(.*?)### END SOLUTION", cell.source, re.DOTALL):
            lines = [" ".join(line.split()) for line in region.split("\n")]
            leaked = [line for line in lines if len(line) >= 16 and not line.startswith("#") and line in text]
            assert leaked == [], cell.id


@each_lesson
def test_no_written_answer_is_in_the_copy(path):
    copy = student_copy(read(path))
    answers = [cell for cell in copy.cells if cell.cell_type == "markdown" and grading(cell).get("solution")]
    assert [cell.source for cell in answers] == ["YOUR ANSWER HERE"] * len(answers)


@each_lesson
def test_a_copy_with_the_solutions_put_back_is_the_lesson_and_has_all_points(path):
    lesson = read(path)
    refilled = with_sources(student_copy(lesson), lesson, lambda copy: [cell for cell in copy.cells if grading(cell)])
    assert [(cell.id, cell.source) for cell in refilled.cells] == [(cell.id, cell.source) for cell in lesson.cells]
    assert all(printed(cell).startswith("PASS ") for cell in graded(lesson))
    points = sum(grading(cell)["points"] for cell in graded(lesson))
    assert points + by_hand(lesson) == heading(lesson).points


def read_and_bound_names(source):
    """List the notebook's names that a cell reads before it binds them itself, and those that it binds."""
    whole = compile(source, "cell", "exec")
    bound, read, inner = set(), set(), [whole]
    for step in dis.get_instructions(whole):
        if step.opname.startswith("LOAD_NAME") and step.argval not in bound:
            read.add(step.argval)
        elif step.opname == "STORE_NAME":
            bound.add(step.argval)
    for code in inner:  # functions, classes and comprehensions
        inner += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
        if code is not whole:
            steps = list(dis.get_instructions(code))
            own = {step.argval for step in steps if step.opname == "STORE_NAME"}
            read |= {step.argval for step in steps if step.opname in ("LOAD_NAME", "LOAD_GLOBAL")} - own - bound
    return read, bound


@each_lesson
def test_any_cell_can_run_again_after_the_last_one(path):
    """A name that a cell has from an earlier one is not bound to something else by a later cell, nor are its files deleted."""
    cells = [(cell.id, *read_and_bound_names(cell.source)) for cell in read(path).cells if cell.cell_type == "code"]
    for number, (name, needed, _) in enumerate(cells):
        given = set().union(*(bound for _, _, bound in cells[:number]))
        changed = {other: sorted(needed & given & bound) for other, _, bound in cells[number:] if needed & given & bound}
        assert not changed, f"{name} needs names that are bound again: {changed}"
    assert not [cell.id for cell in read(path).cells if cell.cell_type == "code" and ".cleanup()" in cell.source]


@each_lesson
def test_a_copy_says_where_the_outputs_are_that_its_text_speaks_of(path):
    """Copies hold no outputs."""
    copy = student_copy(read(path))
    assert not any(cell.get("outputs") for cell in copy.cells)
    text = " ".join(" ".join(cell.source.split()) for cell in copy.cells if cell.cell_type == "markdown")
    assert "this page" not in text
    places = [match.end() for match in re.finditer(r"(picture|run|output)s? that (is|are) stored", text)]
    assert [text[place:].startswith(" in the solved lesson") for place in places] == [True] * len(places)
    assert not places or "in the repository's folder `notebooks` or on the course's site" in text[places[0] :][:100]


@each_lesson
@pytest.mark.lessons
@pytest.mark.slow
def test_the_lesson_runs_and_its_checked_cells_say_what_is_stored(path):
    options = ["--nbval-lax", "--nbval-current-env", f"--nbval-cell-timeout={CELL_SECONDS}", "-p", "no:cacheprovider", "-q"]
    command = [sys.executable, "-m", "pytest", *options, "--tb=short", "-c", os.devnull, f"--rootdir={path.parent}", str(path)]
    environment = kernel_environment() | {"SPVIT_PROFILE": "quick"}
    done = subprocess.run(command, cwd=path.parent, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@each_lesson
@pytest.mark.lessons
@pytest.mark.slow
def test_a_copy_with_nothing_solved_runs_to_its_end_and_scores_nothing(path, tmp_path):
    lesson = read(path)
    ran = with_sources(student_copy(lesson), lesson, graded)
    run_notebook(ran, tmp_path, profile="smoke", allow_errors=True, cell_seconds=CELL_SECONDS)
    checks = graded(ran)
    assert all(printed(cell).startswith("not done yet ") for cell in checks)
    assert [cell.id for cell in ran.cells if errors(cell)] == [cell.id for cell in checks]  # in the hidden tests, nowhere else
    assert {output.ename for cell in checks for output in errors(cell)} == {"CheckFailed"}
