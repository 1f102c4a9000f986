"""Durations in the unit that suits: "30 epochs", "240 steps" or "50000 images"."""

import re
from typing import Annotated

from ..fields import Pattern, check_value

NUMBER_AND_UNIT = r"\s*(\d[\d_]{0,14}(?:\.\d{1,15})?)\s*(step|epoch|image)s?\s*"
EXAMPLES = "and a unit, such as '30 epochs', '240 steps' or '50000 images'"
Duration = Annotated[str, Pattern(NUMBER_AND_UNIT, f"a number {EXAMPLES}")]
Interval = Annotated[str, Pattern(f"(?=.*[1-9]){NUMBER_AND_UNIT}", f"a number above 0 {EXAMPLES}")]


def parse_duration(duration: str, *, name: str = "duration") -> tuple[float, str]:
    """Split a duration such as "30 epochs" into its number and its unit: "step", "epoch" or "image"."""
    match = re.fullmatch(NUMBER_AND_UNIT, check_value(Duration, duration, name))
    assert match is not None
    return float(match[1].replace("_", "")), match[2]


def count_steps(duration: str, *, steps_per_epoch: int, batch_size: int) -> int:
    """Convert a duration to steps, to the nearest step."""
    number, unit = parse_duration(duration)
    return round(number * {"step": 1, "epoch": steps_per_epoch, "image": 1 / batch_size}[unit])
