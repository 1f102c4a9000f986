"""What growth costs: time and memory of SP-SA beside plain attention, as patches, heads, images and blocks grow.

One of the four grows, the others stay at 14 × 14 patches, 6 heads, 4 images and one block, of width 384. The record is
growth.csv; the page docs/speed.md and its figure are made from it: python -m spvit_experiments benchmark page.

    python -m spvit_experiments benchmark growth --grows patches
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from spvit_mini.attention import MHSA, SPSA
from spvit_mini.attention_backends import take_path
from spvit_mini.geometry import Grid

from .attention import PLAIN, multiply_adds, training_step
from .baselines import written_out
from .timing import Comparison, Side, choose_device, run
from .timing import Options as Common

RECOMPUTED = "SPSA, recomputed"
DIM, HIDDEN = 384, 64
VALUES = {
    "patches": (16, 36, 64, 100, 144, 196, 256, 400, 576),  # squares
    "heads": (1, 2, 3, 6, 12, 24),  # divisors of the width
    "images": (1, 2, 4, 8, 16),
    "blocks": (1, 2, 4, 8),
}
STAYS = {"patches": 196, "heads": 6, "images": 4, "blocks": 1}


@dataclass(frozen=True)
class Options(Common):
    """Time growing layers, forward and backward."""

    grows: tuple[Literal["patches", "heads", "images", "blocks"], ...] = tuple(VALUES)
    """What grows, one at a time."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic; bfloat16 by autocast."""


class Stack(nn.Module):
    """Attention after attention, each added to what came in, as in a model without its MLPs."""

    def __init__(self, layers: list[MHSA], dim: int):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in layers)
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = x + layer(norm(x), grid)
        return x


def sides_of(heads: int, blocks: int, *, dim: int = DIM, hidden: int = HIDDEN) -> dict[str, Stack]:
    """Build stacks of plain attention, fused and written out, and of SP-SA, by its usual path and by `recomputed`."""
    torch.manual_seed(0)
    plain = [MHSA(dim, heads) for _ in range(blocks)]
    layers = {PLAIN: plain, "MHSA, written out": [written_out(layer) for layer in plain]}
    layers |= {name: [SPSA(dim, heads, hidden) for _ in range(blocks)] for name in ("SPSA", RECOMPUTED)}
    stacks = {name: Stack(stack, dim) for name, stack in layers.items()}
    stacks[RECOMPUTED].load_state_dict(stacks["SPSA"].state_dict())
    take_path(stacks[RECOMPUTED], "recomputed")
    return stacks


def comparisons(options: Options, device: torch.device) -> Iterator[Comparison]:
    """List the sizes, smallest first."""
    dim = 48 if options.quick else DIM
    for what in options.grows:
        values = [value for value in VALUES[what] if dim % (24 if what == "heads" else 1) == 0]
        for value in values[:4] if options.quick else values:
            sizes = STAYS | {what: value}
            case = {"grows": what, **sizes, "dim": dim, "dtype": options.dtype}
            yield Comparison(case, lambda case=case: timed(case, device))


def timed(case: dict, device: torch.device) -> dict[str, Side]:
    """Build the sides of a size on the device, as steps."""
    side = round(case["patches"] ** 0.5)
    grid, dim, found = (side, side), case["dim"], {}
    x = torch.randn(case["images"], case["patches"], dim, device=device)
    for name, stack in sides_of(case["heads"], case["blocks"], dim=dim).items():
        counted = case["blocks"] * multiply_adds(stack.layers[0], stack.layers[0], grid)
        step = training_step(stack.to(device), x.clone().requires_grad_(), grid, dtype=getattr(torch, case["dtype"]))
        found[name] = Side(step, images=case["images"], multiply_adds=counted, passes=3)
    return found


def main(options: Options) -> int:
    """Run this part of the benchmark; returns the exit status."""
    if options.quick:
        options = dataclasses.replace(options, rounds=min(options.rounds, 3))
    device = choose_device(options)
    run("growth", comparisons(options, device), options, title="Growing layers, forward and backward", draw=False)
    return 0
