"""Runs of `grade`: killed, twice at once, again after changes, over misplaced, late and damaged submissions.

Cells are run in this process, without the kernel that a submission otherwise gets; test_grading_class.py has the kernels.
"""

import csv
import io
import json
import os
import random
import shlex
import shutil
import signal
import sys

import pytest

pytest.importorskip("nbgrader")

from IPython.core.inputtransformer2 import TransformerManager
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output
from nbgrader.api import Gradebook
from nbgrader.apps import NbGraderAPI
from nbgrader.preprocessors import Execute

from spvit_course.classroom import gradebook, grading, problem_sets, proctor
from spvit_course.classroom.grading import grade, release
from spvit_course.classroom.variants import VARIANTS
from spvit_course.lessons import read, text_of
from spvit_mini.errors import UserError

from .mutations import MUTATIONS, SPARES, mutate
from .submissions import OFFSETS, PAD, SMALL, SWAPPED, cell

pytestmark = pytest.mark.slow

WHY = "Because it changes nothing: 1 · s = s."


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A class to which the small set was released."""
    room = tmp_path_factory.mktemp("released") / "room"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(problem_sets.SETS, "small", SMALL)
        release("small", classroom=room)
        yield room


@pytest.fixture
def room(released, tmp_path, monkeypatch):
    """A copy of that class, in which cells are run in this process."""
    messages: list[dict] = []

    def run(self, nb, resources=None, km=None):
        space, self.secret = {}, "secret"
        for index, one in enumerate(nb.cells):
            if one.cell_type == "code":
                messages.clear()
                self.on_cell_start(one, index)
                try:
                    exec(TransformerManager().transform_cell(one.source), space)
                except BaseException as error:
                    one.outputs = [new_output("error", ename=type(error).__name__, evalue=str(error), traceback=[])]
                self.receipts[index] = {message[proctor.MIME].get("receipt") for message in messages}
        return nb, resources

    monkeypatch.setenv("SPVIT_PROFILE", "smoke")
    monkeypatch.setattr(Execute, "preprocess", run)
    monkeypatch.setattr(proctor, "_check", proctor.signed_check(messages.append, "secret"))
    return shutil.copytree(released, tmp_path / "room")


def solve(room, *, offsets=OFFSETS, pad=PAD, why=WHY):
    """Solve the set as it was handed out."""
    notebook = read(room / "release" / "small" / "small.ipynb")
    for name, source in (("offsets", offsets), ("pad_prefix", pad), ("why", why)):
        cell(notebook, name).source = source if source is not None else cell(notebook, name).source
    return notebook


def hand_in(room, student, notebook=None, *, path="small/small.ipynb"):
    """Put a submission where it belongs, or elsewhere in the student's folder. Returns the file."""
    file = room / "submitted" / student / path
    file.parent.mkdir(parents=True, exist_ok=True)
    content = solve(room) if notebook is None else notebook
    file.write_bytes(content if isinstance(content, bytes) else text_of(content).encode())
    return file


def give_points(room, student, name, points):
    """Give points by hand, as the formgrader does."""
    with Gradebook(f"sqlite:///{room / 'gradebook.db'}") as book:
        given = book.find_grade(name, "small", "small", student)
        given.manual_score, given.needs_manual_grade = points, False
        book.db.commit()


def rows(room):
    with (room / "reports" / "small.csv").open(encoding="utf-8-sig") as file:
        return {row["student"]: row for row in csv.DictReader(file)}


# Killed, and twice at once --------------------------------------------------------------------------------------------------


def grade_in_a_child(room, *, kill_at=None):
    """Grade in a forked process that is killed when it changes the disk for the n-th time. Return how often it did, or None."""
    ours, theirs = os.pipe()
    if (child := os.fork()) == 0:
        count = 0

        def audit(event, arguments):
            nonlocal count
            changes = event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "sqlite3.connect")
            if changes or (event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
                count += 1
                if count == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.stdout = io.StringIO()
            sys.addaudithook(audit)
            grade("small", classroom=room)
            os.write(theirs, str(count).encode())
        finally:
            os._exit(0)
    os.close(theirs)
    os.waitpid(child, 0)
    with os.fdopen(ours) as answer:
        return int(text) if (text := answer.read()) else None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("seed", [0])
def test_a_class_whose_grading_was_killed_has_the_points_of_one_that_was_not(room, tmp_path, seed, capsys):
    for student, notebook in {"ada": solve(room), "bob": solve(room, offsets=SWAPPED, why=None)}.items():
        hand_in(room, student, notebook)
    killed = shutil.copytree(room, tmp_path / "killed")
    changes = grade_in_a_child(room)
    expected = grade("small", classroom=room)
    assert [(result.checked, result.to_read) for result in expected] == [(4, ["why"]), (2, [])]
    random.seed(seed)
    moments = sorted(random.sample(range(2, changes), 3))
    assert [grade_in_a_child(killed, kill_at=moment) for moment in moments] == [None] * 3
    assert grade("small", classroom=killed) == expected
    assert rows(killed) == rows(room)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_second_run_ends_with_a_line_and_a_dead_one_holds_nothing_up(room, capsys):
    hand_in(room, "ada")
    with grading.Classroom(room).lock():
        for call in (grade, release):
            with pytest.raises(UserError, match=r"room is in use by another `release` or `grade`\. Wait until that has ended$"):
                call("small", classroom=room)
    assert not (room / "reports").exists()
    if (child := os.fork()) == 0:
        with grading.Classroom(room).lock():
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert grade("small", classroom=room)[0].checked == 4


def test_an_end_from_outside_is_not_a_submissions_failure(room, monkeypatch):
    hand_in(room, "ada")
    for end in (SystemExit(143), KeyboardInterrupt()):

        def stop(*_, end=end, **__):
            raise end

        monkeypatch.setattr(Execute, "preprocess", stop)
        with pytest.raises(type(end)) as ended:
            grade("small", classroom=room)
        assert ended.value.args == end.args


# Points by hand -------------------------------------------------------------------------------------------------------------


def test_what_has_changed_since_it_was_graded_by_hand_is_to_be_read_again(room, monkeypatch, capsys):
    hand_in(room, "ada")
    grade("small", classroom=room)
    give_points(room, "ada", "why", 3)
    give_points(room, "ada", "check-offsets", 1)
    assert grade("small", classroom=room)[0].again == []
    hand_in(room, "ada", solve(room, pad=f"# with a comment\n{PAD}"))
    (result,) = grade("small", classroom=room)
    assert (result.again, result.points) == ([], {"offsets": 1, "pad_prefix": 2, "why": 3})

    hand_in(room, "ada", solve(room, offsets=SWAPPED, why="I don't know."))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # killed before the flags are set
        patch.setattr(gradebook, "set_to_read", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        grade("small", classroom=room)
    for _ in range(2):
        capsys.readouterr()
        (result,) = grade("small", classroom=room)
        assert (result.again, result.points) == (["offsets", "why"], {"offsets": 1, "pad_prefix": 2, "why": 3})
        said = capsys.readouterr().out
        assert "3 of 4 points from checks, to read again: offsets, why\n" in said
        assert "2 answers have changed since they were graded by hand, and are to be read again there" in said
    assert rows(room)["ada"]["to_read_again"] == "offsets why"
    assert "- **ada**: offsets, why" in (room / "reports" / "small.md").read_text(encoding="utf-8")
    give_points(room, "ada", "why", 0)
    assert grade("small", classroom=room)[0].again == ["offsets"]
    hand_in(room, "ada", solve(room, offsets=SWAPPED, why="I don't know.", pad=None))
    (result,) = grade("small", classroom=room)  # neither has changed once more, and one was never read
    assert (result.again, result.points) == (["offsets"], {"offsets": 1, "pad_prefix": 0, "why": 0})


@pytest.mark.parametrize(
    ("kind", "below", "text"),
    [("markdown", 1, WHY), ("markdown", 0, WHY), ("code", 1, f"# {WHY}"), ("markdown", -9, "At the top.")],
)
def test_an_answer_in_a_cell_beside_is_to_read(room, kind, below, text, capsys):
    notebook = solve(room, why=None)
    new = {"markdown": new_markdown_cell, "code": new_code_cell}[kind](text)
    notebook.cells.insert(notebook.cells.index(cell(notebook, "why")) + below, new)
    notebook.cells[-1].source = "## Help that I had\n\nNobody."
    hand_in(room, "ada", notebook)
    (result,) = grade("small", classroom=room)
    assert result.points == {"offsets": 2, "pad_prefix": 2, "why": None}
    assert result.odd == [f"the answer why is as handed out, but the cell that begins {text[:40]!r} may answer it: to read"]


# Where it was put, and when -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "student"),
    [
        ("ada/small.ipynb", "ada"), ("ada/Small/small.ipynb", "ada"), ("ada/small /small.ipynb", "ada"),
        ("ada/week 3/small/small.ipynb", "ada"), ("ada/my work.ipynb", "ada"), ("ada/SMALL (1).ipynb", "ada"),
        ("ada/small.zip", "ada"), ("ada/small", "ada"), ("small/ada/small.ipynb", "ada"), ("ada_small.ipynb", "ada_small"),
        ("ada/set_1/small.ipynb", None), ("ada/.ipynb_checkpoints/small-checkpoint.ipynb", None), ("ada/set_2.ipynb", None),
        ("__MACOSX/ada/._small.ipynb", None),
    ],
)  # fmt: skip
def test_what_was_put_in_a_different_place_is_named(room, path, student):
    file = room / "submitted" / path
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    found = grading.find_misplaced(room / "submitted", "small", set())
    assert found == ({} if student is None else {student: f"submitted/{path}"})


def test_who_misplaced_a_submission_has_a_row_and_the_others_are_graded(room, capsys):
    hand_in(room, "ada")
    hand_in(room, "ada", b"{}", path="small.ipynb")
    hand_in(room, "bob", path="Small/small.ipynb")
    hand_in(room, "Eve M", b"{}")
    eve, ada, bob = grade("small", classroom=room)
    assert (ada.checked, ada.odd) == (4, ["also handed in, and not graded: submitted/ada/small.ipynb"])
    assert bob.failure == "misplaced: submitted/bob/Small/small.ipynb; move it to submitted/bob/small/small.ipynb"
    assert "characters that nbgrader can't look for; rename it" in eve.failure
    assert rows(room)["bob"]["odd"] == f"NOT GRADED: {bob.failure}"
    assert "| bob | – | – | – | 0 of 0 | not graded |" in (room / "reports" / "small.md").read_text(encoding="utf-8")


def test_due_dates_and_times_are_in_the_table_which_excel_reads(room, capsys):
    times = {"ada": "2026-11-21 18:00:00 UTC", "bob": "2026-11-22 19:30:00 +0100", "eve": "last Tuesday", "joe": None}
    for student, time in times.items():
        file = hand_in(room, student)
        if time is not None:
            file.with_name("timestamp.txt").write_text(time)
    with Gradebook(f"sqlite:///{room / 'gradebook.db'}") as book:
        book.update_or_create_assignment("small", duedate="2026-11-21 18:00:00 UTC")
    _, _, eve, _ = grade("small", classroom=room)
    assert eve.odd == ["timestamp.txt is 'last Tuesday'; expected a time such as 2026-11-21 18:00:00 UTC"]
    assert {row["due"] for row in rows(room).values()} == {"2026-11-21 18:00"}
    said = {student: (row["submitted"], row["hours_late"]) for student, row in rows(room).items()}
    late = ("2026-11-22 18:30", "24.5")
    assert said == {"ada": ("2026-11-21 18:00", "0"), "bob": late, "eve": ("", ""), "joe": ("", "")}
    report = (room / "reports" / "small.md").read_text(encoding="utf-8")
    assert "Due 2026-11-21 18:00 UTC. Late: bob (24.5 hours). Without a time of submission: 2." in report
    assert (room / "reports" / "small.csv").read_bytes().startswith(b"\xef\xbb\xbfstudent,")


# The gradebook, and the disk ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", [None, "x_first"])
def test_a_class_without_its_gradebook_says_what_to_do_and_that_works(room, variant, monkeypatch, capsys):
    if variant:
        release("small", classroom=room, variant=variant)
    hand_in(room, "ada")
    if not variant:
        grade("small", classroom=room)
    command = shlex.join(["small", *(["--variant", variant] if variant else []), "--classroom", str(room)])
    for content in (b"no database" * 100, b"", None):
        (room / "gradebook.db").unlink(missing_ok=True)
        if content is not None:
            (room / "gradebook.db").write_bytes(content)
        with monkeypatch.context() as patch, pytest.raises(UserError) as refused:
            patch.setattr("spvit_course.classroom.variants.VARIANTS", {"x_first": VARIANTS["x_first"]})  # the others take long
            grade("small", classroom=room)
        assert f"`python -m spvit_course release {command}`; points given by hand are then lost" in str(refused.value)
        assert "Restore it from a copy. Without a copy, move what is left of it away and run" in str(refused.value)
    if not variant:
        release("small", classroom=room)
        assert grade("small", classroom=room)[0].checked == 4  # scored again, though its notebook is there


def test_a_page_of_feedback_that_fails_costs_no_points(room, monkeypatch, capsys):
    hand_in(room, "ada")
    outcome = {"success": False, "error": "NbGraderException: see above", "log": "Traceback\n  line 1\nbinascii.Error: no base64"}
    monkeypatch.setattr(NbGraderAPI, "generate_feedback", lambda *_, **__: outcome)
    (result,) = grade("small", classroom=room)
    assert result.checked == 4 and result.odd == ["there is no page of feedback, since nbgrader failed: Error: no base64"]


def test_a_class_that_cannot_be_written_is_refused_before_anything_is_run(room, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(UserError, match=r"room cannot be written \(No space left on device\)\. Use a different folder, or free"):
        grade("small", classroom=room)


def test_a_locked_cell_that_fails_is_named(room):
    """As when an installation is damaged: a whole class would have no points, and no report would say why."""
    from spvit_course.classroom.autograding import ProctoredExecute

    executor, reply = ProctoredExecute(), {"status": "error", "ename": "ImportError", "evalue": "no torch", "traceback": ["..."]}
    executor.odd = []
    for one in read(room / "release" / "small" / "small.ipynb").cells:
        if one.cell_type == "code":
            executor.on_cell_executed(cell=one, cell_index=0, execute_reply={"content": reply})
    assert executor.odd == ["the cell setup failed: ImportError: no torch", "the cell begin-1 failed: ImportError: no torch"]


# Any notebook ---------------------------------------------------------------------------------------------------------------

SAMPLE = [
    "ids-and-marks-dropped", "half-an-emoji", "control-characters", "attachments-of-any-kind", "outputs-of-unknown-types",
    "answered-in-a-cell-of-its-own", "merged-with-the-cell-above", "locked-cells-deleted", "truncated", "no-notebook",
    "of-a-different-lesson", "bytes-flipped",
]  # fmt: skip


@pytest.mark.parametrize("seed", [0])
def test_a_class_of_mutated_notebooks_is_graded_and_nothing_is_lost(room, seed, capsys):
    """As tests/course/test_grading_mutations.py, through all of nbgrader."""
    good = solve(room)
    blank = read(room / "release" / "small" / "small.ipynb")
    good.metadata["stubs"] = {name: cell(blank, name).source for name in ("offsets", "pad_prefix", "why")}
    files = {name: hand_in(room, name, mutate(json.loads(text_of(good)), name, seed)) for name in SAMPLE}
    before = {name: file.read_bytes() for name, file in files.items()}
    results = {result.student: result for result in grade("small", classroom=room)}
    assert results.keys() == rows(room).keys() == files.keys()
    for name, result in results.items():
        assert result.failure is None, (name, result.failure)
        if name in SPARES:
            assert result.points == {"offsets": 2, "pad_prefix": 2, "why": None}, (name, result)
        elif name != "bytes-flipped":
            assert result.total == 0 and any("ask for small.ipynb again" in line for line in result.odd), (name, result)
        assert (room / "feedback" / name / "small" / "small.html").is_file()
    assert {name: file.read_bytes() for name, file in files.items()} == before
    assert set(SAMPLE) <= set(MUTATIONS) and "Traceback" not in capsys.readouterr().out
