"""Badges: into the title cell, one set however often it is done, and a lesson stays in order."""

import shutil

import pytest

from spvit_course.classroom.badges import set_badges
from spvit_course.classroom.lint import problems
from spvit_course.lessons import lesson_files, read
from spvit_mini.errors import UserError


@pytest.fixture
def lessons(tmp_path):
    for path in lesson_files()[:2]:
        shutil.copy(path, tmp_path)
    return tmp_path


def test_badges_lead_to_each_lesson_and_replace_older_ones(lessons):
    before = {path.name: read(path) for path in lesson_files(lessons)}
    set_badges("someone/elsewhere", branch="old", folder=lessons)
    for path in set_badges("ada/spvit_mini", folder=lessons):
        notebook = read(path)
        title = notebook.cells[0].source
        assert title.startswith(before[path.name].cells[0].source + "\n\n[![Open in Colab]")
        assert f"https://colab.research.google.com/github/ada/spvit_mini/blob/main/notebooks/{path.name})" in title
        assert f"https://mybinder.org/v2/gh/ada/spvit_mini/main?urlpath=lab/tree/notebooks/{path.name})" in title
        assert "!git clone -q --depth 1 -b main https://github.com/ada/spvit_mini\n%cd spvit_mini\n" in title
        assert title.count("Open in Colab") == 1 and "elsewhere" not in title
        assert notebook.cells[1:] == before[path.name].cells[1:]
        assert problems(notebook) == []


@pytest.mark.parametrize("name", ["ada", "https://github.com/ada/spvit_mini", "ada/", "a b/c"])
def test_what_is_no_repository_is_refused_and_changes_nothing(lessons, name):
    before = [path.read_bytes() for path in lesson_files(lessons)]
    with pytest.raises(UserError, match="expected OWNER/NAME"):
        set_badges(name, folder=lessons)
    assert [path.read_bytes() for path in lesson_files(lessons)] == before


def test_binder_asks_for_no_more_than_the_package_needs():
    """Its list is of conda's names; a requirement that is added to the package must be added there."""
    import re
    import sys
    from pathlib import Path

    if sys.version_info < (3, 11):
        pytest.skip("reading TOML needs Python 3.11")
    import tomllib

    root = Path(__file__).parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    wanted = {re.match(r"[\w-]+", text)[0] for text in project["dependencies"] + project["optional-dependencies"]["lab"]}
    listed = set(re.findall(r"^ +- ([\w-]+)", (root / "binder" / "environment.yml").read_text(), re.MULTILINE))
    listed = {{"pytorch-cpu": "torch", "matplotlib-base": "matplotlib"}.get(name, name) for name in listed}
    assert listed - {"conda-forge", "python", "pip"} == wanted
