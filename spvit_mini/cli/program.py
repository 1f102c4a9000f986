"""Running a program: one clear line and exit status 2 for a user's error, and a table of commands for `--help`."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping

from ..errors import UserError, missing_package, near


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
    name, *rest = argv
    if name not in commands:
        raise UserError(f"there is no command {name!r}.{near(name, commands)} Use one of {', '.join(commands)}.")
    return importlib.import_module(commands[name][0]).main(rest)


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

    A package that is not installed is reported in one line too. A status other than 0 or None that `main` returns becomes the
    exit status. Of several processes that torchrun has started, one prints the line.
    """
    try:
        status = main()
    except (UserError, ModuleNotFoundError) as error:
        line = str(error) if isinstance(error, UserError) else missing_package(error)
        if line is None:
            raise
        sys.stdout.flush()
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:
            from ..training import rendezvous  # not above: to fail, torch is not needed

            line = rendezvous.claim_error_line(line)
        if line is not None:
            print(f"error: {line}", file=sys.stderr, flush=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    if status:
        sys.exit(status)
