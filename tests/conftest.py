"""For all tests: the network is cut off, threads are few, and real images are there or are not."""

import importlib.util
import os
import socket
import subprocess
import time
from pathlib import Path
from urllib.parse import urlsplit

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

torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"


def pytest_addoption(parser):
    parser.addoption("--seed", type=int, default=0, help="seed of every test's random numbers")


@pytest.fixture(autouse=True)
def seeded(request):
    """Seed torch before each test, so that a failure can be had again: pytest --seed N."""
    torch.manual_seed(request.config.getoption("--seed"))


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
