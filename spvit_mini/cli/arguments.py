"""The typed command line of the programs: a dataclass in, the same dataclass with what the user changed out.

tyro makes an option of each field, with its docstring as the help. It reports a mistake in a box of several lines; here
it becomes one line, as everywhere in this package.
"""

import contextlib
import dataclasses
import io
import re
from typing import TypeVar

import tyro

from ..errors import UserError, near

T = TypeVar("T")


def parse(arguments: list[str], *, default: T, prog: str, description: str) -> T:
    """Read command-line arguments as changes of `default`, a dataclass. `--help` prints all and ends the program.

    Raises UserError for an unknown option (with the near ones) and for a value that the option cannot take.
    """
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            parsed, unknown = tyro.cli(
                type(default),
                prog=prog,
                description=description,
                default=default,
                args=arguments,
                return_unknown_args=True,
            )
    except SystemExit as end:
        if not end.code:
            raise
        raise UserError(f"{_first_part(box.getvalue())}; {prog} --help lists the options") from None
    if unknown:
        raise UserError(_about_unknown(unknown[0].split("=")[0], options_of(default), prog))
    return parsed


def options_of(default: object, prefix: str = "--") -> list[str]:
    """List the options that a dataclass makes, as they are typed: --run-dir, --optim.weight-decay, …"""
    names = []
    for field in dataclasses.fields(default):
        value, name = getattr(default, field.name), field.name.replace("_", "-")
        if field.metadata.get("flat"):
            names += options_of(value, prefix)
        elif dataclasses.is_dataclass(value):
            names += options_of(value, f"{prefix}{name}.")
        else:
            names.append(prefix + name)
    return names


def _about_unknown(token: str, options: list[str], prog: str) -> str:
    if not token.startswith("-"):
        return f"unexpected {token!r}: options begin with --, and values follow their option; {prog} --help lists them"
    token = token.replace("_", "-")
    # Someone who leaves the section out means an option of that name in any section.
    leaf = token.lstrip("-").rpartition(".")[2]
    same = [option for option in options if option.lstrip("-").rpartition(".")[2] == leaf]
    hint = f" Did you mean {' or '.join(same)}?" if same else near(token, options)
    return f"there is no option {token}.{hint} {prog} --help lists them all"


def _first_part(box: str) -> str:
    """Take the message out of tyro's box, with or without sides: the lines after the title, up to the first rule."""
    message = []
    for line in re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()[1:]:
        line = line.strip("│ ")
        if not re.match(r"[─-]{3}|╰", line):
            message.append(line)
        elif message:
            break
    text = " ".join(message).removeprefix("Error parsing ").rstrip(".").replace("Expected 1 values", "Expected 1 value")
    # Where a dataclass itself refused a value, its message says all; tyro puts the dataclass's place before it.
    return re.sub(r"^[a-z][a-z_.]*: ", "", text) or "the arguments could not be read"
