"""Lesson 09: SP-ViT. A box of tokens from another image, the way back, labels in the same shares, the loss of token labels."""

import torch
import torch.nn.functional as F
from torch import Tensor

from spvit_mini.geometry import Grid
from spvit_mini.training.token_loss import dense_loss, mix_classes
from spvit_mini.vit import swap_box

from ..cases import draw_integer, draw_normal, format_count
from ..engine import Case, Exercise
from . import answers, mistakes
from .answers import Box


def unmix(dense: Tensor, box: Box, grid: Grid) -> Tensor:
    """Bring the outputs of mixed images, (B, R·C, K), back to their own images, as `ViT.forward` does; a test compares."""
    return swap_box(dense.transpose(1, 2).unflatten(-1, grid), box).flatten(2).transpose(1, 2)


def in_double(cls: Tensor, dense: Tensor, y: Tensor, maps: Tensor, w: float) -> Tensor:
    """Do as the package's `dense_loss`, which computes in single precision whatever comes in; a test compares."""
    return F.cross_entropy(cls, y) + w * F.cross_entropy(dense.flatten(0, 1), maps.flatten(0, 1))


# Cases ------------------------------------------------------------------------------------------------------------------


def list_boxes(generator: torch.Generator) -> list[tuple[int, Grid, Box]]:
    """List batch sizes, grids and boxes: wide, tall, a corner, one image, one row, an empty box, all patches, one patch."""
    more = draw_integer(generator, 0, 1)
    return [
        (4, (5, 6 + more), (1, 2, 3, 5)),
        (3, (6 + more, 4), (2, 1, 5, 2)),
        (2, (4, 4), (0, 0, 2, 3)),
        (1, (3, 4 + more), (1, 1, 2, 3)),
        (5, (1, 5), (0, 1, 1, 3)),
        (2, (3, 3), (1, 2, 1, 3)),
        (3, (2, 3), (0, 0, 2, 3)),
        (2, (1, 1), (0, 0, 1, 1)),
    ]


def draw_token_grids(generator: torch.Generator) -> list[Case]:
    """Draw grids of tokens for these boxes."""
    cases = []
    for width, (images, grid, box) in zip([3, 2, 1, 2, 2, 3, 4, 2], list_boxes(generator), strict=True):
        x = draw_normal(generator, images, width, *grid)
        cases.append(Case(f"x of shape {tuple(x.shape)} and the box {box}", (x, box)))
    return cases


def draw_dense_outputs(generator: torch.Generator) -> list[Case]:
    """Draw outputs of the dense head for these boxes."""
    cases = []
    for classes, (images, grid, box) in zip([3, 2, 4, 2, 2, 3, 4, 2], list_boxes(generator), strict=True):
        dense = draw_normal(generator, images, grid[0] * grid[1], classes)
        cases.append(Case(f"dense of shape {tuple(dense.shape)}, the box {box} and the grid {grid}", (dense, box, grid)))
    return cases


def list_centres(generator: torch.Generator) -> list[tuple[int, Grid, Grid, float]]:
    """List batch sizes, grids, centres, λ: wide, tall, square, one image, one row, an empty box, a large one, one patch."""
    more, shift = draw_integer(generator, 0, 1), 0.03 * torch.rand((), generator=generator).item()
    return [
        (4, (5, 6 + more), (1, 4), 0.32 + shift),
        (3, (6 + more, 4), (4, 2), 0.32 + shift),
        (2, (4, 4), (1, 2), 0.32 + shift),
        (1, (3, 4 + more), (2, 3), 0.32 + shift),
        (5, (1, 5), (0, 2), 0.32 + shift),
        (2, (3, 3), (1, 1), 0.92 + shift),
        (3, (7, 7), (3, 5), 0.17 + shift),
        (2, (1, 1), (0, 0), 0.32 + shift),
    ]


def cut_box(grid: Grid, centre: Grid, lam: float) -> Box:
    """Make MixToken's box of a centre and λ, as the package's `draw_box` does; a test compares."""
    halves = [int(side * (1 - lam) ** 0.5) // 2 for side in grid]
    (top, bottom), (left, right) = (
        (max(0, at - half), min(side, at + half)) for side, at, half in zip(grid, centre, halves, strict=True)
    )
    return top, left, bottom, right


def draw_targets(generator: torch.Generator) -> list[Case]:
    """Draw targets for boxes as MixToken draws them."""
    cases = []
    for classes, (images, grid, centre, lam) in zip([3, 2, 4, 2, 3, 3, 4, 2], list_centres(generator), strict=True):
        y = draw_normal(generator, images, classes).softmax(-1)
        box = cut_box(grid, centre, lam)
        label = f"y of shape {tuple(y.shape)}, the box {box}, the grid {grid} and lam = {lam:.2f}"
        cases.append(Case(label, (y, box, grid, lam)))
    return cases


def draw_batches(generator: torch.Generator) -> list[Case]:
    """Draw logits, targets, weights: as many patches as classes, one image, one patch, targets of one class, logits far apart."""
    cases = []
    for number, (images, patches, classes, w) in enumerate(
        [(3, 4, 5, 0.5), (2, 6, 3, 2.0), (2, 3, 3, 1.5), (1, 4, 3, 0.5), (3, 1, 4, 0.25), (4, 5, 2, 0.75), (2, 3, 4, 0.5)]
    ):
        shapes = (images, classes), (images, patches, classes), (images, classes), (images, patches, classes)
        cls, dense, y, maps = (2 * draw_normal(generator, *shape) for shape in shapes)
        y = torch.eye(classes, dtype=torch.float64)[y.argmax(-1)] if number == 1 else y.softmax(-1)
        label = f"{format_count(images, 'image')}, {format_count(patches, 'patch', 'es')}, {classes} classes, w = {w}"
        if number == 6:  # so far that exp gives 0 for all classes but one, in double precision too
            cls[:, 0], dense[..., 0], label = cls[:, 0] + 1000, dense[..., 0] + 1000, f"{label}, logits far apart"
        cases.append(Case(label, (cls, dense, y, maps.softmax(-1), w)))
    return cases


# Calls ----------------------------------------------------------------------------------------------------------------


def run_labels(answer, y: Tensor, box: Box, grid: Grid, lam: float) -> Tensor:
    """Call an answer, or the package's function, which does not ask for lam."""
    return answer(y, box, grid) if answer is mix_classes else answer(y, box, grid, lam)


def run_loss(answer, cls: Tensor, dense: Tensor, y: Tensor, maps: Tensor, w: float) -> Tensor:
    """Call an answer, or, for the package's loss, its twin in float64. Targets are given: they get no gradient."""
    y, maps = y.detach(), maps.detach()
    if answer is dense_loss:
        dense_loss(cls, dense, y, maps, dense_weight=w)  # out of reach while an answer is checked
        return in_double(cls, dense, y, maps, w)
    return answer(cls, dense, y, maps, w)


# Exercises --------------------------------------------------------------------------------------------------------------

AXES = "shapes don't fit. Which axis is the batch's, which are the rows and the columns?"
MIXTOKEN = Exercise(
    name="mixtoken",
    solution=swap_box,
    cases=draw_token_grids,
    answer=answers.mixtoken,
    mistakes=mistakes.MIXTOKEN,
    shape_hint=AXES,
)
UNMIX = Exercise(
    name="unmix",
    solution=unmix,
    cases=draw_dense_outputs,
    answer=answers.unmix,
    mistakes=mistakes.UNMIX,
    shape_hint=AXES,
)
MIX_LABELS = Exercise(
    name="mix_labels",
    solution=mix_classes,
    cases=draw_targets,
    call=run_labels,
    answer=answers.mix_labels,
    mistakes=mistakes.MIX_LABELS,
)
DENSE_LOSS = Exercise(
    name="dense_loss",
    solution=dense_loss,
    cases=draw_batches,
    call=run_loss,
    answer=answers.dense_loss,
    mistakes=mistakes.DENSE_LOSS,
    shape_hint="shapes don't fit. Which axis does each of your functions take for the classes, and where are they here? "
    + mistakes.MOVED,
)
EXERCISES = (MIXTOKEN, UNMIX, MIX_LABELS, DENSE_LOSS)
