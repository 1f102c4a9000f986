"""Errors that a user can cause: one clear line, never a traceback.

`UserError` says in one line what was wrong, what was expected and what to do. A program wraps its main function with
`run_program`, which prints that line and exits with 2. Anything else that goes wrong is a fault of the package and
keeps its traceback.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Iterable


class UserError(ValueError):
    """Say in one line what was wrong, what was expected and what to do."""

    def __init__(self, message: str) -> None:
        # A DataLoader rebuilds the exception of its worker process from a text: "Caught UserError in ...", a traceback,
        # and the line itself at the end. Only that line is meant for the user.
        if message.startswith("Caught UserError in "):
            message = message.rpartition("UserError: ")[2]
        super().__init__(" ".join(message.splitlines()).strip())


def near(name: str, names: Iterable[str]) -> str:
    """Return " Did you mean a or b?" for the names most like `name` (at most three), or "" where none is alike.

    The text begins with a space, so that it can be put behind any sentence.
    """
    by_lower_case = {candidate.lower(): candidate for candidate in names}
    found = [by_lower_case[key] for key in difflib.get_close_matches(name.lower(), by_lower_case, n=3, cutoff=0.6)]
    if not found:
        return ""
    listed = found[0] if len(found) == 1 else ", ".join(found[:-1]) + " or " + found[-1]
    return f" Did you mean {listed}?"


def take_no_arguments(about: str) -> None:
    """Refuse arguments, for a program that takes none; for --help print what it is about, and end."""
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(about.strip())
        sys.exit(0)
    if sys.argv[1:]:
        raise UserError(f"this program takes no arguments, so not {' '.join(sys.argv[1:])}; --help says what it does")


def run_program(main: Callable[[], int | None]) -> None:
    """Run `main()` as a program: a `UserError` becomes a line on stderr and exit status 2, an interrupt 130 in silence.

    A status other than 0 or None that `main` returns becomes the exit status. Of several processes that torchrun has
    started, one prints the line.
    """
    try:
        status = main()
    except UserError as error:
        sys.stdout.flush()
        line = str(error)
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:
            from .training import news  # not above: to fail, torch is not needed

            line = news.line(line)
        if line is not None:
            print(f"error: {line}", file=sys.stderr, flush=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    if status:
        sys.exit(status)
