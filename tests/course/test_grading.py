"""Releasing and grading: whole sets, variants, grades given by hand, what is not run again, and one-line errors."""

import csv
import shutil
import subprocess
import sys

import pytest

from spvit_course import __main__ as program
from spvit_course.classroom import proctor
from spvit_course.classroom.assignments import assemble
from spvit_course.classroom.copies import student_copy
from spvit_course.classroom.gradebook import SubmissionResult, format_csv, format_report
from spvit_course.classroom.grading import grade, release
from spvit_course.classroom.problem_sets import SETS, Part, Question
from spvit_course.classroom.variants import VARIANTS
from spvit_course.lessons import grading, read, text_of
from spvit_mini.errors import UserError

# What the table and the report say -----------------------------------------------------------------------------------------

ADA = SubmissionResult("ada", {"a": 2.0, "why": None}, {"a": 2.0, "why": 3.0}, frozenset({"why"}))
BOB = SubmissionResult(
    "bob", {"a": 0.0, "why": 1.5}, {"a": 2.0, "why": 3.0}, frozenset({"why"}), ["=odd_one"], {"a": "NOT YET a: the [sign]"},
    again=["why"], due="2026-01-02 12:00", submitted="2026-01-02 13:30", hours_late=1.5,
)  # fmt: skip
EVE = SubmissionResult("-eve", failure="the kernel did not start")


def test_the_table_has_a_row_for_each_student_and_no_formulas():
    assert format_csv([ADA, BOB, EVE]).splitlines() == [
        "student,a,why,from_checks,total,of,to_read,to_read_again,due,submitted,hours_late,odd",
        "ada,2,,2,2,5,1,,,,,",
        "bob,0,1.5,0,1.5,5,0,why,2026-01-02 12:00,2026-01-02 13:30,1.5,'=odd_one",
        "'-eve,,,0,0,5,0,,,,,NOT GRADED: the kernel did not start",
    ]


def test_the_report_names_what_was_odd_and_counts_what_went_wrong():
    lines = format_report("set", [ADA, BOB, EVE]).splitlines()
    assert lines[0] == "# set: 3 submissions"
    assert lines[2] == "1 have all points from checks. 1 written answers are to be read."
    assert "Due 2026-01-02 12:00 UTC. Late: bob (1.5 hours). Without a time of submission: 2." in lines
    assert "| ada | 2 | to read | 2 of 2 |  |" in lines and "| bob | 0 | 1.5, to read again | 0 of 2 | 1 |" in lines
    assert lines[lines.index("## To read again") + 4] == "- **bob**: why"
    assert str(BOB).startswith("0 of 2 points from checks, to read again: why, 1.5 hours late\n    odd: =odd_one")
    assert "| -eve | – | – | 0 of 0 | not graded |" in lines
    assert lines[lines.index("**bob**") + 2] == "- =odd\\_one"
    assert lines[lines.index("**-eve**") + 2] == "- not graded: the kernel did not start"
    assert lines[-1] == "- 1 × NOT YET a: the \\[sign\\]"


# Errors in one line ---------------------------------------------------------------------------------------------------------


def test_without_nbgrader_it_says_what_brings_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "nbgrader", None)
    for call in (lambda: release("set_1", classroom=tmp_path), lambda: grade("set_1", classroom=tmp_path)):
        with pytest.raises(UserError, match=r"nbgrader is not installed; `python -m pip install --editable .\[lab,grade\]`"):
            call()


@pytest.mark.slow
def test_the_package_and_its_programs_do_without_nbgrader():
    modules = ("__main__", "classroom.copies", "classroom.grading", "classroom.assignments")
    code = "import sys; sys.modules['nbgrader'] = None; import " + ", ".join(f"spvit_course.{name}" for name in modules)
    subprocess.run([sys.executable, "-c", code], check=True)


def test_release_without_a_name_lists_sets_and_variants(capsys):
    assert program.run(["release"]) == 0
    said = capsys.readouterr().out
    assert all(f"{name} " in said for name in SETS) and all(f"--variant {name}: " in said for name in VARIANTS)


def test_what_is_not_there_is_named(tmp_path):
    pytest.importorskip("nbgrader")
    with pytest.raises(UserError, match="there is no problem set 'set_9'"):
        release("set_9", classroom=tmp_path)
    with pytest.raises(UserError, match="set_1 is not released in .*; first `python -m spvit_course release set_1`"):
        grade("set_1", classroom=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot make the class's folder .*file/room"):
        grade("set_1", classroom=tmp_path / "file" / "room")


# Whole sets -----------------------------------------------------------------------------------------------------------------


def hand_in(room, name, student, answers=None):
    """Hand in a set as it was handed out, with solutions from a solved notebook where one is given."""
    notebook = read(room / "release" / name / f"{name}.ipynb")
    solved = {cell.id: cell.source for cell in answers.cells} if answers else {}
    for cell in notebook.cells:
        if grading(cell).get("solution"):
            cell.source = solved.get(cell.id, cell.source)
    folder = room / "submitted" / student / name
    folder.mkdir(parents=True)
    (folder / f"{name}.ipynb").write_text(text_of(notebook), encoding="utf-8")


@pytest.mark.parametrize("name", SETS)
def test_each_check_of_a_solved_set_gives_its_receipts(name, monkeypatch, capsys):
    autograding, messages, space = pytest.importorskip("spvit_course.classroom.autograding"), [], {}
    monkeypatch.setenv("SPVIT_PROFILE", "smoke")
    monkeypatch.setattr(proctor, "_check", proctor.signed_check(messages.append, "secret"))
    expected = set()
    for cell in assemble(SETS[name]).cells:
        if cell.cell_type == "code":
            exec(cell.source, space)
            expected |= autograding.expected_receipts(cell.source, "secret")
    assert {message[proctor.MIME]["receipt"] for message in messages} == expected
    assert len(expected) == sum(isinstance(part, Part) for part in SETS[name].parts)


@pytest.mark.slow
def test_the_public_key_does_not_answer_a_variant_and_only_what_is_new_is_run(tmp_path, capsys):
    """Release a variant, grade it, give points by hand, take in one submission more, grade again."""
    nbgrader = pytest.importorskip("nbgrader.api")
    room = tmp_path / "room"
    public = assemble(SETS["set_1"])
    handed_out = read(release("set_1", variant="x_first", classroom=room))
    key = read(room / "source" / "set_1" / "set_1.ipynb")
    assert [cell.source for cell in handed_out.cells] == [cell.source for cell in student_copy(key).cells]
    hand_in(room, "set_1", "public", public)
    hand_in(room, "set_1", "varied", key)
    of_public, of_key = grade("set_1", classroom=room)
    questions = [part.name for part in SETS["set_1"].parts if isinstance(part, Question)]
    assert of_key.failure is None and sorted(of_key.to_read) == sorted(questions)
    page = (room / "feedback" / "varied" / "set_1" / "set_1.html").read_text(encoding="utf-8")
    assert "MARK SCHEME" in page and "What earns points" in page
    changed = {change.exercise for change in VARIANTS["x_first"].exercises} & set(of_key.points)
    assert changed and of_key.checked == of_key.checkable and of_key.odd == []
    checked = {name for name in of_public.points if name not in of_public.by_hand}
    assert {name: of_public.points[name] for name in checked} == {
        name: 0 if name in changed else of_public.max_points[name] for name in checked
    }

    with nbgrader.Gradebook(f"sqlite:///{room / 'gradebook.db'}") as gradebook:
        question = sorted(of_key.to_read)[0]
        given = gradebook.find_grade(question, "set_1", "set_1", "varied")
        given.manual_score, given.needs_manual_grade = 1.5, False
        gradebook.db.commit()
    ran = (room / "autograded" / "varied" / "set_1" / "set_1.ipynb").stat().st_mtime_ns
    hand_in(room, "set_1", "later")
    later, of_public_again, of_key_again = grade("set_1", classroom=room)
    assert (room / "autograded" / "varied" / "set_1" / "set_1.ipynb").stat().st_mtime_ns == ran
    assert later.odd == ["nothing is solved"] and later.checked == later.total == 0 and later.to_read == []
    assert of_public_again == of_public
    assert of_key_again.points == of_key.points | {question: 1.5}
    rows = {row["student"]: row for row in csv.DictReader((room / "reports" / "set_1.csv").open(encoding="utf-8-sig"))}
    assert rows["varied"][question] == "1.5" and rows["varied"]["total"] == f"{of_key.checked + 1.5:g}"

    with pytest.raises(UserError, match="3 submissions to a different form of set_1 are graded in .*room"):
        release("set_1", classroom=room)
    release("set_1", variant="x_first", classroom=room)  # the same form again does no harm
    shutil.rmtree(room / "submitted")
    with pytest.raises(UserError, match="no submissions; put them into .*/submitted/STUDENT/set_1/set_1.ipynb"):
        grade("set_1", classroom=room)
