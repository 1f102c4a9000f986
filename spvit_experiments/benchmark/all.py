"""All parts in order of importance, within a number of minutes; the same command continues.

The default options take 25 minutes on an accelerator, and hours on a CPU, where the promised ratios (targets) come first. Use
--quick for a test.

    python -m spvit_experiments benchmark all --quick
"""

import importlib
import time
from dataclasses import asdict, dataclass

from spvit_mini.errors import UserError
from spvit_mini.fields import NonNegative

from .timing import CommonOptions, choose_device

ORDER = ("model", "attention", "scaling", "data", "lessons")


@dataclass(frozen=True)
class Options(CommonOptions):
    """Run all parts."""

    minutes: NonNegative = 25
    """Begin no further comparison after so many minutes; the same command continues. 0: no limit."""


def main(options: Options) -> int:
    """Run all parts of the benchmark; returns the exit status."""
    device, start = choose_device(options), time.monotonic()
    for name in ORDER if options.quick or device.type == "cuda" else ("targets", *ORDER):
        left = options.minutes - (time.monotonic() - start) / 60
        if options.minutes and left <= 0:
            print(f"out of time: {name} is not begun; the same command continues")
            continue
        part = importlib.import_module(f".{name}", __package__)
        changes = asdict(options) | {"minutes": left if options.minutes else 0}
        if name == "lessons":
            changes.pop("rounds")
        print(f"\n--- {name}\n", flush=True)
        try:
            part.main(part.Options(**changes))
        except UserError as error:  # the other parts continue
            print(f"skipped: {name}: {error}")
    return 0
