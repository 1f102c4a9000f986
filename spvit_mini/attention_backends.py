"""Backends of the attention that multiplies its scores: how softmax(f ⊙ S + g) @ v is computed.

The fused kernels of PyTorch can add a mask to the scores S, but they can't multiply S by a map f. So there are

    eager           scores, product, softmax, product with v, one after the other; on a CPU for a few images at a time.
    recompute       the same, but the backward pass recomputes scores and weights, a few at a time, in place of storing
                    B·H·N² numbers: one more product, for the memory of plain attention through its fused kernel.
    compile         eager through torch.compile, which makes one pass over the scores of product, sum and softmax.
    flex_attention  FlexAttention (Dong et al. 2024): scores are computed block by block on the chip and never stored, which
                    pays where B·H·N² numbers don't fit. f is passed expanded to all pairs: its gradient is accumulated by
                    atomic operations, and then only the images share an address, not all pairs of an offset.

The attribute `backend` of an attention names one of them, or "auto"; `set_backend` sets it for a whole model, and
`choose_backend` returns the backend in use and the reason. No backend is chosen by a measurement at run time, and auto
never uses one whose gradients differ from run to run. There is no Triton kernel: measurements must ask for one first.

Without gradients the map of a layer is computed once for a grid and cached: see `cached_map`.

Letters: B batch, N tokens, H heads, C head width.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .errors import UserError, near
from .spatial import OffsetMap

BACKENDS = ("auto", "eager", "recompute", "compile", "flex_attention")
Map = TypeVar("Map")


class Choice(NamedTuple):
    """A backend, and the reason for it."""

    backend: str
    reason: str


def choose_backend(requested: str, device: torch.device | str, *, gradients: bool) -> Choice:
    """Choose the backend for a request, one of `BACKENDS`; `gradients` says whether a backward pass may follow.

    Raises UserError for an unknown backend, and for flex_attention if it has no gradients, or none that are the same in
    each run although deterministic algorithms are on.
    """
    if requested not in BACKENDS:
        raise UserError(f"backend is {requested!r}; expected one of {', '.join(BACKENDS)}.{near(requested, BACKENDS)}")
    if requested == "flex_attention" and gradients:
        if torch.device(device).type != "cuda":
            raise UserError("FlexAttention has gradients on CUDA alone; use the backend auto, or no gradients")
        if torch.are_deterministic_algorithms_enabled():
            raise UserError("FlexAttention sums a map's gradients in any order, but deterministic algorithms are on; use auto")
    if requested == "flex_attention":
        return Choice("flex_attention", "requested: it stores no scores")
    if torch.compiler.is_compiling():
        return Choice("eager", "the whole model is being compiled, which fuses product and softmax by itself")
    if requested == "auto" and torch.device(device).type == "cpu":
        return Choice("eager", "on a CPU compiling was slower where it was measured, and FlexAttention has no gradients")
    reasons = {
        "auto": "its gradients are the same in each run; compile the model to fuse product and softmax",
        "eager": "requested",
        "recompute": "requested: it stores no scores for the backward pass",
        "compile": "requested: product and softmax become one pass over the scores",
    }
    return Choice("eager" if requested == "auto" else requested, reasons[requested])


def set_backend(model: nn.Module, backend: str) -> int:
    """Set the backend of all attentions of a model that multiply their scores; return how many these are."""
    choose_backend(backend, "cpu", gradients=False)  # refuses an unknown one
    attentions: list[Any] = [module for module in model.modules() if hasattr(module, "backend")]
    for attention in attentions:
        attention.backend = backend
    return len(attentions)


def attend_modulated(
    q: Tensor, k: Tensor, v: Tensor, f: Tensor, g: Tensor | None = None, *, backend: str = "auto"
) -> Tensor:
    """Compute softmax(f ⊙ S + g) @ v, (B, H, N, C), by a backend; f, g are maps (H or 1, N, N), q, k, v (B, H, N, C)."""
    maps = (f,) if g is None else (f, g)
    gradients = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (q, k, v, *maps))
    backend = choose_backend(backend, q.device, gradients=gradients).backend
    if backend == "flex_attention":
        return attend_flex(q, k, v, *maps)
    if backend == "compile":
        return compile_eager()(q, k, v, *maps)
    if backend == "recompute" and gradients:  # without a backward pass nothing is stored anyway
        return Recompute.apply(q, k, v, *(m.expand(q.shape[1], -1, -1) for m in maps))
    return in_cache(lambda q, k, v: attend_eager(q, k, v, *maps), q, k, v)


def attend_eager(q: Tensor, k: Tensor, v: Tensor, f: Tensor, g: Tensor | None = None) -> Tensor:
    """Compute softmax(f ⊙ S + g) @ v, one operation after the other."""
    scores = f * (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5)
    return (scores if g is None else scores + g).softmax(-1).to(v.dtype) @ v


@functools.cache
def compile_eager() -> Callable[..., Tensor]:
    """Compile `attend_eager`, once for all layers. A full graph: beyond PyTorch's limit of recompilations it raises an error,
    in place of going on uncompiled in silence."""
    return torch.compile(attend_eager, dynamic=False, fullgraph=True)


CACHE = 2**20  # bytes of scores that one core works on without going to memory


def in_cache(attend: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Apply `attend(q, k, v)` to as many images at a time as keep their scores in a CPU's cache.

    The scores of a batch are read and written six times on their way, so on a CPU this is worth a fifth of a layer's
    time at 14×14. Elsewhere, and where a compiler sees the whole, the batch goes through at once.
    """
    images = max(1, CACHE // (q.shape[1] * q.shape[2] ** 2 * q.element_size()))
    if q.device.type != "cpu" or torch.compiler.is_compiling() or images >= len(q):
        return attend(q, k, v)
    return torch.cat([attend(*part) for part in zip(q.split(images), k.split(images), v.split(images), strict=True)])


class Recompute(torch.autograd.Function):
    """Compute softmax(f ⊙ S + g) @ v and its gradients; only q, k, v, the maps and the result are stored.

    With P = softmax(X), X = f ⊙ S + g, O = P v, and dO the gradient of O, the backward pass is

        dv = Pᵀ dO      dX = P ⊙ (dO vᵀ − Σ dO ⊙ O)      df = Σ_images dX ⊙ S      dg = Σ_images dX      dS = f ⊙ dX

    where the sum in dX, over the width of a head, replaces the sum of P ⊙ (dO vᵀ) over the keys (Dao et al. 2022,
    FlashAttention, appendix B.2), so that no row of P is needed twice.
    """

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, f: Tensor, g: Tensor | None = None) -> Tensor:
        out = torch.empty_like(v, memory_format=torch.contiguous_format)
        for images, heads in split_batch(q):
            part = images, heads
            _, weights = scores_and_weights(q[part], k[part], f[heads], None if g is None else g[heads])
            out[part] = weights.to(v.dtype) @ v[part]
        ctx.save_for_backward(q, k, v, f, g, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, f, g, out = ctx.saved_tensors
        scale = q.shape[-1] ** -0.5
        dq, dk, dv = (torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in (q, k, v))
        df = torch.zeros_like(f, memory_format=torch.contiguous_format)
        dg = None if g is None else torch.zeros_like(g, memory_format=torch.contiguous_format)
        rows = (grad * out).sum(-1, keepdim=True, dtype=f.dtype)  # (B, H, N, 1)
        for images, heads in split_batch(q):
            part = images, heads
            scores, weights = scores_and_weights(q[part], k[part], f[heads], None if g is None else g[heads])
            dv[part] = weights.to(v.dtype).transpose(-2, -1) @ grad[part]
            dx = (grad[part] @ v[part].transpose(-2, -1) - rows[part]).mul_(weights)
            df[heads] += (dx * scores).sum(0)
            if dg is not None:
                dg[heads] += dx.sum(0)
            ds = dx.mul_(f[heads]).mul_(scale).to(q.dtype)
            dq[part], dk[part] = ds @ k[part], ds.transpose(-2, -1) @ q[part]
        return dq, dk, dv, df, dg


def scores_and_weights(q: Tensor, k: Tensor, f: Tensor, g: Tensor | None) -> tuple[Tensor, Tensor]:
    """Compute S and softmax(f ⊙ S + g) of a piece."""
    scores = (q @ k.transpose(-2, -1)).mul_(q.shape[-1] ** -0.5)
    modulated = scores * f
    return scores, torch.softmax(modulated if g is None else modulated.add_(g), -1)


def split_batch(q: Tensor) -> list[tuple[slice, slice]]:
    """Split a batch into pieces, (images, heads): on a CPU so small that its cache holds their scores and a head's maps."""
    B, H, N, _ = q.shape
    if q.device.type != "cpu":
        return [(slice(0, B), slice(0, H))]
    images = max(1, CACHE // (N * N * q.element_size()))
    return [(slice(b, b + images), slice(h, h + 1)) for h in range(H) for b in range(0, B, images)]


def attend_flex(q: Tensor, k: Tensor, v: Tensor, f: Tensor, g: Tensor | None = None, *, compile: bool = True) -> Tensor:
    """Compute softmax(f ⊙ S + g) @ v by FlexAttention. Without `compile` it stores the scores: only to check values."""
    f = f.expand(q.shape[1], -1, -1).contiguous()
    g = None if g is None else g.expand(q.shape[1], -1, -1).contiguous()

    def modulate(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        score = score * f[h, i, j]
        return score if g is None else score + g[h, i, j]

    compile = compile and not torch.compiler.is_compiling()
    return (compile_flex() if compile else import_flex_attention().flex_attention)(q, k, v, score_mod=modulate)


@functools.cache
def compile_flex() -> Callable[..., Tensor]:
    """Compile FlexAttention, once for all layers; as a full graph, since beyond the limit of recompilations it would store
    all scores in silence."""
    return torch.compile(import_flex_attention().flex_attention, dynamic=False, fullgraph=True)


def import_flex_attention():
    """Import PyTorch's module of FlexAttention late, since it needs a second."""
    from torch.nn.attention import flex_attention

    return flex_attention


# --- Cached maps ---------------------------------------------------------------------------------------------------------

# Of each layer: what its map depends on except numbers, these numbers, and what was computed.
MAP_CACHE: WeakKeyDictionary[nn.Module, tuple] = WeakKeyDictionary()


def cached_map(layer: nn.Module, key: tuple, compute: Callable[[], Map]) -> Map:
    """Compute something from the map of a layer, or return it from the cache.

    It is cached if no gradients are needed and the layer is not in training, because then only a hand changes the map. The
    numbers behind it are cached too, and it is recomputed unless all of them are the same, to the bit. The comparison costs
    a small part of the map. There is one entry for each layer, outside of the layer, so that neither copies nor files of
    the layer contain it.

    Args:
        layer: with a map `spatial`. A map that is no `OffsetMap` is always recomputed.
        key: names what is computed, and for which grid.
        compute: computes it.
    """
    if torch.compiler.is_compiling():
        return compute()
    spatial = layer.spatial
    if torch.is_grad_enabled() or layer.training or not isinstance(spatial, OffsetMap):
        MAP_CACHE.pop(layer, None)
        return compute()
    numbers = [*spatial.parameters(), *spatial.buffers()]
    if not numbers or numbers[0].is_meta:
        return compute()
    settings = [v for m in spatial.modules() for v in vars(m).values() if isinstance(v, bool | int | float | str | tuple)]
    key = (*key, type(spatial), numbers[0].dtype, numbers[0].device, *(tensor.shape for tensor in numbers), *settings)
    values = torch.cat([tensor.flatten() for tensor in numbers])
    if layer in MAP_CACHE:
        cached_key, cached_values, result = MAP_CACHE[layer]
        if key == cached_key and torch.equal(values, cached_values):
            return result
    MAP_CACHE[layer] = key, values, compute()
    return MAP_CACHE[layer][2]
