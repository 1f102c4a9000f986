"""Sum up runs in Markdown, one page each: what was trained, on what, how well it ended, and how to make it again.

    python -m spvit_mini summary runs/spvit_mini_compass
    python -m spvit_mini summary runs/a runs/b > runs.md

A run writes the same page as summary.md when it ends; this one works while it lasts, and if it was killed.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..training.summary import summary
from .arguments import parse
from .program import run_program


@dataclass(frozen=True)
class Arguments:
    """Which runs."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """The folders of the runs."""


def main(argv: list[str] | None = None) -> int:
    """Run the program on command-line arguments; returns its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv:
        print(__doc__.strip())
        return 0
    arguments = parse(argv, default=Arguments(), prog="python -m spvit_mini summary", description="Sum up runs in Markdown.")
    print("\n".join(map(summary, arguments.runs)), end="")
    return 0


if __name__ == "__main__":
    run_program(main)
