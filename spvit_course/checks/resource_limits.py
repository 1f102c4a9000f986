"""What an answer may not do while it is checked: run for ever, and call the package's own solution.

Both hold for Python code that means no harm. Code that does is the business of the container it is graded in.
"""

import ctypes
import inspect
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

AGAIN = 1.0  # seconds after which a loop that swallowed the interruption is interrupted once more


class TookTooLong(BaseException):
    """Interrupt an answer that ran past its time. No `Exception`, so that `except Exception` in the answer lets it pass."""


class OutOfReach(RuntimeError):
    """Say that an answer called the package's own solution."""


def limit_time(seconds: float) -> AbstractContextManager[None]:
    """Raise TookTooLong inside the block once it has run for `seconds`.

    It interrupts Python code: a loop at its next step; one long call into C ends first.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    return _alarm(seconds) if hasattr(signal, "setitimer") and in_main_thread else _watchdog(seconds)


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Limit the time by the alarm signal, which also wakes a sleeping call: main thread, not on Windows."""

    def ring(number, frame):
        raise TookTooLong

    handler = signal.signal(signal.SIGALRM, ring)
    started = time.monotonic()
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:  # somebody else's alarm was running: let it ring when it would have
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - started), 0.001), interval)


@contextmanager
def _watchdog(seconds: float) -> Iterator[None]:
    """Limit the time by a second thread that raises the exception in this one: works everywhere."""
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    watched = ctypes.c_ulong(threading.get_ident())
    over = threading.Event()

    def watch() -> None:
        for wait in (seconds, *[AGAIN] * 20):
            if over.wait(wait):
                return
            raise_in(watched, ctypes.py_object(TookTooLong))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        try:
            over.set()
            watcher.join()
        finally:  # if it rang in just this moment
            over.set()
            raise_in(watched, None)


@contextmanager
def hide_solution(solution: Callable) -> Iterator[None]:
    """Let each call of a function or class raise OutOfReach inside the block, by whatever name it was imported.

    A function gets another body for a while, and a class other methods: the object stays the same, so names that were
    bound to it earlier, and instances made earlier, refuse too. All is put back at the end, whatever happened.
    """
    if inspect.isclass(solution):
        methods = {name: value for name, value in vars(solution).items() if inspect.isfunction(value)}
        try:
            for name in {"__init__", *methods}:
                setattr(solution, name, _refuse)
            yield
        finally:
            if "__init__" not in methods:
                del solution.__init__
            for name, method in methods.items():
                setattr(solution, name, method)
    else:
        body = solution.__code__
        try:
            solution.__code__ = _refuse.__code__
            yield
        finally:
            solution.__code__ = body


def _refuse(*arguments, **options):
    # This body runs with the globals of the function that borrows it, so it has to bring its names along.
    from spvit_course.checks.resource_limits import OutOfReach

    raise OutOfReach
