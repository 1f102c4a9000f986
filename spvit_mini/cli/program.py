"""Running a program: one clear line and exit status 2 for a user's error, and a table of commands for `--help`."""

from __future__ import annotations

import errno
import importlib
import io
import itertools
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TextIO

from ..errors import UserError, describe_failure, near


def run_command(program: str, about: str, commands: Mapping[str, tuple[str, str]], argv: list[str]) -> int | None:
    """Run the command that `argv` names first, or print the table of commands; returns what its `main(argv)` returns.

    `program` starts the program, such as "python -m spvit_mini". `commands` has for each name its module, which is imported only
    when the command runs, and a line for the table. Raises UserError for an unknown command.
    """
    if not argv or argv[0] in ("--help", "-h", "help"):
        width = max(map(len, commands))
        print(f"usage: {program} COMMAND [options]\n\n{about}\n")
        print("\n".join(f"  {name:<{width}}  {line}" for name, (_, line) in commands.items()))
        print(f"\n{program} COMMAND --help describes a command and its options.")
        return 0
    refuse_empty(program, argv)
    name, *rest = argv
    if name not in commands:
        raise UserError(f"there is no command {name!r}.{near(name, commands)} Use one of {', '.join(commands)}.")
    return importlib.import_module(commands[name][0]).main(rest)


def refuse_empty(program: str, argv: list[str]) -> None:
    """Raise UserError for an empty word or value: as a path it would be the working directory, as a text any name."""
    words = [part for word in argv for part in (word.split("=", 1) if word.startswith("--") else [word])]
    for before, word in itertools.pairwise([program, *words]):
        if not word.strip():
            raise UserError(f"the value after {before} is empty; expected a name, a path or a number")


def refuse_arguments(about: str, argv: list[str] | None = None) -> None:
    """Refuse arguments, for a program without any; for --help print its description and exit."""
    argv = sys.argv[1:] if argv is None else argv
    if {"--help", "-h"} & set(argv):
        print(about.strip())
        sys.exit(0)
    if argv:
        raise UserError(f"the arguments are {' '.join(argv)}; expected none. --help describes this program.")


def run_program(main: Callable[[], int | None]) -> None:
    """Run `main()` as a program: a `UserError` becomes a line on stderr and exit status 2, an interrupt 130 in silence.

    A package that is not installed and too little memory are reported in one line too. SIGTERM and SIGHUP end the program as an
    interrupt does, with 128 and their number. A status other than 0 or None that `main` returns becomes the exit status. Of
    several processes that torchrun has started, one prints the line. Any text can be printed, whatever the encoding of the
    streams: what an encoding lacks is escaped. A reader that closes its end, as `head` does, ends the program in silence with
    status 141, as a shell reports SIGPIPE; a stream that was closed from the start swallows what is printed.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream := getattr(sys, name), io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # For Python processes that this one starts.
    os.environ["PYTHONIOENCODING"] = os.environ.get("PYTHONIOENCODING", "").partition(":")[0] + ":backslashreplace"
    try:
        status = _run(main)
        sys.stdout.flush()  # here, because the interpreter reports an error of its own flush at the exit as "Exception ignored"
        sys.stderr.flush()
    except OSError as error:
        if _can_write(sys.stdout, "\n") and _can_write(sys.stderr, "\n"):
            raise
        status = 141 if error.errno == errno.EPIPE else 2
        if status == 2:
            _can_write(sys.stderr, f"error: the output cannot be written ({error.strerror}); use another file\n")
        for stream in (sys.stdout, sys.stderr):
            if not _can_write(stream, ""):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    if status:
        sys.exit(status)


def _run(main: Callable[[], int | None]) -> int | str | None:
    """Run `main()`; returns the exit status, after the line of an error."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows has no SIGHUP
    numbers = [number for number in numbers if signal.getsignal(number) == signal.SIG_DFL]  # nohup ignores it
    for number in numbers:
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        return main()
    except SystemExit as end:
        return end.code
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        line = describe_failure(error)
        if line is None:
            raise
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)  # Python's own exit cannot be interrupted by an exception
    sys.stdout.flush()
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        from ..training import rendezvous  # not above: to fail, torch is not needed

        line = rendezvous.claim_error_line(line)
    if line is not None:
        print(f"error: {line}", file=sys.stderr, flush=True)
    return 2


def _can_write(stream: TextIO, text: str) -> bool:
    """Write a text to a stream; returns whether it accepts the text, and what it holds back."""
    with suppress(OSError):
        print(text, end="", file=stream, flush=True)
        return True
    return False
