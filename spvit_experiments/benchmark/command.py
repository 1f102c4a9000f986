"""python -m spvit_experiments benchmark PART: what things cost, measured side by side in one run.

    attention   layers: every way in, its fast path, its equation written out, the same layer of others
    model       models: ours beside timm's of the same weights, and beside plain attention on the same skeleton
    data        the input: each stage of the pipeline, beside the common ones with equal augmentation
    course      the lessons: seconds and memory of each
    growth      time and memory as patches, heads, images and blocks grow
    bounds      the ratios that this project promises of a CPU, and whether they hold here
    page        docs/speed.md and its figure, from the records of growth and bounds
    all         all that measures, what matters most first; for an accelerator, 25 minutes

Steps of all sides take turns, so that a busy machine slows them alike; what counts are ratios. Before anything is timed,
sides that should compute the same are checked to do so. Each part prints a table and leaves a CSV and a figure; what is in
the CSV already is not measured again. PART --help lists the options of a part.
"""

import importlib
import sys

from spvit_mini.cli.arguments import parse
from spvit_mini.cli.program import run_program
from spvit_mini.errors import UserError, near

from . import MODULES
from .attention import training_step
from .timing import interleaved

__all__ = ["interleaved", "main", "training_step"]
PROGRAM = "python -m spvit_experiments benchmark"
PARTS = ("attention", "model", "data", "course", "growth", "bounds", "page", "all")


def main(argv: list[str] | None = None) -> int:
    """Run the program on command-line arguments; returns its exit status."""
    name, *arguments = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("--help", "-h"):
        print(__doc__.strip())
        return 0
    if name not in PARTS:
        raise UserError(f"the benchmark has no part {name!r}.{near(name, PARTS)} The parts are {', '.join(PARTS)}")
    part = importlib.import_module(f".{MODULES.get(name, name)}", __package__)
    return part.main(parse(arguments, default=part.Options(), prog=f"{PROGRAM} {name}", description=part.__doc__))


if __name__ == "__main__":
    run_program(main)
