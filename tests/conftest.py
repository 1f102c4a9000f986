"""For all tests: no network, one thread, Jupyter folders of their own, and how tests are shared out among workers."""

import atexit
import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from urllib.parse import urlsplit

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, and for each process that a test starts

import pytest
import torch

HERE = Path(__file__).parent
ROOT = HERE.parent
REAL_IMAGES = ROOT.parent / "shared" / "data"

# This process, and by the variable each one that it starts.
CUT = HERE / "no_network"
os.environ["PYTHONPATH"] = os.pathsep.join([str(CUT), *filter(None, [os.environ.get("PYTHONPATH")])])
spec = importlib.util.spec_from_file_location("no_network", CUT / "sitecustomize.py")
spec.loader.exec_module(importlib.util.module_from_spec(spec))

# Nothing of this machine's user: settings, extensions, kernels, workspaces, IPython's profile.
JUPYTER = tempfile.mkdtemp(prefix="jupyter-")
atexit.register(shutil.rmtree, JUPYTER, ignore_errors=True)
FOLDERS = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime", "IPYTHONDIR": "ipython"}
os.environ.update({name: f"{JUPYTER}/{folder}" for name, folder in FOLDERS.items()})

SECONDS = {"browser": 20, "slow": 8}  # of a test, roughly, by its mark; others 0.05


def pytest_addoption(parser):
    parser.addoption("--seed", type=int, default=0, help="seed of every test's random numbers")
    parser.addoption("--mutations", type=int, default=12, help="how many damaged files of each kind")
    parser.addoption("--smoke", action="store_true", help="run each test with the first and the last of its parameter sets alone")


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config, items):
    """Share the tests out among xdist's workers; with --smoke, leave parameter sets out of what is selected."""
    if hasattr(config, "workerinput"):
        group_tests(items)
    yield
    if config.getoption("--smoke"):
        by_test = defaultdict(list)
        for item in items:
            by_test[item.nodeid.partition("[")[0]].append(item)
        chosen = {item for tests in by_test.values() for item in (tests[0], tests[-1])}
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = [item for item in items if item in chosen]


def group_tests(items):
    """Keep the tests of a file in one worker, and all tests of a browser; begin with the groups that take longest.

    A file's fixtures are then made once. Tests that run a lesson have nothing in common, so each is a group of its own.
    """
    groups = defaultdict(list)
    for item in items:
        marks = {mark.name for mark in item.iter_markers()}
        name = "browser" if "browser" in marks else item.nodeid if "lessons" in marks else str(item.path.relative_to(HERE))
        item.add_marker(pytest.mark.xdist_group(name))
        groups[name].append((item, max((SECONDS[mark] for mark in SECONDS if mark in marks), default=0.05)))
    ordered = sorted(groups.values(), key=lambda group: -sum(seconds for _, seconds in group))
    items[:] = [item for group in ordered for item, _ in group]


@pytest.fixture(autouse=True)
def seeded(request):
    """Seed torch before each test, so that a failure can be reproduced (pytest --seed N), and give it one thread."""
    torch.manual_seed(request.config.getoption("--seed"))
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_images(tmp_path_factory):
    """Unpack sets of real images by name: `real_images("flowers17-256")` is the folder that holds the set's folder.

    Skips where they are missing: they may not be part of the project.
    """
    unpack = REAL_IMAGES / "unpack.sh"
    folder = tmp_path_factory.mktemp("images")

    def get(name: str) -> Path:
        if not unpack.is_file():
            pytest.skip("the real images for tests are not on this machine")
        subprocess.run(["sh", str(unpack), name, str(folder)], check=True, stdout=subprocess.DEVNULL)
        return folder

    return get


@pytest.fixture
def wait_until_it_listens():
    """Wait for a server at an address: JupyterLab prints its own a moment before it listens there."""

    def wait(address: str, seconds: float = 60) -> None:
        url, end = urlsplit(address), time.monotonic() + seconds
        while True:
            try:
                return socket.create_connection((url.hostname, url.port)).close()
            except ConnectionRefusedError:
                assert time.monotonic() < end, f"nothing listens at {address} after {seconds} s"
                time.sleep(0.1)

    return wait
