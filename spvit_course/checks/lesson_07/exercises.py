"""Lesson 07: ConViT. Weights that a gate mixes head by head, nonlocality of heads, and late class-token insertion."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from spvit_mini.explain.attribution import nonlocality

from ..cases import draw_integer, draw_normal, format_count, format_prefix
from ..engine import Case, Exercise, Property, compute_gradients, is_equal
from . import answers, mistakes


def gpsa(scores: Tensor, positions: Tensor, gate: Tensor) -> Tensor:
    """Mix two distributions by a gate for each head, (1−σ(λ))·softmax(S) + σ(λ)·softmax(f), prefix rows by content alone.

    scores (B, H, P+N, P+N), positions (H, N, N), gate (H,) → (B, H, P+N, P+N). The package computes it in
    `GatedAttention.weights`, scores and positions included; a test compares the two.
    """
    content, prefix = scores.softmax(-1), scores.shape[-1] - positions.shape[-1]
    positional = F.pad(positions.softmax(-1), (prefix, 0)).expand_as(content[:, :, prefix:])
    patches = content[:, :, prefix:].lerp(positional, gate.sigmoid()[:, None, None])
    return torch.cat([content[:, :, :prefix], patches], dim=2)


def late_token(x: Tensor, cls: Tensor, blocks: Sequence[Callable[[Tensor], Tensor]], k: int) -> Tensor:
    """Pass patches x (B, N, D) through blocks, the class token cls (1, 1, D) in front from block k on: (B, 1+N, D)."""
    for block in blocks[:k]:
        x = block(x)
    x = torch.cat([cls.repeat(len(x), 1, 1), x], dim=1)
    for block in blocks[k:]:
        x = block(x)
    return x


# Cases ------------------------------------------------------------------------------------------------------------------


def draw_mixtures(generator: torch.Generator) -> list[Case]:
    """Draw scores, positions and gates: no prefix, one, two; one head, as many heads as tokens; one patch.

    The first are the numbers of the lesson's section *By hand*.
    """
    cases = [Case("the numbers of *By hand*", by_hand())]
    n = draw_integer(generator, 4, 6)
    for images, heads, patches, prefix in [(2, 3, n, 0), (1, 2, n, 1), (2, 3, n, 2), (2, 1, n, 1), (1, n, n, 0), (2, 2, 1, 1)]:
        total = prefix + patches
        shapes = (images, heads, total, total), (heads, patches, patches), (heads,)
        label = f"{format_count(heads, 'head')}, {format_count(patches, 'patch', 'es')}, {format_prefix(prefix)}"
        cases.append(Case(label, tuple(1.5 * draw_normal(generator, *shape) for shape in shapes)))
    return cases


def by_hand() -> tuple[Tensor, Tensor, Tensor]:
    """Give the section's scores, (1, 1, 3, 3) with equal rows; its positions; and its gate, whose σ is ¾."""
    content = torch.tensor([2.0, 1.0, 1.0], dtype=torch.float64).log().repeat(1, 1, 3, 1)
    positions = torch.tensor([[[1.0, 2.0, 1.0], [1.0, 1.0, 2.0], [1.0, 1.0, 1.0]]], dtype=torch.float64).log()
    return content, positions, torch.tensor([3.0], dtype=torch.float64).log()


def draw_weights(generator: torch.Generator) -> list[Case]:
    """Draw attention weights on grids: wide, tall, with a prefix of one and of two, one row, one column, one head."""
    more = draw_integer(generator, 1, 2)
    cases = []
    for images, heads, grid, prefix in [
        (2, 3, (2, 2 + more), 0),
        (2, 2, (2 + more, 2), 1),
        (1, 3, (3, 3), 2),
        (2, 1, (2, 3), 1),
        (1, 2, (1, 3 + more), 0),
        (1, 2, (3 + more, 1), 1),
    ]:
        total = prefix + grid[0] * grid[1]
        scores = 1.5 * draw_normal(generator, images, heads, total, total)
        label = f"w of shape {tuple(scores.shape)} on a grid of {grid[0]} × {grid[1]}"
        cases.append(Case(label, (scores.softmax(-1), grid)))
    return cases


def draw_trunks(generator: torch.Generator) -> list[Case]:
    """Draw patches, a class token and weights of blocks; it joins in the middle, early, last, at once; one image."""
    n = draw_integer(generator, 3, 5)
    cases = []
    for images, blocks, k in [(2, 4, 2), (3, 3, 1), (2, 3, 2), (2, 3, 0), (1, 5, 3)]:
        arguments = draw_trunk(generator, images, n, blocks)
        cases.append(Case(f"{format_count(images, 'image')}, {blocks} blocks, k = {k}", (*arguments, k)))
    return cases


def draw_trunk(generator: torch.Generator, images: int, patches: int, blocks: int) -> list[Tensor]:
    """Draw patches, a class token, and the weights of blocks."""
    shapes = (images, patches, 4), (1, 1, 4), (blocks, 4, 4), (blocks, 4, 4)
    return [draw_normal(generator, *shape) for shape in shapes]


def run_blocks(answer, x: Tensor, cls: Tensor, own: Tensor, others: Tensor, k: int) -> Tensor:
    """Call an answer with blocks of these weights: each token attends to itself and to the mean of all."""

    def block(w: Tensor, v: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda x: x + torch.tanh(x @ w + x.mean(1, keepdim=True) @ v)

    return answer(x, cls, [block(w, v) for w, v in zip(own, others, strict=True)], k)


# Properties -------------------------------------------------------------------------------------------------------------


def has_finite_gradients(answer) -> bool:
    """Tell whether no NaN comes back; errors and gradients that are missing are left to the check of gradients."""
    case = draw_mixtures(torch.Generator().manual_seed(0))[3]  # two prefix tokens
    try:
        gradients = compute_gradients(GPSA, answer, case)
    except Exception:
        return True
    return gradients is None or all(value is None or bool(value.isfinite().all()) for value in gradients)


def has_token_after_the_last(answer) -> bool:
    """Tell whether the token is there with k = len(blocks), of two blocks and of none."""
    generator = torch.Generator().manual_seed(0)
    for blocks in (2, 0):
        arguments = draw_trunk(generator, 2, 3, blocks)
        if not is_equal(run_blocks(answer, *arguments, blocks), run_blocks(answers.late_token, *arguments, blocks)):
            return False
    return True


FINITE = Property(
    "no NaN",
    "the values are right, but gradients are NaN: somewhere a softmax runs over a row of nothing but −inf (padding, for "
    "prefix tokens), and NaN comes back even from a row that is thrown away. Pad with 0, after the softmax.",
    has_finite_gradients,
)
AFTER_THE_LAST = Property(
    "k = len(blocks)",
    "with k = len(blocks) the class token joins after the last block: it is returned in front of the patches, though no block "
    "has seen it.",
    has_token_after_the_last,
)

# Exercises --------------------------------------------------------------------------------------------------------------

GPSA = Exercise(
    name="gpsa",
    solution=gpsa,
    cases=draw_mixtures,
    answer=answers.gpsa,
    mistakes=mistakes.GPSA,
    properties=(FINITE,),
    shape_hint="shapes don't fit. Does the gate stand on the axis of heads, (H, 1, 1)? And is P = 0 thought of: [-P:] "
    "is then everything, [:-P] nothing.",
)
NONLOCALITY = Exercise(
    name="nonlocality",
    solution=nonlocality,
    cases=draw_weights,
    answer=answers.nonlocality,
    mistakes=mistakes.NONLOCALITY,
)
LATE_TOKEN = Exercise(
    name="late_token",
    solution=late_token,
    cases=draw_trunks,
    call=run_blocks,
    answer=answers.late_token,
    mistakes=mistakes.LATE_TOKEN,
    properties=(AFTER_THE_LAST,),
)
EXERCISES = (GPSA, NONLOCALITY, LATE_TOKEN)
