"""Errors that a user can cause: one clear line, never a traceback.

`UserError` says in one line what was wrong, what was expected and what to do. A program runs its main function through
`cli.program.run_program`, which prints that line and exits with status 2. Every other exception is a fault of the package
and keeps its traceback.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class UserError(ValueError):
    """Say in one line what was wrong, what was expected and what to do."""

    def __init__(self, message: str) -> None:
        # A DataLoader rebuilds the exception of its worker process from a text: "Caught UserError in ...", a traceback,
        # and the line itself at the end. Only that line is meant for the user.
        if message.startswith("Caught UserError in "):
            message = message.rpartition("UserError: ")[2]
        super().__init__(" ".join(message.splitlines()).strip())


def near(name: str, names: Iterable[str]) -> str:
    """Return " Did you mean a or b?" with the names most similar to `name` (at most three), or "" if none is similar.

    The text begins with a space, so that it can follow any sentence.
    """
    by_lower_case = {candidate.lower(): candidate for candidate in names}
    names = [by_lower_case[key] for key in difflib.get_close_matches(name.lower(), by_lower_case, n=3, cutoff=0.6)]
    if not names:
        return ""
    text = names[0] if len(names) == 1 else ", ".join(names[:-1]) + " or " + names[-1]
    return f" Did you mean {text}?"


def missing_package(error: ModuleNotFoundError) -> str | None:
    """Say which package this Python lacks and how to install it; None if the module is one of this project's own."""
    package = (error.name or "spvit_mini").partition(".")[0]
    if package in ("spvit_mini", "spvit_course", "spvit_experiments"):
        return None
    return f"{package} is not installed; in the project's folder, run `python -m pip install --editable .[lab]`"


def describe_failure(error: BaseException) -> str | None:
    """Describe in one line a failure that a user can cause: a mistake, a path, a missing package or memory; else None."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        return missing_package(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{str(error.filename)[:200]}: {error.strerror}. Use another path."
    text = str(error)
    reason = (text.splitlines() or [""])[-1].strip()[:160]
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and re.search("out of memory|allocate memory", text)):
        fix = "Use a smaller --batch-size (training also has --micro-batch-size), smaller images, or fewer --data.workers."
        return f"the memory is full ({reason}). {fix}"
    if re.match(r"DataLoader worker \(pid", text):
        return f"a worker process died ({reason}), perhaps because the memory is full. Use fewer --data.workers."
    return None
