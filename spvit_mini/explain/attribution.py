"""What does a model attend to? Relevance of patches, distances and complements of heads, gates and priors.

    Of the whole model    attention_rollout, class_relevance      images in, a number for each patch out
    Of attention maps     rollout, relevance, entropy, nonlocality, mean_attention_distance, foci, complement
    Of the parameters     gates, priors                           no image needed
    For figures           upsample, lay_over

Maps are those of `model.attention_maps`: one per layer, (B, H, T, T) with T = P + N tokens, prefix tokens first. With late
class-token insertion, the maps of early layers have no row for the class token; if only the class token is a query (CaiT's
class attention), the map has one row, (B, H, 1, T). Both cases are handled by `join` and `all_rows`.

None of these numbers is the truth about a model. Attention is where values come from, not what they do; a relevance is one
reading of many. Compare them with chance and with what is known of the image.

Letters: B batch, H heads, T tokens, P prefix tokens, N = R·C patches of a grid of R rows and C columns.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from torch import Tensor, nn

from .. import plots
from ..attention import prefix_of
from ..errors import UserError
from ..geometry import Grid, offsets, pad_prefix, patch_grid, spread
from ..spatial import OffsetMap
from ..vit import VisionModel, recording, spatial_of


def attention_rollout(model: VisionModel, images: Tensor, *, residual: float = 0.5) -> Tensor:
    """Follow the attention of all layers back to the patches: images (B, channels, height, width) → (B, R, C).

    The product of `rollout`, read where the model reads its logits (`read_out`). It is the same for every class. Raises
    UserError for a model without attention weights.
    """
    check_has_attention(model)
    with torch.no_grad(), evaluating(model):
        maps = model.attention_maps(images)
    return read_out(rollout(maps, residual=residual), grid_of(model, images))


def class_relevance(model: VisionModel, images: Tensor, *, classes: Tensor | int | None = None) -> Tensor:
    """Compute the relevance of patches for a class: images (B, channels, height, width) → (B, R, C), not negative.

    `relevance` of the attention maps and of the gradients of each image's logit with respect to them, read where the
    model reads its logits. Without a class token each patch has a share of itself beside what attention adds, and that
    is large, since a mean divides the gradients by N: the order of the patches counts, not the contrast. A dense head
    is part of the gradient, but its patch logits are not read out.

    Args:
        classes: the class of each image, (B,), or one for all; by default the class with the largest logit.

    Raises UserError for a class that the model does not have, and for a model without attention weights.
    """
    check_has_attention(model)
    with torch.enable_grad(), evaluating(model, gradients=True), recording(model) as maps:
        logits = model(images)
        target = logits.argmax(-1) if classes is None else torch.as_tensor(classes, device=logits.device).expand(len(logits))
        if target.min() < 0 or target.max() >= logits.shape[-1]:
            raise UserError(f"classes are {target.tolist()}; expected 0 to {logits.shape[-1] - 1}, as the model has them")
        # An image's logit depends on its own maps alone, so the gradient of the sum has each image's own.
        gradients = torch.autograd.grad(logits.gather(-1, target[:, None]).sum(), maps)
    return read_out(relevance([weights.detach() for weights in maps], gradients), grid_of(model, images))


def check_has_attention(model: VisionModel) -> None:
    """Raise UserError for a model without attention."""
    if not model.attentions():
        raise UserError(
            f"{getattr(model, 'name', 'this model')} is a CNN: it has no attention maps and no spatial priors to explain it by"
        )


def rollout(maps: Sequence[Tensor], *, residual: float = 0.5) -> Tensor:
    """Multiply the layers' attention (attention rollout; Abnar & Zuidema 2020, §4): (B, T, T), rows sum to 1.

        R = Â_L ··· Â_2 Â_1,    Â = rownorm(½ mean_h A + ½ I)

    Row i is the share of each input token in token i at the end, if values were only averaged: the identity represents
    the skip connection.

    Args:
        maps: attention weights from the first layer to the last.
        residual: the identity's share, ½ as published. If branches are divided by s before they are added (LV-ViT), it
            would be s/(1+s).
    """
    mixed = torch.eye(maps[0].shape[-1], dtype=maps[0].dtype, device=maps[0].device)[None]
    for weights in maps:
        layer = (1 - residual) * all_rows(weights.mean(1), diagonal=1.0)
        layer.diagonal(dim1=-2, dim2=-1).add_(residual)
        mixed = layer / layer.sum(-1, keepdim=True) @ join(mixed, weights.shape[-1])
    return mixed


def relevance(maps: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """Sum the contributions of attention to one logit (Chefer et al., ICCV 2021, eq. 5 and 6): (B, T, T), not negative.

        R ← I;  layer by layer  R ← R + mean_h (∇A ⊙ A)⁺ · R

    Args:
        maps: attention weights A from the first layer to the last.
        gradients: ∇A, the gradients of the logit with respect to the maps.
    """
    total = torch.eye(maps[0].shape[-1], dtype=maps[0].dtype, device=maps[0].device)[None]
    for weights, gradient in zip(maps, gradients, strict=True):
        total = join(total, weights.shape[-1])
        total = total + all_rows((gradient * weights).relu().mean(1), diagonal=0.0) @ total
    return total


def join(running: Tensor, tokens: int) -> Tensor:
    """Insert late prefix tokens into a running product, (B, n, n) → (B, tokens, tokens): 1 on their diagonal, else 0.

    Before, they contained only themselves, and no patch attended to them. With 0 on the diagonal the class token's own
    value would be lost; without the padding the product has no meaning.
    """
    late = tokens - running.shape[-1]
    if late < 0:
        raise UserError(f"a map of {tokens} tokens follows one of {running.shape[-1]}; maps go from the first layer to the last")
    joined = pad_prefix(running, late, 0.0)
    joined.diagonal(dim1=-2, dim2=-1)[..., :late] = 1
    return joined


def all_rows(layer: Tensor, *, diagonal: float) -> Tensor:
    """Complete a map in which only the first tokens are queries, (B, 1, T) → (B, T, T): the others stay unchanged.

    `diagonal` is their value on the diagonal: 1 in a product, 0 in a sum. A square map is complete.
    """
    queries, tokens = layer.shape[-2:]
    rest = diagonal * torch.eye(tokens, dtype=layer.dtype, device=layer.device)[queries:]
    return torch.cat([layer, rest.expand(len(layer), -1, -1)], dim=-2)


def read_out(running: Tensor, grid: Grid) -> Tensor:
    """Read a product (B, T, T) where the model reads its logits, patch by patch: (B, R, C).

    With a class token that is its row, without one the mean over all patches' rows. The class token's share of itself is
    left out, so rows of a rollout may sum to less than 1.
    """
    prefix = prefix_of(running.shape[-1], grid)
    row = running[:, 0] if prefix else running.mean(1)
    return row[:, prefix:].unflatten(-1, grid)


def grid_of(model: VisionModel, images: Tensor) -> Grid:
    """Count rows and columns of patches in these images, which may have a different size than the model's own."""
    return patch_grid(images.shape[-2:], model.config.patch)


@contextmanager
def evaluating(model: nn.Module, *, gradients: bool = False) -> Iterator[None]:
    """Put a model into evaluation mode, and back; with `gradients`, frozen parameters are part of the graph as well.

    A map may depend on parameters alone (position-only attention), so a frozen one would have no gradient.
    """
    modes = {module: module.training for module in model.modules()}
    frozen = [parameter for parameter in model.parameters() if gradients and not parameter.requires_grad]
    model.eval()
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter in frozen:
            parameter.requires_grad_(False)


def entropy(weights: Tensor) -> Tensor:
    """Compute the entropy of each query's weights, in nats: weights (…, T) → (…).

        H = −Σ_j w_j log w_j,  where 0 · log 0 counts as 0

    From 0 (one key has all the weight) to log T (uniform weights): e^H is an effective number of keys.
    """
    return torch.special.entr(weights).sum(-1)


def among_patches(weights: Tensor, grid: Grid) -> Tensor:
    """Select the weights among patches, (…, T, T) → (…, N, N), and normalise each row to a sum of 1 again.

    A prefix token has no position, hence no distance. Without the normalisation a head that attends to the class token
    would seem local. Raises UserError for a map without rows of patches, such as class attention's.
    """
    tokens = weights.shape[-1]
    if weights.shape[-2] != tokens:
        raise UserError(f"the map has {weights.shape[-2]} queries and {tokens} keys; expected as many of both. Use a square map.")
    prefix = prefix_of(tokens, grid)
    patches = weights[..., prefix:, prefix:]
    return patches / patches.sum(-1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)


def nonlocality(weights: Tensor, grid: Grid) -> Tensor:
    """Measure how far heads attend, in patches (ConViT, d'Ascoli et al. 2021, eq. 8): weights (…, H, T, T) → (…, H).

        D_h = 1/N Σ_ij A_ij ‖δ_ij‖

    The paper takes the mean over images, and over heads for a layer's. Prefix tokens are left out (`among_patches`).
    Uniform attention has 4.14 on 8×8 patches, 7.28 on 14×14, 12.50 on 24×24.
    """
    distances = spread(offsets(*grid).to(weights).norm(dim=-1), grid)
    return (among_patches(weights, grid) * distances).sum(-1).mean(-1)


def mean_attention_distance(weights: Tensor, grid: Grid, patch: int) -> Tensor:
    """Measure how far heads attend, in pixels (Dosovitskiy et al. 2021, fig. 7): (…, H, T, T) → (…, H).

    `nonlocality` times the side of a patch: an attention's receptive field.
    """
    return patch * nonlocality(weights, grid)


def foci(weights: Tensor, *, share: float = 0.5) -> Tensor:
    """Find the focus of each query: the fewest keys with `share` of its weight. (…, T) → booleans (…, T).

    Among keys of equal weight the first come first.
    """
    ordered, order = weights.sort(dim=-1, descending=True, stable=True)
    weight_before = ordered.cumsum(-1) - ordered
    return torch.zeros_like(weights, dtype=torch.bool).scatter(-1, order, weight_before < share)


class Complement(NamedTuple):
    """How the heads of a layer divide the keys, each (B,): shares of all patches, means over the queries."""

    single: Tensor  # the focus of one head, the mean over heads
    largest: Tensor  # the focus of the head whose focus is largest
    union: Tensor  # the union of the foci of all heads
    chance: Tensor  # the expected union of foci of these sizes at random positions: 1 − Π_h (1 − size_h/N)


def complement(weights: Tensor, grid: Grid, *, share: float = 0.5) -> Complement:
    """Measure how far heads complement each other: weights (B, H, T, T) → shares of all patches, see `Complement`.

    The union is between `largest` (the other foci lie inside that one) and the sum of all sizes (no two share a key). Above
    `chance` heads avoid each other's keys, below it they prefer the same keys. Our own measure: the foci are those of
    `foci`, without prefix tokens.
    """
    focused = foci(among_patches(weights, grid), share=share)  # (B, H, N, N)
    sizes = focused.to(weights.dtype).mean(-1)  # (B, H, N)
    return Complement(
        single=sizes.mean((1, 2)),
        largest=sizes.amax(1).mean(-1),
        union=focused.any(1).to(weights.dtype).mean((1, 2)),
        chance=1 - (1 - sizes).prod(1).mean(-1),
    )


@torch.no_grad()
def gates(model: VisionModel) -> list[Tensor | None]:
    """List the positional share of each head's attention, layer by layer: σ(λ), (H,); None for a layer without gates.

    ConViT, eq. 7. Position-only attention counts as a gate fixed at 1.
    """
    return [a.share().flatten() if hasattr(a, "share") else None for a in model.attentions()]


class Prior(NamedTuple):
    """A layer's spatial map over the offsets."""

    layer: int
    multiplies: bool  # True: a factor of the scores, neutral at 1; False: added or position-only, neutral at 0
    table: Tensor  # (H, 2R−1, 2C−1); one head if all share a map


@torch.no_grad()
def priors(model: VisionModel, grid: Grid | None = None) -> list[Prior]:
    """List the spatial maps that are functions of the offset alone, on a grid (default: the model's own).

    A factor and an addend are two of them. Embeddings and windows have no such table and are left out.
    """
    priors = []
    for layer, attention in enumerate(model.attentions()):
        if isinstance(spatial := spatial_of(attention), OffsetMap):
            table = spatial.table(grid or model.grid).detach()
            tables = table if table.ndim == 4 else [table]
            multiplies = table.ndim == 4 or getattr(attention, "neutral", 0) == 1
            priors += [Prior(layer, multiplies and i == 0, each) for i, each in enumerate(tables)]
    return priors


def upsample(scores: Tensor, size: Sequence[int]) -> Tensor:
    """Interpolate patches' scores (R, C) to an image of (height, width), linearly between the patches' middles."""
    return F.interpolate(scores[None, None].float(), size=tuple(size), mode="bilinear", align_corners=False)[0, 0]


def lay_over(axes: Axes, image: Tensor, scores: Tensor, *, title: str = "") -> AxesImage:
    """Draw patches' scores (R, C) over an image (3, height, width) with values 0 to 1, shown in grey.

    Colours range from the lowest score to the highest. Returns the artist for a colour bar.
    """
    axes.imshow(image.mean(0).cpu().numpy(), cmap="gray", vmin=0, vmax=1)
    heat = upsample(scores.detach(), image.shape[-2:]).cpu().numpy()
    shown = axes.imshow(heat, cmap=plots.CONTENT, alpha=0.6, interpolation="bilinear")
    axes.set(title=title, xticks=[], yticks=[])
    axes.grid(False)
    return shown
