"""Configurations of the models: ViT, CaiT and CNN, as plain data without torch; and the grid of an image's patches."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from .errors import UserError
from .fields import Count, Natural, NonNegative, Pixels, Positive, Range, Share, check_fields

Width = Annotated[int, Range(1, 65536)]
Depth = Annotated[int, Range(1, 1000)]
Ratio = Annotated[float, Range(0.01, 100)]
Grid = tuple[Count, Count]  # (rows, columns)
MAX_STAGES = 3  # of a CNN, as the paper's nets for CIFAR have (He et al. 2016, §4.2)


def patch_grid(image_size: Sequence[int], patch: int) -> Grid:
    """Count the rows and columns of patches in an image of (height, width). Raises UserError if the patch does not fit."""
    height, width = image_size
    if height % patch or width % patch or not height or not width:
        near = [max(patch, round(side / patch) * patch) for side in image_size]
        raise UserError(
            f"an image of {height}×{width} pixels cannot be cut into patches of {patch}×{patch}; "
            f"resize it to {near[0]}×{near[1]}, or choose a patch that divides both sides"
        )
    return height // patch, width // patch


@dataclass(frozen=True)
class ViTConfig:
    """Configuration of a `vit.ViT`."""

    image_size: tuple[Pixels, Pixels] = (32, 32)  # height, width in pixels
    patch: Pixels = 4  # side of a patch in pixels
    channels: Count = 3
    num_classes: Count = 10
    dim: Width = 192  # width D of a token
    depth: Depth = 9  # blocks
    heads: Width = 4
    mlp_ratio: Ratio = 2.0  # width of the MLP's hidden layer in units of D
    qkv_bias: bool = False
    attention: str = "mhsa"  # a name or MAP/MODE, see attention_registry.py
    attention_options: dict[str, Any] = field(default_factory=dict)  # more arguments of its map, e.g. {"hidden": 64}
    odd_block_options: dict[str, Any] = field(default_factory=dict)  # changes to them in each second block, e.g. a shifted window
    sharing: Literal["head", "block", "network"] = "head"  # a map for each head of each block, for each block, or one for all
    spatial_layers: Natural | None = None  # how many of the first blocks use `attention`, the rest MHSA; None: all
    positions: bool = True  # learned absolute position embedding, added to the patches
    pool: Literal["mean", "class"] = "mean"  # "mean": average the patches; "class": read a class token
    dense_head: bool = False  # a second head that reads every patch, for token labels (LV-ViT)
    stem: Width | None = None  # width of LV-ViT's four-convolution stem; None: one convolution cuts the patches
    peg: bool = False  # a position encoding generator after each block (CPVT)
    residual_scale: Positive = 1.0  # every branch is divided by it before it is added (LV-ViT)
    norm_eps: Positive = 1e-6
    class_token_block: Natural = 0  # the block before which the class token joins (0: at once; depth − 2: late)
    init_std: Positive | None = None  # linear layers are drawn from a normal this wide (DeiT: 0.02); None: torch's 1/√(3·inputs)
    drop_path: Share = 0.0  # stochastic depth: drop rate of the last block, growing linearly from 0 (Huang et al. 2016)

    def __post_init__(self):
        check_fields(self)
        for name in ("class_token_block", "dense_head"):
            if (value := getattr(self, name)) and self.pool != "class":
                raise UserError(f"{name} is {value} and pool is {self.pool!r}, without a class token. Use pool 'class'.")
        if self.sharing == "network" and self.attention_options | self.odd_block_options != self.attention_options:
            raise UserError(
                f"sharing is 'network' and odd_block_options are {self.odd_block_options}, which make a second map; expected one "
                "map for all blocks. Use sharing 'block'."
            )
        if self.stem is not None and self.patch % 2:
            raise UserError(f"the stem halves the image before the patches are cut, so a patch of {self.patch} must be even")
        for name in ("class_token_block", "spatial_layers"):
            value = getattr(self, name)
            if value is not None and value > self.depth - (name == "class_token_block"):
                raise UserError(f"{name} is {value}, but there are {self.depth} blocks")
        patch_grid(self.image_size, self.patch)

    @property
    def grid(self) -> Grid:
        """Rows and columns of patches."""
        return patch_grid(self.image_size, self.patch)


@dataclass(frozen=True)
class CaiTConfig:
    """Configuration of a `cait.CaiT`."""

    image_size: tuple[Pixels, Pixels] = (224, 224)  # height, width in pixels
    patch: Pixels = 16  # side of a patch in pixels
    channels: Count = 3
    num_classes: Count = 1000
    dim: Width = 192  # width D of a token
    depth: Depth = 24  # blocks of the patches
    class_depth: Depth = 2  # blocks of the class token
    heads: Width = 4
    mlp_ratio: Ratio = 4.0  # width of the MLP's hidden layer in units of D
    layer_scale: NonNegative = 1e-5  # initial γ (paper, §2.1: the deeper the smaller)
    norm_eps: Positive = 1e-6
    init_std: Positive | None = 0.02  # linear layers are drawn from a normal this wide
    drop_path: Share = 0.0  # stochastic depth: drop rate of every block of the patches, the same for all

    def __post_init__(self):
        check_fields(self)
        patch_grid(self.image_size, self.patch)

    @property
    def grid(self) -> Grid:
        """Rows and columns of patches."""
        return patch_grid(self.image_size, self.patch)


@dataclass(frozen=True)
class CNNConfig:
    """Configuration of a `cnn.CNN`."""

    image_size: tuple[Pixels, Pixels] = (32, 32)  # height, width in pixels
    patch: Pixels = 4  # side in pixels of what a position of the last stage stands for: how often the resolution halves
    channels: Count = 3
    num_classes: Count = 10
    dim: Width = 200  # width D of the last stage; each stage before it has half of the next one's
    depth: Depth = 9  # residual blocks, over all stages; with fewer blocks than stages there are fewer stages
    drop_path: Share = 0.0  # stochastic depth: drop rate of the last block, growing linearly from 0 (Huang et al. 2016)

    def __post_init__(self):
        check_fields(self)
        if self.patch & (self.patch - 1):
            raise UserError(f"a CNN halves the resolution again and again, so a patch of {self.patch} must be a power of 2")
        if self.dim % 2 ** (self.stages - 1):
            raise UserError(
                f"a CNN of {self.stages} stages doubles its width {self.stages - 1} times, so that a width of {self.dim} "
                f"must be a multiple of {2 ** (self.stages - 1)}"
            )

    @property
    def halvings(self) -> int:
        """How often the resolution is halved."""
        return self.patch.bit_length() - 1

    @property
    def stages(self) -> int:
        """Stages, between two of which the resolution is halved; halvings beyond them are the stem's."""
        return min(MAX_STAGES, self.depth, self.halvings + 1)

    @property
    def widths(self) -> list[int]:
        """Width of each block. Stages have equally many, but for one more in the last ones if it does not come out even."""
        return [self.dim >> (following * self.stages // self.depth) for following in reversed(range(self.depth))]

    @property
    def grid(self) -> Grid:
        """Rows and columns of the last stage: sides halve to the next integer, so ⌈side / patch⌉."""
        height, width = self.image_size
        return -(-height // self.patch), -(-width // self.patch)
