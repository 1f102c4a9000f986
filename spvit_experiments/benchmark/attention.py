"""One layer of each kind: its fast path, its equation written out, and the same layer of others.

Each comparison has plain attention through the fused kernel first, to which all ratios are. The other sides have the same
numbers in them; that they compute the same, in value and gradient, is checked before they are timed.

    python -m spvit_experiments benchmark attention --layers spsa gpsa --quick
"""

import copy
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from spvit_mini.attention import MHSA, SPSA
from spvit_mini.attention_backends import take_path
from spvit_mini.attention_registry import build_attention
from spvit_mini.errors import UserError
from spvit_mini.flops import attention_cost
from spvit_mini.geometry import Grid

from .baselines import AllPairs, all_pairs, timm_peers, written_out
from .timing import Comparison, Side, choose_device, run, same
from .timing import Options as Common

PLAIN = "MHSA, fused kernel"
LAYERS = {
    "mhsa": "mhsa",
    "table": "rpb",
    "log_cpb": "log_cpb/additive",
    "shaw": "shaw2d/contextual",
    "irpe": "irpe/contextual",
    "psa": "psa",
    "gpsa": "gpsa",
    "spsa": "spsa",
    "anchored": "anchored",
    "window": "window",
}
GRIDS = {32: 8, 224: 14, 384: 24}  # rows of patches of an image: 4 pixels a side at 32, else 16
WINDOW = {8: 4, 14: 7, 24: 8}


@dataclass(frozen=True)
class Options(Common):
    """Time layers of attention."""

    layers: tuple[str, ...] = tuple(LAYERS)
    """Which ones: mhsa, table, log_cpb, shaw, irpe, psa, gpsa, spsa, anchored, window."""
    images: tuple[int, ...] = (224, 384, 32)
    """Sides of the images in pixels, in patches of 16; of 4 at 32."""
    passes: tuple[Literal["training", "inference"], ...] = ("training", "inference")
    """training: forward and backward; inference: forward alone, without gradients."""
    dtypes: tuple[Literal["float32", "bfloat16"], ...] = ()
    """Arithmetic; bfloat16 by autocast. Default: both on an accelerator, float32 on a CPU."""
    compiled: tuple[Literal["no", "yes"], ...] = ()
    """Whether each side goes through torch.compile. Default: both on an accelerator, no on a CPU."""
    dim: int = 384
    """Width of the tokens."""
    heads: int = 6
    """Number of heads; gpsa and psa start best with a square of them."""
    batch: int = 0
    """Images a step. Default: 8 on a CPU, and 256 on an accelerator, 64 at 384 pixels."""
    hidden: int = 64
    """Hidden width of SP-SA's prior; the released models have 64."""


def build(name: str, options: Options, grid: Grid) -> MHSA:
    """Build one layer, away from its start where that is neutral."""
    more = {}
    if name in ("spsa", "anchored"):
        more["hidden"] = options.hidden
    if name == "window":
        more["size"] = WINDOW.get(grid[0], 4)
    layer = build_attention(LAYERS[name], options.dim, options.heads, grid=grid, **more)
    prior = getattr(layer.spatial, "prior", layer.spatial) if name in ("spsa", "anchored") else None
    if prior is not None:
        nn.init.normal_(prior.w2, std=0.1)
    return layer


def sides_of(name: str, options: Options, grid: Grid) -> dict[str, nn.Module]:
    """Build the layers that are compared: plain attention, then those that do the same as each other, which is checked."""
    torch.manual_seed(0)
    ours = build(name, options, grid)
    plain = {PLAIN: ours if name == "mhsa" else MHSA(options.dim, options.heads)}
    layers = {} if name == "mhsa" else {name: ours}
    layers["written out"] = written_out(ours)
    if type(ours) is SPSA:
        layers["released layout, all pairs"] = all_pairs(ours)
    layers |= timm_peers(ours, grid)
    check(plain | layers if name == "mhsa" else layers, grid, options.dim)
    return plain | layers


def add_paths(layers: dict[str, nn.Module], case: dict, grid: Grid, device: torch.device) -> None:
    """Put the other paths of a layer that multiplies its scores beside it, checked: `paths.PATHS`, where they can be had.

    flex on a CPU has no gradients, and the path compiled is nothing of its own where the whole is compiled.
    """
    ours = layers.get(case["layer"])
    if not hasattr(ours, "path"):
        return
    training, cuda = case["pass"] == "training", device.type == "cuda"
    eager = case["compiled"] == "no"
    wanted = {"recomputed": training and eager, "compiled": eager and cuda, "flex": cuda or (not eager and not training)}
    besides = {f"{case['layer']}, path {path}": path for path, there in wanted.items() if there}
    for name, path in besides.items():
        layers[name] = copy.deepcopy(ours)
        take_path(layers[name], path)
    # FlexAttention multiplies matrices of float32 in TF32.
    all_paths = {name: layers[name] for name in (case["layer"], *besides)}
    check(all_paths, grid, case["dim"], device=device, training=training, tolerance=1e-2 if cuda else 1e-4)


def check(
    layers: dict[str, nn.Module],
    grid: Grid,
    dim: int,
    *,
    device: torch.device | str = "cpu",
    training: bool = True,
    tolerance: float = 1e-4,
) -> None:
    """Hold all layers to the first, in value and, in training, in the gradients of the tokens and of the last weights."""
    x = torch.randn(2, grid[0] * grid[1], dim, device=device, requires_grad=training)
    direction, values, gradients = torch.randn_like(x), {}, {}
    for name, layer in layers.items():
        with torch.set_grad_enabled(training):
            values[name] = layer.to(device)(x, grid)
        if training:
            proj = getattr(layer, "layer", layer).proj.weight
            gradients[name] = list(torch.autograd.grad((values[name] * direction).sum(), [x, proj]))
    same(values, rtol=tolerance, atol=tolerance)
    same(gradients, rtol=10 * tolerance, atol=10 * tolerance)


def training_step(layer: nn.Module, x: Tensor, grid: Grid, *, dtype: torch.dtype = torch.float32) -> Callable[[], None]:
    """Make a step: forward and backward of one layer, from a given gradient of its result, gradients of its input too."""
    gradient = torch.randn_like(x)  # in place of a loss, which would need time and memory of its own

    def step() -> None:
        layer.zero_grad()
        with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
            y = layer(x, grid)
        y.backward(gradient.to(y.dtype))

    return step


def inference_step(layer: nn.Module, x: Tensor, grid: Grid, *, dtype: torch.dtype = torch.float32) -> Callable[[], Tensor]:
    """Make a step: the forward pass of one layer, without gradients."""

    def step() -> Tensor:
        with torch.no_grad(), torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
            return layer(x, grid)

    return step


def multiply_adds(layer: nn.Module, ours: MHSA, grid: Grid) -> int:
    """Count one image's forward pass; of another's layer as of ours, but for a map that is made on all pairs."""
    tokens = grid[0] * grid[1]
    cost = attention_cost(ours, asking=tokens, seen=tokens, grid=grid)
    if isinstance(layer, AllPairs):
        f = layer.spatial
        cost["map"] = (f.w1.numel() + f.w2.numel() + layer.heads) * tokens**2
    return sum(cost.values())


def comparisons(options: Options, device: torch.device) -> Iterator[Comparison]:
    """List what is compared, what matters most first."""
    fast = device.type == "cuda"
    dtypes = options.dtypes or (("bfloat16", "float32") if fast else ("float32",))
    for compiled in options.compiled or (("no", "yes") if fast else ("no",)):
        for dtype in dtypes:
            for image in options.images:
                side = GRIDS.get(image, image // 16)
                grid = (side, side)
                batch = options.batch or ((256 if image < 384 else 64) if fast else 8)
                for pass_ in options.passes:
                    for name in options.layers:
                        case = {"layer": name, "rows": side, "columns": side, "batch": batch, "dim": options.dim}
                        case |= {"heads": options.heads, "pass": pass_, "dtype": dtype, "compiled": compiled}
                        yield Comparison(case, lambda case=case, grid=grid: timed(case, grid, options, device))


def timed(case: dict, grid: Grid, options: Options, device: torch.device) -> dict[str, Side]:
    """Build a comparison's sides on the device, as steps."""
    layers = sides_of(case["layer"], options, grid)
    add_paths(layers, case, grid, device)
    ours = layers.get(case["layer"], layers[PLAIN])
    x = torch.randn(case["batch"], grid[0] * grid[1], options.dim, device=device)
    training = case["pass"] == "training"
    make = training_step if training else inference_step
    found = {}
    for name, layer in layers.items():
        counted = multiply_adds(layer, layers[PLAIN] if name == PLAIN else ours, grid)
        layer = layer.to(device).train(training)
        if case["compiled"] == "yes":
            layer = torch.compile(layer, dynamic=False)
        step = make(layer, x.clone().requires_grad_(training), grid, dtype=getattr(torch, case["dtype"]))
        found[name] = Side(step, images=case["batch"], multiply_adds=counted, passes=3 if training else 1)
    return found


def main(options: Options) -> int:
    """Run this part of the benchmark; returns the exit status."""
    if unknown := [name for name in options.layers if name not in LAYERS]:
        raise UserError(f"no layer is called {unknown[0]!r}; there are {', '.join(LAYERS)}")
    if options.quick:
        options = dataclasses.replace(
            options, dim=48, heads=4, hidden=16, images=(32,), batch=2, rounds=min(options.rounds, 5)
        )
    device = choose_device(options)
    run("benchmark_attention", comparisons(options, device), options, title="Layers of attention")
    return 0
