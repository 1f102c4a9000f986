"""Stopping in good order: what a terminal's Ctrl-C and a cluster's SIGTERM do to a run."""

import os
import signal
import threading
from typing import Any

from torch.distributed import is_torchelastic_launched


def leave_signals_to_the_parent(_worker: int) -> None:
    """Make a loader's worker process deaf to what a terminal or a cluster sends to the whole group of processes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


class Stop:
    """Turns the first SIGINT or SIGTERM into a wish, `signal`, that the loop reads between two steps.

    The second signal does what it always did, except under torchrun: it hands on each signal that it gets, a cluster may
    send the same one to all processes, and it ends by force those that take long. Off the main thread, and if not
    `wanted`, signals are left alone.
    """

    def __init__(self, wanted: bool, *, speaks: bool = True):
        self.wanted = wanted and threading.current_thread() is threading.main_thread()
        self.speaks = speaks
        self.signal: int | None = None

    def __enter__(self) -> "Stop":
        self.before = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)} if self.wanted else {}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: Any) -> None:
        words = b"\nsaving and stopping\n"
        if not is_torchelastic_launched():
            words = b"\nsaving and stopping; a second signal stops at once\n"
            for each, handler in self.before.items():
                signal.signal(each, handler)
        if self.speaks and self.signal is None:
            os.write(2, words)  # not print: the signal may have come in the middle of one
        self.signal = number
