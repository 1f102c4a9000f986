"""Typed command lines: a dataclass with the defaults goes in, and comes out with the values that the user has changed.

tyro makes an option of each field, with the field's docstring as its help. tyro reports a mistake in a box of several lines;
`parse` turns it into one line.
"""

import contextlib
import dataclasses
import io
import itertools
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from ..errors import UserError, near
from ..extensions import read_imports
from ..fields import check_fields, describe, type_hints

T = TypeVar("T")
# For --help alone: `Program` imports the files before it reads the other options.
IMPORT_HELP = "Python files or modules to import first, which register attentions, maps or recipes (docs/extending.md)."
Imports = Annotated[tuple[str, ...], tyro.conf.arg(name="import", metavar="FILE_OR_MODULE…", help=IMPORT_HELP)]


@dataclasses.dataclass(frozen=True)
class Program:
    """A program: its name for messages, its description (the docstring of its module), and what precedes its options.

    If the default arguments have a field `imports`, `split` and `parse` first import what the option `--import` names.
    """

    name: str
    about: str
    first: str = ""

    def __str__(self) -> str:
        return self.name

    def split(self, argv: list[str], default: object = None) -> tuple[str, list[str]]:
        """Split off the word that comes before the options. Without a word, and for --help, print the help and exit."""
        argv = read_imports(argv)[1] if hasattr(default, "imports") else argv
        if not argv or argv[0] in ("--help", "-h"):
            self.print_help(default)
        if argv[0].startswith("-"):
            raise UserError(f"{self.first} comes before the options: {self} {self.first} {' '.join(argv)[:60]}")
        return argv[0], argv[1:]

    def parse(self, options: list[str], default: T, first: str = "") -> T:
        """Parse the options, behind the word `first` where the program has one. Without options then print the help."""
        options = read_imports(options)[1] if hasattr(default, "imports") else options
        if not first and (not options or options[0] in ("--help", "-h")):
            self.print_help(default)
        return parse(options, default=default, prog=f"{self} {first}".strip(), description=self.about.splitlines()[0])

    def print_help(self, default: object) -> None:
        """Print the description and the options, then exit."""
        print(f"{self.about.strip()}\n")
        tyro.cli(type(default), prog=f"{self} {self.first}".strip(), description="", default=default, args=["--help"])
        sys.exit()


def parse(arguments: list[str], *, default: T, prog: str, description: str) -> T:
    """Parse command-line arguments as changes of `default`, a dataclass. `--help` prints all options and exits.

    Raises UserError for an unknown option, with the similar ones, and for a value that an option does not accept.
    """
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            parsed, unknown = tyro.cli(
                type(default), default=default, prog=prog, description=description, args=arguments, return_unknown_args=True
            )
    except SystemExit as end:
        if not end.code:
            raise
        message = _describe_value(_extract_message(box.getvalue()), arguments, list_options(default))
        raise UserError(f"{message}; {prog} --help lists the options") from None
    if unknown:
        raise UserError(_describe_unknown(unknown[0].split("=")[0], list_options(default), prog))
    check_fields(parsed, "--")
    return parsed


def check_new_file(out: Path) -> None:
    """Raise UserError if the file to write exists already, or its folder does not exist."""
    if out.exists():
        raise UserError(f"{out} exists already and is never overwritten; name another file with --out")
    if not out.parent.is_dir():
        raise UserError(f"there is no folder {out.parent} to write {out.name} to")


def list_options(default: Any, prefix: str = "--") -> dict[str, Any]:
    """List the options of a dataclass as they are typed, with their types: --run-dir, --optim.weight-decay, …"""
    options: dict[str, Any] = {}
    for field in dataclasses.fields(default):
        value, name = getattr(default, field.name), field.name.replace("_", "-").replace("imports", "import")
        kind = type_hints(type(default))[field.name]
        if field.metadata.get("flat"):
            options |= list_options(value, prefix)
        elif dataclasses.is_dataclass(value):
            options |= list_options(value, f"{prefix}{name}.")
        elif not {tyro.conf.Positional, tyro.conf.Suppress} & set(getattr(kind, "__metadata__", ())):
            options[prefix + name] = kind
    return options


def _describe_value(message: str, arguments: list[str], options: dict[str, Any]) -> str:
    """Describe a value that tyro could not read by what its option expects; other messages stay as they are."""
    name = message.partition(": ")[0]
    words = [part for word in arguments for part in (word.split("=", 1) if word.startswith("--") else [word])]
    rest = itertools.dropwhile(lambda word: word.replace("_", "-") != name, words)
    values = list(itertools.takewhile(lambda word: not word.startswith("--"), itertools.islice(rest, 1, None)))
    return f"{name} is {' '.join(values)!r}; expected {describe(options[name])}" if values and name in options else message


def _describe_unknown(token: str, options: Iterable[str], prog: str) -> str:
    if not token.startswith("-"):
        return f"unexpected {token!r}; options begin with --, and values follow their option. {prog} --help lists the options"
    token = token.replace("_", "-")
    # A name without its section may be of any section.
    leaf = token.lstrip("-").rpartition(".")[2]
    same = [option for option in options if option.lstrip("-").rpartition(".")[2] == leaf]
    hint = f" Did you mean {' or '.join(same)}?" if same else near(token, options)
    return f"there is no option {token}.{hint} {prog} --help lists the options"


def _extract_message(box: str) -> str:
    """Extract the message from tyro's box, with or without borders: the lines after the title, up to the first rule."""
    message = []
    for line in re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()[1:]:
        line = line.strip("│ ")
        if not re.match(r"[─-]{3}|╰", line):
            message.append(line)
        elif message:
            break
    text = " ".join(message).removeprefix("Error parsing ").rstrip(".").replace("Expected 1 values", "Expected 1 value")
    # Where a dataclass itself refused a value, its message is complete; tyro puts the dataclass's name before it.
    return re.sub(r"^[a-z][a-z_.]*: ", "", text) or "the arguments could not be read"
