"""The vision transformer that every attention of this package sits in.

image → patches → + positions → depth × [x + attention(norm(x)); x + MLP(norm(x))] → norm → pool → linear

One dataclass says all of it. Which attention sits in which block is one of its fields; so a comparison between two
attentions is a comparison between two configurations that differ in one word.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from .attention import MHSA, SPSA, SpatialAttention
from .errors import UserError, near
from .geometry import Grid, patch_grid

VARIANTS = {"mhsa": MHSA, "spsa": SPSA}


@dataclass(frozen=True)
class ViTConfig:
    """What a model is made of."""

    image_size: tuple[int, int] = (32, 32)  # height, width in pixels
    patch: int = 4  # side of a patch in pixels
    channels: int = 3
    num_classes: int = 10
    dim: int = 192  # width D of a token
    depth: int = 9  # blocks
    heads: int = 4
    mlp_ratio: float = 2.0  # width of the MLP's hidden layer in units of D
    qkv_bias: bool = False
    attention: str = "mhsa"  # a name in VARIANTS
    attention_options: dict = field(default_factory=dict)  # more arguments of that class, e.g. {"hidden": 64}
    spatial_layers: int | None = None  # how many of the first blocks use `attention`, the rest MHSA; None: all
    positions: bool = True  # learned absolute positions, added to the patches
    pool: str = "mean"  # "mean": average the patches; "class": read a class token
    class_enters: int = 0  # the block before which the class token joins (0: at once; depth − 2: late)
    init_std: float | None = None  # linear layers start from a normal this wide (DeiT: 0.02); None: torch's 1/√(3·inputs)
    drop_path: float = 0.0  # stochastic depth: drop rate of the last block, growing linearly from 0 (Huang et al. 2016)

    def __post_init__(self):
        if self.attention not in VARIANTS:
            raise UserError(f"no attention is called {self.attention!r}.{near(self.attention, VARIANTS)}")
        if self.pool not in ("mean", "class"):
            raise UserError(f"pool is {self.pool!r}; it must be 'mean' or 'class'")
        if self.depth < 1:
            raise UserError(f"a model needs at least one block, not {self.depth}")
        for name in ("class_enters", "spatial_layers"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= self.depth - (name == "class_enters"):
                raise UserError(f"{name} is {value}, but there are {self.depth} blocks")
        patch_grid(self.image_size, self.patch)

    @property
    def grid(self) -> Grid:
        """Rows and columns of patches."""
        return patch_grid(self.image_size, self.patch)

    def attention_of(self, block: int) -> MHSA:
        """Build the attention of one block."""
        if self.spatial_layers is not None and block >= self.spatial_layers:
            return MHSA(self.dim, self.heads, qkv_bias=self.qkv_bias)
        variant = VARIANTS[self.attention]
        try:
            return variant(self.dim, self.heads, qkv_bias=self.qkv_bias, **self.attention_options)
        except TypeError as error:
            raise UserError(f"attention {self.attention!r} does not take {self.attention_options}: {error}") from None


class Block(nn.Module):
    """A pre-norm transformer block: first the tokens talk to each other, then each thinks for itself."""

    def __init__(self, attention: MHSA, dim: int, mlp_ratio: float, drop_path: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = attention
        self.norm2 = nn.LayerNorm(dim)
        hidden = int(dim * mlp_ratio)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
        self.drop_path = StochasticDepth(drop_path, mode="row")

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """Pass tokens x, (B, P + R·C, D), of a grid (R, C) through: same shape out."""
        x = x + self.drop_path(self.attention(self.norm1(x), grid))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class ViT(nn.Module):
    """A vision transformer (Dosovitskiy et al. 2021) with the attention, positions and pooling that `config` names.

    Images are (B, channels, height, width); any size that the patch divides will do, whatever the size it was made for:
    learned positions are interpolated, and a prior over offsets needs nothing.
    """

    def __init__(self, config: ViTConfig):
        super().__init__()
        self.config = config
        self.embed = nn.Conv2d(config.channels, config.dim, config.patch, stride=config.patch)
        # Laid out as an image, (1, D, R, C), so that no one has to guess the grid from a count of tokens.
        self.positions = nn.Parameter(torch.zeros(1, config.dim, *config.grid)) if config.positions else None
        self.class_token = nn.Parameter(torch.zeros(1, 1, config.dim)) if config.pool == "class" else None
        rates = torch.linspace(0, config.drop_path, config.depth).tolist()
        self.blocks = nn.ModuleList(
            Block(config.attention_of(i), config.dim, config.mlp_ratio, rate) for i, rate in enumerate(rates)
        )
        self.norm = nn.LayerNorm(config.dim)
        self.head = nn.Linear(config.dim, config.num_classes)
        self.checkpointing = False  # True: recompute each block in the backward pass instead of keeping its activations
        self.reset_parameters()

    def reset_parameters(self):
        """Draw the start. Spatial maps keep their own.

        0.02 suits a width of 384. At a width of 64 it starts all scores near 0, where there is nothing to multiply: on
        Compass a prior is then found twice as late. So narrow models scale with their width, as torch does by default.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear) and self.config.init_std is not None:
                nn.init.trunc_normal_(module.weight, std=self.config.init_std)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for parameter in (self.positions, self.class_token):
            if parameter is not None:
                nn.init.trunc_normal_(parameter, std=0.02)

    @property
    def grid(self) -> Grid:
        """Rows and columns of patches at the image size that the model was made for."""
        return self.config.grid

    def forward(self, images: Tensor) -> Tensor:
        """Classify images (B, channels, height, width): logits (B, num_classes)."""
        x = self.forward_features(images)
        return self.head(x[:, 0] if self.class_token is not None else x.mean(1))

    def forward_features(self, images: Tensor) -> Tensor:
        """Compute the tokens that the head reads, after the last norm: (B, P + R·C, D)."""
        grid = patch_grid(images.shape[-2:], self.config.patch)
        x = self.embed(images)  # (B, D, R, C)
        if self.positions is not None:
            x = x + resize_grid(self.positions, grid)
        x = x.flatten(2).transpose(1, 2)  # (B, R·C, D)
        for i, block in enumerate(self.blocks):
            if self.class_token is not None and i == self.config.class_enters:
                x = torch.cat([self.class_token.expand(len(x), -1, -1).to(x.dtype), x], dim=1)
            if self.checkpointing and self.training:
                x = torch.utils.checkpoint.checkpoint(block, x, grid, use_reentrant=False)
            else:
                x = block(x, grid)
        return self.norm(x)

    def attention_maps(self, images: Tensor) -> list[Tensor]:
        """Record the attention weights of each block for these images: (B, heads, N, N) each, a class token first.

        Works whatever fast path is on, since it takes the written-out one. With gradients on, the maps are part of the
        graph.
        """
        with recording(self) as maps:
            self(images)
        return maps

    def spatial_maps(self, grid: Grid | None = None) -> list[Tensor | None]:
        """Make the spatial map of each block on a grid (default: the model's own): (heads, N, N), None where it has none."""
        attentions = [block.attention for block in self.blocks]
        return [a.spatial(grid or self.grid) if isinstance(a, SpatialAttention) else None for a in attentions]

    def no_decay(self) -> set[str]:
        """Name the parameters that weight decay should leave alone.

        Biases, norms, positions and the class token as is usual; and all of a spatial map: decay would pull a prior
        towards a constant, which is a wish about the data that nobody has made.
        """
        names = {name for name, parameter in self.named_parameters() if parameter.ndim < 2}
        names |= {name for name in ("positions", "class_token") if getattr(self, name) is not None}
        return names | {name for name, _ in self.named_parameters() if ".spatial." in name}


@contextmanager
def recording(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the attention weights of every forward pass inside the `with` block, in the order of the layers."""
    maps: list[Tensor] = []
    attentions = [module for module in model.modules() if isinstance(module, MHSA)]
    for attention in attentions:
        attention.recorded = maps
    try:
        yield maps
    finally:
        for attention in attentions:
            attention.recorded = None


def resize_grid(values: Tensor, grid: Grid) -> Tensor:
    """Interpolate values on one grid, (B, D, R, C), to another, bicubically: what is learned at 14×14 serves at 24×24."""
    if values.shape[-2:] == tuple(grid):
        return values
    return F.interpolate(values, size=grid, mode="bicubic", align_corners=False)
