"""How processes that torchrun started find each other, and how one of them reports its error to the others.

torchrun runs a store of texts that all its processes can read and write at any time. The store outlives a restart of the
processes, so that a restarted process could find the addresses of dead ones in it (pytorch issues 135712 and 167288).
Therefore each attempt has a store of its own, which ends with its first process.

A process that fails can't report to the others by a collective operation: they are in the middle of a step, and wait for its
gradients. It writes its error to the attempt's store and ends, which breaks their wait; then they read the error there, and
end with it. torchrun's store keeps the lines that were printed, so that each line is printed once.
"""

import os
import socket
import time
from datetime import timedelta

from torch.distributed import DistError, TCPStore

from ..errors import UserError

MAIN_TIMEOUT = 10  # seconds that other processes wait for the first process to print the error


def connect_torchrun_store() -> TCPStore:
    """Connect to torchrun's store."""
    address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(*address, is_master=False, timeout=timedelta(seconds=60))


def open_attempt_store() -> TCPStore:
    """Open a store that lives as long as the first process; torchrun's store holds only its port."""
    common, host = connect_torchrun_store(), os.environ["MASTER_ADDR"]
    if int(os.environ["RANK"]) == 0:
        store = TCPStore(host, 0, is_master=True, wait_for_workers=False)
        common.set("spvit_mini/port", str(store.port))
        return store
    until = time.monotonic() + 300
    while time.monotonic() < until:
        port = int(common.get("spvit_mini/port"))
        try:
            with socket.create_connection((host, port), timeout=5):
                return TCPStore(host, port, is_master=False)
        except OSError:
            time.sleep(0.1)  # the port of an earlier attempt
    raise UserError(f"the first process can't be reached at {host}:{port}. Open this port in the firewall between the hosts.")


def add_process(reason: str) -> str:
    """Put the rank and the host of this process before the text of an error."""
    return f"process {os.environ['RANK']} of {os.environ['WORLD_SIZE']}, on {socket.gethostname()}: {reason}"


def claim_error_line(reason: str) -> str | None:
    """Return the line that this process must print before it ends with an error; None if another process has printed it."""
    own = add_process(reason)
    try:
        store, until = connect_torchrun_store(), time.monotonic() + MAIN_TIMEOUT
        if int(os.environ["RANK"]) > 0:
            while time.monotonic() < until:
                if store.check([f"printed/{reason}"]) or store.check([f"printed/{own}"]):
                    return None
                time.sleep(0.05)
            reason = own
        return reason if store.add(f"printed/{reason}", 1) == 1 else None
    except DistError:
        return own  # torchrun has ended, and each process prints its own line
