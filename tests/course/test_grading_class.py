"""A whole class graded with nbgrader, once, in the smoke profile, as `make grade` does it: what came of each submission."""

import re
from copy import deepcopy

import pytest

pytest.importorskip("nbgrader")

from nbformat.v4 import new_code_cell

from spvit_mini.course import problem_sets
from spvit_mini.course.grading import grade, release
from spvit_mini.course.lessons import read, text_of

from .submissions import CLASS, SMALL, cell, written_as

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

CELL_SECONDS = 10  # three submissions never end


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """Release the small set, hand all submissions in, grade them. Returns (classroom, results by name)."""
    room = tmp_path_factory.mktemp("class") / "room"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(problem_sets.SETS, "small", SMALL)
        blank = read(release("small", classroom=room))
        for name, student in CLASS.items():
            hand_in(room, name, student, blank)
        yield room, {result.student: result for result in grade("small", classroom=room, cell_seconds=CELL_SECONDS)}


def hand_in(room, name, student, blank):
    """Do a student's work, and put it where submissions are looked for."""
    notebook = deepcopy(blank)
    for key, source in (("offsets", student.offsets), ("pad_prefix", student.pad), ("why", student.why)):
        if source is not None:
            cell(notebook, key).source = source
    if student.first:
        notebook.cells.insert(notebook.cells.index(cell(notebook, "begin-1")) + 1, new_code_cell(student.first))
    if student.change:
        student.change(notebook)
    folder = room / "submitted" / name / "small"
    folder.mkdir(parents=True)
    (student.place or written_as("small.ipynb"))(folder, text_of(notebook))


each_student = pytest.mark.parametrize("name", CLASS)


@each_student
def test_a_submission_gets_what_it_deserves(graded, name):
    result = graded[1][name]
    assert result.failure is None
    assert tuple(result.points.values()) == CLASS[name].points, result


@each_student
def test_what_was_odd_is_named_and_nothing_else_of_a_plain_submission(graded, name):
    odd, expected = graded[1][name].odd, CLASS[name].odd
    for pattern in expected:
        assert any(re.search(pattern, line) for line in odd), (pattern, odd)
    if not expected:
        assert odd == []
