"""Lesson 08: SP-SA. The prior's small network, its way into the scores, and which parameters move first."""

from collections.abc import Set

import torch
from torch import Tensor, nn

from spvit_mini.attention import SPSA
from spvit_mini.geometry import Grid, offsets

from ..cases import draw_integer, draw_normal, format_count, format_prefix, run_weights, stays_float32
from ..engine import Case, Exercise, Property, Verdict, require_type
from . import answers, mistakes

NAMES = ("w1", "b1", "w2", "b2")


def prior(delta: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    """Compute f_h(δ) = w2_h · ReLU(W1_h δ + b1_h) + b2_h for offsets (…, 2): (H, …).

    The package computes it in `PriorMLP.table`, offsets included; a test compares the two.
    """
    flat = delta.reshape(-1, 2)  # (offsets, 2)
    hidden = (w1 @ flat.T + b1[:, :, None]).relu()  # (H, K, offsets)
    result = (w2[:, None] @ hidden).squeeze(1) + b2[:, None]
    return result.reshape(len(b2), *delta.shape[:-1])


def moves_at_step0(layer: nn.Module, x: Tensor, grid: Grid) -> set[str]:
    """Name the parameters of a layer's prior whose gradient is not 0, for tokens x (B, N, D) and a loss of its output."""
    parameters = dict(layer.spatial.named_parameters())
    gradients = torch.autograd.grad(layer(x, grid).square().sum(), list(parameters.values()))
    return {name for name, gradient in zip(parameters, gradients, strict=True) if gradient.count_nonzero()}


# Cases ----------------------------------------------------------------------------------------------------------------


def draw_networks(generator: torch.Generator) -> list[Case]:
    """Draw small networks, and offsets: of a wide grid, of a tall one, any, one alone; one head, one unit; one patch.

    In the last f is below 0.
    """
    more = draw_integer(generator, 1, 2)
    any_five = 2 * draw_normal(generator, 5, 2)
    any_five[0] = -any_five[0].abs()
    cases = []
    for heads, hidden, delta, name in [
        (3, 4, offsets(2, 2 + more), f"all offsets of a grid (2, {2 + more})"),
        (2, 3, offsets(2 + more, 2), f"all offsets of a grid ({2 + more}, 2)"),
        (2, 5, any_five, "any five offsets"),
        (1, 4, offsets(3, 3), "all offsets of a grid (3, 3)"),
        (4, 1, offsets(1, 3), "all offsets of a grid (1, 3)"),
        (3, 4, any_five[0], "one offset"),
        (2, 3, offsets(1, 1), "the one offset of a grid (1, 1)"),
    ]:
        w1, b1, w2, b2 = draw_prior(generator, heads, hidden)
        if len(cases) == 6:
            w2, b2 = -w2.abs(), -b2.abs()
        label = f"{format_count(heads, 'head')}, K = {hidden}, {name}"
        cases.append(Case(label, (delta.double(), w1, b1, w2, b2)))
    return cases


def draw_prior(generator: torch.Generator, heads: int, hidden: int) -> list[Tensor]:
    """Draw w1, b1, w2, b2 of a prior that is large enough to be seen, of either sign."""
    shapes = (heads, hidden, 2), (heads, hidden), (heads, hidden), (heads,)
    return [draw_normal(generator, *shape) for shape in shapes]


def draw_layers(generator: torch.Generator) -> list[Case]:
    """Draw queries, keys and priors: a wide grid, a tall one, prefixes of one and two, one head, one row, one patch.

    Widths of heads are powers of 4, so that a root taken in float32 is exact too; in the last, b2 alone is not 0.
    """
    more = draw_integer(generator, 1, 2)
    cases = []
    for batch, heads, width, grid, prefix in [
        (2, 2, 4, (2, 2 + more), 0),
        (1, 3, 4, (2 + more, 2), 1),
        (2, 2, 16, (2, 2), 2),
        (1, 1, 4, (2, 3), 1),
        (2, 2, 4, (1, 3 + more), 0),
        (1, 2, 4, (1, 1), 1),
        (1, 3, 4, (2, 3), 0),
    ]:
        tokens = (batch, heads, prefix + grid[0] * grid[1], width)
        q, k = (1.5 * draw_normal(generator, *tokens) for _ in range(2))
        w1, b1, w2, b2 = draw_prior(generator, heads, 3)
        if len(cases) == 6:
            w2 = torch.zeros_like(w2)
        label = f"q and k of shape {tokens} on the grid {grid}, {format_prefix(prefix)}"
        cases.append(Case(label, (heads, grid, w1, b1, w2, b2, q, k)))
    return cases


def run_layer(layer, heads: int, grid: Grid, *values: Tensor) -> Tensor:
    """Build a layer, give it this prior, and compute the weights of these queries and keys."""
    *parameters, q, k = values
    spatial = {f"spatial.{name}": value for name, value in zip(NAMES, parameters, strict=True)}
    return run_weights(layer(heads * q.shape[-1], heads, 3), spatial, q, k, grid)


ONES = "ones"
STARTS = {  # which of w1, b1, w2, b2 are not 0; the initialisation, which the lesson asks readers to guess, comes last
    "a trained layer": (True, True, True, True),
    "a trained layer with b2 = 0": (True, True, True, False),
    "a trained layer that holds old gradients": (True, True, True, True),
    "a layer with w1 = b1 = 0": (False, False, True, True),
    "a layer with w1 = b1 = w2 = 0": (False, False, False, ONES),
    "a layer at its start with b1 = 0": (True, False, False, ONES),
    "a layer at its start that holds old gradients": (True, True, False, ONES),
    "a layer at its start": (True, True, False, ONES),
}
NUMBERING = "[0] to [3] stand for w1, b1, w2, b2, with 1 for a name in the set"


def draw_starts(generator: torch.Generator) -> list[Case]:
    """Draw tokens and layers whose priors start in several ways; two of them hold gradients from earlier.

    b1 is positive, so that each unit is awake somewhere, but for one unit of the trained layers.
    """
    cases = []
    for label, kinds in STARTS.items():
        heads, grid = 2, (2, draw_integer(generator, 2, 3))
        parameters = draw_prior(generator, heads, 3)
        parameters[1] = parameters[1].abs()
        if "trained" in label:
            parameters[1][0, 0] = -100.0
        values = [
            torch.ones_like(value) if kind is ONES else value if kind else torch.zeros_like(value)
            for value, kind in zip(parameters, kinds, strict=True)
        ]
        x = draw_normal(generator, 2, grid[0] * grid[1], 8)
        cases.append(Case(f"{label} ({NUMBERING})", (grid, "old" in label, *values, x)))
    return cases


def run_names(answer, grid: Grid, old: bool, *values: Tensor) -> Tensor:
    """Build the package's layer with this prior, ask which parameters move, and return 1 or 0 for each of the four."""
    *parameters, x = values
    layer = SPSA(8, 2, 3).double()
    layer.load_state_dict({f"spatial.{name}": value for name, value in zip(NAMES, parameters, strict=True)}, strict=False)
    for parameter in layer.parameters():
        parameter.grad = torch.ones_like(parameter) if old else None
    names = answer(layer, x, grid)
    require_type(names, Set, "a set of names")
    strangers = [str(name) for name in names if name not in NAMES]
    if strangers:
        raise Verdict(f"{strangers[0]!r} is none of the names 'w1', 'b1', 'w2', 'b2': those of `layer.spatial`'s parameters.")
    return torch.tensor([float(name in names) for name in NAMES], dtype=torch.float64)


# Exercises ------------------------------------------------------------------------------------------------------------


def is_plain_at_first(layer) -> bool:
    """Tell whether a layer as it is built gives the weights of plain attention, with and without a prefix."""
    layer = layer(8, 2).double()
    q, k = torch.randn(2, 1, 2, 7, 4, dtype=torch.float64)
    plain = (q @ k.mT / 2).softmax(-1)
    return torch.allclose(layer.weights(q, k, (2, 3)).detach(), plain)


PRIOR = Exercise(
    name="prior",
    solution=prior,
    cases=draw_networks,
    answer=answers.prior,
    mistakes=mistakes.PRIOR,
    properties=(
        stays_float32(
            lambda answer: answer(torch.ones(3, 2), torch.ones(1, 2, 2), torch.ones(1, 2), torch.ones(1, 2), torch.ones(1))
        ),
    ),
    shape_hint="shapes don't fit together. w1 (H, K, 2) meets δ on its last axis and leaves (H, K) for each offset; "
    "b2 has one number for each head.",
)
SPATIAL = Exercise(
    name="SPSA",
    solution=SPSA,
    cases=draw_layers,
    call=run_layer,
    answer=answers.SPSA,
    mistakes=mistakes.SPSA,
    properties=(
        Property(
            "starts as plain attention",
            "as it is built, the layer does not give the weights of plain attention.",
            is_plain_at_first,
        ),
    ),
    shape_hint="shapes don't fit together. The prior is (H, N, N), of patches; scores are (B, H, P+N, P+N). P is not "
    "always 0 or 1: it is what S has more than f.",
)
MOVES = Exercise(
    name="moves_at_step0",
    solution=moves_at_step0,
    cases=draw_starts,
    call=run_names,
    answer=answers.moves_at_step0,
    mistakes=mistakes.MOVES_AT_STEP0,
    gradients=False,
    shape_hint="shapes or names don't fit together. `layer(x, grid)` gives the output; `layer.spatial` holds the four "
    "parameters.",
)
EXERCISES = (PRIOR, SPATIAL, MOVES)
