"""Summarise runs in Markdown, a page each: model, data, device, accuracy, and the command that reproduces the run.

    python -m spvit_mini summary runs/spvit_mini_compass
    python -m spvit_mini summary runs/a runs/b > runs.md

A run writes the same page as summary.md when it ends. This command also works during a run, and after a run was killed.
"""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from ..training.summary import write_summary
from .arguments import Imports, Program

PROGRAM = Program("python -m spvit_mini summary", __doc__)


@dataclass(frozen=True)
class Arguments:
    """Which runs to summarise."""

    runs: Positional[tuple[Path, ...]] = ()
    """Run folders."""
    imports: Imports = ()


def main(argv: list[str]) -> int:
    """Run the program on command-line arguments; returns its exit status."""
    print("\n".join(map(write_summary, PROGRAM.parse(argv, Arguments()).runs)), end="")
    return 0
