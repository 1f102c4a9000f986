"""What exercises of several lessons share: draws of their cases, words of their labels, calls of modules, properties."""

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spvit_mini.geometry import Grid

from .engine import Property, Verdict, require_type
from .exchange import compare_states


def draw_integer(generator: torch.Generator, low: int, high: int) -> int:
    """Draw an integer between two bounds, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def draw_normal(generator: torch.Generator, *shape: int) -> Tensor:
    """Draw numbers with mean 0 and variance 1, in float64."""
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def number_values(shape: Sequence[int]) -> Tensor:
    """Number the values of a tensor in reading order: a message of the first difference then says where a value belongs."""
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float64).reshape(shape)


def draw_grids(generator: torch.Generator) -> list[Grid]:
    """Draw grids of several kinds: wide, tall, square, one row, one column, much wider than tall, one patch."""
    rows = draw_integer(generator, 2, 3)
    return [
        (rows, rows + draw_integer(generator, 1, 2)),
        (rows + draw_integer(generator, 1, 2), rows),
        (draw_integer(generator, 3, 4),) * 2,
        (1, draw_integer(generator, 3, 5)),
        (draw_integer(generator, 4, 5), 1),
        (draw_integer(generator, 2, 3), draw_integer(generator, 5, 7)),
        (1, 1),
    ]


def format_count(number: int, noun: str, ending: str = "s") -> str:
    """Write a number of things: "1 head", "3 heads"."""
    return f"{number} {noun}{ending * (number != 1)}"


def format_prefix(prefix: int) -> str:
    """Write a number of prefix tokens: "no prefix", "one prefix token", "2 prefix tokens"."""
    return {0: "no prefix", 1: "one prefix token"}.get(prefix, f"{prefix} prefix tokens")


def as_numbers(answer: Callable, *arguments) -> Tensor:
    """Call an answer that returns integers or booleans, and convert them to floats, so that any type can be compared."""
    output = answer(*arguments)
    return output.double() if isinstance(output, Tensor) else output


def as_number(output: Any, what: str = "it returns") -> float:
    """Convert an answer to a number. Raises Verdict for anything else, and for what float32 has rounded.

    Tensors and arrays of one number are numbers too, as are those of NumPy; booleans are not.
    """
    rounds = getattr(output, "dtype", None) in (torch.float32, torch.float16, torch.bfloat16, np.float32, np.float16)
    if isinstance(output, (Tensor, np.ndarray, np.generic)) and np.prod(output.shape) == 1:
        output = output.item()
    require_type(output, () if isinstance(output, bool) else Real, "a number", what=what)
    if rounds and np.isfinite(output) and output % 1:
        raise Verdict(f"{what} a number in float32, which rounds it. Return a float: math and .item() give one.")
    return float(output)


def run_as_weights(answer: Callable, v: Tensor, grid: Grid) -> Tensor:
    """Compute attention weights by an answer's map, so that a number added to a whole row of it makes no difference."""
    scores = answer(v, grid)
    return scores.softmax(-1) if isinstance(scores, Tensor) and scores.is_floating_point() else scores


class Weights(nn.Module):
    """Let `functional_call`, which calls a module, call a layer's method `weights`."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, q: Tensor, k: Tensor, grid: Grid) -> Tensor:
        return self.layer.weights(q, k, grid)


def run_weights(layer: nn.Module, spatial: dict[str, Tensor], q: Tensor, k: Tensor, grid: Grid) -> Tensor:
    """Compute a layer's attention weights in float64, with these parameters of its map `spatial`."""
    require_type(layer, nn.Module, "an nn.Module", what="the class makes")
    layer = layer.double().eval()
    compare_states(spatial, {name: value for name, value in layer.state_dict().items() if name.startswith("spatial")})
    parameters = {f"layer.{name}": value for name, value in spatial.items()}
    return torch.func.functional_call(Weights(layer), parameters, (q, k, grid))


def stays_float32(
    call: Callable, hint: str = "tensors in float32 come back in another type: keep the type of the input."
) -> Property:
    """Make the property that `call(answer)`, on tensors in float32, is in float32."""
    return Property("float32 stays float32", hint, lambda answer: call(answer).dtype == torch.float32)
