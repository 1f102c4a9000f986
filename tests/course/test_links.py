"""Links from lesson to lesson: from the lessons that are there, once each, with nothing else of a lesson touched."""

import re

import pytest
from nbformat.v4 import new_code_cell

from spvit_course.classroom.badges import set_badges
from spvit_course.classroom.copies import build_copies
from spvit_course.classroom.links import has_links, set_links
from spvit_course.classroom.lint import problems
from spvit_course.lessons import heading, lesson_files, read, text_of
from spvit_mini.errors import UserError

TITLES = {"00_small.ipynb": "A small lesson", "01_more.ipynb": "More [of it]", "03_last.ipynb": "The last"}


@pytest.fixture
def folder(tmp_path, lesson):
    """Three lessons; the numbers have a gap."""
    (tmp_path / "notebooks").mkdir()
    counts = lesson.cells[0].source.partition("\n")[2]
    for name, title in TITLES.items():
        lesson.cells[0].source = f"# {name[:2]} · {title}\n{counts}"
        lesson.cells[2].source = lesson.cells[2].source[:-4] + f'{name[:2]}")'
        (tmp_path / "notebooks" / name).write_text(text_of(lesson), encoding="utf-8")
    return tmp_path / "notebooks"


LINES = {
    "00_small.ipynb": r"[01 More \[of it\] →](01_more.ipynb)",
    "01_more.ipynb": "[← 00 A small lesson](00_small.ipynb) · [03 The last →](03_last.ipynb)",
    "03_last.ipynb": r"[← 01 More \[of it\]](01_more.ipynb)",
}


def test_each_lesson_leads_to_its_neighbours_from_both_its_ends(folder):
    assert not has_links(folder)
    before = {path.name: read(path) for path in lesson_files(folder)}
    assert [path.name for path in set_links(folder)] == list(TITLES)
    for path in lesson_files(folder):
        notebook, old = read(path), before[path.name]
        assert notebook.cells[0].source == f"{old.cells[0].source}\n\n{LINES[path.name]}"
        assert notebook.cells[-1].source == f"{old.cells[-1].source}\n\n{LINES[path.name]}"
        assert notebook.cells[1:-1] == old.cells[1:-1] and notebook.metadata == old.metadata
        assert problems(notebook) == [] and heading(notebook) == heading(old)
        for name in re.findall(r"\]\((\w+\.ipynb)\)", notebook.cells[0].source):
            assert (folder / name).is_file()
    assert has_links(folder)


def test_doing_it_again_changes_nothing(folder):
    set_links(folder)
    before = [path.read_bytes() for path in lesson_files(folder)]
    assert set_links(folder, dry=True) == set_links(folder) == []
    assert [path.read_bytes() for path in lesson_files(folder)] == before


def test_a_lesson_that_comes_goes_or_has_a_new_title_is_followed(folder):
    set_links(folder)
    second = folder / "01_more.ipynb"
    notebook = read(second)
    notebook.cells[0].source = notebook.cells[0].source.replace("More [of it]", "Even more", 1)
    second.write_text(text_of(notebook), encoding="utf-8")
    assert [path.name for path in set_links(folder, dry=True)] == ["00_small.ipynb", "03_last.ipynb"]
    assert [path.name for path in set_links(folder)] == ["00_small.ipynb", "03_last.ipynb"]
    assert read(folder / "00_small.ipynb").cells[0].source.endswith("\n\n[01 Even more →](01_more.ipynb)")
    second.unlink()
    set_links(folder)
    for name, line in (("00_small.ipynb", "[03 The last →](03_last.ipynb)"),
                       ("03_last.ipynb", "[← 00 A small lesson](00_small.ipynb)")):  # fmt: skip
        for cell in (read(folder / name).cells[0], read(folder / name).cells[-1]):
            assert cell.source.endswith(f"\n\n{line}") and cell.source.count(".ipynb") == 1
    (folder / "03_last.ipynb").unlink()
    set_links(folder)
    assert ".ipynb" not in read(folder / "00_small.ipynb").cells[0].source
    assert not has_links(folder)


@pytest.mark.parametrize("badges_first", [True, False])
def test_with_badges_the_neighbours_open_on_colab_too(folder, badges_first):
    if not badges_first:
        set_links(folder)
    set_badges("ada/spvit_mini", branch="a/b", folder=folder)
    set_links(folder)
    there = "https://colab.research.google.com/github/ada/spvit_mini/blob/a/b/notebooks"
    line = f"{LINES['01_more.ipynb']} · on Colab: [← 00]({there}/00_small.ipynb), [03 →]({there}/03_last.ipynb)"
    notebook = read(folder / "01_more.ipynb")
    assert f"[notation](notation.md)\n\n{line}\n\n[![Open in Colab]" in notebook.cells[0].source
    assert notebook.cells[-1].source.endswith(f"- none\n\n{line}")
    before = [path.read_bytes() for path in lesson_files(folder)]
    set_badges("ada/spvit_mini", branch="a/b", folder=folder)
    assert set_links(folder) == []
    assert [path.read_bytes() for path in lesson_files(folder)] == before
    set_badges("bob/elsewhere", folder=folder)
    set_links(folder)
    text = read(folder / "01_more.ipynb").cells[0].source + read(folder / "01_more.ipynb").cells[-1].source
    assert "ada" not in text and text.count("on Colab: ") == 2


def test_other_links_of_a_cell_stay(folder):
    path = folder / "01_more.ipynb"
    notebook = read(path)
    notebook.cells[-1].source += "\n- see [00 A small lesson](00_small.ipynb)\n\n[the ruler →](03_last.ipynb) is next"
    notebook.cells[-1].source += "\n\n[00 A small lesson](00_small.ipynb) first, then [03 The last →](03_last.ipynb)"
    path.write_text(text_of(notebook), encoding="utf-8")
    text = notebook.cells[-1].source
    set_links(folder)
    assert read(path).cells[-1].source == f"{text}\n\n{LINES[path.name]}"


def test_progress_is_shown_before_the_last_links(folder):
    set_links(folder)
    before = {path.name: read(path) for path in lesson_files(folder)}
    assert len(set_links(folder, progress=True)) == 3
    for path in lesson_files(folder):
        *rest, references, shown, last = read(path).cells
        assert [cell.source for cell in rest] == [cell.source for cell in before[path.name].cells[:-1]]
        assert references.source.endswith("- none")
        assert (shown.cell_type, shown.source, shown.id, shown.outputs) == ("code", "lesson.progress()", "progress", [])
        assert (last.cell_type, last.source, last.id) == ("markdown", LINES[path.name], "next")
    assert set_links(folder, progress=True) == set_links(folder) == []


def test_the_cell_of_progress_has_an_output_that_is_the_same_everywhere(folder, monkeypatch, tmp_path, capsys):
    """As it is stored in a solved lesson: the kernel's folder is none of copies."""
    from spvit_course.lesson import PROFILES, Lesson

    monkeypatch.chdir(tmp_path)
    lesson = Lesson("00", PROFILES["quick"])
    lesson._states = dict.fromkeys(lesson._exercises, "passed")
    lesson.progress()
    assert capsys.readouterr().out == "Lesson 00: 4 of 4 points. Passed: patchify, unpatchify.\n"


def test_a_lesson_that_ends_with_code_gets_a_cell_for_the_links(folder):
    path = folder / "03_last.ipynb"
    notebook = read(path)
    notebook.cells.append(new_code_cell("1", id="one", execution_count=4))
    path.write_text(text_of(notebook), encoding="utf-8")
    set_links(folder)
    *_, one, last = read(path).cells
    assert (one.source, one.execution_count, last.source) == ("1", 4, LINES[path.name])


def test_the_copies_have_the_links_and_lead_to_copies(folder, tmp_path):
    set_links(folder)
    build_copies(tmp_path / "work", lesson_files(folder))
    for path in lesson_files(tmp_path / "work"):
        assert read(path).cells[0].source.endswith(LINES[path.name])


def test_a_lesson_without_a_title_is_named_and_nothing_is_written(folder):
    path = folder / "03_last.ipynb"
    notebook = read(path)
    notebook.cells[0].source = "The end"
    path.write_text(text_of(notebook), encoding="utf-8")
    before = [path.read_bytes() for path in lesson_files(folder)]
    with pytest.raises(UserError, match="03_last.ipynb has no title cell"):
        set_links(folder)
    assert [path.read_bytes() for path in lesson_files(folder)] == before


def test_the_stored_lessons_links_are_up_to_date():
    if not has_links():
        pytest.skip("the stored lessons have no links yet: python -m spvit_course links")
    assert [path.name for path in set_links(dry=True)] == []
