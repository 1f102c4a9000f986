"""python -m spvit_mini.benchmark: what a layer of attention costs beside others, measured side by side in one run.

Steps of all sides are interleaved, so that a busy machine slows them alike; what counts are ratios of medians. Before
anything is timed, sides that should compute the same are checked to do so.
"""

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import tyro
from torch import Tensor
from tqdm import tqdm

from .attention import MHSA, SPSA
from .errors import UserError, run_program
from .geometry import Grid, pair_offsets


@dataclass
class Options:
    """Time one layer, forward and backward, in float32 on the CPU."""

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


def sides(options: Options) -> dict[str, MHSA]:
    """Build the layers that are compared; those of SP-SA share their numbers, which are checked."""
    torch.manual_seed(0)
    ours, official = (layer(options.dim, options.heads, options.hidden) for layer in (SPSA, AllPairs))
    torch.nn.init.normal_(ours.spatial.w2, std=0.1)
    official.load_state_dict(ours.state_dict())
    grid = (options.rows, options.columns)
    x = torch.randn(2, options.rows * options.columns, options.dim)
    torch.testing.assert_close(ours(x, grid), official(x, grid), rtol=1e-4, atol=1e-5)
    return {"MHSA, fused kernel": MHSA(options.dim, options.heads), "SPSA": ours, "SPSA, all pairs": official}


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
    base = statistics.median(seconds["MHSA, fused kernel"])
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
