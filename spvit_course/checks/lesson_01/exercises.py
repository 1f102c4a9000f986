"""Lesson 01: one head, all heads at once, and how widely a query spreads its weight."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from spvit_mini.attention import MHSA
from spvit_mini.explain.attribution import entropy

from ..cases import draw_integer, draw_normal, format_count, stays_float32
from ..engine import Case, Exercise, Property
from ..exchange import run_module
from . import answers, mistakes


def one_head(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Compute softmax(q kᵀ / √C) v as torch does: q (M, C), k (N, C), v (N, E) → (M, E)."""
    return F.scaled_dot_product_attention(q[None], k[None], v[None])[0]


# Cases ------------------------------------------------------------------------------------------------------------------


def by_hand() -> tuple[Tensor, Tensor, Tensor]:
    """Give q, k, v of the lesson's section *By hand*: weights ¼, ¼, ½, and (2, 5) comes out."""
    q = math.log(2) * torch.tensor([[1, 1, 0, 0]], dtype=torch.float64)
    k = torch.tensor([[0, 0, 1, 0], [1, -1, 0, 0], [1, 1, 0, 0]], dtype=torch.float64)
    v = torch.tensor([[4, 0], [0, 4], [2, 8]], dtype=torch.float64)
    return q, k, v


def draw_heads(generator: torch.Generator) -> list[Case]:
    """Draw queries, keys and values: as many queries as keys, fewer, more, one; one key; a head of width 1.

    The width is a power of 4 in every case: then its root is exact in float32 too, and an answer that computes it by
    torch.tensor(C).sqrt() is right to the last bit.
    """
    more = draw_integer(generator, 1, 3)
    sizes = [(5, 5, 4, 4), (3, 3 + more, 16, 4), (4 + more, 4, 4, 2), (1, 6, 4, 4), (1, 1, 4, 4), (4, 4, 1, 1)]
    cases = [Case("the numbers of *By hand*", by_hand())]
    for queries, keys, width, values in sizes:
        shapes = ((queries, width), (keys, width), (keys, values))
        q, k, v = (1.5 * draw_normal(generator, *shape) for shape in shapes)
        cases.append(Case(f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}", (q, k, v)))
    return cases


def draw_layers(generator: torch.Generator) -> list[Case]:
    """Draw weights and tokens of layers: several heads, as many as tokens, one; heads of width 1; one token.

    Widths of heads and of tokens are powers of 4, for the same reason. Once images, heads, tokens and the width of a
    head are all 4: there a product fits whichever axes were turned, and tells how.
    """
    tokens = draw_integer(generator, 5, 7)
    sizes = [(2, tokens, 4, 4), (1, tokens, 4, 16), (2, tokens, 16, 1), (3, tokens, 1, 16), (4, 4, 4, 4), (2, 1, 4, 4)]
    cases = []
    for batch, tokens, heads, width in sizes:
        dim = heads * width
        shapes = ((3 * dim, dim), (dim, dim), (dim,), (batch, tokens, dim))
        qkv, proj, bias, x = (draw_normal(generator, *shape) for shape in shapes)
        label = f"x of shape {tuple(x.shape)} and {format_count(heads, 'head')}"
        cases.append(Case(label, (heads, 1.5 * qkv * dim**-0.5, proj * dim**-0.5, bias, x)))
    return cases


def run_layer(layer, heads: int, qkv: Tensor, proj: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    """Build a layer, give it these weights, and pass tokens x (B, N, D) through."""
    weights = {"qkv.weight": qkv, "proj.weight": proj, "proj.bias": bias}
    return run_module(layer(x.shape[-1], heads), weights, x, (1, x.shape[1]))


def draw_distributions(generator: torch.Generator) -> list[Case]:
    """Draw attention weights: square and not, with no, one and two more axes; whole rows at one key, tiny weights."""
    keys = draw_integer(generator, 6, 9)
    cases = []
    for shape in [(keys,), (4, keys), (2, 3, keys), (2, 2, keys, keys)]:
        scores = 1.5 * draw_normal(generator, *shape)
        cases.append(Case(f"weights of shape {shape}", (scores.softmax(-1),)))
    one, few = torch.eye(4, dtype=torch.float64)[:3], torch.tensor([[0.5, 0.5, 0, 0], [0.25] * 4], dtype=torch.float64)
    cases.append(Case("rows at one key each, (3, 4)", (one,)))
    cases.append(Case("a row at two keys, and one at all four", (few,)))
    cases.append(Case("one key, (5, 1)", (torch.ones(5, 1, dtype=torch.float64),)))
    falling = 10.0 ** -torch.arange(10, dtype=torch.float64)
    cases.append(Case("a row of weights as 1 : 0.1 : … : 1e-9", (falling[None] / falling.sum(),)))
    return cases


# Exercises ----------------------------------------------------------------------------------------------------------------


def has_gradients(answer) -> bool:
    """Tell whether the gradient is right, by the scores: weights that sum to more than 1 are outside the exercise."""
    scores = torch.linspace(-1, 1, 5, dtype=torch.float64).requires_grad_()
    w = scores.softmax(-1)
    (gradient,) = torch.autograd.grad(answer(w), scores)
    return torch.allclose(gradient, -w * (w.log() + answers.entropy(w)))


ONE_HEAD = Exercise(
    name="one_head",
    solution=one_head,
    cases=draw_heads,
    answer=answers.one_head,
    mistakes=mistakes.ONE_HEAD,
    properties=(stays_float32(lambda answer: answer(*torch.ones(3, 5, 4))),),
)
ALL_HEADS = Exercise(
    name="MHSA",
    solution=MHSA,
    cases=draw_layers,
    call=run_layer,
    answer=answers.MHSA,
    mistakes=mistakes.MHSA,
    properties=(stays_float32(lambda answer: answer(8, 2)(torch.ones(1, 3, 8), (1, 3))),),
)
ENTROPY = Exercise(
    name="entropy",
    solution=entropy,
    cases=draw_distributions,
    answer=answers.entropy,
    mistakes=mistakes.ENTROPY,
    gradients=False,  # at 0 the slope has no bound; away from it, see the property
    properties=(
        stays_float32(lambda answer: answer(torch.eye(3))),
        Property(
            "gradients away from 0",
            "the values are right, but the gradients differ, at weights without zeros. Was a tensor detached, or taken out "
            "of torch?",
            has_gradients,
        ),
    ),
)
EXERCISES = (ONE_HEAD, ALL_HEADS, ENTROPY)
