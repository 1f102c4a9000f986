"""A browser, servers for it that end with the test, and pictures for people to look at."""

import os
import re
import shutil
import subprocess

import pytest

from spvit_course.lessons import ROOT

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
def page():
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


@pytest.fixture
def shot(page):
    """Keep a picture of the page under a name."""

    def keep(name: str, **options) -> None:
        SCREENS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SCREENS / f"{name}.png", **options)

    return keep


@pytest.fixture
def serve(tmp_path, wait_until_it_listens):
    """Start a Jupyter server by its command, in a folder, and return its address, with the token."""
    servers = []
    # A home of its own, so that no settings of this machine's user have a say.
    home = {
        "HOME": str(tmp_path),
        "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
        "JUPYTER_DATA_DIR": str(tmp_path / "data"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
        "IPYTHONDIR": str(tmp_path / "ipython"),
    }

    def start(command, folder=ROOT, **environment: str) -> str:
        environment = os.environ | home | environment
        server = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
        servers.append(server)
        lines = []
        for line in server.stderr:
            lines.append(line)
            if address := re.search(r"http://127\.0\.0\.1:\S+token=\w+", line):
                wait_until_it_listens(address.group())
                return address.group()
        pytest.fail("JupyterLab did not start:\n" + "".join(lines))

    yield start
    for server in servers:
        server.terminate()
        server.stderr.read()
        server.wait()
