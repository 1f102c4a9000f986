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
    command = [sys.executable, "-m", "spvit_course", "lab", "--no-browser", "--expose-app-in-browser", "--out", str(work)]
    return serve(command, SPVIT_PROFILE="smoke"), work


# JupyterLab draws only the cells in view, and its lights flicker; so the tests ask its model of the open notebook.
PANEL = "const panel = window.jupyterapp?.shell.currentWidget; "
READY = f"name => {{ {PANEL} return panel?.context?.path === name && panel.sessionContext?.session?.kernel ? true : false }}"
CELLS = f"() => {{ {PANEL} return panel.content.model.toJSON().cells }}"
ACTIVATE = f"index => {{ {PANEL} panel.content.activeCellIndex = index; return panel.content.scrollToItem(index) }}"
FORGET = f"index => {{ {PANEL} panel.content.model.cells.get(index).executionCount = null }}"
RAN = f"""([index, said]) => {{
    {PANEL}
    const cell = panel.content.model.cells.get(index).toJSON();
    const text = cell.outputs.map(output => output.text ?? "").flat().join("");
    return cell.execution_count !== null && text.includes(said);
}}"""


def open_notebook(page, address: str, name: str) -> None:
    """Open a notebook of the served folder, and wait until it has a kernel."""
    page.goto(address.replace(FIRST, name))
    page.wait_for_function(READY, arg=name)


def find_cell(page, text: str) -> int:
    """Find the first code cell with a piece of text, bring it into view, and return its index."""
    cells = page.evaluate(CELLS)
    index = next(k for k, cell in enumerate(cells) if cell["cell_type"] == "code" and text in "".join(cell["source"]))
    page.evaluate(ACTIVATE, index)
    return index


def run_cell(page, text: str, source: str | None = None, *, said: str = "") -> str:
    """Click into a code cell, type it anew if there is a source, run it, and wait until it ran and has printed `said`.

    Returns what it printed.
    """
    index = find_cell(page, text)
    page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-CodeCell.jp-mod-active .cm-content").click()
    if source is not None:
        page.keyboard.press("Control+a")
        page.keyboard.insert_text(source)
    page.evaluate(FORGET, index)  # its number is set again when it has run
    page.keyboard.press("Control+Enter")
    page.wait_for_function(RAN, arg=[index, said])
    return "".join("".join(output.get("text", "")) for output in page.evaluate(CELLS)[index]["outputs"])


def run_all(page) -> list[dict]:
    """Run all cells from the menu, and wait until the last code cell has run. Return the code cells."""
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    last = max(k for k, cell in enumerate(page.evaluate(CELLS)) if cell["cell_type"] == "code")
    page.wait_for_function(RAN, arg=[last, ""], timeout=5 * MINUTE)
    return [cell for cell in page.evaluate(CELLS) if cell["cell_type"] == "code"]


def save(page, name: str = FIRST) -> None:
    """Save with the keyboard, and wait until the server has the file."""
    with page.expect_response(lambda answer: answer.request.method == "PUT" and name in answer.url) as saved:
        page.keyboard.press("Control+s")
    assert saved.value.ok


def headings(path) -> list[str]:
    """List the headings of a lesson's Markdown, code left out."""
    text = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [re.sub(r"[`*$]", "", found).strip() for found in re.findall(r"^#+ +(.+)$", text, re.MULTILINE)]


def test_all_cells_of_lesson_00_run(page, served, shot):
    address, work = served
    open_notebook(page, address, FIRST)
    page.get_by_role("heading", name="00 · ").wait_for()
    assert page.get_by_role("menuitem", name="Nbgrader", exact=True).count() == 0  # it is for instructors
    shot("lesson_00_opened")
    cells = run_all(page)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
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
    picture = next(k for k, cell in enumerate(page.evaluate(CELLS)) if "image/png" in str(cell.get("outputs")))
    page.evaluate(ACTIVATE, picture)
    page.locator(".jp-RenderedImage img").first.wait_for()
    shot("lesson_00_picture")

    # JupyterLab's table of contents has the lesson's headings, and a click leads there.
    page.get_by_role("tab", name="Table of Contents").click()
    contents = page.locator(".jp-TableOfContents-tree .jp-tocItem-content")
    expected = headings(work / FIRST)
    contents.nth(len(expected) - 1).wait_for()
    assert [" ".join(text.split()) for text in contents.all_inner_texts()] == expected
    contents.nth(1).click()
    page.get_by_role("heading", name=expected[1]).wait_for()
    shot("contents")


# Lesson 01, an exercise from the first wrong answer to the next lesson -------------------------------------------------

CHECK, HEAD = "lesson.check(one_head)", "def one_head(q, k, v):"
WRONG = HEAD + "\n    return (q @ k.T).softmax(dim=-1) @ v"
RIGHT = HEAD + "\n    return (q @ k.T / q.shape[-1] ** 0.5).softmax(dim=-1) @ v"


def test_an_exercise_from_a_wrong_answer_to_the_next_lesson(page, served, shot):
    address, work = served
    name, following = (path.name for path in lesson_files(work)[1:3])
    open_notebook(page, address, name)
    page.get_by_role("heading", name="01 · ").wait_for()
    run_all(page)
    assert run_cell(page, CHECK, said="not done yet one_head")

    # The wrong answer, and the hint.
    mistake = next(known for known in exercises("01")["one_head"].bank if "not divided by √C" in known.hint)
    run_cell(page, HEAD, WRONG)
    assert mistake.hint[:60] in " ".join(run_cell(page, CHECK, said="NOT YET one_head").split())
    shot("lesson_01_hint")

    # The right answer, saved.
    run_cell(page, HEAD, RIGHT)
    assert run_cell(page, CHECK, said="PASS one_head").startswith("PASS one_head: ")
    shot("lesson_01_pass")
    save(page, name)
    saved = {cell.id: cell.source for cell in read(work / name).cells}
    assert saved["solution-one-head"] == RIGHT
    assert json.loads((work / ".progress.json").read_text())["01"]["one_head"] == "passed"

    # A new kernel knows nothing, but the work is there, on the page and in the file.
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.locator(".lm-Menu-item[data-command='kernelmenu:restart']").click()
    with page.expect_response(lambda answer: answer.url.partition("?")[0].endswith("/restart")):
        page.locator(".jp-Dialog .jp-mod-accept").click()
    page.on("dialog", lambda dialog: dialog.accept())  # of the browser's own: whether to leave
    page.reload()
    page.wait_for_function(READY, arg=name)
    find_cell(page, HEAD)
    page.locator(".jp-CodeCell.jp-mod-active", has_text=RIGHT.splitlines()[1].strip()).wait_for()
    run_cell(page, "from spvit_course import begin", said="Lesson 01")
    run_cell(page, HEAD)
    assert [cell["execution_count"] for cell in page.evaluate(CELLS) if HEAD in "".join(cell["source"])] == [2]
    run_cell(page, CHECK, said="PASS one_head")
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
