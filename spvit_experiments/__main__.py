"""`python -m spvit_experiments COMMAND`, installed as `spvit-experiments COMMAND`."""

import sys

from spvit_mini.cli.program import run_command, run_program

ABOUT = "Studies, their records, the pages written from them, and benchmarks."
COMMANDS = {
    "study": ("spvit_experiments.study_command", "run, resume, report and verify a study"),
    "results": ("spvit_experiments.results", "write docs/results.md from the records"),
    "benchmark": ("spvit_experiments.benchmark.command", "measure speed and memory, side by side"),
    "demo": ("spvit_experiments.demo", "train vit_mini and spvit_mini side by side"),
    "explanations": ("spvit_experiments.explanations", "record whether explanations find the relevant patches"),
    "heads": ("spvit_experiments.heads", "record the gates and nonlocality of heads during training"),
    "sparsity": ("spvit_experiments.sparsity", "record the accuracy of binarised priors"),
    "speed": ("spvit_experiments.speed", "record the time and memory of layers"),
    "overview": ("spvit_experiments.overview", "record and draw what each attention attends to"),
}


def main() -> None:
    """Run the command line of this process."""
    run_program(lambda: run_command("python -m spvit_experiments", ABOUT, COMMANDS, sys.argv[1:]))


if __name__ == "__main__":
    main()
