"""`python -m spvit_mini COMMAND`, installed as `spvit-mini COMMAND`."""

import sys

from .cli import COMMANDS
from .cli.program import run_command, run_program

ABOUT = "Train, evaluate and explain vision transformers with spatial priors."


def main() -> None:
    """Run the command line of this process."""
    run_program(lambda: run_command("python -m spvit_mini", ABOUT, COMMANDS, sys.argv[1:]))


if __name__ == "__main__":
    main()
