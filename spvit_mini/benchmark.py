"""python -m spvit_mini.benchmark: what a layer of attention costs beside others, measured side by side in one run.

Steps of all sides are interleaved, so that a busy machine slows them alike; what counts are ratios of medians. Before
anything is timed, sides that should compute the same are checked to do so.
"""

import importlib
import importlib.util
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import tyro
from torch import Tensor, nn
from tqdm import tqdm

from .attention import GPSA, MHSA, SPSA
from .errors import UserError, run_program
from .geometry import Grid, pair_offsets

PLAIN = "MHSA, fused kernel"


@dataclass
class Options:
    """Time one layer, forward and backward, in float32 on the CPU."""

    layer: Annotated[Literal["spsa", "gpsa"], tyro.conf.Positional] = "spsa"
    """spsa: beside the released code's layout. gpsa: beside timm's ConViT, if timm is installed (try --dim 432 --heads 9)."""
    dim: int = 384
    """Width of the tokens."""
    heads: int = 6
    """Number of heads."""
    hidden: int = 64
    """Hidden width of SP-SA's prior; the released models have 64."""
    rows: int = 14
    """Rows of patches."""
    columns: int = 14
    """Columns of patches."""
    batch: int = 8
    """Images a step."""
    steps: int = 20
    """Timed steps of each side, after 3 that warm up."""


class AllPairs(SPSA):
    """SP-SA in the layout of the released code: the MLP on all N² pairs, its result repeated for each image."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: Grid) -> Tensor:
        f = self.spatial
        hidden = torch.relu(pair_offsets(*grid).to(q) @ f.w1.flatten(0, 1).T + f.b1.flatten())  # (N, N, H·K)
        prior = torch.einsum("ijhk,hk->hij", hidden.unflatten(-1, f.w2.shape), f.w2) + f.b2[:, None, None]
        return (prior.repeat(len(q), 1, 1, 1) * self.scores(q, k)).softmax(-1) @ v


class TimmGPSA(MHSA):
    """timm's GPSA behind our interface: tokens and grid in; the grid must be square."""

    def __init__(self, ours: GPSA):
        dim = ours.proj.in_features
        super().__init__(dim, ours.heads)
        del self.qkv, self.proj
        self.layer = importlib.import_module("timm.models.convit").GPSA(dim, ours.heads)
        with torch.no_grad():
            qk, v = ours.qkv.weight.split([2 * dim, dim])
            self.layer.qk.weight.copy_(qk)
            self.layer.v.weight.copy_(v)
            self.layer.proj.load_state_dict(ours.proj.state_dict())
            self.layer.pos_proj.weight.copy_(ours.spatial.v[:, [2, 1, 0]])  # (columns, rows, distance²)
            self.layer.gating_param.copy_(ours.gate)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        return self.layer(x)


def sides(options: Options) -> dict[str, nn.Module]:
    """Build the layers that are compared, plain attention first; the other two have the same numbers, which is checked."""
    torch.manual_seed(0)
    grid = (options.rows, options.columns)
    if options.layer == "spsa":
        names = "SPSA", "SPSA, all pairs"
        ours, theirs = (layer(options.dim, options.heads, options.hidden) for layer in (SPSA, AllPairs))
        nn.init.normal_(ours.spatial.w2, std=0.1)
        theirs.load_state_dict(ours.state_dict())
    else:
        if importlib.util.find_spec("timm") is None or grid[0] != grid[1]:
            raise UserError("gpsa is timed beside timm's, which wants a square grid: pip install timm, and --rows = --columns")
        names = "GPSA", "GPSA of timm"
        ours = GPSA(options.dim, options.heads)
        theirs = TimmGPSA(ours)
    x = torch.randn(2, grid[0] * grid[1], options.dim)
    torch.testing.assert_close(ours(x, grid), theirs(x, grid), rtol=1e-4, atol=1e-5)
    return {PLAIN: MHSA(options.dim, options.heads), names[0]: ours, names[1]: theirs}


def interleaved(steps: dict[str, Callable[[], None]], *, rounds: int, warm_up: int = 3) -> dict[str, list[float]]:
    """Time each of `steps` once a round, in seconds; the first `warm_up` rounds are not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for done in tqdm(range(warm_up + rounds), desc="timing", unit="round", disable=None):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if done >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def training_step(layer: MHSA, x: Tensor, grid: Grid) -> Callable[[], None]:
    """Make a step: forward and backward of one layer, gradients of its input too."""

    def step() -> None:
        layer.zero_grad()
        layer(x, grid).square().mean().backward()

    return step


def main() -> None:
    options = tyro.cli(Options, prog="python -m spvit_mini.benchmark", description=__doc__)
    if options.steps < 1:
        raise UserError(f"--steps is {options.steps}; at least one step must be timed")
    grid = (options.rows, options.columns)
    x = torch.randn(options.batch, options.rows * options.columns, options.dim, requires_grad=True)
    layers = sides(options)
    seconds = interleaved(
        {name: training_step(layer, x, grid) for name, layer in layers.items()}, rounds=options.steps
    )
    base = statistics.median(seconds[PLAIN])
    print(
        f"one layer, forward + backward, float32, width {options.dim}, {options.heads} heads, {grid[0]}×{grid[1]} patches, "
        f"batch {options.batch}\ntorch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}; "
        f"medians of {options.steps} interleaved steps"
    )
    for name, times in seconds.items():
        low, middle, high = (1e3 * t for t in statistics.quantiles(times, n=4)) if len(times) > 1 else 3 * (1e3 * times[0],)
        print(f"  {name:<20} {middle:8.1f} ms  ({low:.1f} to {high:.1f})  {middle / 1e3 / base:5.2f} × MHSA")


if __name__ == "__main__":
    run_program(main)
