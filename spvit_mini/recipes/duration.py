"""How long, in the unit that suits: "30 epochs", "240 steps" or "50000 images"."""

import re

from ..errors import UserError


def parse_length(length: str, *, name: str = "length") -> tuple[float, str]:
    """Split a length such as "30 epochs" into its number and its unit, one of "step", "epoch", "image"."""
    match = re.fullmatch(r"\s*(\d[\d_]*(?:\.\d+)?)\s*(step|epoch|image)s?\s*", length)
    if not match:
        raise UserError(
            f"{name} is {length!r}; say it as a number and a unit, such as '30 epochs', '240 steps' or '50000 images'"
        )
    return float(match[1].replace("_", "")), match[2]


def steps_in(length: str, *, steps_per_epoch: int, batch: int) -> int:
    """Count the steps in a length, to the nearest step."""
    number, unit = parse_length(length)
    return round(number * {"step": 1, "epoch": steps_per_epoch, "image": 1 / batch}[unit])
