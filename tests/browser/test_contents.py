"""JupyterLab as it comes: its table of contents has a lesson's headings, and a click leads there."""

import re
import sys

import pytest

from spvit_course.classroom.copies import build_copies
from spvit_course.lessons import lesson_files, read

pytestmark = pytest.mark.browser


def headings(path) -> list[str]:
    """List the headings of a lesson's Markdown, code left out."""
    text = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [re.sub(r"[`*$]", "", found).strip() for found in re.findall(r"^#+ +(.+)$", text, re.MULTILINE)]


def test_the_table_of_contents_has_a_lesson_s_headings(page, shot, serve, tmp_path):
    work = tmp_path / "work"
    build_copies(work)
    command = [sys.executable, "-m", "spvit_course", "lab", "--no-browser", "--out", str(work)]
    address = serve(command, SPVIT_PROFILE="smoke")
    lessons = lesson_files(work)
    page.goto(address.replace(lessons[0].name, lessons[3].name))
    page.locator(".jp-Notebook-ExecutionIndicator[data-status='idle']").wait_for(state="attached")
    page.get_by_role("tab", name="Table of Contents").click()
    contents = page.locator(".jp-TableOfContents-tree .jp-tocItem-content")
    expected = headings(lessons[3])
    contents.nth(len(expected) - 1).wait_for()
    assert [" ".join(text.split()) for text in contents.all_inner_texts()] == expected
    contents.nth(len(expected) - 1).click()
    page.get_by_role("heading", name=expected[-1]).wait_for()
    shot("contents")
