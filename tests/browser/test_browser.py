"""A real browser does what a newcomer does: the course's one command, lesson 00, Run All Cells; then an exercise, to its end."""

import json
import re
import sys

import pytest

from spvit_course.checks import exercises
from spvit_course.classroom.copies import build_copies, content_digest
from spvit_course.classroom.links import has_links, set_links
from spvit_course.lessons import lesson_files, read

pytestmark = pytest.mark.browser

FIRST = "00_start_here.ipynb"
MINUTE = 60_000  # in Playwright's milliseconds


@pytest.fixture
def work(tmp_path):
    """A student's folder. Links are put into the copies where the stored lessons have none yet."""
    folder = tmp_path / "work"
    build_copies(folder)
    if not has_links():
        set_links(folder)
    return folder


@pytest.fixture
def served(work, serve):
    """Start `lab` over a folder of copies: its address, with the token, and the folder."""
    command = [sys.executable, "-m", "spvit_course", "lab", "--no-browser", "--out", str(work)]
    return serve(command, SPVIT_PROFILE="smoke"), work


def wait_for_kernel(page, status: str, *, minutes: int = 1) -> None:
    """Wait until the kernel's light says idle or busy."""
    light = page.locator(f".jp-Notebook-ExecutionIndicator[data-status='{status}']")
    light.wait_for(state="attached", timeout=minutes * MINUTE)


def save(page, name: str = FIRST) -> None:
    """Save with the keyboard, and wait until the server has the file."""
    with page.expect_response(lambda answer: answer.request.method == "PUT" and name in answer.url) as saved:
        page.keyboard.press("Control+s")
    assert saved.value.ok


def test_all_cells_of_lesson_00_run(page, served, shot):
    address, work = served
    page.goto(address)
    wait_for_kernel(page, "idle")
    page.get_by_role("heading", name="00 · ").wait_for()
    shot("lesson_00_opened")

    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    wait_for_kernel(page, "busy")
    wait_for_kernel(page, "idle", minutes=5)
    save(page)
    shot("lesson_00_run")

    cells = [cell for cell in read(work / FIRST).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert [output for output in outputs if output.output_type == "error"] == []
    said = "".join(output.get("text", "") for output in outputs)
    assert "profile smoke" in said
    assert "not done yet patchify" in said
    assert any("image/png" in output.get("data", {}) for output in outputs)
    page.locator(".jp-RenderedImage img").first.scroll_into_view_if_needed()
    shot("lesson_00_picture")


# Lesson 01, an exercise from the first wrong answer to the next lesson -------------------------------------------------

HEAD = "def one_head(q, k, v):\n    "
WRONG = HEAD + "return (q @ k.T).softmax(dim=-1) @ v"
RIGHT = HEAD + "return (q @ k.T / q.shape[-1] ** 0.5).softmax(dim=-1) @ v"


def code_cell(page, text: str):
    """Find a code cell of the open notebook by a piece of its text, and bring it into view.

    JupyterLab draws a cell when it comes near; so the page is scrolled until the cell is there.
    """
    notebook = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")
    cell = notebook.locator(".jp-CodeCell", has=page.locator(".cm-content", has_text=text)).first
    scroller = notebook.locator(".jp-WindowedPanel-outer")
    scroller.evaluate("element => element.scrollTo(0, 0)")
    for _ in range(80):
        if cell.count():
            break
        scroller.evaluate("element => element.scrollBy(0, 400)")
        page.wait_for_timeout(100)
    cell.scroll_into_view_if_needed()
    return cell


def type_and_run(page, cell, source: str) -> None:
    """Type a whole cell anew and run it."""
    cell.locator(".cm-content").click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(source)
    page.keyboard.press("Control+Enter")


def run_check(page, said: str) -> str:
    """Run the check of one_head, wait for what it says, and return its output."""
    check = code_cell(page, "lesson.check(one_head)")
    check.locator(".jp-InputPrompt").click()
    page.keyboard.press("Control+Enter")
    output = check.locator(".jp-OutputArea-output", has_text=said)
    output.wait_for()
    return output.inner_text()


def test_an_exercise_from_a_wrong_answer_to_the_next_lesson(page, served, shot):
    address, work = served
    name, following = (path.name for path in lesson_files(work)[1:3])
    page.goto(address.replace(FIRST, name))
    wait_for_kernel(page, "idle")
    page.get_by_role("heading", name="01 · ").wait_for()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    wait_for_kernel(page, "busy")
    wait_for_kernel(page, "idle", minutes=5)
    assert run_check(page, "not done yet one_head")

    # The wrong answer, and the hint.
    mistake = next(known for known in exercises("01")["one_head"].mistakes if "not divided by √C" in known.hint)
    type_and_run(page, code_cell(page, "def one_head(q, k, v):"), WRONG)
    assert mistake.hint[:60] in " ".join(run_check(page, "NOT YET one_head").split())
    shot("lesson_01_hint")

    # The right answer, saved.
    type_and_run(page, code_cell(page, "def one_head(q, k, v):"), RIGHT)
    assert run_check(page, "PASS one_head").startswith("PASS one_head: ")
    shot("lesson_01_pass")
    save(page, name)
    saved = {cell.id: cell.source for cell in read(work / name).cells}
    assert saved["solution-one-head"] == RIGHT
    assert json.loads((work / ".progress.json").read_text())["01"]["one_head"] == "passed"

    # A new kernel knows nothing, but the work is there, on the page and in the file.
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.locator(".lm-Menu-item[data-command='kernelmenu:restart']").click()
    page.locator(".jp-Dialog .jp-mod-accept").click()
    wait_for_kernel(page, "idle")
    page.on("dialog", lambda dialog: dialog.accept())  # of the browser's own: whether to leave
    page.reload()
    wait_for_kernel(page, "idle")
    answer = code_cell(page, "def one_head(q, k, v):")
    answer.scroll_into_view_if_needed()  # what is out of sight is not drawn, and has no text then
    answer.filter(has_text=RIGHT.splitlines()[1].strip()).wait_for()
    for text in ("from spvit_course import begin", "def one_head(q, k, v):"):
        code_cell(page, text).locator(".cm-content").click()
        page.keyboard.press("Control+Enter")
    assert run_check(page, "PASS one_head")
    save(page, name)
    shot("lesson_01_after_restart")

    # The next lesson opens beside it; opened and saved, its copy still counts as not begun.
    before = content_digest((work / following).read_bytes())
    notebook = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")
    notebook.locator(".jp-WindowedPanel-outer").evaluate("element => element.scrollTo(0, 0)")
    notebook.get_by_role("link", name=re.compile("^02 .* →$")).first.click()
    page.get_by_role("heading", name="02 · ").wait_for()
    shot("lesson_02_followed")
    page.get_by_role("heading", name="02 · ").click()
    save(page, following)
    assert content_digest((work / following).read_bytes()) == before
    (report,) = [copy for copy in build_copies(work) if copy.name == name]
    assert report.status == "edited"
    assert {cell.id: cell.source for cell in read(work / name).cells}["solution-one-head"] == RIGHT
