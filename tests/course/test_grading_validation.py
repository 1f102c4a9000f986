"""Validation: any submission is read and normalised, and each oddity is reported once."""

import json
import os
from copy import deepcopy

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell

from spvit_course.classroom import validation
from spvit_course.classroom.assignments import assemble
from spvit_course.classroom.copies import student_copy
from spvit_course.classroom.problem_sets import SETS
from spvit_course.classroom.validation import validate_submission
from spvit_course.lessons import grading, lesson_files, read, text_of

from .submissions import OFFSETS, SMALL, SWAPPED, cell


@pytest.fixture
def blank():
    return student_copy(assemble(SMALL))


@pytest.fixture
def solved(blank):
    notebook = deepcopy(blank)
    for name, source in (("offsets", OFFSETS), ("pad_prefix", "def pad_prefix(m, p, n):\n    return m"), ("why", "So.")):
        cell(notebook, name).source = source
    return notebook


def validate(folder, notebook, blank, name="small.ipynb"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(notebook if isinstance(notebook, str) else text_of(notebook), encoding="utf-8")
    return validate_submission(folder, blank, "small")


def sources(notebook):
    return [each.source for each in notebook.cells]


def test_a_plain_submission_stays_as_it_is(tmp_path, solved, blank):
    solved.cells[0].metadata["mine"] = "not kept"
    submission = validate(tmp_path, solved, blank)
    assert submission.odd == [] and sources(submission.notebook) == sources(solved)
    assert [grading(each) for each in submission.notebook.cells] == [grading(each) for each in blank.cells]
    assert submission.notebook.metadata == blank.metadata and "mine" not in submission.notebook.cells[0].metadata


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "null", '{"cells": 3}', '{"cells": [{}]}', '{"cells": [{"cell_type": "film", "source": ""}]}', "[" * 10_000,
     '{"nbformat": 3, "worksheets": []}', '{"cells": [{"cell_type": "code", "source": [1]}]}'],
)  # fmt: skip
def test_what_is_no_notebook_counts_as_unsolved(tmp_path, blank, text):
    submission = validate(tmp_path, text, blank)
    (line,) = submission.odd
    assert line.startswith("the file is no notebook that can be read (") and line.endswith("graded as if nothing were solved")
    assert sources(submission.notebook) == sources(blank)


def test_a_file_that_is_too_large_is_not_read(tmp_path, solved, blank, monkeypatch):
    monkeypatch.setattr(validation, "LARGEST", 1000)
    (line,) = validate(tmp_path, solved, blank).odd
    assert line == "the file has 0 MB, too many to read; ask for small.ipynb again. It is graded as if nothing were solved"


def test_of_notebooks_with_other_names_the_newest_counts(tmp_path, solved, blank):
    validate(tmp_path, blank, blank, "old.ipynb")
    os.utime(tmp_path / "old.ipynb", (1, 1))
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / ".ipynb_checkpoints" / "x.ipynb").write_text("")
    (tmp_path / "timestamp.txt").write_text("2026-01-01")
    submission = validate(tmp_path, solved, blank, "mine.ipynb")
    assert submission.odd == [
        "handed in as mine.ipynb, not as small.ipynb",
        "left out, since only the notebook is graded: old.ipynb",
    ]
    assert cell(submission.notebook, "offsets").source == OFFSETS


def test_an_empty_folder_or_a_link_is_no_submission(tmp_path, solved, blank):
    (tmp_path / "theirs.ipynb").write_text(text_of(solved))
    folder = tmp_path / "mine"
    folder.mkdir()
    for link in (False, True):
        if link:
            (folder / "small.ipynb").symlink_to(tmp_path / "theirs.ipynb")
        submission = validate_submission(folder, blank, "small")
        assert submission.odd == ["no notebook was handed in; ask for small.ipynb again. It is graded as if nothing were solved"]
        assert submission.notebook == blank


def test_everything_is_put_back_in_its_place(tmp_path, solved, blank):
    names = [grading(each)["grade_id"] for each in blank.cells if grading(each)]
    answers = {"offsets", "pad_prefix"}
    solved.cells = [each for each in solved.cells if grading(each).get("grade_id") not in set(names) - answers]
    submission = validate(tmp_path, solved, blank)
    assert [grading(each)["grade_id"] for each in submission.notebook.cells if grading(each)] == names
    back = [f"the cell {name} was deleted; put back" for name in names if name not in answers]
    assert submission.odd == [*back, "unsolved: why"]


def test_a_deleted_solution_stays_out_so_that_other_code_may_answer(tmp_path, solved, blank):
    place = solved.cells.index(cell(solved, "offsets"))
    solved.cells[place] = new_code_cell("from mine import offsets", id="mine")
    submission = validate(tmp_path, solved, blank)
    assert submission.odd == ["the cell offsets was deleted"] and sources(submission.notebook) == sources(solved)


def test_of_two_cells_with_one_name_the_last_counts(tmp_path, solved, blank):
    first = deepcopy(cell(solved, "offsets"))
    first.source = SWAPPED
    solved.cells.insert(0, first)
    submission = validate(tmp_path, solved, blank)
    assert submission.odd == ["the cell offsets is there twice; the last one counts", f"the cell id {first.id} is there twice"]
    assert submission.notebook.cells[0].source == SWAPPED and not grading(submission.notebook.cells[0])
    assert len({each.id for each in submission.notebook.cells}) == len(submission.notebook.cells)


def test_marks_texts_and_kinds_are_put_back(tmp_path, solved, blank):
    cell(solved, "check-offsets").metadata.nbgrader.update(points=50, solution=True)
    cell(solved, "setup").source = "import os"
    solved.cells.append(new_markdown_cell("?", metadata={"nbgrader": {"grade_id": "other", "grade": True, "points": 9}}))
    why = solved.cells.index(cell(solved, "why"))
    solved.cells[why] = new_code_cell("1 + 1", id="w", metadata=solved.cells[why].metadata)
    submission = validate(tmp_path, solved, blank)
    assert submission.odd == [
        "the locked cell setup was overwritten; put back",
        "the marks of the cell check-offsets were changed; put back",
        "the cell why was made code; made markdown again",
        "a strange cell, other",
    ]
    for name in ("check-offsets", "setup"):
        assert cell(submission.notebook, name) == cell(blank, name)


def test_marks_that_a_program_dropped_come_back_by_the_cells_ids(tmp_path, solved, blank):
    for each in solved.cells:
        each.metadata = type(each.metadata)()
    submission = validate(tmp_path, solved, blank)
    assert submission.odd == [] and sources(submission.notebook) == sources(solved)
    assert [grading(each) for each in submission.notebook.cells] == [grading(each) for each in blank.cells]


def test_a_solution_that_was_made_text_is_code_again_and_what_is_unsolved_is_named(tmp_path, solved, blank):
    place = solved.cells.index(cell(solved, "offsets"))
    solved.cells[place] = new_markdown_cell(OFFSETS, id="o", metadata=solved.cells[place].metadata)
    for name in ("pad_prefix", "why"):
        cell(solved, name).source = cell(blank, name).source
    submission = validate(tmp_path, solved, blank)
    assert submission.odd == ["the cell offsets was made markdown; made code again", "unsolved: pad_prefix, why"]
    assert (cell(submission.notebook, "offsets").cell_type, cell(submission.notebook, "offsets").source) == ("code", OFFSETS)


def test_a_different_notebook_is_named(tmp_path, blank):
    """A set with cells of the same names, and the lesson that an exercise is from."""
    submission = validate(tmp_path, student_copy(assemble(SETS["set_2"])), blank)
    (line,) = submission.odd
    says = "the notebook is not small: it begins '# Problem set 2 · Bias and windows'; ask for small.ipynb again. It is"
    assert line.startswith(says)
    assert submission.notebook == blank
    lesson = next(path for path in lesson_files() if path.name.startswith("03"))
    submission = validate(tmp_path, read(lesson), blank)
    assert submission.odd[0].startswith("the notebook may not be small: it begins '# 03 · ")
    assert "def offsets" in cell(submission.notebook, "offsets").source


def test_a_different_order_is_put_back(tmp_path, solved, blank):
    solved.cells.insert(solved.cells.index(cell(solved, "offsets")) + 1, new_code_cell("mine = 1", id="mine"))
    names = [grading(each)["grade_id"] for each in blank.cells if grading(each)]
    solved.cells.reverse()
    submission = validate(tmp_path, solved, blank)
    assert submission.odd == ["the set's cells stood in a different order; put back"]
    assert [grading(each)["grade_id"] for each in submission.notebook.cells if grading(each)] == names
    assert sorted(sources(submission.notebook)) == sorted(sources(solved))


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("def f(:", "a syntax error in the cell number 1: invalid syntax (line 1)"),
        ("import requests", "the cell number 1 mentions the network (requests)"),
        ("!pip install x", "the cell number 1 mentions other programs (!pip)"),
        ("lesson.check = print", "the cell number 1 mentions the insides of checks (.check =)"),
        ("from spvit_course.checks import engine", "the cell number 1 mentions the insides of checks (spvit_course.checks)"),
        ("open('../../gradebook.db')", "the cell number 1 mentions files of the class (gradebook)"),
        ("%matplotlib inline\nlesson = begin('03')\nlesson.check(offsets)\nx = requested = 1", None),
    ],
)
def test_code_that_a_person_should_look_at(tmp_path, solved, blank, code, says):
    solved.cells.insert(0, new_code_cell(code, id="mine"))
    assert validate(tmp_path, solved, blank).odd == ([says] if says else [])


def test_stored_output_is_dropped(tmp_path, solved, blank, monkeypatch):
    monkeypatch.setattr(validation, "USUAL", 100_000)
    notebook = json.loads(text_of(solved))
    cells = [each for each in notebook["cells"] if each["cell_type"] == "code"]
    cells[0]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "x" * 2_000_000}]
    submission = validate(tmp_path, json.dumps(notebook), blank)
    assert submission.odd == ["the file has 2 MB; its stored outputs were dropped"]
    assert len(text_of(submission.notebook)) < 50_000
