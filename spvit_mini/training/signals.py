"""Graceful stop: the effect of a terminal's Ctrl-C and a cluster's SIGTERM on a run."""

import os
import signal
import threading
from typing import Any

from torch.distributed import is_torchelastic_launched


def ignore_signals(_worker: int) -> None:
    """Make a loader's worker process ignore signals that a terminal or a cluster sends to the whole process group."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


class StopSignal:
    """Store the first SIGINT or SIGTERM in `signal`, which the loop reads between two steps. Use it as a context.

    A second signal has its usual effect, except under torchrun: torchrun forwards each signal that it gets, a cluster may
    send the same one to all processes, and torchrun kills processes that take long. Signals are left alone off the main
    thread, and if not `enabled`.
    """

    def __init__(self, enabled: bool, *, is_main: bool = True):
        self.enabled = enabled and threading.current_thread() is threading.main_thread()
        self.is_main = is_main
        self.signal: int | None = None

    def __enter__(self) -> "StopSignal":
        numbers = (signal.SIGINT, signal.SIGTERM) if self.enabled else ()
        self.handlers = {number: signal.signal(number, self._handle) for number in numbers}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: Any) -> None:
        text = b"\nsaving and stopping\n"
        if not is_torchelastic_launched():
            text = b"\nsaving and stopping; a second signal stops at once\n"
            self.__exit__()
        if self.is_main and self.signal is None:
            os.write(2, text)  # not print: the signal may interrupt a print
        self.signal = number
