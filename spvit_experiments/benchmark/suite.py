"""All parts, one after the other, what matters most first, within so many minutes; the same command goes on.

On an accelerator that is 25 minutes: models, layers, growth, the input, the lessons, each with its own default options. On a
CPU it is a matter of hours unless --quick is given; the ratios that are promised of one come first there.

    python -m spvit_experiments benchmark all --quick --out runs/benchmark
"""

import importlib
import time
from dataclasses import asdict, dataclass

from spvit_mini.errors import UserError

from . import MODULES
from .timing import Options as Common
from .timing import choose_device

PARTS = ("model", "attention", "growth", "data", "course")


@dataclass(frozen=True)
class Options(Common):
    """Run all parts."""

    minutes: float = 25
    """Begin nothing further after so many minutes; the same command goes on. 0: no limit."""


def main(options: Options) -> int:
    """Run all parts of the benchmark; returns the exit status."""
    device, start = choose_device(options), time.monotonic()
    for name in PARTS if options.quick or device.type == "cuda" else ("bounds", *PARTS):
        left = options.minutes - (time.monotonic() - start) / 60
        if options.minutes and left <= 0:
            print(f"not begun, for want of time: {name}; the same command goes on")
            continue
        part = importlib.import_module(f".{MODULES.get(name, name)}", __package__)
        given = asdict(options) | {"minutes": left if options.minutes else 0}
        if name == "course":
            given.pop("rounds")
        print(f"\n--- {name}\n", flush=True)
        try:
            part.main(part.Options(**given))
        except UserError as error:  # of one part: the others go on
            print(f"left out: {name}: {error}")
    return 0
