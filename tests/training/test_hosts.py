"""Two hosts: network namespaces of this machine, joined by a cable of the kernel's, train one model."""

import os
import shutil
import subprocess

import pytest

from .conftest import assert_same_run
from .processes import start_torchrun, write_jobs

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("hosts")]
NAMES = f"spvit-a-{os.getpid()}", f"spvit-b-{os.getpid()}"
ADDRESSES = "10.99.0.1", "10.99.0.2"


def ip(*words: str) -> None:
    """Change the network."""
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@pytest.fixture
def hosts():
    """Make two namespaces that reach each other and nothing else."""
    if shutil.which("ip") is None:
        pytest.skip("network namespaces need the program ip (iproute2)")
    try:
        for name in NAMES:
            ip("netns", "add", name)
        ip("link", "add", "cable", "netns", NAMES[0], "type", "veth", "peer", "name", "cable", "netns", NAMES[1])
        for name, address in zip(NAMES, ADDRESSES, strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield NAMES
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces can't be made here: {error.stderr.strip()}")
    finally:
        for name in NAMES:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def test_two_hosts_train_the_model_that_one_would(hosts, of_two, tiny, tmp_path):
    """A process on each, met at the first one's address, against two processes on one host: the same to the last bit."""
    command = write_jobs([{"recipe": tiny, "out": tmp_path / "out", "run_dir": tmp_path / "hosts"}], tmp_path)
    # They have a network of their own, so that Python needn't be kept from using it. Of the host's name it knows no address.
    environment = {"PYTHONPATH": "", "GLOO_SOCKET_IFNAME": "cable"}
    meeting = (
        "--nnodes",
        "2",
        "--rdzv-backend",
        "c10d",
        "--rdzv-endpoint",
        f"{ADDRESSES[0]}:29500",
        "--rdzv-id",
        "test",
    )
    processes = []
    for name, address in zip(NAMES, ADDRESSES, strict=True):
        is_first = f"is_host={address == ADDRESSES[0]}"
        options = (*meeting, "--local-addr", address, "--rdzv-conf", is_first)
        within = ("ip", "netns", "exec", name)
        processes.append(start_torchrun(*command, processes=1, options=options, within=within, env=environment))
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, out + err
    assert_same_run(of_two["folder"] / "tiny", tmp_path / "hosts")
