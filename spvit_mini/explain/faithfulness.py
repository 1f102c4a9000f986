"""Is an explanation right? Maps of patches held against known places, and against what the model does without them.

    Known places     hits, ranks               where the answer stands in the image is known, as it is on Compass
    The model        deletion, insertion       what becomes of its answer when patches go, or come, in the map's order
                     area                      such a curve in one number
    Baselines        random_maps, contrast     what a map is worth that knows nothing, or nothing but the image

A map gives a number to each patch, (B, R, C), and only the order of these numbers counts here; of equal ones the first
comes first. None of these scores is the truth about a model: a patch may count and stand in no list of places, and an
image with holes is one that the model has never seen.

Letters: B batch, R and C rows and columns of patches, N = R·C, K known places of an image.
"""

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..geometry import Grid
from .attribution import evaluating

AT_ONCE = 1000  # images that a model is given at once


# --- Against known places ------------------------------------------------------------------------------------------------


def hits(maps: Tensor, places: Tensor, *, top: int) -> Tensor:
    """Tell which part of the known places is among a map's `top` highest patches: (B, R, C), (B, K, 2) → (B,).

    Places are (row, column). By chance it is top/N. Raises UserError for a `top` below 1 or above N.
    """
    if not 1 <= top <= maps[0].numel():
        raise UserError(f"the {top} highest of {maps[0].numel()} patches are asked for; it must be 1 to {maps[0].numel()}")
    return (ranks(maps, places) <= top).double().mean(-1)


def ranks(maps: Tensor, places: Tensor) -> Tensor:
    """Tell how high known places stand in a map: (B, R, C), (B, K, 2) → whole numbers (B, K), 1 for the highest.

    By chance the mean rank is (N+1)/2. Raises UserError for places that are not in the map.
    """
    size = torch.tensor(maps.shape[1:], device=places.device)
    if (places < 0).any() or (places >= size).any():
        raise UserError(f"a place is outside of the {size[0]} × {size[1]} patches of the map; places are (row, column) from 0")
    position = order(maps).argsort(-1)  # of each patch in the order, (B, N)
    return position.gather(1, places[..., 0] * size[1] + places[..., 1]) + 1


def order(maps: Tensor) -> Tensor:
    """Sort patches from the highest to the lowest, (B, R, C) → their numbers (B, N); of equal ones the first comes first."""
    return maps.flatten(1).sort(dim=-1, descending=True, stable=True).indices


# --- Against the model ---------------------------------------------------------------------------------------------------


def deletion(model: nn.Module, images: Tensor, maps: Tensor) -> Tensor:
    """Take patches away, the highest first, and see how soon the answer goes (RISE, Petsiuk et al. 2018).

        curve[k] = p(c | without the k highest patches) / p(c | image),    c = the class that the whole image is given

    A patch goes by taking the image's mean colour, that of the whole image. The faster the curve falls, the better.
    The paper's curve is not divided; here every image starts at 1, however sure the model is of it.

    Args:
        model: images (B, channels, height, width) → logits (B, classes).
        images: (B, channels, height, width), which the maps' grid divides into patches.
        maps: (B, R, C).

    Returns (B, N+1). Raises UserError for a grid that does not divide the images.
    """
    return curve(model, images, maps, begins_whole=True)


def insertion(model: nn.Module, images: Tensor, maps: Tensor) -> Tensor:
    """Begin with the mean colour alone and let patches in, the highest first (RISE): (B, N+1), ends at 1.

    Arguments and units are those of `deletion`. The faster the curve rises, the better; it may rise above 1.
    """
    return curve(model, images, maps, begins_whole=False)


@torch.no_grad()
def curve(model: nn.Module, images: Tensor, maps: Tensor, *, begins_whole: bool) -> Tensor:
    """Follow the probability of the whole image's class while patches go, or come, in the maps' order: (B, N+1)."""
    rows, columns = maps.shape[1:]
    height, width = images.shape[-2:]
    if len(images) != len(maps) or height % rows or width % columns:
        raise UserError(
            f"{len(images)} images of {height} × {width} pixels do not go with {len(maps)} maps of {rows} × {columns} patches"
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
            mixed = torch.where(shown, images, mean).split(AT_ONCE)
            steps.append(torch.cat([model(part).softmax(-1) for part in mixed]).gather(1, label))
    return torch.cat(steps, dim=1) / whole.gather(1, label)


def area(curves: Tensor) -> Tensor:
    """Measure the area under curves (…, N+1), whose N steps have a width of 1/N, by trapezoids: (…).

    Of a deletion the smaller is the better, of an insertion the larger.
    """
    return (curves[..., 1:] + curves[..., :-1]).mean(-1) / 2


# --- Baselines -----------------------------------------------------------------------------------------------------------


def random_maps(count: int, grid: Grid, *, seed: int) -> Tensor:
    """Draw maps that know nothing, (count, R, C): every order of the patches is equally likely."""
    return torch.rand(count, *grid, generator=torch.Generator().manual_seed(seed))


def contrast(images: Tensor, grid: Grid) -> Tensor:
    """Measure how far the patches' colours lie from the image's mean, which asks no model: (B, …, height, width) → (B, R, C).

    The mean over a patch's pixels and channels of the squared distance.
    """
    distance = (images - images.mean((-2, -1), keepdim=True)).square().mean(1)
    return distance.unflatten(2, (grid[1], -1)).unflatten(1, (grid[0], -1)).mean((2, 4))
