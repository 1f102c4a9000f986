"""Where processes that torchrun has started find one another, and leave word when one of them fails.

torchrun keeps a store of texts that all its processes can read and write at any time. It keeps them when it starts the
processes anew, too: who then looks there for the others may find the addresses of the dead (pytorch issues 135712 and
167288). So each attempt gets a store of its own, which ends with its first process.

A process that fails can't tell the others in the usual way: they are in the middle of a step, and wait for its gradients.
It leaves its reason in the attempt's store and goes, which breaks their wait; then they find the reason there, and end by
it. In torchrun's store stands what the user has been told, so that each line comes once.
"""

import os
import socket
import time
from datetime import timedelta

from torch.distributed import DistError, TCPStore

from ..errors import UserError

PATIENCE = 10  # seconds that the first process is waited for, to speak for all


def of_torchrun() -> TCPStore:
    """Reach torchrun's store."""
    address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(*address, is_master=False, timeout=timedelta(seconds=60))


def of_this_attempt() -> TCPStore:
    """Open a store that lives as long as the first process does; only the number of its port stands in torchrun's."""
    common, host = of_torchrun(), os.environ["MASTER_ADDR"]
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
            time.sleep(0.1)  # the port of an attempt before
    raise UserError(f"the first process can't be reached at {host}:{port}; a firewall may stand between the hosts")


def of_this_process(reason: str) -> str:
    """Say which process a reason is of."""
    return f"process {os.environ['RANK']} of {os.environ['WORLD_SIZE']}, on {socket.gethostname()}: {reason}"


def line(reason: str) -> str | None:
    """Word the line that this process shall print before it ends by a reason; None if another has printed it."""
    own = of_this_process(reason)
    try:
        store, until = of_torchrun(), time.monotonic() + PATIENCE
        if int(os.environ["RANK"]) > 0:
            while time.monotonic() < until:
                if store.check([f"told/{reason}"]) or store.check([f"told/{own}"]):
                    return None
                time.sleep(0.05)
            reason = own
        return reason if store.add(f"told/{reason}", 1) == 1 else None
    except DistError:
        return own  # torchrun is gone, and each speaks for itself
