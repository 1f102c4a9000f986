"""How a run ends: a terminal's Ctrl-C, a cluster's SIGTERM or a hangup stops it gracefully, and no worker process outlives it."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.distributed import is_torchelastic_launched

STOPPING = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]  # Windows has no SIGHUP
POLL_SECONDS = 0.2


@contextmanager
def open_workers() -> Iterator[Callable[[int], None]]:
    """Yield the `worker_init_fn` of loaders whose worker processes end with the block, or with this process, within a second.

    They ignore the signals that a terminal or a cluster sends to the whole process group, so that this process can end its
    step and save. torch would therefore wait for them for ever if the block fails, and Python as well when it exits.
    """
    is_closed = torch.zeros((), dtype=torch.bool).share_memory_()
    try:
        yield partial(_begin_worker, is_closed)
    finally:
        is_closed.fill_(True)


def _begin_worker(is_closed: Tensor, _worker: int) -> None:
    """Make a worker process ignore signals, and end when its loaders are closed, whatever it is busy with."""
    parent = os.getppid()
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)

    def watch() -> None:
        while not is_closed and os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


class StopSignal:
    """Store the first SIGINT, SIGTERM or SIGHUP in `signal`, which the loop reads between two steps. Use it as a context.

    A second signal has its usual effect, except under torchrun: torchrun forwards each signal that it gets, a cluster may
    send the same one to all processes, and torchrun kills processes that take long. A hangup comes twice, from the terminal
    and from its shell. Signals are left alone off the main thread and if not `enabled`, and a hangup that is ignored (nohup).
    """

    def __init__(self, enabled: bool, *, is_main: bool = True):
        self.enabled = enabled and threading.current_thread() is threading.main_thread()
        self.is_main = is_main
        self.signal: int | None = None

    def __enter__(self) -> "StopSignal":
        hung_up = STOPPING[2:] if signal.getsignal(STOPPING[-1]) != signal.SIG_IGN else []  # nohup ignores it
        numbers = [*STOPPING[:2], *hung_up] if self.enabled else []
        self.handlers = {number: signal.signal(number, self._handle) for number in numbers}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: Any) -> None:
        self.signal, is_first = number, self.signal is None
        text = b"\nsaving and stopping\n"
        if not is_torchelastic_launched() and number in (signal.SIGINT, signal.SIGTERM):
            text = b"\nsaving and stopping; a second signal stops at once\n"
            self.__exit__()
        if self.is_main and is_first:
            with suppress(OSError):  # the terminal is closed
                os.write(2, text)  # not print: the signal may interrupt a print
