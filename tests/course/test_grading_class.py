"""A whole class graded with nbgrader, once, in the smoke profile, as `make grade` does it: what came of each submission."""

import csv
import re
from copy import deepcopy

import pytest

pytest.importorskip("nbgrader")

from nbformat.v4 import new_code_cell

from spvit_course.checks import exercises
from spvit_course.classroom import problem_sets
from spvit_course.classroom.grading import grade, release
from spvit_course.lessons import read, text_of

from .submissions import CLASS, OFFSETS, SMALL, cell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

CELL_SECONDS = 6  # three cells never end
HANDED_IN: dict = {}


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """Release the small set, hand all submissions in, grade them. Returns (classroom, results by name)."""
    room = tmp_path_factory.mktemp("class") / "room"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(problem_sets.SETS, "small", SMALL)
        blank = read(release("small", classroom=room))
        for name, student in CLASS.items():
            hand_in(room, name, student, blank)
        HANDED_IN.update((path, path.read_bytes()) for path in room.glob("submitted/*/small/small*.ipynb"))
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
    if student.place:
        student.place(folder, text_of(notebook))
    else:
        (folder / "small.ipynb").write_text(text_of(notebook), encoding="utf-8")


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


@pytest.mark.parametrize(("exercise", "mistake"), [("offsets", "components swapped"), ("pad_prefix", "rows only")])
def test_what_went_wrong_is_said_as_the_check_says_it(graded, exercise, mistake):
    (hint,) = [known.hint for known in exercises("03")[exercise].bank if known.name == mistake]
    assert graded[1]["wrong"].messages[exercise] == f"NOT YET {exercise}: {hint}"


def test_everybody_has_a_row_and_a_page_and_the_report_names_who_was_odd(graded):
    room, results = graded
    assert list(results) == sorted(CLASS)
    with (room / "reports" / "small.csv").open(encoding="utf-8-sig") as file:
        rows = {row["student"]: row for row in csv.DictReader(file)}
    assert {name: (float(row["offsets"]), float(row["pad_prefix"])) for name, row in rows.items()} == {
        name: student.points[:2] for name, student in CLASS.items()
    }
    report = (room / "reports" / "small.md").read_text(encoding="utf-8").split("## What was odd")[1]
    for name in CLASS:
        assert (room / "feedback" / name / "small" / "small.html").is_file()
        assert (f"**{name}**" in report) == bool(CLASS[name].odd)


def test_output_is_cut_and_nothing_refused_was_done(graded):
    room, _ = graded
    for name in CLASS:
        assert (room / "autograded" / name / "small" / "small.ipynb").stat().st_size < 400_000
    assert not list(room.rglob("ran"))
    curious = (room / "autograded" / "right-curious" / "small" / "small.ipynb").read_text(encoding="utf-8")
    assert OFFSETS.splitlines()[0] in curious and curious.count("down = torch.arange") == 1  # not the neighbour's too


def test_what_was_handed_in_is_as_it_was(graded):
    room, _ = graded
    assert {path: path.read_bytes() for path in sorted(room.glob("submitted/*/small/small*.ipynb"))} == HANDED_IN
