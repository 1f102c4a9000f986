"""One layer of each kind: its backends, its eager equation, and timm's layer.

The first side of each comparison is plain attention with the fused kernel, the reference of all ratios. The other sides have
the same weights; before they are timed, their values and gradients are checked to agree.

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
from spvit_mini.attention_backends import set_backend
from spvit_mini.attention_registry import build_attention
from spvit_mini.config import Width
from spvit_mini.errors import UserError
from spvit_mini.fields import Natural, Pixels
from spvit_mini.flops import attention_cost
from spvit_mini.geometry import Grid

from .baselines import AllPairs, build_all_pairs, build_eager, build_timm_layers
from .timing import CommonOptions, Comparison, Side, check_equal, choose_device, run_comparisons

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
GRIDS = {32: 8, 224: 14, 384: 24}  # rows of patches by image side: patches of 4 pixels at 32, else of 16
WINDOW = {8: 4, 14: 7, 24: 8}


@dataclass(frozen=True)
class Options(CommonOptions):
    """Time layers of attention."""

    layers: tuple[str, ...] = tuple(LAYERS)
    """Layers: mhsa, table, log_cpb, shaw, irpe, psa, gpsa, spsa, anchored, window."""
    images: tuple[Pixels, ...] = (224, 384, 32)
    """Sides of the images in pixels; patches of 16 pixels, of 4 at 32."""
    passes: tuple[Literal["training", "inference"], ...] = ("training", "inference")
    """training: forward and backward; inference: forward without gradients."""
    dtypes: tuple[Literal["float32", "bfloat16"], ...] = ()
    """Precision; bfloat16 by autocast. Default: both on an accelerator, float32 on a CPU."""
    compile: tuple[Literal["no", "yes"], ...] = ()
    """Use torch.compile for each side. Default: both on an accelerator, no on a CPU."""
    dim: Width = 384
    """Width of the tokens."""
    heads: Width = 6
    """Number of heads; gpsa and psa are initialised best for a square number."""
    batch_size: Natural = 0
    """Images per step. 0: 8 on a CPU; 256 on an accelerator, 64 at 384 pixels."""
    hidden: Width = 64
    """Hidden width of SP-SA's prior, 64 in the released models."""


def build_layer(name: str, options: Options, grid: Grid) -> MHSA:
    """Build a layer; a neutral map gets random weights instead."""
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


def build_layers(name: str, options: Options, grid: Grid) -> dict[str, nn.Module]:
    """Build the layers of a comparison: plain attention, then the layers that compute the same, which is checked."""
    torch.manual_seed(0)
    ours = build_layer(name, options, grid)
    plain = {PLAIN: ours if name == "mhsa" else MHSA(options.dim, options.heads)}
    layers = {} if name == "mhsa" else {name: ours}
    layers["written out"] = build_eager(ours)
    if type(ours) is SPSA:
        layers["released layout, all pairs"] = build_all_pairs(ours)
    layers |= build_timm_layers(ours, grid)
    check_layers(plain | layers if name == "mhsa" else layers, grid, options.dim)
    return plain | layers


def add_backends(layers: dict[str, nn.Module], case: dict, grid: Grid, device: torch.device) -> None:
    """Add copies of a layer with the other backends that the device has, if the layer multiplies its scores; checked.

    flex_attention has no gradients on a CPU; compile adds nothing where the whole layer is compiled.
    """
    ours = layers.get(case["layer"])
    if not hasattr(ours, "backend"):
        return
    training, cuda = case["pass"] == "training", device.type == "cuda"
    eager = case["compile"] == "no"
    available = {
        "recompute": training and eager, "compile": eager and cuda, "flex_attention": cuda or (not eager and not training)
    }  # fmt: skip
    copies = {f"{case['layer']}, backend {backend}": backend for backend, is_available in available.items() if is_available}
    for name, backend in copies.items():
        layers[name] = copy.deepcopy(ours)
        set_backend(layers[name], backend)
    # FlexAttention multiplies matrices of float32 in TF32.
    same = {name: layers[name] for name in (case["layer"], *copies)}
    check_layers(same, grid, case["dim"], device=device, training=training, tolerance=1e-2 if cuda else 1e-4)


def check_layers(
    layers: dict[str, nn.Module],
    grid: Grid,
    dim: int,
    *,
    device: torch.device | str = "cpu",
    training: bool = True,
    tolerance: float = 1e-4,
) -> None:
    """Check that all layers equal the first, in value and, for training, in the gradients of tokens and output projection."""
    x = torch.randn(2, grid[0] * grid[1], dim, device=device, requires_grad=training)
    direction, values, gradients = torch.randn_like(x), {}, {}
    for name, layer in layers.items():
        with torch.set_grad_enabled(training):
            values[name] = layer.to(device)(x, grid)
        if training:
            proj = getattr(layer, "layer", layer).proj.weight
            gradients[name] = list(torch.autograd.grad((values[name] * direction).sum(), [x, proj]))
    check_equal(values, rtol=tolerance, atol=tolerance)
    check_equal(gradients, rtol=10 * tolerance, atol=10 * tolerance)


def make_training_step(layer: nn.Module, x: Tensor, grid: Grid, *, dtype: torch.dtype = torch.float32) -> Callable[[], None]:
    """Make a step: forward and backward pass of a layer, from a given gradient of its output, down to its input."""
    gradient = torch.randn_like(x)  # replaces a loss, which would need time and memory too

    def step() -> None:
        layer.zero_grad()
        with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
            y = layer(x, grid)
        y.backward(gradient.to(y.dtype))

    return step


def make_inference_step(layer: nn.Module, x: Tensor, grid: Grid, *, dtype: torch.dtype = torch.float32) -> Callable[[], Tensor]:
    """Make a step: the forward pass of a layer, without gradients."""

    def step() -> Tensor:
        with torch.no_grad(), torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
            return layer(x, grid)

    return step


def count_multiply_adds(layer: nn.Module, ours: MHSA, grid: Grid) -> int:
    """Count the multiply-adds of one image's forward pass, as for our layer; a map on all pairs counts as such."""
    tokens = grid[0] * grid[1]
    cost = attention_cost(ours, queries=tokens, keys=tokens, grid=grid)
    if isinstance(layer, AllPairs):
        f = layer.spatial
        cost["map"] = (f.w1.numel() + f.w2.numel() + layer.heads) * tokens**2
    return sum(cost.values())


def list_comparisons(options: Options, device: torch.device) -> Iterator[Comparison]:
    """List the comparisons in order of importance."""
    cuda = device.type == "cuda"
    dtypes = options.dtypes or (("bfloat16", "float32") if cuda else ("float32",))
    for compile_ in options.compile or (("no", "yes") if cuda else ("no",)):
        for dtype in dtypes:
            for image in options.images:
                side = GRIDS.get(image, image // 16)
                grid = (side, side)
                batch = options.batch_size or ((256 if image < 384 else 64) if cuda else 8)
                for pass_ in options.passes:
                    for name in options.layers:
                        case = {"layer": name, "rows": side, "columns": side, "batch": batch, "dim": options.dim}
                        case |= {"heads": options.heads, "pass": pass_, "dtype": dtype, "compile": compile_}
                        yield Comparison(case, lambda case=case, grid=grid: build_sides(case, grid, options, device))


def build_sides(case: dict, grid: Grid, options: Options, device: torch.device) -> dict[str, Side]:
    """Build the steps of a comparison on the device."""
    layers = build_layers(case["layer"], options, grid)
    add_backends(layers, case, grid, device)
    ours = layers.get(case["layer"], layers[PLAIN])
    x = torch.randn(case["batch"], grid[0] * grid[1], options.dim, device=device)
    training = case["pass"] == "training"
    make_step = make_training_step if training else make_inference_step
    sides = {}
    for name, layer in layers.items():
        count = count_multiply_adds(layer, layers[PLAIN] if name == PLAIN else ours, grid)
        layer = layer.to(device).train(training)
        if case["compile"] == "yes":
            layer = torch.compile(layer, dynamic=False)
        step = make_step(layer, x.clone().requires_grad_(training), grid, dtype=getattr(torch, case["dtype"]))
        sides[name] = Side(step, images=case["batch"], multiply_adds=count, passes=3 if training else 1)
    return sides


def main(options: Options) -> int:
    """Run this part of the benchmark; returns the exit status."""
    if unknown := [name for name in options.layers if name not in LAYERS]:
        raise UserError(f"no layer is called {unknown[0]!r}; expected some of {', '.join(LAYERS)}")
    if options.quick:
        options = dataclasses.replace(
            options, dim=48, heads=4, hidden=16, images=(32,), batch_size=2, rounds=min(options.rounds, 5)
        )
    device = choose_device(options)
    run_comparisons("benchmark_attention", list_comparisons(options, device), options, title="Layers of attention")
    return 0
