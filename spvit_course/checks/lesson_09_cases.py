"""Lesson 09's cases: boxes on grids of all shapes, boxes as MixToken draws them, batches of logits with their targets."""

import torch

from spvit_mini.geometry import Grid

from .engine import Case
from .lesson_09_answers import Box


def boxes(generator: torch.Generator) -> list[tuple[int, Grid, Box]]:
    """List batch sizes, grids and boxes: wide, tall, a corner, one image, one row, an empty box, all patches, one patch."""
    more = int(torch.randint(0, 2, (), generator=generator))
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


def token_grids(generator: torch.Generator) -> list[Case]:
    cases = []
    for width, (images, grid, box) in zip([3, 2, 1, 2, 2, 3, 4, 2], boxes(generator), strict=True):
        x = torch.randn(images, width, *grid, dtype=torch.float64, generator=generator)
        cases.append(Case(f"x of shape {tuple(x.shape)} and the box {box}", (x, box)))
    return cases


def dense_outputs(generator: torch.Generator) -> list[Case]:
    cases = []
    for classes, (images, grid, box) in zip([3, 2, 4, 2, 2, 3, 4, 2], boxes(generator), strict=True):
        dense = torch.randn(images, grid[0] * grid[1], classes, dtype=torch.float64, generator=generator)
        cases.append(Case(f"dense of shape {tuple(dense.shape)}, the box {box} and the grid {grid}", (dense, box, grid)))
    return cases


def draws(generator: torch.Generator) -> list[tuple[int, Grid, Grid, float]]:
    """List batch sizes, grids, centres, λ: wide, tall, square, one image, one row, an empty box, a large one, one patch."""
    more, shift = int(torch.randint(0, 2, (), generator=generator)), 0.03 * torch.rand((), generator=generator).item()
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


def cut(grid: Grid, centre: Grid, lam: float) -> Box:
    """Make MixToken's box of a centre and λ, as the package's `draw_box` does; a test compares."""
    halves = [int(side * (1 - lam) ** 0.5) // 2 for side in grid]
    (top, bottom), (left, right) = (
        (max(0, at - half), min(side, at + half)) for side, at, half in zip(grid, centre, halves, strict=True)
    )
    return top, left, bottom, right


def targets_to_mix(generator: torch.Generator) -> list[Case]:
    cases = []
    for classes, (images, grid, centre, lam) in zip([3, 2, 4, 2, 3, 3, 4, 2], draws(generator), strict=True):
        y = torch.randn(images, classes, dtype=torch.float64, generator=generator).softmax(-1)
        box = cut(grid, centre, lam)
        label = f"y of shape {tuple(y.shape)}, the box {box}, the grid {grid} and lam = {lam:.2f}"
        cases.append(Case(label, (y, box, grid, lam)))
    return cases


def batches(generator: torch.Generator) -> list[Case]:
    """Draw logits, targets, weights: as many patches as classes, one image, one patch, targets of one class, logits far apart."""
    cases = []
    for number, (images, patches, classes, w) in enumerate(
        [(3, 4, 5, 0.5), (2, 6, 3, 2.0), (2, 3, 3, 1.5), (1, 4, 3, 0.5), (3, 1, 4, 0.25), (4, 5, 2, 0.75), (2, 3, 4, 0.5)]
    ):
        shapes = (images, classes), (images, patches, classes), (images, classes), (images, patches, classes)
        cls, dense, y, maps = (2 * torch.randn(shape, dtype=torch.float64, generator=generator) for shape in shapes)
        y = torch.eye(classes, dtype=torch.float64)[y.argmax(-1)] if number == 1 else y.softmax(-1)
        label = f"{images} image{'s' * (images > 1)}, {patches} patch{'es' * (patches > 1)}, {classes} classes, w = {w}"
        if number == 6:  # so far that exp gives 0 for all classes but one, in double precision too
            cls[:, 0], dense[..., 0], label = cls[:, 0] + 1000, dense[..., 0] + 1000, f"{label}, logits far apart"
        cases.append(Case(label, (cls, dense, y, maps.softmax(-1), w)))
    return cases
