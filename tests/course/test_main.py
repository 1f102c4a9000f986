"""`python -m spvit_course`: its commands, and its one-line errors."""

import os
import re
import subprocess
import sys

import pytest

from spvit_course import __main__ as program
from spvit_course import files
from spvit_course.classroom import execution, site
from spvit_course.lessons import ROOT, read, text_of
from spvit_mini.cli.program import run_program
from spvit_mini.errors import UserError


@pytest.fixture
def call(monkeypatch, tmp_path, lesson):
    """Run a command over a repository that has one small lesson."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    (folder / "00_small.ipynb").write_text(text_of(lesson), encoding="utf-8")
    monkeypatch.setattr(files, "ROOT", tmp_path)

    def run(*arguments):
        return program.run([*map(str, arguments)])

    return run


def test_list_names_the_lessons_with_their_minutes(call, capsys):
    assert call("list") == 0
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert table == [
        ["lesson", "your", "minutes", "run", "minutes", "points", "title"],
        ["00", "5", "1", "2", "A", "small", "lesson"],
    ]


def test_build_says_what_it_did(call, capsys, tmp_path):
    assert call("build", "--out", tmp_path / "out") == 0
    assert capsys.readouterr().out == "00_small.ipynb: made\n"
    assert call("build", "--out", tmp_path / "out") == 0
    assert capsys.readouterr().out == "00_small.ipynb: as it was\n"
    assert read(tmp_path / "out" / "00_small.ipynb").cells[10].source == "lesson.check(patchify)"


def test_progress_is_of_the_folder_that_is_named(call, capsys, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(UserError, match="there are no copies in .*out yet"):
        call("progress", "--out", out)
    call("build", "--out", out)
    capsys.readouterr()
    assert call("progress", "--out", out, "--figure", tmp_path / "mine.png") == 0
    assert "0 of 2 points; exercises passed: 0, not yet: 0, not done: 1\n" in capsys.readouterr().out
    assert (tmp_path / "mine.png").is_file() and not (out / "progress.png").exists()


def test_links_are_written_once_and_badges_bring_them_up_to_date(call, capsys, tmp_path, lesson):
    first, second = (tmp_path / "notebooks" / name for name in ("00_small.ipynb", "01_next.ipynb"))
    lesson.cells[0].source = lesson.cells[0].source.replace("# 00 · A small", "# 01 · The next")
    second.write_text(text_of(lesson), encoding="utf-8")
    assert call("badges", "ada/spvit_mini") == 0
    assert "→](" not in read(first).cells[0].source
    capsys.readouterr()
    assert call("links") == 0
    assert capsys.readouterr().out == f"{first}\n{second}\n"
    assert "[01 The next lesson →](01_next.ipynb) · on Colab: [01 →](https://" in read(first).cells[0].source
    assert call("links") == 0
    assert capsys.readouterr().out == "all links are as they should be\n"
    call("badges", "bob/spvit_mini")
    assert "github/ada/" not in "".join(cell.source for cell in read(first).cells)
    call("links", "--progress")
    assert read(first).cells[-2].source == "lesson.progress()"


COMMANDS = ["list", "build", "lab", "progress", "release set_1", "grade set_1", "site", "execute", "links", "badges a/b"]


@pytest.mark.parametrize("command", COMMANDS)
def test_outside_a_checkout_each_command_says_where_the_lessons_are(monkeypatch, tmp_path, command):
    monkeypatch.setattr(files, "ROOT", tmp_path)
    monkeypatch.setitem(sys.modules, "nbformat", None)  # as a wheel without extras
    with pytest.raises(UserError, match="no lessons are in .*notebooks; expected the folder notebooks of a checkout. Get the"):
        program.run(command.split())
    assert not list(tmp_path.iterdir())


def test_an_option_that_is_unknown_is_refused(call):
    with pytest.raises(UserError, match="there is no option --profile=fast; python -m spvit_course --help"):
        call("build", "--profile=fast")


def test_what_is_missing_is_named(call, monkeypatch, capsys):
    def missing(*_):
        raise ModuleNotFoundError("No module find_problem_set 'nbclient'", name="nbclient")

    monkeypatch.setattr(program, "run_execute", missing)
    with pytest.raises(SystemExit) as ended:
        run_program(lambda: call("execute"))
    assert ended.value.code == 2
    assert re.match(r"error: nbclient is not installed; .*pip install --editable \.\[lab\]`\n$", capsys.readouterr().err)


@pytest.mark.slow
def test_execute_stores_outputs_and_says_what_is_wrong(call, capfd, tmp_path):
    path = tmp_path / "notebooks" / "00_small.ipynb"
    notebook = read(path)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.metadata["widgets"] = {}
    path.write_text(text_of(notebook), encoding="utf-8")
    assert call("execute", path) == 0
    stored = {cell.id: cell for cell in read(path).cells}
    assert stored["setup"].outputs[0].text.startswith("Lesson 00, profile standard, on ")
    assert stored["check-patchify"].outputs[0].text == "PASS patchify: 8 shapes, float32 stays float32, gradients\n"
    assert stored["experiment"].outputs[0].metadata["image/png"]["alt"] == "A white square."
    assert "execution" not in stored["setup"].metadata

    notebook = read(path)
    notebook.cells[6].source = "1 / 0"
    path.write_text(text_of(notebook), encoding="utf-8")
    before = path.read_bytes()
    with pytest.raises(UserError, match="a cell of 00_small.ipynb failed"):
        call("execute", path)
    assert "ZeroDivisionError" in capfd.readouterr().err
    assert path.read_bytes() == before


@pytest.mark.slow
def test_as_a_program_errors_are_one_line_and_exit_with_2(tmp_path):
    (tmp_path / "file").write_text("")
    command = [sys.executable, "-m", "spvit_course", "execute", str(tmp_path / "none.ipynb")]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"error: there is no notebook {tmp_path / 'none.ipynb'}\n"


# A lesson that cannot be read, a folder that cannot be written --------------------------------------------------------------


def test_a_lesson_that_cannot_be_read_stops_no_other(call, capsys, tmp_path):
    (tmp_path / "notebooks" / "01_bad.ipynb").write_text("<<<<<<< HEAD\n{}\n")
    line = f"{tmp_path}/notebooks/01_bad.ipynb has conflict markers of git; expected a merged file. Use `git checkout HEAD -- "
    assert call("build", "--out", tmp_path / "out") == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "00_small.ipynb: made" and said[1].startswith(f"01_bad.ipynb: no copy was made or updated: {line}")
    assert call("list") == 1
    table = capsys.readouterr().out.splitlines()
    assert table[1].startswith("00 ") and table[2].startswith(line)
    assert call("progress", "--out", tmp_path / "out") == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"left out: {line}")
    for command in ("links", "badges ada/spvit_mini"):
        before = (tmp_path / "notebooks" / "00_small.ipynb").read_bytes()
        with pytest.raises(UserError, match="01_bad.ipynb has conflict markers of git"):
            call(*command.split())
        assert (tmp_path / "notebooks" / "00_small.ipynb").read_bytes() == before


def test_execute_goes_on_to_the_next_lesson(call, monkeypatch, capsys, tmp_path):
    ran = []
    monkeypatch.setattr(execution, "run_notebook", lambda notebook, *_, **__: ran.append(notebook))
    (tmp_path / "notebooks" / "00_bad.ipynb").write_text("")
    with pytest.raises(UserError, match="00_bad.ipynb is no notebook that can be read"):
        call("execute")
    assert len(ran) == 1 and "00_small.ipynb: running" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["execute", "badges ada/spvit_mini", "site"])
def test_a_checkout_that_cannot_be_written_is_refused_before_the_work(call, monkeypatch, tmp_path, command):
    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    monkeypatch.setattr(execution, "run_notebook", lambda *_, **__: pytest.fail("it ran"))
    monkeypatch.setattr(site, "copy_sources", lambda *_: pytest.fail("it ran"))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=r" cannot be written \(Read-only file system\)\. Use a different folder, or free some"):
        call(*command.split())
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("failing", ["copytree", "copy_sources"])
def test_pages_that_cannot_be_written_leave_the_older_ones(monkeypatch, tmp_path, failing):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    pytest.importorskip("sphinx")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / ".buildinfo").write_text("older")
    monkeypatch.setattr("sphinx.cmd.build.build_main", lambda *_: 0)
    monkeypatch.setattr(site, "copy_sources", lambda *_: None)
    monkeypatch.setattr(site if failing == "copy_sources" else site.shutil, failing, full)
    with pytest.raises(UserError, match=r"the pages cannot be written into .*site \(No space left on device\)\. Use a different"):
        site.build_site(tmp_path / "site")
    assert [path.name for path in tmp_path.iterdir()] == ["site"] and (tmp_path / "site" / ".buildinfo").read_text() == "older"
