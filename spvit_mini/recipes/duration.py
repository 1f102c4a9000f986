"""Durations in the unit that suits: "30 epochs", "240 steps" or "50000 images"."""

import re

from ..errors import UserError


def parse_duration(duration: str, *, name: str = "duration") -> tuple[float, str]:
    """Split a duration such as "30 epochs" into its number and its unit: "step", "epoch" or "image"."""
    match = re.fullmatch(r"\s*(\d[\d_]*(?:\.\d+)?)\s*(step|epoch|image)s?\s*", duration)
    if not match:
        raise UserError(
            f"{name} is {duration!r}; expected a number and a unit, such as '30 epochs', '240 steps' or '50000 images'"
        )
    return float(match[1].replace("_", "")), match[2]


def count_steps(duration: str, *, steps_per_epoch: int, batch_size: int) -> int:
    """Convert a duration to steps, to the nearest step."""
    number, unit = parse_duration(duration)
    return round(number * {"step": 1, "epoch": steps_per_epoch, "image": 1 / batch_size}[unit])
