"""What does a model look at? Relevance of patches, how far heads look and how they share the work, gates and priors.

    Of the whole model    attention_rollout, class_relevance      images in, a number for each patch out
    Of attention maps     rollout, relevance, entropy, nonlocality, mean_attention_distance, foci, complement
    Of the parameters     gates, priors                           no image needed
    For figures           upsample, lay_over

Maps are what `model.attention_maps` records: one a layer, (B, H, T, T) with T = P + N tokens, prefix tokens first. Where
a class token enters late, the maps of early layers have no row for it; where only the class token asks (CaiT's class
attention), the map has one row, (B, H, 1, T). Both need care, and get it here: see `join` and `all_rows`.

None of these numbers is the truth about a model. Attention says where values are taken from, not what they do; a
relevance is one reading of many. Hold them against chance and against what is known of the image.

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
from ..attention import AffineAttention, GatedAttention, ModulatedAttention, SpatialAttention, prefix_of
from ..errors import UserError
from ..geometry import Grid, offsets, pad_prefix, patch_grid, spread
from ..spatial import Anchored, OffsetMap
from ..vit import recording

# --- Which patches an answer comes from ----------------------------------------------------------------------------------


def attention_rollout(model: nn.Module, images: Tensor, *, residual: float = 0.5) -> Tensor:
    """Follow the attention of all layers back to the patches: images (B, channels, height, width) → (B, R, C).

    The rollout of `rollout`, read where the model reads its answer (`read_out`). It is the same for every class. Raises
    UserError for a model without attention.
    """
    need_attention(model)
    with torch.no_grad(), evaluating(model):
        maps = model.attention_maps(images)
    return read_out(rollout(maps, residual=residual), grid_of(model, images))


def class_relevance(model: nn.Module, images: Tensor, *, classes: Tensor | int | None = None) -> Tensor:
    """Tell which patches speak for a class: images (B, channels, height, width) → (B, R, C), not negative.

    `relevance` of the attention maps and of the gradients of each image's logit with respect to them, read where the
    model reads its answer. Without a class token each patch has a share of itself beside what attention adds, and that
    is large, since a mean divides the gradients by N: the order of the patches counts, not the contrast. A dense head
    takes part in the gradient, but what patches say there is not read out.

    Args:
        classes: which class each image is asked for, (B,), or one for all; by default each image's best.

    Raises UserError for a class that the model does not have, and for a model without attention.
    """
    need_attention(model)
    with torch.enable_grad(), evaluating(model, gradients=True), recording(model) as maps:
        logits = model(images)
        asked = logits.argmax(-1) if classes is None else torch.as_tensor(classes, device=logits.device).expand(len(logits))
        if asked.min() < 0 or asked.max() >= logits.shape[-1]:
            raise UserError(f"a model of {logits.shape[-1]} classes is asked for another; they count from 0")
        # An image's logit depends on its own maps alone, so the gradient of the sum holds each image's own.
        gradients = torch.autograd.grad(logits.gather(-1, asked[:, None]).sum(), maps)
    return read_out(relevance([weights.detach() for weights in maps], gradients), grid_of(model, images))


def need_attention(model: nn.Module) -> None:
    """Raise UserError for a model that has no attention to look at."""
    if not model.attentions():
        raise UserError(
            f"{getattr(model, 'name', 'this model')} is a CNN: it has no attention maps and no spatial priors to explain it by"
        )


def rollout(maps: Sequence[Tensor], *, residual: float = 0.5) -> Tensor:
    """Multiply the layers' attention (attention rollout; Abnar & Zuidema 2020, §4): (B, T, T), rows sum to 1.

        R = Â_L ··· Â_2 Â_1,    Â = rownorm(½ mean_h A + ½ I)

    Row i says how much of each input token is in token i at the end, if values were only averaged: the identity stands
    for the skip connection.

    Args:
        maps: attention weights from the first layer to the last.
        residual: the identity's share, ½ as published. Where branches are divided by s before they are added
            (LV-ViT), s/(1+s) would be theirs.
    """
    mixed = torch.eye(maps[0].shape[-1], dtype=maps[0].dtype, device=maps[0].device)[None]
    for weights in maps:
        layer = (1 - residual) * all_rows(weights.mean(1), stay=1.0)
        layer.diagonal(dim1=-2, dim2=-1).add_(residual)
        mixed = layer / layer.sum(-1, keepdim=True) @ join(mixed, weights.shape[-1])
    return mixed


def relevance(maps: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """Sum up what attention does for one answer (Chefer et al., ICCV 2021, eq. 5 and 6): (B, T, T), not negative.

        R ← I;  layer by layer  R ← R + mean_h (∇A ⊙ A)⁺ · R

    Args:
        maps: attention weights A from the first layer to the last.
        gradients: ∇A, those of the answer with respect to the maps.
    """
    total = torch.eye(maps[0].shape[-1], dtype=maps[0].dtype, device=maps[0].device)[None]
    for weights, gradient in zip(maps, gradients, strict=True):
        total = join(total, weights.shape[-1])
        total = total + all_rows((gradient * weights).relu().mean(1), stay=0.0) @ total
    return total


def join(running: Tensor, tokens: int) -> Tensor:
    """Let late prefix tokens into a running product, (B, n, n) → (B, tokens, tokens): 1 on their diagonal, else 0.

    Up to now they were nothing but themselves, and no patch has seen them. With 0 on the diagonal the class token's own
    start would be lost; without the padding the product has no meaning.
    """
    late = tokens - running.shape[-1]
    if late < 0:
        raise UserError(f"a map of {tokens} tokens follows one of {running.shape[-1]}; maps go from the first layer to the last")
    joined = pad_prefix(running, late, 0.0)
    joined.diagonal(dim1=-2, dim2=-1)[..., :late] = 1
    return joined


def all_rows(layer: Tensor, *, stay: float) -> Tensor:
    """Complete a map in which only the first tokens ask, (B, 1, T) → (B, T, T): the others stay as they are.

    `stay` is how that is said: 1 on the diagonal of a product, 0 in a sum. A square map is complete.
    """
    asking, tokens = layer.shape[-2:]
    rest = stay * torch.eye(tokens, dtype=layer.dtype, device=layer.device)[asking:]
    return torch.cat([layer, rest.expand(len(layer), -1, -1)], dim=-2)


def read_out(running: Tensor, grid: Grid) -> Tensor:
    """Read a product (B, T, T) where the model reads its answer, patch by patch: (B, R, C).

    With a class token that is its row, without one the mean over all patches' rows. What the class token keeps of
    itself is left out, so rows of a rollout may sum to less than 1.
    """
    prefix = prefix_of(running.shape[-1], grid)
    row = running[:, 0] if prefix else running.mean(1)
    return row[:, prefix:].unflatten(-1, grid)


def grid_of(model: nn.Module, images: Tensor) -> Grid:
    """Count rows and columns of patches in these images, which may have another size than the model was made for."""
    return patch_grid(images.shape[-2:], model.config.patch)


@contextmanager
def evaluating(model: nn.Module, *, gradients: bool = False) -> Iterator[None]:
    """Put a model into evaluation mode, and back; with `gradients`, frozen parameters take part in the graph as well.

    A map may hang on parameters alone (attention by position), so a frozen one would have no gradient.
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


# --- How widely and how far heads look, and how they share the work -------------------------------------------------------


def entropy(weights: Tensor) -> Tensor:
    """Measure how widely each query spreads its weight, in nats: weights (…, T) → (…).

        H = −Σ_j w_j log w_j,  where 0 · log 0 counts as 0

    From 0 (one key has it all) to log T (all keys share alike): e^H is an effective number of keys.
    """
    return torch.special.entr(weights).sum(-1)


def among_patches(weights: Tensor, grid: Grid) -> Tensor:
    """Keep what patches give to patches, (…, T, T) → (…, N, N), each row brought back to a sum of 1.

    A prefix token has no place, hence no distance. Without the last step a head that looks at the class token would
    pass for a local one. Raises UserError for a map without rows of patches, such as class attention's.
    """
    tokens = weights.shape[-1]
    if weights.shape[-2] != tokens:
        raise UserError(f"{weights.shape[-2]} of {tokens} tokens ask in this map; where patches look, only a square map tells")
    prefix = prefix_of(tokens, grid)
    patches = weights[..., prefix:, prefix:]
    return patches / patches.sum(-1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)


def nonlocality(weights: Tensor, grid: Grid) -> Tensor:
    """Measure how far heads look, in patches (ConViT, d'Ascoli et al. 2021, eq. 8): weights (…, H, T, T) → (…, H).

        D_h = 1/N Σ_ij A_ij ‖δ_ij‖

    The paper takes the mean over images, and over heads for a layer's. Prefix tokens are left out (`among_patches`).
    Uniform attention has 4.14 on 8×8 patches, 7.28 on 14×14, 12.50 on 24×24.
    """
    distances = spread(offsets(*grid).to(weights).norm(dim=-1), grid)
    return (among_patches(weights, grid) * distances).sum(-1).mean(-1)


def mean_attention_distance(weights: Tensor, grid: Grid, patch: int) -> Tensor:
    """Measure how far heads look, in pixels (Dosovitskiy et al. 2021, fig. 7): (…, H, T, T) → (…, H).

    `nonlocality` times the side of a patch: an attention's receptive field.
    """
    return patch * nonlocality(weights, grid)


def foci(weights: Tensor, *, share: float = 0.5) -> Tensor:
    """Find the focus of each query: the fewest keys that hold `share` of its weight. (…, T) → booleans (…, T).

    Of keys with equal weights the first ones come in.
    """
    ordered, order = weights.sort(dim=-1, descending=True, stable=True)
    held_before = ordered.cumsum(-1) - ordered
    return torch.zeros_like(weights, dtype=torch.bool).scatter(-1, order, held_before < share)


class Complement(NamedTuple):
    """How the heads of a layer share the keys, each (B,): shares of all patches, means over the queries."""

    single: Tensor  # the focus of one head, the mean over heads
    largest: Tensor  # the focus of the head whose focus is largest
    union: Tensor  # what the foci of all heads cover together
    chance: Tensor  # what foci of these sizes would cover, each placed anywhere: 1 − Π_h (1 − size_h/N)


def complement(weights: Tensor, grid: Grid, *, share: float = 0.5) -> Complement:
    """Measure how far heads complement each other: weights (B, H, T, T) → shares of all patches, see `Complement`.

    The union lies between `largest` (the others look where that one looks) and the sum of all sizes (no two share a
    key). Above `chance` heads keep out of each other's way, below it they crowd. Our own measure: the foci are those of
    `foci`, prefix tokens left out.
    """
    focused = foci(among_patches(weights, grid), share=share)  # (B, H, N, N)
    sizes = focused.to(weights.dtype).mean(-1)  # (B, H, N)
    return Complement(
        single=sizes.mean((1, 2)),
        largest=sizes.amax(1).mean(-1),
        union=focused.any(1).to(weights.dtype).mean((1, 2)),
        chance=1 - (1 - sizes).prod(1).mean(-1),
    )


# --- What the parameters say by themselves -------------------------------------------------------------------------------


@torch.no_grad()
def gates(model: nn.Module) -> list[Tensor | None]:
    """Tell how much of each head's attention is positional, layer by layer: σ(λ), (H,); None for a layer without gates.

    ConViT, eq. 7. Attention by position alone counts as a gate that stands at 1.
    """
    return [a.share().flatten() if isinstance(a, GatedAttention) else None for a in model.attentions()]


class Prior(NamedTuple):
    """A layer's spatial map over the offsets."""

    layer: int
    multiplies: bool  # whether it multiplies the scores (1 changes nothing) or is added or stands alone (0 does not)
    table: Tensor  # (H, 2R−1, 2C−1); one head where all share a map


@torch.no_grad()
def priors(model: nn.Module, grid: Grid | None = None) -> list[Prior]:
    """List the spatial maps that are functions of the offset alone, on a grid (default: the model's own).

    One that multiplies and adds comes as two. Embeddings and windows have no such table and are left out.
    """
    grid, found = grid or model.grid, []
    for layer, attention in enumerate(model.attentions()):
        if not isinstance(attention, SpatialAttention):
            continue
        spatial = attention.spatial
        if isinstance(spatial, Anchored):
            tables = [spatial.prior.table(grid), spatial.anchor.table(grid)]
        elif isinstance(spatial, OffsetMap):
            table = spatial.table(grid)
            tables = list(table) if isinstance(attention, AffineAttention) else [table]
        else:
            continue
        first = isinstance(attention, (ModulatedAttention, AffineAttention))
        found += [Prior(layer, first and i == 0, table.detach()) for i, table in enumerate(tables)]
    return found


# --- For figures ---------------------------------------------------------------------------------------------------------


def upsample(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """Interpolate patches' scores (R, C) to an image of (height, width), linearly between the patches' middles."""
    return F.interpolate(scores[None, None].float(), size=tuple(size), mode="bilinear", align_corners=False)[0, 0]


def lay_over(axes: Axes, picture: Tensor, scores: Tensor, *, title: str = "") -> AxesImage:
    """Lay patches' scores (R, C) over a picture (3, height, width) with values 0 to 1, which turns grey below them.

    Colours go from the lowest score to the highest; what is returned serves for a colour bar.
    """
    axes.imshow(picture.mean(0).cpu().numpy(), cmap="gray", vmin=0, vmax=1)
    heat = upsample(scores.detach(), picture.shape[-2:]).cpu().numpy()
    shown = axes.imshow(heat, cmap=plots.CONTENT, alpha=0.6, interpolation="bilinear")
    axes.set_title(title)
    axes.set_xticks([]), axes.set_yticks([])
    axes.grid(False)
    return shown
