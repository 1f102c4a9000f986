"""Scaling: time and memory of SP-SA and of plain attention over the number of patches, heads, images and blocks.

One number varies; the others are 14 × 14 patches, 6 heads, 4 images and one block, of width 384. The record is growth.csv,
from which `python -m spvit_experiments benchmark page` writes docs/speed.md and its figure.

    python -m spvit_experiments benchmark scaling --vary patches
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from spvit_mini.attention import MHSA, SPSA
from spvit_mini.attention_backends import set_backend
from spvit_mini.geometry import Grid

from .attention import PLAIN, count_multiply_adds, make_training_step
from .baselines import build_eager
from .timing import CommonOptions, Comparison, Side, choose_device, run_comparisons

EAGER, RECOMPUTE = "MHSA, written out", "SPSA, recomputed"  # sides, as in the records
DIM, HIDDEN = 384, 64
VALUES = {
    "patches": (16, 36, 64, 100, 144, 196, 256, 400, 576),  # squares
    "heads": (1, 2, 3, 6, 12, 24),  # divisors of the width
    "images": (1, 2, 4, 8, 16),
    "blocks": (1, 2, 4, 8),
}
FIXED = {"patches": 196, "heads": 6, "images": 4, "blocks": 1}


@dataclass(frozen=True)
class Options(CommonOptions):
    """Time layers of several sizes, forward and backward."""

    vary: tuple[Literal["patches", "heads", "images", "blocks"], ...] = tuple(VALUES)
    """Numbers that vary, one at a time."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision; bfloat16 by autocast."""


class Stack(nn.Module):
    """Attention layers with norms and residual connections: a model without its MLPs."""

    def __init__(self, layers: list[MHSA], dim: int):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in layers)
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = x + layer(norm(x), grid)
        return x


def build_stacks(heads: int, blocks: int, *, dim: int = DIM, hidden: int = HIDDEN) -> dict[str, Stack]:
    """Build stacks of plain attention, fused and eager, and of SP-SA with the backends auto and recompute."""
    torch.manual_seed(0)
    plain = [MHSA(dim, heads) for _ in range(blocks)]
    layers = {PLAIN: plain, EAGER: [build_eager(layer) for layer in plain]}
    layers |= {name: [SPSA(dim, heads, hidden) for _ in range(blocks)] for name in ("SPSA", RECOMPUTE)}
    stacks = {name: Stack(stack, dim) for name, stack in layers.items()}
    stacks[RECOMPUTE].load_state_dict(stacks["SPSA"].state_dict())
    set_backend(stacks[RECOMPUTE], "recompute")
    return stacks


def list_comparisons(options: Options, device: torch.device) -> Iterator[Comparison]:
    """List the sizes, smallest first."""
    dim = 48 if options.quick else DIM
    for what in options.vary:
        values = [value for value in VALUES[what] if dim % (24 if what == "heads" else 1) == 0]
        for value in values[:4] if options.quick else values:
            sizes = FIXED | {what: value}
            case = {"grows": what, **sizes, "dim": dim, "dtype": options.dtype}
            yield Comparison(case, lambda case=case: build_sides(case, device))


def build_sides(case: dict, device: torch.device) -> dict[str, Side]:
    """Build the steps of a comparison on the device."""
    side = round(case["patches"] ** 0.5)
    grid, dim, sides = (side, side), case["dim"], {}
    x = torch.randn(case["images"], case["patches"], dim, device=device)
    for name, stack in build_stacks(case["heads"], case["blocks"], dim=dim).items():
        count = case["blocks"] * count_multiply_adds(stack.layers[0], stack.layers[0], grid)
        step = make_training_step(stack.to(device), x.clone().requires_grad_(), grid, dtype=getattr(torch, case["dtype"]))
        sides[name] = Side(step, images=case["images"], multiply_adds=count, passes=3)
    return sides


def main(options: Options) -> int:
    """Run this part of the benchmark; returns the exit status."""
    if options.quick:
        options = dataclasses.replace(options, rounds=min(options.rounds, 3))
    device = choose_device(options)
    run_comparisons("growth", list_comparisons(options, device), options, title="Scaling, forward and backward", draw=False)
    return 0
