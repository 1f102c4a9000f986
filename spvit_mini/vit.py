"""The vision transformer around every attention of this package.

image → patches → + positions → depth × [x + attention(norm(x)); x + MLP(norm(x))] → norm → pool → linear

One dataclass, `ViTConfig`, describes it. The attention is one of its fields, so a comparison between two attentions is a
comparison between two configurations that differ in one word. The additions of LV-ViT and SP-ViT are separate fields, since
the published gain mixes them: a convolutional stem, scaled residuals, a position encoding generator after each block, late
class-token insertion, and a second head that reads every patch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import Tensor, nn

from .attention import MHSA
from .attention_registry import build_attention
from .config import Grid, ViTConfig, patch_grid
from .errors import UserError

# First row, first column, end of rows, end of columns, in patches. As a tensor (4,) it can change from step to step without
# recompiling the model.
Box = tuple[int, int, int, int] | Tensor


class Head(nn.Linear):
    """The linear layer to the classes. Evaluation computes it in float32 even under autocast: in bfloat16 many are equal."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training or not torch.is_autocast_enabled(x.device.type):
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.to(self.weight.dtype))


class Block(nn.Module):
    """A pre-norm transformer block: attention mixes the tokens, then an MLP transforms each."""

    def __init__(self, attention: nn.Module, config: ViTConfig, drop_path: float):
        super().__init__()
        dim, hidden = config.dim, int(config.dim * config.mlp_ratio)
        self.norm1 = nn.LayerNorm(dim, eps=config.norm_eps)
        self.attention = attention
        self.norm2 = nn.LayerNorm(dim, eps=config.norm_eps)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
        self.peg = PEG(dim) if config.peg else None
        self.drop_path = StochasticDepth(drop_path)
        self.residual_scale = config.residual_scale

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """Pass tokens x, (B, P + R·C, D), of a grid (R, C) through: same shape out."""
        x = x + self.branch(self.attention(self.norm1(x), grid))
        x = x + self.branch(self.mlp(self.norm2(x)))
        return x if self.peg is None else self.peg(x, grid)

    def branch(self, y: Tensor) -> Tensor:
        """Drop a branch for some images (stochastic depth), and divide it by the residual scale."""
        y = self.drop_path(y)
        return y if self.residual_scale == 1 else y / self.residual_scale  # a division by 1 costs a pass over the tokens


class StochasticDepth(nn.Module):
    """Drop a residual branch for some images with probability p (Huang et al. 2016), and divide the others by 1 − p.

    The draws are those of `torchvision.ops.StochasticDepth(p, mode="row")` under the same seed.
    """

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, y: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return y
        keep = y.new_empty(len(y), *[1] * (y.ndim - 1)).bernoulli_(1 - self.p)
        return y * (keep / (1 - self.p) if self.p < 1 else keep)


class PEG(nn.Module):
    """Position encoding generator (CPVT, Chu et al. 2021, §3.3): x + a depthwise 3×3 convolution of the patches.

    Zero padding around the image leaks absolute positions: it depends on the distance to the border. Prefix tokens pass by.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        prefix = x.shape[1] - grid[0] * grid[1]
        patches = x[:, prefix:]
        encoded = patches + self.conv(patches.transpose(1, 2).unflatten(-1, grid)).flatten(2).transpose(1, 2)
        return torch.cat([x[:, :prefix], encoded], dim=1) if prefix else encoded


class Stem(nn.Sequential):
    """LV-ViT's stem (Jiang et al. 2021, §3.3): three convolutions at half size, then patches of their features."""

    def __init__(self, channels: int, width: int, dim: int, patch: int):
        def convolution(inputs: int, kernel: int, stride: int) -> list[nn.Module]:
            conv = nn.Conv2d(inputs, width, kernel, stride=stride, padding=kernel // 2, bias=False)
            return [conv, nn.BatchNorm2d(width), nn.ReLU()]

        super().__init__(
            *convolution(channels, 7, 2), *convolution(width, 3, 1), *convolution(width, 3, 1),
            nn.Conv2d(width, dim, patch // 2, stride=patch // 2),
        )  # fmt: skip


class VisionModel(nn.Module):
    """The attributes that all models of images have; `ViT` documents their interface."""

    config: Any
    name: str  # in the zoo; here of one whose fields are all overridden by `config`
    preprocessing: Any
    embed: nn.Module
    blocks: Any
    head: nn.Linear
    class_token: nn.Parameter | None
    dense_head: nn.Linear | None
    activation_checkpointing: bool  # True: recompute the activations of each block in the backward pass

    @property
    def grid(self) -> Grid:
        """Rows and columns of patches (of a CNN: of its last stage) at the model's own image size."""
        return self.config.grid

    def no_decay(self) -> set[str]:
        """List the parameters without weight decay, by name."""
        raise NotImplementedError

    def attentions(self) -> list[Any]:
        """List the attention of each block, from the first to the last."""
        return [block.attention for block in self.blocks]

    def apply_block(self, block: Any, x: Tensor, grid: Grid) -> Tensor:
        """Apply a block; with activation checkpointing, the backward pass recomputes it, unless its attention is recorded."""
        if self.activation_checkpointing and self.training and not getattr(block.attention, "recorded", None):
            return torch.utils.checkpoint.checkpoint(block, x, grid, use_reentrant=False)
        return block(x, grid)

    def attention_maps(self, images: Tensor) -> list[Tensor]:
        """Record the attention weights of each block for these images: (B, heads, N, N) each, a class token first.

        They are computed by `weights`, whatever the backend. With gradients on, the maps are part of the graph. Raises
        UserError for an attention without attention weights.
        """
        with recording(self) as maps:
            self(images)
        return maps

    def spatial_maps(self, grid: Grid | None = None) -> list[Tensor | None]:
        """Compute the spatial map of each block on a grid (default: the model's own): (heads, N, N), None if it has none."""
        return [None if (spatial := spatial_of(a)) is None else spatial(grid or self.grid) for a in self.attentions()]


class ViT(VisionModel):
    """A vision transformer (Dosovitskiy et al. 2021) with the attention, positions and pooling that `config` names.

    Images are (B, channels, height, width), of any size that the patch divides: learned positions are interpolated, and a
    prior over offsets needs nothing.
    """

    name = "vit_mini"

    def __init__(self, config: ViTConfig):
        super().__init__()
        self.config = config
        if config.stem is None:
            self.embed = nn.Conv2d(config.channels, config.dim, config.patch, stride=config.patch)
        else:
            self.embed = Stem(config.channels, config.stem, config.dim, config.patch)
        # Stored as an image, (1, D, R, C), so that the grid need not be guessed from a number of tokens.
        self.positions = nn.Parameter(torch.zeros(1, config.dim, *config.grid)) if config.positions else None
        self.class_token = nn.Parameter(torch.zeros(1, 1, config.dim)) if config.pool == "class" else None
        rates = [config.drop_path * i / max(1, config.depth - 1) for i in range(config.depth)]
        self.blocks = nn.ModuleList(Block(attention_of(config, i), config, rate) for i, rate in enumerate(rates))
        if config.sharing == "network":
            for attention in self.attentions():
                if spatial_of(attention) is not None:
                    attention.spatial = self.blocks[0].attention.spatial
        self.norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.head = Head(config.dim, config.num_classes)
        self.dense_head = Head(config.dim, config.num_classes) if config.dense_head else None
        self.activation_checkpointing = False
        self.reset_parameters()

    def reset_parameters(self):
        """Initialise all but spatial maps, which have initialised themselves.

        A std of 0.02 suits a width of 384. At a width of 64 all initial scores are near 0, where a factor has no effect: on
        Compass a prior is then found twice as late. So narrow models scale with their width, as torch does by default.
        """
        maps = {m for a in self.attentions() if spatial_of(a) is not None for m in a.spatial.modules()}
        for module in self.modules():
            if isinstance(module, nn.Linear) and module not in maps and self.config.init_std is not None:
                nn.init.trunc_normal_(module.weight, std=self.config.init_std)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for attention in self.attentions():
            if hasattr(attention, "reset_parameters"):  # values of its own, such as GPSA's W_V
                attention.reset_parameters()
        for parameter in (self.positions, self.class_token):
            if parameter is not None:
                nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, images: Tensor, *, dense: bool = False, mix: Box | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Classify images (B, channels, height, width): logits (B, num_classes).

        With a dense head these are the class token's logits plus half of the largest of all patches, class by class, as
        LV-ViT evaluates; with `dense` both are returned, for token labels: (B, num_classes), (B, R·C, num_classes).

        `mix` is MixToken's box of patches (first row, first column, end of rows, end of columns): inside it each image has
        the tokens of its partner in the reversed batch; the dense logits return to their own images.
        """
        x = self.forward_features(images, mix=mix)
        if self.dense_head is None:
            if dense:
                raise UserError("dense logits need a model with dense_head=True, such as lvvit_s or spvit_s")
            return self.head(x[:, 0] if self.class_token is not None else x.mean(1))
        logits, patches = self.head(x[:, 0]), self.dense_head(x[:, 1:])
        if mix is not None:
            grid = patch_grid(images.shape[-2:], self.config.patch)
            patches = swap_box(patches.transpose(1, 2).unflatten(-1, grid), mix).flatten(2).transpose(1, 2)
        return (logits, patches) if dense else logits + 0.5 * patches.amax(1)

    def forward_features(self, images: Tensor, *, mix: Box | None = None) -> Tensor:
        """Compute the tokens that the heads read, after the last norm: (B, P + R·C, D)."""
        grid = patch_grid(images.shape[-2:], self.config.patch)
        x = self.embed(images)  # (B, D, R, C)
        if mix is not None:
            x = swap_box(x, mix)
        if self.positions is not None:
            x = x + resize_grid(self.positions, grid)
        x = x.flatten(2).transpose(1, 2).contiguous()  # (B, R·C, D); otherwise every norm would copy it again
        for i, block in enumerate(self.blocks):
            if self.class_token is not None and i == self.config.class_token_block:
                x = torch.cat([self.class_token.expand(x.shape[0], -1, -1).to(x.dtype), x], dim=1)
            x = self.apply_block(block, x, grid)
        return self.norm(x)

    def no_decay(self) -> set[str]:
        """List the parameters without weight decay.

        Biases, norms, positions and the class token as is usual; and all of a spatial map: decay would pull a prior
        towards a constant, which is an assumption about the data that nobody has made.
        """
        names = {name for name, parameter in self.named_parameters() if parameter.ndim < 2}
        names |= {name for name in ("positions", "class_token") if getattr(self, name) is not None}
        return names | {name for name, _ in self.named_parameters() if ".spatial." in name}


def attention_of(config: ViTConfig, block: int) -> nn.Module:
    """Build the attention of one block."""
    if config.spatial_layers is not None and block >= config.spatial_layers:
        return MHSA(config.dim, config.heads, qkv_bias=config.qkv_bias)
    options = config.attention_options | (config.odd_block_options if block % 2 else {})
    options |= {"map_heads": None if config.sharing == "head" else 1, "qkv_bias": config.qkv_bias}
    return build_attention(config.attention, config.dim, config.heads, grid=config.grid, **options)


def spatial_of(attention: nn.Module) -> nn.Module | None:
    """Get the spatial map of an attention; None if it has none."""
    return getattr(attention, "spatial", None)


@contextmanager
def recording(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the attention weights of every forward pass inside the `with` block, in the order of the layers.

    Such blocks can be nested: each has its own list.
    """
    maps: list[Tensor] = []
    for attention in getattr(model, "attentions", list)():
        if not hasattr(attention, "recorded"):
            raise UserError(f"{type(attention).__name__} has no attention weights to record; derive it from attention.MHSA")
    attentions: list[Any] = [module for module in model.modules() if hasattr(module, "recorded")]
    for attention in attentions:
        attention.recorded = [*attention.recorded, maps]
    try:
        yield maps
    finally:
        for attention in attentions:
            attention.recorded = [others for others in attention.recorded if others is not maps]


def swap_box(x: Tensor, box: Box) -> Tensor:
    """Swap a box of x (B, D, R, C) with the partner in the reversed batch. Twice gives x again, so it also un-mixes."""
    rows, columns = (torch.arange(side, device=x.device) for side in x.shape[-2:])
    inside = ((rows >= box[0]) & (rows < box[2]))[:, None] & (columns >= box[1]) & (columns < box[3])
    return torch.where(inside, x.flip(0), x)


def resize_grid(values: Tensor, grid: Grid) -> Tensor:
    """Interpolate values on one grid, (B, D, R, C), to another, bicubically: what is learned at 14×14 serves at 24×24."""
    if values.shape[-2:] == tuple(grid):
        return values
    return F.interpolate(values, size=grid, mode="bicubic", align_corners=False)
