"""Statistics over seeds: mean and standard deviation, paired differences with an interval, steps to a level."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """A mean of paired differences and its confidence interval; `low` and `high` are NaN for fewer than two pairs."""

    pairs: int
    mean: float
    low: float
    high: float


def paired(a: Sequence[float], b: Sequence[float], *, confidence: float = 0.95) -> Difference:
    """Compute the mean of the paired differences a − b and its confidence interval, by Student's t.

    With differences d of n pairs, their mean m and standard deviation s (over n − 1): m ± t · s / √n, where t is the
    two-sided quantile for n − 1 degrees of freedom (Student 1908).
    """
    d = [x - y for x, y in zip(a, b, strict=True)]
    mean, deviation = mean_and_deviation(d)
    half_width = t_quantile(confidence, len(d) - 1) * deviation / math.sqrt(len(d)) if len(d) > 1 else math.nan
    return Difference(len(d), mean, mean - half_width, mean + half_width)


def format_interval(difference: Difference, digits: int = 1) -> str:
    """Format a mean difference with its interval, if there is one: not for one pair, nor for pairs that are all equal."""
    if difference.pairs == 0:
        return "no pairs"
    if difference.pairs == 1:
        return f"{difference.mean:+.{digits}f} (one pair)"
    if math.isclose(difference.low, difference.high, abs_tol=1e-9):
        return f"{difference.mean:+.{digits}f} (all pairs equal)"
    return f"{difference.mean:+.{digits}f} [{difference.low:+.{digits}f}, {difference.high:+.{digits}f}]"


def format_mean(values: Sequence[float], digits: int = 1) -> str:
    """Format the mean and the standard deviation of some values, or what there is for fewer than two."""
    mean, deviation = mean_and_deviation(values)
    if len(values) < 2:
        return f"{mean:.{digits}f} (n = 1)" if values else "–"
    return f"{mean:.{digits}f} ± {deviation:.{digits}f}"


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Compute the mean and the standard deviation (n − 1); the latter is NaN for a single value, both for none."""
    mean = sum(values) / len(values) if values else math.nan
    if len(values) < 2:
        return mean, math.nan
    return mean, math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def steps_to(curve: Iterable[tuple[float, float]], level: float) -> float:
    """Find the first step at which a curve of (step, value) is at or above a level; infinity if it never is.

    Args:
        curve: points in the order of their steps, one per evaluation. The result is one of these steps.
    """
    return next((step for step, value in curve if value >= level), math.inf)


def t_quantile(confidence: float, degrees: int) -> float:
    """Find the t with P(|T| ≤ t) = confidence, for Student's T with the given degrees of freedom.

    Method: bisection over the angle arctan(t / √degrees), in which `t_probability` is a finite sum.
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if t_probability(middle, degrees) < confidence else (low, middle)
    return math.sqrt(degrees) * math.tan(low)


def t_probability(angle: float, degrees: int) -> float:
    """Compute P(|T| ≤ √degrees · tan angle) for Student's T (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4)."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    # 1 + 1/2 cos² + (1·3)/(2·4) cos⁴ + … for even degrees, cos + 2/3 cos³ + (2·4)/(3·5) cos⁵ + … for odd ones, up to the
    # power degrees − 2.
    term = cosine if odd else 1.0
    total = 0.0
    for power in range(odd, degrees - 1, 2):
        total += term
        term *= cosine**2 * (power + 1) / (power + 2)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
