"""What processes that train together tell one another when one of them fails, so that the user hears it once.

A process that fails can't say so by the usual way: the others are in the middle of a step, and wait for its gradients.
But torchrun keeps a store of texts that all can read and write at any time. There the process that fails leaves its
reason before it ends. That breaks the others' wait; they look for a reason there, and end by it. The first process
prints it for all. A later one speaks for itself only if the first doesn't, which may hang where it can't be reached.
"""

import os
import socket
from contextlib import suppress
from datetime import timedelta

from torch.distributed import DistError, PrefixStore, TCPStore

PATIENCE = timedelta(seconds=10)  # how long the first process is waited for


class News:
    """The texts that the processes of one attempt of torchrun share."""

    def __init__(self) -> None:
        self.rank, self.world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self.attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")

    def _store(self) -> PrefixStore:
        address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        return PrefixStore(f"spvit_mini/{self.attempt}", TCPStore(*address, is_master=False, timeout=PATIENCE))

    def of_this_process(self, reason: str) -> str:
        """Say which process a reason is of."""
        return f"process {self.rank} of {self.world}, on {socket.gethostname()}: {reason}"

    def post(self, reason: str) -> None:
        """Leave the reason why this process ends, unless another was first."""
        with suppress(DistError):  # the store is gone, and so are those who could have read it
            self._store().compare_set("reason", "", self.of_this_process(reason))

    def posted(self) -> str | None:
        """Read the reason why the first that failed has ended; None if it left none."""
        try:
            store = self._store()
            return store.get("reason").decode() if store.check(["reason"]) else None
        except DistError:
            return None

    def line(self, reason: str) -> str | None:
        """Word the line that this process shall print before it ends: None if the first process has printed one."""
        try:
            store = self._store()
            if self.rank == 0:
                store.set("told", "")
                return reason
            store.wait(["told"], PATIENCE)
            return None
        except DistError:
            return reason if self.rank == 0 else self.of_this_process(reason)
