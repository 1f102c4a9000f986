"""Lesson 05: windows. Who shares a window of a shifted partition, and what attention through a mask is.

A shift of half a window is the same up and down, a partition of a square grid the same by rows and by columns, and a
window's mask the same for query and key. So most grids are rectangles, most shifts no half, and masks are random.
"""

from functools import partial

import torch
from torch import Tensor

from spvit_mini.geometry import Grid, pad_prefix
from spvit_mini.spatial import SquareWindow

from ..cases import as_numbers, draw_integer, draw_normal, stays_float32
from ..engine import Case, Exercise, Property
from . import answers, mistakes

NUMBERS = "the values are right, but they are numbers. A mask says in or out: True or False, so that `~mask` is the outside."


def masked_weights(scores: Tensor, mask: Tensor) -> Tensor:
    """Attend as `MaskedAttention.weights` does, and give a query that sees nothing no weights."""
    hidden = ~pad_prefix(mask, scores.shape[-1] - mask.shape[-1], True)
    return scores.masked_fill(hidden, float("-inf")).softmax(-1).masked_fill(hidden, 0)


# Cases ------------------------------------------------------------------------------------------------------------------


def draw_partitions(generator: torch.Generator) -> list[Case]:
    """Draw grids with windows: that fit and not, shifted and not, a row, a column, larger than the grid, of one patch."""
    draw = partial(draw_integer, generator)
    side = draw(2, 3)
    cases = [
        ((2 * side, 3 * side), side, 0),
        ((6, 9), 3, draw(1, 2)),
        ((draw(7, 8), 4), 3, 2),
        ((6, 6), 4, 3),
        ((1, draw(7, 8)), 4, 1),
        ((9, 1), 4, 3),
        ((3, 4), draw(5, 6), 2),
        ((3, 5), 1, 0),
        ((8, 8), 4, 2),
    ]
    return [Case(f"grid = {grid}, size = {size} and shift = {shift}", (grid, size, shift)) for grid, size, shift in cases]


def draw_masks(generator: torch.Generator) -> list[Case]:
    """Draw scores and masks: no, one, two prefix tokens; a mask for all heads and one for each; queries that see nothing."""
    draw = partial(draw_integer, generator)
    cases = []
    for batch, heads, own, prefix, patches, spread, empty in [
        (1, 1, False, 0, 5, 1, False),
        (2, 2, False, 1, draw(5, 6), 1, False),
        (1, 3, True, 2, draw(5, 6), 1, False),
        (2, 3, True, 0, draw(5, 7), 1, False),
        (1, 2, False, 0, draw(6, 7), 1, True),
        (1, 2, True, 1, draw(6, 7), 1, True),
        (1, 2, False, 0, draw(7, 8), 90, False),
    ]:
        tokens = prefix + patches
        scores = spread * draw_normal(generator, batch, heads, tokens, tokens)
        if spread > 1:
            scores[..., 0, :] -= 300  # a query that matches nothing: to it, even a score of 0 would be a large one
        mask = torch.rand(*[heads] * own, patches, patches, generator=generator) < 0.5
        i = torch.arange(patches)
        mask[..., i, i], mask[..., i, (i + 1) % patches], mask[..., i, (i + 2) % patches] = True, True, False
        mask[..., 1, 0] = False
        if empty:
            mask[..., 2, :] = False
        shape = f"scores {tuple(scores.shape)} and a mask {tuple(mask.shape)}"
        remark = ", in which query 2 sees no patch" * empty + ", large scores" * (spread > 1)
        cases.append(Case(shape + remark, (scores, mask)))
    return cases


def run_windows(answer, grid: Grid, size: int, shift: int) -> Tensor:
    """Call an answer, or the package's class, and let a mask be compared as numbers, whatever its type."""
    if answer is SquareWindow:
        return as_numbers(answer(size, shift=shift), grid)[0]
    return as_numbers(answer, grid, size, shift)


def has_finite_gradients(answer) -> bool:
    """Tell whether a query that sees nothing leaves all gradients finite."""
    scores = torch.ones(1, 1, 3, 3, requires_grad=True)
    mask = torch.tensor([[True, True, False], [False, False, False], [False, True, True]])
    weights = answer(scores, mask)
    return not weights.requires_grad or bool(torch.autograd.grad(weights[..., 0].sum(), scores)[0].isfinite().all())


def has_equal_shares(answer, inside: float, outside: float) -> bool:
    """Tell whether, in float32, keys that are seen share the whole where all scores inside are alike, and all outside."""
    mask = torch.tensor([[True, True, False], [False, False, False], [False, True, True]])
    scores = torch.full((1, 1, 3, 3), outside).masked_fill(mask, inside)
    return torch.allclose(answer(scores, mask), mask / 2, atol=1e-5)


# Exercises --------------------------------------------------------------------------------------------------------------

WINDOW_MASK = Exercise(
    name="window_mask",
    solution=SquareWindow,
    cases=draw_partitions,
    call=run_windows,
    answer=answers.window_mask,
    mistakes=mistakes.WINDOW_MASK,
    gradients=False,
    properties=(Property("booleans", NUMBERS, lambda answer: answer((2, 3), 2, 1).dtype == torch.bool),),
)
MASKED_WEIGHTS = Exercise(
    name="masked_weights",
    solution=masked_weights,
    cases=draw_masks,
    answer=answers.masked_weights,
    mistakes=mistakes.MASKED_WEIGHTS,
    shape_hint="shapes do not fit together. Scores are (B, H, P+N, P+N); a mask (N, N) or (H, N, N) lies along their "
    "last axes as it is, without a new one. For P prefix tokens it lacks P rows and columns, in front.",
    properties=(
        stays_float32(lambda answer: answer(torch.zeros(1, 1, 3, 3), torch.eye(3, dtype=torch.bool))),
        Property(
            "large scores",
            "right for small scores. But in float32 exp(89) is infinite and exp(−104) is 0. softmax subtracts the largest score "
            "first, so it can bear both; exp on its own cannot.",
            lambda answer: has_equal_shares(answer, 120.0, 120.0) and has_equal_shares(answer, -120.0, -120.0),
        ),
        Property(
            "scores far apart",
            "right while scores are near each other. Where the outside's scores are 20,000 above the inside's, the inside loses "
            "its weight: after an exponential it is too late to mask, and a finite number in place of −∞ is not low enough.",
            lambda answer: has_equal_shares(answer, -20_000.0, 0.0) and has_equal_shares(answer, 0.0, 20_000.0),
        ),
        Property(
            "no NaN on the way back",
            "the weights are right, but a query that sees nothing makes NaN of gradients: to replace NaN in the weights is not "
            "enough, it comes back from −∞ that was added to scores, and from 0/0. Scores that are *replaced*, as by "
            "masked_fill, get no gradient; and before you divide, see that no sum is 0.",
            has_finite_gradients,
        ),
    ),
)
EXERCISES = (WINDOW_MASK, MASKED_WEIGHTS)
