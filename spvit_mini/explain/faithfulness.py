"""Faithfulness of explanations: maps of patches, compared with known positions and with the model's output without patches.

    Known positions  hits, ranks               the relevant positions are known, as on Compass
    The model        deletion, insertion       its probability while patches are removed, or inserted, in the map's order
                     area                      such a curve in one number
    Baselines        random_maps, contrast     maps that depend on nothing, or on the image alone

A map gives a number to each patch, (B, R, C), and only the order of these numbers counts here; among equals the first comes
first. None of these scores is the truth about a model: a patch may matter and be in no list of positions, and an image with
holes is one that the model has never seen.

Letters: B batch, R and C rows and columns of patches, N = R·C, K known positions of an image.
"""

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..geometry import Grid
from .attribution import evaluating

BATCH_SIZE = 1000  # images of one forward pass


def hits(maps: Tensor, positions: Tensor, *, top: int) -> Tensor:
    """Compute the share of the known positions among a map's `top` highest patches: (B, R, C), (B, K, 2) → (B,).

    Positions are (row, column). By chance it is top/N. Raises UserError for a `top` below 1 or above N.
    """
    if not 1 <= top <= maps[0].numel():
        raise UserError(f"top is {top}; expected 1 to {maps[0].numel()}, the number of patches")
    return (ranks(maps, positions) <= top).double().mean(-1)


def ranks(maps: Tensor, positions: Tensor) -> Tensor:
    """Compute the ranks of known positions in a map: (B, R, C), (B, K, 2) → integers (B, K), 1 for the highest.

    By chance the mean rank is (N+1)/2. Raises UserError for positions outside of the map.
    """
    size = torch.tensor(maps.shape[1:], device=positions.device)
    if (positions < 0).any() or (positions >= size).any():
        raise UserError(f"a position is outside of the {size[0]} × {size[1]} patches; expected (row, column), counted from 0")
    position = order(maps).argsort(-1)  # of each patch in the order, (B, N)
    return position.gather(1, positions[..., 0] * size[1] + positions[..., 1]) + 1


def order(maps: Tensor) -> Tensor:
    """Sort patches from the highest to the lowest, (B, R, C) → their indices (B, N); among equals the first comes first."""
    return maps.flatten(1).sort(dim=-1, descending=True, stable=True).indices


def deletion(model: nn.Module, images: Tensor, maps: Tensor) -> Tensor:
    """Remove patches, the highest first, and measure how soon the probability falls (RISE, Petsiuk et al. 2018).

        curve[k] = p(c | without the k highest patches) / p(c | image),    c = the predicted class of the whole image

    A removed patch has the mean colour of the whole image. The faster the curve falls, the better. The paper's curve is
    not divided; here every image starts at 1, whatever its probability.

    Args:
        model: images (B, channels, height, width) → logits (B, classes).
        images: (B, channels, height, width), which the maps' grid divides into patches.
        maps: (B, R, C).

    Returns (B, N+1). Raises UserError for a grid that does not divide the images.
    """
    return curve(model, images, maps, begins_whole=True)


def insertion(model: nn.Module, images: Tensor, maps: Tensor) -> Tensor:
    """Begin with the mean colour alone and insert patches, the highest first (RISE): (B, N+1), ends at 1.

    Arguments and units are those of `deletion`. The faster the curve rises, the better; it may rise above 1.
    """
    return curve(model, images, maps, begins_whole=False)


@torch.no_grad()
def curve(model: nn.Module, images: Tensor, maps: Tensor, *, begins_whole: bool) -> Tensor:
    """Compute the class probability while patches are removed, or inserted, in the maps' order: (B, N+1)."""
    rows, columns = maps.shape[1:]
    height, width = images.shape[-2:]
    if len(images) != len(maps) or height % rows or width % columns:
        raise UserError(
            f"there are {len(images)} images of {height} × {width} pixels and {len(maps)} maps of {rows} × {columns} patches; "
            "expected as many of both, and a grid that divides the images"
        )
    position = order(maps).argsort(-1).view_as(maps)
    position = position.repeat_interleave(height // rows, 1).repeat_interleave(width // columns, 2)[:, None]
    mean = images.mean((-2, -1), keepdim=True)
    with evaluating(model):
        whole = model(images).softmax(-1)
        label = whole.argmax(-1, keepdim=True)
        steps = []
        for k in range(rows * columns + 1):
            shown = (position >= k) if begins_whole else (position < k)
            mixed = torch.where(shown, images, mean).split(BATCH_SIZE)
            steps.append(torch.cat([model(part).softmax(-1) for part in mixed]).gather(1, label))
    return torch.cat(steps, dim=1) / whole.gather(1, label)


def area(curves: Tensor) -> Tensor:
    """Compute the area under curves (…, N+1), whose N steps have a width of 1/N, by trapezoids: (…).

    For a deletion smaller is better, for an insertion larger.
    """
    return (curves[..., 1:] + curves[..., :-1]).mean(-1) / 2


def random_maps(count: int, grid: Grid, *, seed: int) -> Tensor:
    """Draw random maps, (count, R, C): every order of the patches is equally likely."""
    return torch.rand(count, *grid, generator=torch.Generator().manual_seed(seed))


def contrast(images: Tensor, grid: Grid) -> Tensor:
    """Compute the distance of patches' colours from the image's mean, without a model: (B, …, height, width) → (B, R, C).

    The mean over a patch's pixels and channels of the squared distance.
    """
    distance = (images - images.mean((-2, -1), keepdim=True)).square().mean(1)
    return distance.unflatten(2, (grid[1], -1)).unflatten(1, (grid[0], -1)).mean((2, 4))
