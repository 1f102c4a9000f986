"""Students' copies: what nbgrader would make, and nothing of a student's work is ever lost."""

import json

import nbformat
import pytest

from spvit_course.classroom.assignments import assemble
from spvit_course.classroom.copies import MANIFEST, build_copies, content_digest, replace_region, student_copy
from spvit_course.classroom.grading import Classroom
from spvit_course.classroom.problem_sets import SETS
from spvit_course.lessons import lesson_files, read, text_of
from spvit_mini.errors import UserError

from .editing import change, names, work_on

# A copy ---------------------------------------------------------------------------------------------------------------


def test_a_copy_has_stubs_for_solutions_and_no_hidden_tests(lesson):
    copy = {cell.id: cell for cell in student_copy(lesson).cells}
    assert copy["solution-patchify"].source == (
        "def patchify(image, p):\n"
        '    """Cut an image (channels, rows·p, columns·p) into tokens (rows·columns, channels·p·p)."""\n'
        "    channels, height, width = image.shape\n"
        "    # YOUR CODE HERE\n"
        "    raise NotImplementedError()"
    )
    assert copy["check-patchify"].source == "lesson.check(patchify)"
    assert all(cell.outputs == [] and cell.execution_count is None for cell in copy.values() if cell.cell_type == "code")
    assert copy["count"].source == "2 * 2" and copy["count"].metadata.tags == ["nbval-check-output"]


def test_the_lesson_itself_is_left_alone(lesson):
    before = text_of(lesson)
    student_copy(lesson)
    assert text_of(lesson) == before


def test_graded_cells_are_locked(lesson):
    copy = {cell.id: cell for cell in student_copy(lesson).cells}
    assert copy["check-patchify"].metadata.deletable is False and copy["check-patchify"].metadata.editable is False
    assert copy["solution-patchify"].metadata.deletable is False and "editable" not in copy["solution-patchify"].metadata
    assert "deletable" not in copy["count"].metadata


def add_manual_questions(lesson):
    """Add a written answer and a task with a marking scheme."""
    nbgrader = {"grade": True, "grade_id": "why", "locked": False, "points": 3, "schema_version": 3, "solution": True}
    lesson.cells.append(nbformat.v4.new_markdown_cell("Because.", id="why", metadata={"nbgrader": nbgrader | {"task": False}}))
    task = {
        "grade": False,
        "grade_id": "task",
        "locked": True,
        "points": 2,
        "schema_version": 3,
        "solution": False,
        "task": True,
    }
    text = "Explain.\n=== BEGIN MARK SCHEME ===\nTwo points for order.\n=== END MARK SCHEME ==="
    lesson.cells.append(nbformat.v4.new_markdown_cell(text, id="task", metadata={"nbgrader": task}))


def test_a_written_answer_and_a_marking_scheme_are_replaced(lesson):
    add_manual_questions(lesson)
    *_, why, explain = student_copy(lesson).cells
    assert (why.source, explain.source) == ("YOUR ANSWER HERE", "Explain.")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("### BEGIN SOLUTION\n1", "has no end"),
        ("### BEGIN SOLUTION\n### BEGIN SOLUTION\n### END SOLUTION", "begins inside another"),
    ],
)
def test_markers_that_do_not_match_are_refused(source, says):
    with pytest.raises(UserError, match=says):
        replace_region(source, "SOLUTION", "stub")


def test_a_solution_outside_a_solution_cell_is_refused(lesson):
    lesson.cells[6].source = "### BEGIN SOLUTION\n4\n### END SOLUTION"
    with pytest.raises(UserError, match="cell count has a solution region but is no solution cell"):
        student_copy(lesson)


def comparable(notebook):
    """List what nbgrader and `build` must agree on: cells with their sources, ids, outputs and metadata, checksums aside."""
    cells = []
    for cell in notebook.cells:
        metadata = json.loads(json.dumps(cell.metadata))
        metadata.get("nbgrader", {}).pop("checksum", None)
        cells.append((cell.cell_type, cell.id, cell.source, metadata, cell.get("outputs"), cell.get("execution_count")))
    return cells


def nbgraders_copies(notebooks, folder):
    """Make students' copies with nbgrader itself."""
    room = Classroom(folder)
    source = room.path("source", "all")
    source.mkdir(parents=True)
    for name, notebook in notebooks.items():
        (source / f"{name}.ipynb").write_text(text_of(notebook), encoding="utf-8")
    room.run(room.api.generate_assignment, "all")
    return {name: read(room.path("release", "all") / f"{name}.ipynb") for name in notebooks}


@pytest.mark.slow
def test_copies_are_what_nbgrader_makes(lesson, tmp_path):
    pytest.importorskip("nbgrader")
    add_manual_questions(lesson)
    solved = {"small": lesson} | {path.stem: read(path) for path in lesson_files()}
    solved |= {name: assemble(problem_set) for name, problem_set in SETS.items()}
    assert len(solved) >= 1 + 14 + 5
    theirs = nbgraders_copies(solved, tmp_path)
    for name, notebook in solved.items():
        assert comparable(student_copy(notebook)) == comparable(theirs[name]), name


# A folder of copies ---------------------------------------------------------------------------------------------------


def test_an_untouched_copy_follows_the_lesson(source, tmp_path):
    work = tmp_path / "work"
    assert [report.status for report in build_copies(work, [source])] == ["new"]
    assert [report.status for report in build_copies(work, [source])] == ["unchanged"]
    change(source)
    assert [report.status for report in build_copies(work, [source])] == ["updated"]
    assert (work / source.name).read_text(encoding="utf-8") == text_of(student_copy(read(source)))
    assert names(work) == [source.name]


def test_a_copy_that_was_only_opened_follows_the_lesson_too(source, tmp_path):
    """JupyterLab writes the kernel's details and the cells' trust into a notebook when it saves it."""
    work = tmp_path / "work"
    build_copies(work, [source])
    opened = nbformat.read(work / source.name, as_version=4)
    opened.metadata.language_info = {"name": "python", "version": "3.12.1", "codemirror_mode": {"name": "ipython"}}
    opened.cells[2].metadata["trusted"] = True
    nbformat.write(opened, work / source.name)
    change(source)
    assert [report.status for report in build_copies(work, [source])] == ["updated"]


def test_a_copy_that_was_run_is_the_students_own(source, tmp_path):
    work = tmp_path / "work"
    build_copies(work, [source])
    run = nbformat.read(work / source.name, as_version=4)
    run.cells[2].execution_count = 1
    nbformat.write(run, work / source.name)
    change(source)
    assert [report.status for report in build_copies(work, [source])] == ["newer"]


def test_an_edited_copy_stays_and_the_newer_lesson_comes_beside(source, tmp_path):
    work = tmp_path / "work"
    build_copies(work, [source])
    mine = work_on(work / source.name, "my answer")
    assert [report.status for report in build_copies(work, [source])] == ["edited"]
    assert names(work) == [source.name]

    change(source)
    (report,) = build_copies(work, [source])
    assert str(report).splitlines() == [
        "00_small.ipynb: yours was left as it is; the lesson has changed since, its newer form is 00_small.newer.ipynb",
        "    changed: the text 'The question'",
        "    as before, so that your answers can be copied over: patchify",
    ]
    assert (work / source.name).read_bytes() == mine
    assert [report.status for report in build_copies(work, [source])] == ["edited"]

    change(source, "Newer still.")
    assert [report.newer for report in build_copies(work, [source])] == ["00_small.newer.ipynb"]
    assert names(work) == ["00_small.ipynb", "00_small.newer.ipynb"]

    also_mine = work_on(work / "00_small.newer.ipynb", "my second answer")
    change(source, "And again.")
    assert [report.newer for report in build_copies(work, [source])] == ["00_small.newer-2.ipynb"]
    assert (work / source.name).read_bytes() == mine
    assert (work / "00_small.newer.ipynb").read_bytes() == also_mine


def test_a_copy_that_was_moved_away_is_made_afresh(source, tmp_path):
    work = tmp_path / "work"
    build_copies(work, [source])
    (work / source.name).rename(work / "mine.ipynb")
    assert [report.status for report in build_copies(work, [source])] == ["new"]
    assert names(work) == [source.name, "mine.ipynb"]


def test_pages_beside_the_lessons_are_handed_out_with_them(source, tmp_path):
    work, page = tmp_path / "work", source.with_name("notation.md")
    page.write_text("# Notation\n\nδ\n", encoding="utf-8")
    assert [(report.name, report.status) for report in build_copies(work, [source])] == [(source.name, "new"), (page.name, "new")]
    assert (work / page.name).read_bytes() == page.read_bytes()
    (work / page.name).write_text("my notes")
    page.write_text("# Notation, longer\n")
    assert [report.newer for report in build_copies(work, [source])] == [None, "notation.newer.md"]
    assert (work / page.name).read_text() == "my notes"


@pytest.mark.parametrize("broken", [None, "", "{", "[]", '{"files": 3}'])
def test_without_its_memory_every_copy_counts_as_edited(source, tmp_path, broken):
    work = tmp_path / "work"
    build_copies(work, [source])
    mine = work_on(work / source.name, "my answer")
    (work / MANIFEST).unlink() if broken is None else (work / MANIFEST).write_text(broken)
    change(source)
    assert [report.status for report in build_copies(work, [source])] == ["newer"]
    assert (work / source.name).read_bytes() == mine


def test_other_files_of_the_student_are_left_alone(source, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    (work / source.name).write_text("not even a notebook")
    (work / "notes.txt").write_text("mine")
    assert [report.status for report in build_copies(work, [source])] == ["newer"]
    assert (work / source.name).read_text() == "not even a notebook"
    assert (work / "notes.txt").read_text() == "mine"


def test_work_on_metadata_counts_and_a_programs_does_not():
    def notebook(metadata):
        return json.dumps({"cells": [{"id": "a", "source": "1", "metadata": metadata}]}).encode()

    plain = content_digest(notebook({}))
    for unasked in ({"trusted": True}, {"execution": {"a": 1}}, {"tags": []}, {"editable": True}, {"scrolled": True}):
        assert content_digest(notebook(unasked)) == plain
    for work in ({"tags": ["mine"]}, {"editable": False}, {"slideshow": {"slide_type": "slide"}}):
        assert content_digest(notebook(work)) != plain


def test_a_folder_in_a_copys_place_stays(source, tmp_path):
    work = tmp_path / "work"
    (work / source.name).mkdir(parents=True)
    (work / source.name / "mine.txt").write_text("mine")
    assert [report.newer for report in build_copies(work, [source])] == ["00_small.newer.ipynb"]
    assert (work / source.name / "mine.txt").read_text() == "mine"


def test_a_dry_build_says_the_same_and_writes_nothing(source, tmp_path):
    work = tmp_path / "work"
    assert [report.status for report in build_copies(work, [source], dry=True)] == ["new"]
    assert not work.exists()
    build_copies(work, [source])
    work_on(work / source.name, "my answer")
    change(source)
    before = {path.name: path.read_bytes() for path in work.iterdir()}
    dry = build_copies(work, [source], dry=True)
    assert {path.name: path.read_bytes() for path in work.iterdir()} == before
    assert dry == build_copies(work, [source]) and dry[0].status == "newer"


def test_a_crash_while_writing_leaves_the_old_copy(source, tmp_path, monkeypatch):
    work = tmp_path / "work"
    build_copies(work, [source])
    before = (work / source.name).read_bytes()
    change(source)

    def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", crash)
    with pytest.raises(KeyboardInterrupt):
        build_copies(work, [source])
    monkeypatch.undo()
    assert (work / source.name).read_bytes() == before
    assert names(work) == [source.name]
    assert [report.status for report in build_copies(work, [source])] == ["updated"]


def test_a_folder_that_cannot_be_written_is_refused_in_one_line(source, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the copies into .*file/work"):
        build_copies(tmp_path / "file" / "work", [source])


@pytest.mark.parametrize("content", ["", "{}", "[]", "text", '{"nbformat": 3, "worksheets": []}', b"\xff\xfe"])
def test_a_file_that_is_no_notebook_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "00_broken.ipynb"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match="00_broken.ipynb is no notebook that can be read"):
        build_copies(tmp_path / "work", [path])


@pytest.mark.parametrize("known", [True, False], ids=["by its manifest", "by its copies"])
def test_a_folder_keeps_its_variant(tmp_path, known):
    """`lab --out F` and `doctor --out F` name no variant; folders of earlier versions have none in their manifest."""
    lesson, work = next(path for path in lesson_files() if path.name.startswith("03")), tmp_path / "work"
    build_copies(work, [lesson], variant="x_first")
    mine = work_on(work / lesson.name, "mine")
    varied = [cell.source for cell in read(work / lesson.name).cells]
    if not known:
        manifest = json.loads((work / MANIFEST).read_text())
        del manifest["variant"]
        (work / MANIFEST).write_text(json.dumps(manifest))
    for dry in (True, False):
        assert build_copies(work, [lesson], dry=dry)[0].status == "edited"
    assert (work / lesson.name).read_bytes() == mine
    (work / lesson.name).unlink() if known else None
    build_copies(work, [lesson])
    assert [cell.source for cell in read(work / lesson.name).cells][:-1] == varied[:-1]
    assert any('variant="x_first"' in source for source in varied)
    with pytest.raises(UserError, match="work has the copies of the variant 'x_first'. Use a different folder: --out FOLDER"):
        build_copies(work, [lesson], variant="i_minus_j")
    build_copies(tmp_path / "public", [lesson])
    assert {report.status for report in build_copies(tmp_path / "public", [lesson])} == {"unchanged"}


CONFLICT = "<<<<<<< HEAD\n{}\n=======\n{}\n>>>>>>> theirs\n"


@pytest.mark.parametrize("bad", [CONFLICT, "", "{}", "\x00", None])
def test_a_lesson_that_cannot_be_read_is_named_and_the_others_are_copied(source, tmp_path, bad):
    work, other = tmp_path / "work", source.with_name("01_other.ipynb")
    other.write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    build_copies(work, [source, other])
    mine = work_on(work / source.name, "mine")
    change(other)
    source.unlink()
    source.mkdir() if bad is None else source.write_text(bad)
    first, second = build_copies(work, [source, other])
    assert (first.status, second.status) == ("unread", "updated")
    assert str(first).startswith(f"00_small.ipynb: no copy was made or updated: {source} ")
    assert (bad == CONFLICT) == ("Use `git checkout HEAD -- " in str(first))
    assert (work / source.name).read_bytes() == mine
    with pytest.raises(UserError, match="00_small.ipynb "):
        build_copies(work, [source])


def test_a_page_with_conflict_markers_is_not_handed_out(source, tmp_path):
    source.with_name("notation.md").write_text("# Notation\n" + CONFLICT)
    report = {copy.name: copy.status for copy in build_copies(tmp_path / "work", [source])}
    assert report == {source.name: "new", "notation.md": "unread"}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_copy_that_a_program_wrote_in_its_own_manner_is_not_begun(source, tmp_path, end):
    work = tmp_path / "work"
    build_copies(work, [source])
    notebook = json.loads((work / source.name).read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"]).replace("\n", end)
    (work / source.name).write_text(json.dumps(notebook), newline=end)
    assert [report.status for report in build_copies(work, [source])] == ["unchanged"] if end == "\n" else ["updated"]
