"""Types and ranges of the fields of dataclasses: declared beside a field, checked in one place when the dataclass is built.

    lr: Annotated[float, Range(0)] = 1e-3

    def __post_init__(self):
        check_fields(self, "optim.")

Values come from Python, the command line, recipe.json and the metadata of weights. Therefore the lists, texts and dictionaries
of JSON become the tuples, paths and dataclasses that the fields declare.
"""

import inspect
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, wraps
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, ParamSpec, Union, get_args, get_origin, get_type_hints

from .errors import UserError, near

P = ParamSpec("P")
LARGEST = 1e30  # of any number: its square is infinite in float32


@dataclass(frozen=True)
class Range:
    """The range of a number, whose `ends` are included, "[]", or not, "()"."""

    low: float
    high: float = LARGEST
    ends: str = "[]"

    def __contains__(self, value: Any) -> bool:
        is_above = value > self.low if self.ends[0] == "(" else value >= self.low
        return is_above and (value < self.high if self.ends[1] == ")" else value <= self.high)

    def __str__(self) -> str:
        if self.ends == "[]":
            return f"from {self.low:,} to {self.high:,}"
        low, high = ("above" if self.ends[0] == "(" else "of at least"), ("below" if self.ends[1] == ")" else "at most")
        return f"{low} {self.low:,} and {high} {self.high:,}"


@dataclass(frozen=True)
class Pattern:
    """The pattern of a text, with its description for messages."""

    pattern: str
    expected: str

    def __contains__(self, value: str) -> bool:
        return re.fullmatch(self.pattern, value) is not None


Count = Annotated[int, Range(1, 1_000_000)]
Natural = Annotated[int, Range(0, 1_000_000)]
Steps = Annotated[int, Range(1, 10**12)]
Workers = Annotated[int, Range(0, 256)]
Seed = Annotated[int, Range(0, 2**32 - 1)]
NonNegative = Annotated[float, Range(0)]
Positive = Annotated[float, Range(0, ends="(]")]
Share = Annotated[float, Range(0, 1)]
Fraction = Annotated[float, Range(0, 1, "(]")]
BelowOne = Annotated[float, Range(0, 1, "[)")]
CropRatio = Annotated[float, Range(0.1, 1)]  # a smaller one would resize images beyond what fits into memory
Pixels = Annotated[int, Range(1, 4096)]  # the side of an image or of a patch
Device = Annotated[str, Pattern(r"auto|cpu|mps|cuda(:\d{1,3})?", "auto, cpu, cuda, cuda:1 or mps")]
NAMES = {int: "an integer", float: "a number", bool: "True or False", str: "a text", Path: "a path", NoneType: "None"}
type_hints: Any = cache(lambda kind: get_type_hints(kind, include_extras=True))  # slow, and records have hundreds of recipes


class _MismatchError(Exception):
    """A value that does not fit its type."""


def check_fields(options: Any, prefix: str = "") -> None:
    """Check all fields of a dataclass, and convert those that came from JSON. Raises UserError for the first wrong value.

    `prefix` precedes the names of the fields in messages, such as "optim."; "--" writes them as options.
    """
    for name, kind in type_hints(type(options)).items():
        value, default = getattr(options, name), getattr(type(options), name, None)
        if value is not default or value is None:
            label = f"{prefix}{name.replace('_', '-') if prefix.startswith('--') else name}"
            object.__setattr__(options, name, check_value(kind, value, label))


def check_arguments(init: Callable[P, None]) -> Callable[P, None]:
    """Decorate a constructor, so that the numbers among its arguments are checked as fields are."""
    signature = inspect.signature(init)

    @wraps(init)
    def checked(*args: P.args, **options: P.kwargs) -> None:
        bound = signature.bind(*args, **options)
        for name, kind in type_hints(init).items():
            if name in bound.arguments and kind is not bool:  # a switch may be a number, as on the command line
                bound.arguments[name] = check_value(kind, bound.arguments[name], name)
        init(*bound.args, **bound.kwargs)

    return checked


def check_value(kind: Any, value: Any, name: str) -> Any:
    """Return a value as its type declares it. Raises UserError, with its `name` and what is expected, for any other value."""
    try:
        return _convert(kind, value, name)
    except _MismatchError:
        raise UserError(f"{name} is {value!r:.80}; expected {describe(kind)}") from None


def parse_json(kind: Any, text: str, source: str) -> Any:
    """Read a value of a type from JSON text. Raises UserError, which names its `source`, for other text."""
    try:
        return check_value(kind, json.loads(text), source)
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source} is not JSON ({error}). Restore it, or write it again.") from None


@contextmanager
def naming(source: object) -> Iterator[None]:
    """Name the file in the errors of a block that reads it."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def _convert(kind: Any, value: Any, name: str) -> Any:
    origin, kinds = get_origin(kind) or kind, get_args(kind)
    if origin is Annotated:
        value = _convert(kinds[0], value, name)
        if all(value in limit for limit in kinds[1:] if isinstance(limit, Range | Pattern)):
            return value
    elif origin in (Union, UnionType):
        return None if value is None else _convert(kinds[0], value, name)
    elif origin in (tuple, list) and isinstance(value, tuple | list):
        items = kinds[:1] * len(value) if kinds[1:] in ((), (...,)) else kinds
        if len(value) == len(items):
            return origin(_convert(item, inner, name) for item, inner in zip(items, value, strict=True))
    elif origin is dict and isinstance(value, dict):
        # Bools and integers stay what they are, where the command line has numbers.
        is_same = {key: kinds[1] is float and isinstance(inner, int) for key, inner in value.items()}
        return {_convert(str, k, name): v if is_same[k] else _convert(kinds[1], v, name) for k, v in value.items()}
    elif hasattr(kind, "__dataclass_fields__") and isinstance(value, dict):
        known = type_hints(kind)
        for key in value:
            if key not in known:
                raise UserError(f"{name} has an option {key!r}, which this version does not know.{near(key, known)}")
        try:
            return kind(**value)
        except TypeError as error:
            raise UserError(f"{name} is incomplete: {error}") from None
    elif kind in (int, float):
        is_number = isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
        if is_number and value in Range(-LARGEST):  # NaN is not
            return kind(value)
    elif kind in (str, Path) and isinstance(value, str | kind):
        if str(value).strip() and "\0" not in str(value):
            return kind(value)
    elif kind is Any or (isinstance(value, str) and value in kinds if origin is Literal else isinstance(value, origin)):
        return value
    raise _MismatchError


def describe(kind: Any) -> str:
    """Describe what values a type has, for messages."""
    origin, kinds = get_origin(kind) or kind, get_args(kind)
    if origin is Annotated:
        limit = next((limit for limit in kinds[1:] if isinstance(limit, Range | Pattern)), "")
        return limit.expected if isinstance(limit, Pattern) else f"{describe(kinds[0])} {limit}".strip()
    if origin in (Union, UnionType):
        return ", or ".join(map(describe, kinds))
    if origin is Literal:
        return " or ".join(filter(None, [", ".join(kinds[:-1]), kinds[-1]]))
    if origin in (tuple, list):
        items = list(dict.fromkeys(describe(item) for item in kinds if item is not ...))
        return f"values, each {items[0]}" if ... in kinds or origin is list else f"{len(kinds)} values: {', '.join(items)}"
    if origin is dict:
        return "names with values" + (f", each {describe(kinds[1])}" if kinds and kinds[1] is not Any else "")
    return NAMES.get(kind) or f"the fields of {kind.__name__}"
