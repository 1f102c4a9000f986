"""A real browser does what a newcomer does: the course's one command, lesson 00, Run All Cells."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from spvit_mini.course.lessons import ROOT, read

pytestmark = pytest.mark.browser

FIRST = "00_start_here.ipynb"
SCREENS = ROOT / "build" / "screens"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
MINUTE = 60_000  # in Playwright's milliseconds


@pytest.fixture
def served(tmp_path, wait_until_it_listens):
    """Start `lab` over a fresh folder of copies: its address, with the token, and the folder."""
    work = tmp_path / "work"
    command = [sys.executable, "-m", "spvit_mini.course", "lab", "--no-browser", "--out", str(work)]
    # A home of its own, so that no settings of this machine's user have a say.
    home = {
        "HOME": str(tmp_path),
        "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
        "IPYTHONDIR": str(tmp_path / "ipython"),
    }
    environment = os.environ | home | {"SPVIT_PROFILE": "smoke", "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime")}
    server = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        lines = []
        for line in server.stderr:
            lines.append(line)
            if address := re.search(r"http://127\.0\.0\.1:\S+token=\w+", line):
                break
        else:
            pytest.fail("JupyterLab did not start:\n" + "".join(lines))
        wait_until_it_listens(address.group())
        yield address.group(), work
    finally:
        server.terminate()
        server.stderr.read()
        server.wait()


@pytest.fixture
def page(tmp_path):
    """Open an empty page in Debian's Chromium."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(MINUTE)
        yield page
        browser.close()


def shot(page, name: str) -> None:
    """Keep a picture for people to look at."""
    SCREENS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENS / f"{name}.png")


def wait_for_kernel(page, status: str, *, minutes: int = 1) -> None:
    """Wait until the kernel's light says idle or busy."""
    light = page.locator(f".jp-Notebook-ExecutionIndicator[data-status='{status}']")
    light.wait_for(state="attached", timeout=minutes * MINUTE)


def save(page) -> None:
    """Save with the keyboard, and wait until the server has the file."""
    with page.expect_response(lambda answer: answer.request.method == "PUT" and FIRST in answer.url) as saved:
        page.keyboard.press("Control+s")
    assert saved.value.ok


def test_all_cells_of_lesson_00_run(page, served):
    address, work = served
    page.goto(address)
    wait_for_kernel(page, "idle")
    page.get_by_role("heading", name="00 · ").wait_for()
    shot(page, "lesson_00_opened")

    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    wait_for_kernel(page, "busy")
    wait_for_kernel(page, "idle", minutes=5)
    save(page)
    shot(page, "lesson_00_run")

    cells = [cell for cell in read(work / FIRST).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert [output for output in outputs if output.output_type == "error"] == []
    said = "".join(output.get("text", "") for output in outputs)
    assert "profile smoke" in said
    assert "not done yet patchify" in said
    assert any("image/png" in output.get("data", {}) for output in outputs)
    page.locator(".jp-RenderedImage img").first.scroll_into_view_if_needed()
    shot(page, "lesson_00_picture")
