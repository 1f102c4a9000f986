"""Spatial maps: what a head knows about the layout of an image before it has seen one.

A map is a module: grid in, (heads, N, N) out, entry [h, i, j] for query patch i and key patch j. The mode by which it enters
attention (additive, multiplicative, a mask, …) is not its concern: see attention.py.

    of the offset δ = key − query     Table, LogCPB, PriorMLP, Linear, Quadratic, Constant      numbers
                                      TwinPrior, Anchored                                       two numbers each
                                      Shaw1D, Shaw2D, IRPE                                      an embedding each
    of the grid                       SquareWindow, CrossWindow                                 in or out

A function of δ has (2R−1)(2C−1) values for the N² pairs; its `table` has those, and `OffsetMap` expands them by `spread`.

Letters: H heads, R rows, C columns, N = R·C patches, K hidden units or embeddings, δ in patches, (row, column).
"""

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import Width
from .errors import UserError
from .fields import Count, Natural, NonNegative, Positive, Range, check_arguments
from .geometry import Grid, offsets_like, spread

Reach = Annotated[float, Range(1, 1000)]  # in patches


class OffsetMap(nn.Module):
    """A function of δ alone: subclasses give `table(grid)`, (heads, 2R−1, 2C−1), the value at each offset.

    `neutral` is the constant around which a map is initialised: 0 if it is added to scores, 1 if it multiplies them. A map
    whose parameters have the size of the grid also has `resize(values, grid)`, which interpolates each of them.
    """

    factors: tuple[str, ...] = ()  # names of the matrices by which `table` multiplies each offset

    def __init__(self, neutral: float = 0.0):
        super().__init__()
        self.neutral = neutral

    def table(self, grid: Grid) -> Tensor:
        raise NotImplementedError

    @property
    def multiply_adds_per_offset(self) -> int:
        """Multiply-adds for each offset, over all heads; 0 for a look-up."""
        return sum(self.get_parameter(name).numel() for name in self.factors)

    def forward(self, grid: Grid) -> Tensor:
        """Compute the map of a grid of R rows and C columns: (heads, R·C, R·C). One head means: the same for all heads."""
        # In full precision under autocast too: there are only a few hundred offsets, scores are multiplied by the map, and
        # in bfloat16 a quadratic would miss its value at far offsets, −‖δ‖² of some hundreds, by a whole score.
        numbers = next(iter([*self.parameters(), *self.buffers()]), None)
        with torch.autocast("cpu" if numbers is None or numbers.is_meta else numbers.device.type, enabled=False):
            return spread(self.table(grid), grid)


class Table(OffsetMap):
    """A learned number for each head and offset (Swin, Liu et al. 2021, eq. 4; a window there, the whole grid here).

    On another grid the table is interpolated bicubically, as Swin does between window sizes. Initialised by a normal
    distribution of width `std`. H·(2R−1)·(2C−1) parameters.
    """

    @check_arguments
    def __init__(self, heads: int, grid: Grid, *, neutral: float = 0.0, std: Positive = 0.02):
        super().__init__(neutral)
        self.values = nn.Parameter(torch.empty(heads, 2 * grid[0] - 1, 2 * grid[1] - 1))
        nn.init.trunc_normal_(self.values, mean=neutral, std=std, a=neutral - 2 * std, b=neutral + 2 * std)

    def table(self, grid: Grid) -> Tensor:
        return resize_table(self.values, grid)

    def resize(self, values: Tensor, grid: Grid) -> Tensor:
        return resize_table(values, grid)


class LogCPB(OffsetMap):
    """Swin v2's log-spaced continuous position bias (Liu et al. 2022, §3.3): f(δ) = 16·σ(W2 ReLU(W1 δ̃ + b1)).

    δ̃ = sign(δ')·log2(1 + |δ'|)/log2 8 with δ' = 8δ/(R−1, C−1) of the grid that it was trained on: an MLP that all heads
    share, on coordinates in which far offsets lie closer together. 3·hidden + H·hidden parameters.
    """

    factors = ("mlp.0.weight", "mlp.2.weight")

    @check_arguments
    def __init__(self, heads: int, grid: Grid, *, hidden: Width = 512):
        super().__init__()
        self.trained_on = grid
        self.mlp = nn.Sequential(nn.Linear(2, hidden), nn.ReLU(), nn.Linear(hidden, heads, bias=False))

    def table(self, grid: Grid) -> Tensor:
        delta = offsets_like(next(self.parameters()), grid)
        reach = torch.cat([delta.new_full((1,), max(side - 1, 1)) for side in self.trained_on])
        return 16 * self.mlp(log_offsets(8 * delta / reach) / 3).sigmoid().permute(2, 0, 1)  # log2 8 = 3


class PriorMLP(OffsetMap):
    """SP-SA's learned 2D spatial prior (SP-ViT, §3): f_h(δ) = w2_hᵀ ReLU(W1_h δ + b1_h) + b2_h, a small MLP per head.

    Args:
        heads: number of heads H.
        hidden: width K of the hidden layer of each head.
        neutral: initial output bias b2. With the second layer at 0 the initial map is this constant: a factor of 1 leaves
            scores as they are.
        weight_std: width of the normal distribution, truncated at ±2 widths, that initialises the first layer. It decides
            how fast a prior is learned, since the second layer's gradient is the hidden layer's output: 0.02 as released,
            0.5 in the minis.
        bias_std: the same for its bias; 0 as released, and by default as wide as the weights. Without it all kinks of
            the ReLUs run through δ = 0.
        log: use sign(δ)·log2(1 + |δ|) as the input, as Swin v2 does, in place of δ.

    Parameters: w1 (H, K, 2), b1 (H, K), w2 (H, K), b2 (H): 4·K·H + H numbers a layer. δ enters in patches, so any grid
    has its map, by linear extrapolation beyond the offsets seen in training.
    """

    factors = ("w1", "w2")
    outputs: tuple[int, ...] = ()  # shape of the outputs for one offset and head; see TwinPrior

    @check_arguments
    def __init__(
        self, heads: int, hidden: Width = 32, *, neutral: float = 1.0, weight_std: NonNegative = 0.5,
        bias_std: NonNegative | None = None, log: bool = False,
    ):  # fmt: skip
        super().__init__(neutral)
        self.weight_std, self.bias_std = weight_std, weight_std if bias_std is None else bias_std
        self.log = log
        self.w1 = nn.Parameter(torch.empty(heads, hidden, 2))
        self.b1 = nn.Parameter(torch.empty(heads, hidden))
        self.w2 = nn.Parameter(torch.empty(*self.outputs, heads, hidden))
        self.b2 = nn.Parameter(torch.empty(*self.outputs, heads))
        self.reset_parameters()

    def reset_parameters(self):
        """Initialise: a random first layer, a second layer of 0, so that the map is exactly `neutral` everywhere."""
        for parameter, std in ((self.w1, self.weight_std), (self.b1, self.bias_std)):
            nn.init.trunc_normal_(parameter, std=std, a=-2 * std, b=2 * std) if std else nn.init.zeros_(parameter)
        nn.init.zeros_(self.w2)
        nn.init.constant_(self.b2, self.neutral)

    def table(self, grid: Grid) -> Tensor:
        delta = offsets_like(self.w1, grid)  # (2R−1, 2C−1, 2)
        if self.log:
            delta = log_offsets(delta)
        hidden = self.w1 @ delta.flatten(0, 1).T + self.b1[:, :, None]  # (H, K, offsets)
        prior = self.w2[..., None, :] @ hidden.relu() + self.b2[..., None, None]  # (…, H, 1, offsets)
        return prior.squeeze(-2).unflatten(-1, delta.shape[:2])


class TwinPrior(PriorMLP):
    """The prior MLP with two outputs: a factor of the scores, initially 1, and an addend, initially 0: (2, heads, N, N)."""

    outputs = (2,)

    def reset_parameters(self):
        super().reset_parameters()
        nn.init.zeros_(self.b2[1])


class Linear(OffsetMap):
    """f_h(δ) = w_h · δ + b_h: a prior without a hidden layer, which SP-ViT's ablation finds too weak. 3·H parameters."""

    factors = ("w",)

    def __init__(self, heads: int, *, neutral: float = 1.0):
        super().__init__(neutral)
        self.w = nn.Parameter(torch.zeros(heads, 2))
        self.b = nn.Parameter(torch.full((heads,), neutral))

    def table(self, grid: Grid) -> Tensor:
        return (offsets_like(self.w, grid) @ self.w.T + self.b).permute(2, 0, 1)


class Constant(OffsetMap):
    """f_h = t_h: no map at all. As a factor it is a learned logit scale of each head, the plainest rival of a prior."""

    def __init__(self, heads: int, *, neutral: float = 1.0):
        super().__init__(neutral)
        self.t = nn.Parameter(torch.full((heads,), neutral))

    def table(self, grid: Grid) -> Tensor:
        return self.t[:, None, None].expand(-1, 2 * grid[0] - 1, 2 * grid[1] - 1)


class Quadratic(OffsetMap):
    """PSA's map (Cordonnier et al. 2020; ConViT, eq. 4–5): f_h(δ) = v_hᵀ(‖δ‖², δ_row, δ_column), three numbers a head.

    With v = −α(1, −2Δ) it is −α‖δ − Δ‖² up to a constant, which does not change a softmax: a Gaussian around the offset Δ.
    That is its local initialisation, with `strength` α and a centre for each head (`local_centres`); the initial map of
    strength 0 is `neutral`.
    """

    factors = ("v",)

    @check_arguments
    def __init__(self, heads: int, *, neutral: float = 0.0, strength: float = 1.0):
        super().__init__(neutral)
        self.strength = strength
        self.v = nn.Parameter(torch.empty(heads, 3))
        self.reset_parameters()

    def reset_parameters(self):
        with torch.no_grad():
            self.v.copy_(local_start(len(self.v), self.strength))

    def table(self, grid: Grid) -> Tensor:
        delta = offsets_like(self.v, grid)
        features = torch.cat([delta.square().sum(-1, keepdim=True), delta], dim=-1)  # (2R−1, 2C−1, 3)
        return (features @ self.v.T).permute(2, 0, 1) + self.neutral


class Anchored(OffsetMap):
    """SP-SA with an anchor, our own: a prior that multiplies the scores, and PSA's quadratic, local at first, that is added.

    The map is (2, heads, N, N): the factor, then the addend.
    """

    factors = ("prior.w1", "prior.w2", "anchor.v")

    def __init__(self, heads: int, hidden: int = 32, *, strength: float = 1.0, **prior):
        super().__init__()
        self.prior = PriorMLP(heads, hidden, **prior)
        self.anchor = Quadratic(heads, strength=strength)

    def table(self, grid: Grid) -> Tensor:
        return torch.stack([self.prior.table(grid), self.anchor.table(grid)])


class SquareWindow(nn.Module):
    """Windows as a partition (Swin): patches attend to each other within the same square of side `size`.

    The squares are shifted by `shift` patches down and right; the border cuts some of them. The map is (1, N, N) booleans.
    It depends on the positions of the patches, not only on δ, so it is no `OffsetMap`.
    """

    @check_arguments
    def __init__(self, size: Count = 4, *, shift: Natural = 0):
        super().__init__()
        if shift >= size:
            raise UserError(f"shift is {shift}; expected less than the size of the window, {size}")
        self.size, self.shift = size, shift

    def forward(self, grid: Grid) -> Tensor:
        rows, columns = ((torch.arange(side) - self.shift).div(self.size, rounding_mode="floor") for side in grid)
        return same_label(rows, columns)[None]


class CrossWindow(nn.Module):
    """Cross-shaped windows (CSWin, Dong et al. 2022): stripes of `width` rows for half the heads, of columns for the others.

    The map is (heads, N, N) booleans.
    """

    @check_arguments
    def __init__(self, heads: int, width: Count = 2):
        super().__init__()
        if heads % 2:
            raise UserError(f"heads is {heads} for cross-shaped windows; expected an even number. Use sharing 'head'.")
        self.heads, self.width = heads, width

    def forward(self, grid: Grid) -> Tensor:
        rows, columns = (torch.arange(side) // self.width for side in grid)
        stripes = same_label(rows, 0 * columns), same_label(0 * rows, columns)
        return torch.stack(stripes).repeat_interleave(self.heads // 2, dim=0)


class Embeddings(nn.Module):
    """Embeddings of the offsets: `forward` gives pairs (vectors (K, C), index of each offset's vector (2R−1, 2C−1))."""

    def __init__(self, width: int, *counts: int):
        super().__init__()
        self.vectors = nn.ParameterList(nn.Parameter(0.02 * torch.randn(count, width)) for count in counts)

    def buckets(self, grid: Grid) -> list[Tensor]:
        raise NotImplementedError

    def forward(self, grid: Grid) -> list[tuple[Tensor, Tensor]]:
        return list(zip(self.vectors, self.buckets(grid), strict=True))


class Shaw1D(Embeddings):
    """Shaw et al. 2018, eq. 4, on the sequence of tokens: an embedding of clip(j − i, ±clip), keys only."""

    @check_arguments
    def __init__(self, width: int, *, clip: Natural = 8):
        super().__init__(width, 2 * clip + 1)
        self.clip = clip

    def buckets(self, grid: Grid) -> list[Tensor]:
        rows, columns = offsets_like(self.vectors[0], grid, torch.long).unbind(-1)
        step = rows * grid[1] + columns  # j − i of the flattened tokens
        return [step.clamp(-self.clip, self.clip) + self.clip]


class Shaw2D(Embeddings):
    """The same in two dimensions: an embedding of the clipped row offset plus one of the clipped column offset."""

    @check_arguments
    def __init__(self, width: int, *, clip: Natural = 8):
        super().__init__(width, 2 * clip + 1, 2 * clip + 1)
        self.clip = clip

    def buckets(self, grid: Grid) -> list[Tensor]:
        return list((offsets_like(self.vectors[0], grid, torch.long).clamp(-self.clip, self.clip) + self.clip).unbind(-1))


class IRPE(Embeddings):
    """iRPE's contextual product method (Wu et al. 2021, eq. 14, 18–19): an embedding per pair of row and column bucket.

    Offsets up to `alpha` have buckets of their own, farther ones share logarithmic buckets, and from `gamma` on the last, ±beta.
    """

    @check_arguments
    def __init__(self, width: int, *, alpha: Positive = 1.9, beta: Reach = 3.8, gamma: Positive = 15.2):
        if gamma <= alpha:
            raise UserError(f"gamma is {gamma}; expected a number above alpha, {alpha}")
        self.alpha, self.beta, self.gamma = alpha, beta, gamma
        self.side = 2 * int(beta) + 1
        super().__init__(width, self.side**2)

    def buckets(self, grid: Grid) -> list[Tensor]:
        delta = offsets_like(self.vectors[0], grid, torch.long)
        index = piecewise_index(delta, self.alpha, self.beta, self.gamma) + int(self.beta)
        return [index[..., 0] * self.side + index[..., 1]]


def log_offsets(delta: Tensor) -> Tensor:
    """Compress far offsets: sign(δ)·log2(1 + |δ|)."""
    return delta.sign() * delta.abs().add(1).log2()


def piecewise_index(delta: Tensor, alpha: float, beta: float, gamma: float) -> Tensor:
    """Number the offsets as iRPE does (eq. 18): exactly up to alpha, then logarithmically, at most ±int(beta)."""
    size = delta.abs().to(torch.float32 if delta.is_mps else torch.float64)
    far = alpha + (size.clamp(min=alpha) / alpha).log() / math.log(gamma / alpha) * (beta - alpha)
    return (delta.sign() * torch.where(size <= alpha, size, far.round().clamp(max=int(beta)))).long()


def local_centres(heads: int) -> Tensor:
    """Place the heads' centres around the query: (heads, 2), (row, column) in patches.

    A square number of heads makes a square lattice with the query in its middle: nine heads the 3×3 neighbours, four
    heads ±½ (ConViT's code). Any other number is divided among round(√heads) rows as evenly as possible, each row centred.
    """
    rows = max(1, round(math.sqrt(heads)))
    counts = [heads // rows + (row < heads % rows) for row in range(rows)]
    return torch.tensor(
        [(row - (rows - 1) / 2, column - (n - 1) / 2) for row, n in enumerate(counts) for column in range(n)]
    )


def local_start(heads: int, strength: float) -> Tensor:
    """Compute PSA's local initialisation (ConViT, eq. 5): v_h = −α(1, −2Δ_h), (heads, 3), for strength α and centres Δ."""
    return -strength * torch.cat([torch.ones(heads, 1), -2 * local_centres(heads)], dim=1)


def conv_heads(kernel: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """Compute heads that are a convolution (Cordonnier et al. 2020, Theorem 1): v (H, 3), w (H, in, out), H taps.

    The kernel is conv2d's, (out, in, rows, columns), of odd sides. Head h attends to the offset Δ_h of its tap, more
    sharply for a larger strength, and multiplies the value there by w_h; the sum of the heads tends to the convolution.
    Beyond the border a head attends to the nearest patch of the border: replicate padding, not zeros.
    """
    high, wide = kernel.shape[2:]
    taps = torch.cartesian_prod(torch.arange(high), torch.arange(wide)).to(kernel)
    centres = taps - taps.new_tensor([high // 2, wide // 2])
    v = -strength * torch.cat([torch.ones_like(centres[:, :1]), -2 * centres], dim=1)
    return v, kernel.flatten(2).permute(2, 1, 0)


def same_label(rows: Tensor, columns: Tensor) -> Tensor:
    """Compare the labels of all pairs of patches: labels of the R rows and the C columns in, (N, N) booleans out."""
    labels = torch.cartesian_prod(rows, columns)
    return (labels[:, None] == labels[None]).all(-1)


def resize_table(values: Tensor, grid: Grid) -> Tensor:
    """Interpolate a table over offsets, (heads, 2R−1, 2C−1), bicubically to another grid's offsets."""
    size = (2 * grid[0] - 1, 2 * grid[1] - 1)
    if values.shape[-2:] == size:
        return values
    return F.interpolate(values[None], size=size, mode="bicubic", align_corners=False)[0]
