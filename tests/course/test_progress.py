"""Progress: remembered in a student's folder and nowhere else, added up as the lessons' graded cells say, drawn."""

import json
import os
import sys
import threading
import time

import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell

from spvit_course import progress as module
from spvit_course.classroom import copies
from spvit_course.lesson import PROFILES, Lesson
from spvit_course.lessons import heading, lesson_files, read, text_of
from spvit_course.progress import MANIFEST, RECORD, describe_lesson, list_rows, read_record, save_result, show_progress
from spvit_mini.errors import UserError


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A student's folder, in which the kernel runs."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / MANIFEST).write_text("{}")
    monkeypatch.chdir(folder)
    return folder


def right(image, p):
    rows_, columns = range(0, image.shape[1], p), range(0, image.shape[2], p)
    return torch.stack([image[:, r : r + p, c : c + p].flatten() for r in rows_ for c in columns])


def wrong(image, p):
    return image


def stub(*_):
    raise NotImplementedError()


# The record -----------------------------------------------------------------------------------------------------------


def test_a_folder_of_copies_is_what_build_makes_one():
    assert copies.MANIFEST == MANIFEST


def test_checks_are_remembered_in_a_students_folder(work):
    lesson = Lesson("00", PROFILES["smoke"])
    for answer, state in ((stub, "not done"), (wrong, "not yet"), (stub, "not done"), (right, "passed")):
        lesson.check(answer, name="patchify")
        assert read_record(work) == {"00": {"patchify": state}}
    lesson.check(stub, name="unpatchify")
    assert read_record(work) == {"00": {"patchify": "passed", "unpatchify": "not done"}}


@pytest.mark.parametrize("editor", ["a cell", "jupyter", "vs code"])
def test_a_kernel_in_a_different_folder_saves_beside_its_notebook(work, monkeypatch, tmp_path, editor):
    """Cells change the folder, and VS Code can start every kernel in the folder of its workspace."""
    monkeypatch.chdir(tmp_path)
    if editor == "a cell":
        monkeypatch.setattr(module, "FIRST_FOLDER", work)
    elif editor == "jupyter":
        monkeypatch.setenv("JPY_SESSION_NAME", str(work / "00_start_here.ipynb"))
    else:
        monkeypatch.setattr(sys.modules["__main__"], "__vsc_ipynb_file__", str(work / "00_start_here.ipynb"), raising=False)
    assert save_result("00", "a", "PASS") and read_record(work) == {"00": {"a": "passed"}}
    assert "\nAll lessons: " in describe_lesson("00", {}, ())


def test_a_copy_outside_of_a_folder_of_copies_says_that_nothing_is_saved(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    line = f"Not saved: {tmp_path} holds no copies. Work in the folder that `python -m spvit_course lab` opens."
    for file, is_said in ((tmp_path / "00.ipynb", True), (module.SOLVED / "00_start_here.ipynb", False), ("kernel-1", False)):
        monkeypatch.setenv("JPY_SESSION_NAME", str(file))
        assert (line in describe_lesson("00", {}, ())) == is_said
        assert not save_result("00", "a", "PASS") and not (tmp_path / RECORD).exists()


@pytest.mark.parametrize("damaged", ["<<<<<<< HEAD\n{}", "{", "[]"])
def test_a_damaged_record_is_kept_for_a_person_to_repair(work, damaged):
    (work / RECORD).write_text(damaged)
    assert save_result("00", "a", "PASS") and read_record(work) == {"00": {"a": "passed"}}
    assert (work / f"{RECORD}.damaged").read_text() == damaged
    assert save_result("00", "b", "NOT YET") and (work / f"{RECORD}.damaged").read_text() == damaged


def test_what_has_passed_once_stays_passed(work):
    for answer in (right, wrong, stub):
        Lesson("00", PROFILES["smoke"]).check(answer, name="patchify")
    assert read_record(work) == {"00": {"patchify": "passed"}}


def test_elsewhere_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Lesson("00", PROFILES["smoke"]).check(right, name="patchify")
    assert list(tmp_path.iterdir()) == []


def test_a_graded_check_is_not_remembered(work):
    Lesson("00", PROFILES["smoke"]).check(right, name="patchify", grade=True)
    assert not (work / RECORD).exists()


def test_several_kernels_lose_nothing_of_each_other(work, monkeypatch):
    read = module.read_record

    def slowly(folder):
        known = read(folder)
        time.sleep(0.005)  # so that without the lock the others come in between
        return known

    monkeypatch.setattr(module, "read_record", slowly)

    def kernel(number):
        for name in "abcd":
            assert save_result(f"{number:02}", name, "PASS", work)

    threads = [threading.Thread(target=kernel, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read(work) == {f"{number:02}": dict.fromkeys("abcd", "passed") for number in range(5)}


def test_a_folder_that_cannot_be_written_never_stops_a_lesson(work, monkeypatch, capsys):
    (work / RECORD).mkdir()  # neither read nor replaced
    lesson = Lesson("00", PROFILES["smoke"])
    lesson.check(right, name="patchify")
    monkeypatch.setattr(os, "access", lambda *_: False)
    lesson.check(right, name="patchify")
    assert capsys.readouterr().out.count("PASS patchify") == 2
    lesson.progress()
    assert capsys.readouterr().out.splitlines()[0].startswith("Lesson 00: 2 of 4 points. Passed: patchify.")
    assert {path.name for path in work.iterdir()} <= {MANIFEST, RECORD, f"{RECORD}.lock"}


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"00": 3}', '{"00": {"patchify": "great"}}', "null"])
def test_a_broken_record_begins_anew(work, broken):
    (work / RECORD).write_text(broken)
    assert read_record(work) in ({}, {"00": {}})
    assert save_result("00", "patchify", "PASS")
    assert read_record(work) == {"00": {"patchify": "passed"}}


def test_a_crash_while_writing_keeps_the_old_record(work, monkeypatch):
    save_result("00", "patchify", "PASS")
    before = (work / RECORD).read_bytes()

    def crash(*_):
        raise OSError("no")

    monkeypatch.setattr("os.replace", crash)
    assert not save_result("00", "unpatchify", "PASS")
    assert (work / RECORD).read_bytes() == before
    assert {path.name for path in work.iterdir()} <= {MANIFEST, RECORD, f"{RECORD}.lock"}


# Adding up ------------------------------------------------------------------------------------------------------------


def graded(grade_id, sum_points, *, solution=False):
    marks = {"grade": True, "grade_id": grade_id, "locked": True, "points": sum_points, "solution": solution}
    return {"nbgrader": marks | {"schema_version": 3, "task": False}}


@pytest.fixture
def notebook(tmp_path, lesson):
    """A lesson with a check of two sum_points, a check of two exercises for three, and a written answer for four."""
    lesson.cells.insert(11, new_code_cell(
        "lesson.check(one)\nlesson.check(two)\n### BEGIN HIDDEN TESTS\nlesson.check(one, grade=True)\n### END HIDDEN TESTS",
        id="both", metadata=graded("both", 3)))  # fmt: skip
    lesson.cells.insert(12, new_markdown_cell("Because.", id="why", metadata=graded("why", 4, solution=True)))
    path = tmp_path / "00_small.ipynb"
    path.write_text(text_of(lesson), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("known", "states"),
    [
        ({}, ["not done", "not done", "written"]),
        ({"00": {"patchify": "passed", "one": "passed"}}, ["passed", "not yet", "written"]),
        ({"00": {"one": "passed", "two": "passed", "why": "passed"}}, ["not done", "passed", "written"]),
        ({"01": {"patchify": "passed"}}, ["not done", "not done", "written"]),
    ],
)
def test_rows_are_the_graded_cells_with_their_states(notebook, known, states):
    rows = list_rows([notebook], known)
    assert [row.state for row in rows] == states
    assert [(row.exercise, row.points) for row in rows] == [("patchify", 2), ("one, two", 3), ("why", 4)]
    assert {(row.lesson, row.title) for row in rows} == {("00", "A small lesson")}


def test_the_lessons_points_are_those_of_their_titles():
    for path in lesson_files():
        assert sum(row.points for row in list_rows([path], {})) == heading(read(path)).points, path.name


def test_files_that_cannot_be_read_have_no_rows(tmp_path):
    for number, content in enumerate(["", "[]", '{"cells": []}', '{"cells": [{"source": "no title"}]}']):
        (tmp_path / f"{number}.ipynb").write_text(content)
    assert list_rows([*sorted(tmp_path.glob("*.ipynb")), tmp_path / "none.ipynb"], {}) == []


def test_a_lesson_ends_with_what_has_passed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"patchify": "passed", "unpatchify": "passed"}
    assert describe_lesson("00", names, names) == "Lesson 00: 4 of 4 points. Passed: patchify, unpatchify."
    some = {"patchify": "not yet"}
    assert describe_lesson("00", some, names) == "Lesson 00: 0 of 4 points. Not yet: patchify. Not done: unpatchify."


def test_in_a_students_folder_all_lessons_are_added_up(work):
    (work / RECORD).write_text(json.dumps({"00": {"patchify": "passed"}, "01": {"MHSA": "passed", "entropy": "not yet"}}))
    total = sum(row.points for row in list_rows(lesson_files(), {}))
    assert describe_lesson("00", {"unpatchify": "not yet"}, ()).splitlines() == [
        "Lesson 00: 2 of 4 points. Passed: patchify. Not yet: unpatchify.",
        f"All lessons: 5 of {total} points. A table and a picture: python -m spvit_course progress",
    ]


@pytest.mark.parametrize("path", lesson_files(), ids=lambda path: path.stem)
def test_a_lesson_counts_the_points_of_its_title_and_names_the_written_part(path, tmp_path):
    rows = list_rows([path], {})
    said = describe_lesson(rows[0].lesson, {}, (), folder=tmp_path)
    assert said.startswith(f"Lesson {rows[0].lesson}: 0 of {heading(read(path)).points} points. Not done: ")
    written = [row for row in rows if row.state == "written"]
    assert [f"{row.exercise} ({row.points} points)" in said for row in written] == [True] * len(written)
    assert ("Written, read by people: " in said) == bool(written) == (rows[0].lesson == "10")


def test_a_lesson_whose_points_cannot_be_read_counts_exercises(work):
    said = describe_lesson("99", {"one": "passed"}, ["one", "two"]).splitlines()[0]
    assert said == "Lesson 99: 1 of 2 exercises. Passed: one. Not done: two."


# The program ----------------------------------------------------------------------------------------------------------


def test_the_program_prints_a_table_and_draws_it(work, notebook, capsys):
    save_result("00", "patchify", "PASS")
    save_result("00", "one", "NOT YET")
    show_progress(work, [notebook])
    assert capsys.readouterr().out.splitlines() == [
        "lesson  exercise  points  state",
        "00      patchify       2  passed",
        "00      one, two       3  not yet",
        "00      why            4  written",
        "2 of 9 points; exercises passed: 1, not yet: 1, not done: 0",
        "4 of these points are for written answers, which people read",
        f"picture: {work / 'progress.png'}",
    ]
    assert (work / "progress.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    show_progress(work, [notebook])  # its own picture is drawn again


def test_the_picture_shows_each_exercise_as_wide_as_its_points():
    rows = [
        module.Row("00", "Start", "a", 2, "passed"),
        module.Row("00", "Start", "b", 3, "not yet"),
        module.Row("01", "Next", "c", 1, "not done"),
        module.Row("01", "Next", "d", 5, "written"),
    ]
    (axes,) = module.draw_progress(rows).axes
    boxes = [(bar.get_x(), bar.get_y() + 0.4, bar.get_width()) for bar in axes.patches if bar.get_width()]
    assert boxes == [(0, pytest.approx(0), 2), (2, pytest.approx(0), 3), (0, pytest.approx(1), 1), (1, pytest.approx(1), 5)]
    assert axes.get_title(loc="left") == "2 of 11 points passed"
    assert [text.get_text() for text in axes.texts] == ["a", "b", "c", "d"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["00 Start", "01 Next"]
    faces = [bar.get_facecolor() for bar in axes.patches if bar.get_width()]
    assert len(set(faces)) == 4 and axes.patches[1].get_hatch()


def test_a_students_own_picture_is_not_written_over(work, notebook):
    (work / "progress.png").write_bytes(b"holiday")
    with pytest.raises(UserError, match="progress.png exists and is not a figure of this program. Use .*: --figure"):
        show_progress(work, [notebook])
    assert (work / "progress.png").read_bytes() == b"holiday"
    show_progress(work, [notebook], work / "mine.svg")
    assert "<svg" in (work / "mine.svg").read_text()


@pytest.mark.parametrize(
    ("file", "says"),
    [("a.xyz", "no picture can be written as a.xyz"), ("none/a.png", "cannot write the picture .*none/a.png")],
)
def test_a_picture_that_cannot_be_written_is_one_line(work, notebook, file, says, capsys):
    with pytest.raises(UserError, match=says):
        show_progress(work, [notebook], work / file)
    assert capsys.readouterr().out.startswith("lesson")  # the table came first


def test_without_copies_it_says_how_to_make_them(tmp_path, notebook):
    with pytest.raises(UserError, match=r"there are no copies in .*; `python -m spvit_course lab` makes"):
        show_progress(tmp_path, [notebook])
