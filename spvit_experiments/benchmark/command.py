"""python -m spvit_experiments benchmark PART: the cost of attention, models, data and lessons, measured in turns in one run.

    attention   layers: every mode, its backends, its eager equation, and timm's layer
    model       models: ours and timm's with the same weights, and SP-ViT and plain attention in one architecture
    data        the input pipeline: each stage, and the common pipelines with equal augmentation
    lessons     the notebooks: seconds and memory of each
    scaling     time and memory over the number of patches, heads, images and blocks
    targets     the ratios that this project promises on a CPU, and whether they hold
    page        docs/speed.md and its figure, from the records of scaling and targets
    all         all measurements, in order of importance; 25 minutes on an accelerator

Steps of all sides take turns, so that other work on the machine slows them alike; the results are ratios. Before anything is
timed, sides that should compute the same are checked. Each part prints a table and writes a CSV and a figure, and does not
measure again what the CSV contains. PART --help lists the options of a part.
"""

import importlib
import sys

from spvit_mini.errors import UserError, near

from . import PARTS

PROGRAM = "python -m spvit_experiments benchmark"


def main(argv: list[str] | None = None) -> int:
    """Run the program on command-line arguments; returns its exit status."""
    name, *arguments = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("--help", "-h"):
        print(__doc__.strip())
        return 0
    if name not in PARTS:
        raise UserError(f"the benchmark has no part {name!r}.{near(name, PARTS)} The parts are {', '.join(PARTS)}")
    from spvit_mini.cli.arguments import parse

    part = importlib.import_module(f".{name}", __package__)
    return part.main(parse(arguments, default=part.Options(), prog=f"{PROGRAM} {name}", description=part.__doc__))
