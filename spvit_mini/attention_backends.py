"""How SP-SA's attention is computed: four paths to softmax(f ⊙ S + g) @ v, and which one is taken, and why.

The fused kernels of PyTorch can add a mask to the scores S, but not multiply them by a map f. So there are

    explicit    scores, product, softmax, product with v, one after the other. On a CPU some images at a time.
    recomputed  the same, but nothing of B·H·N² numbers is kept for the backward pass, which makes scores and weights anew,
                a few at a time: one more product, for the memory of plain attention through its fused kernel.
    compiled    explicit through torch.compile, which makes one pass over the scores of product, sum and softmax.
    flex        FlexAttention (Dong et al. 2024): scores are made block by block on the chip and never stored, which is
                worth it where B·H·N² numbers do not fit. f is handed over spread out to all pairs: its gradient is added
                up by atomic operations, and then only the images meet at an address, not all pairs of an offset.

A layer's attribute `path` names one of them, or "auto"; `take_path` sets it for a whole model, and `choose` says which one
is taken and why. None is chosen by a measurement at run time, and auto never takes one whose gradients are not the same in
each run. No Triton kernel of our own is here: whether one is needed, an accelerator has to say first.

Without gradients a map is made once for a grid and kept: see `kept`.

Letters: B batch, N tokens, H heads, C width of a head.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .errors import UserError, near
from .spatial import Anchored, OffsetMap

BACKENDS = ("auto", "explicit", "recomputed", "compiled", "flex")
Kept = TypeVar("Kept")


class Choice(NamedTuple):
    """A path, and why it is taken."""

    path: str
    reason: str


def choose(asked: str, device: torch.device | str, *, gradients: bool) -> Choice:
    """Tell which path is taken where `asked` is asked for, and why.

    Args:
        asked: one of `PATHS`.
        device: where the scores will be.
        gradients: whether a backward pass may follow.

    Raises UserError for an unknown path, and for flex where it has no gradients, or none that are the same in each run
    though that was asked of PyTorch.
    """
    if asked not in BACKENDS:
        raise UserError(f"no path is called {asked!r}.{near(asked, BACKENDS)} There are {', '.join(BACKENDS)}")
    if asked == "flex" and gradients:
        if torch.device(device).type != "cuda":
            raise UserError("FlexAttention has gradients on CUDA alone; take the path auto, or flex without gradients")
        if torch.are_deterministic_algorithms_enabled():
            raise UserError("FlexAttention adds a map's gradients up in any order, and deterministic algorithms are asked for; "
                            "take the path auto")  # fmt: skip
    if asked == "flex":
        return Choice("flex", "asked for: it stores no scores")
    if torch.compiler.is_compiling():
        return Choice("explicit", "the whole is being compiled, which joins product and softmax by itself")
    if asked == "recomputed":
        return Choice("recomputed", "asked for: it keeps no scores for the backward pass")
    if asked == "compiled":
        return Choice("compiled", "asked for: product and softmax become one pass over the scores")
    if asked == "auto" and torch.device(device).type == "cpu":
        return Choice("explicit", "on a CPU compiling was slower where it was measured, and FlexAttention has no gradients")
    if asked == "auto":
        return Choice("explicit", "its gradients are the same in each run; compile the model, and product and softmax join")
    return Choice("explicit", "asked for")


def take_path(model: nn.Module, path: str) -> int:
    """Let all attentions of a model that multiply their scores take a path; returns how many these are."""
    choose(path, "cpu", gradients=False)  # refuses an unknown one
    attentions = [module for module in model.modules() if hasattr(module, "path")]
    for attention in attentions:
        attention.path = path
    return len(attentions)


def attend_multiplied(
    q: Tensor, k: Tensor, v: Tensor, f: Tensor, g: Tensor | None = None, *, path: str = "auto"
) -> Tensor:
    """Compute softmax(f ⊙ S + g) @ v, (B, H, N, C), on a path; f, g are maps (H or 1, N, N), q, k, v (B, H, N, C)."""
    maps = (f,) if g is None else (f, g)
    gradients = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (q, k, v, *maps))
    taken = choose(path, q.device, gradients=gradients).path
    if taken == "flex":
        return flex(q, k, v, *maps)
    if taken == "compiled":
        return compiled()(q, k, v, *maps)
    if taken == "recomputed" and gradients:  # without a backward pass nothing is kept anyway
        return Recompute.apply(q, k, v, *(m.expand(q.shape[1], -1, -1) for m in maps))
    return in_cache(lambda q, k, v: explicit(q, k, v, *maps), q, k, v)


def explicit(q: Tensor, k: Tensor, v: Tensor, f: Tensor, g: Tensor | None = None) -> Tensor:
    """Write softmax(f ⊙ S + g) @ v out."""
    scores = f * (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5)
    return (scores if g is None else scores + g).softmax(-1).to(v.dtype) @ v


@functools.cache
def compiled() -> Callable[..., Tensor]:
    """Compile `explicit`, once for all layers. A full graph: past PyTorch's limit of recompilations it raises, and does not
    silently go on uncompiled."""
    return torch.compile(explicit, dynamic=False, fullgraph=True)


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
    """softmax(f ⊙ S + g) @ v and its gradients, of which only q, k, v, the maps and the result are kept.

    With P = softmax(X), X = f ⊙ S + g, O = P v, and dO the gradient of O, the backward pass is

        dv = Pᵀ dO      dX = P ⊙ (dO vᵀ − Σ dO ⊙ O)      df = Σ_images dX ⊙ S      dg = Σ_images dX      dS = f ⊙ dX

    where the sum in dX, over the width of a head, stands for that of P ⊙ (dO vᵀ) over the keys (Dao et al. 2022,
    FlashAttention, appendix B.2), so that no row of P is needed twice.
    """

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, f: Tensor, g: Tensor | None = None) -> Tensor:
        out = torch.empty_like(v, memory_format=torch.contiguous_format)
        for images, heads in pieces(q):
            one = images, heads
            _, weights = scores_and_weights(q[one], k[one], f[heads], None if g is None else g[heads])
            out[one] = weights.to(v.dtype) @ v[one]
        ctx.save_for_backward(q, k, v, f, g, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, f, g, out = ctx.saved_tensors
        scale = q.shape[-1] ** -0.5
        dq, dk, dv = (torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in (q, k, v))
        df, dg = (m if m is None else torch.zeros_like(m, memory_format=torch.contiguous_format) for m in (f, g))
        rows = (grad * out).sum(-1, keepdim=True, dtype=f.dtype)  # (B, H, N, 1)
        for images, heads in pieces(q):
            one = images, heads
            scores, weights = scores_and_weights(q[one], k[one], f[heads], None if g is None else g[heads])
            dv[one] = weights.to(v.dtype).transpose(-2, -1) @ grad[one]
            dx = (grad[one] @ v[one].transpose(-2, -1) - rows[one]).mul_(weights)
            df[heads] += (dx * scores).sum(0)
            if dg is not None:
                dg[heads] += dx.sum(0)
            ds = dx.mul_(f[heads]).mul_(scale).to(q.dtype)
            dq[one], dk[one] = ds @ k[one], ds.transpose(-2, -1) @ q[one]
        return dq, dk, dv, df, dg


def scores_and_weights(q: Tensor, k: Tensor, f: Tensor, g: Tensor | None) -> tuple[Tensor, Tensor]:
    """Compute S and softmax(f ⊙ S + g) of a piece."""
    scores = (q @ k.transpose(-2, -1)).mul_(q.shape[-1] ** -0.5)
    changed = scores * f
    return scores, torch.softmax(changed if g is None else changed.add_(g), -1)


def pieces(q: Tensor) -> list[tuple[slice, slice]]:
    """Cut a batch into pieces, (images, heads): on a CPU such that scores stay in its cache and a head's maps with them."""
    B, H, N, _ = q.shape
    if q.device.type != "cpu":
        return [(slice(0, B), slice(0, H))]
    images = max(1, CACHE // (N * N * q.element_size()))
    return [(slice(b, b + images), slice(h, h + 1)) for h in range(H) for b in range(0, B, images)]


def flex(q: Tensor, k: Tensor, v: Tensor, f: Tensor, g: Tensor | None = None, *, compile: bool = True) -> Tensor:
    """Compute softmax(f ⊙ S + g) @ v by FlexAttention. Not compiled, it is a look at the values: it stores the scores."""
    f, g = (m if m is None else m.expand(q.shape[1], -1, -1).contiguous() for m in (f, g))

    def change(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        score = score * f[h, i, j]
        return score if g is None else score + g[h, i, j]

    alone = compile and not torch.compiler.is_compiling()
    return (compiled_flex() if alone else flex_attention_of_torch().flex_attention)(q, k, v, score_mod=change)


@functools.cache
def compiled_flex() -> Callable[..., Tensor]:
    """Compile FlexAttention, once for all layers; as a full graph, since past the limit of recompilations it would silently
    store all scores."""
    return torch.compile(flex_attention_of_torch().flex_attention, dynamic=False, fullgraph=True)


def flex_attention_of_torch():
    """Import FlexAttention late: it takes a second, and older versions of PyTorch do not have it."""
    try:
        from torch.nn.attention import flex_attention
    except ImportError as error:
        raise UserError(
            f"PyTorch {torch.__version__} has no FlexAttention; install 2.5 or newer, or take another path"
        ) from error
    return flex_attention


# --- Maps that are kept --------------------------------------------------------------------------------------------------

KEPT: WeakKeyDictionary[nn.Module, tuple] = WeakKeyDictionary()  # of a layer: what it is of, of which numbers, the result


def kept(layer: nn.Module, what: tuple, make: Callable[[], Kept]) -> Kept:
    """Make something of a layer's map, or take what was made of it before.

    It is kept when no gradients are asked and the layer is not in training, since then nothing changes it but a hand: so
    the numbers that it was made of are kept beside it, and it is made anew unless they are all the same, to the bit. To
    compare them is a small part of making a map. Kept is the last thing made for a layer, and outside the layer, so that
    neither a copy nor a file of it has it.

    Args:
        layer: with a map `spatial`. Maps that are no function of the offset, and those of others, are always made anew.
        what: tells what is made of the map, and for which grid.
        make: makes it.
    """
    if torch.compiler.is_compiling():
        return make()
    spatial = layer.spatial
    if torch.is_grad_enabled() or layer.training or not isinstance(spatial, OffsetMap | Anchored):
        KEPT.pop(layer, None)
        return make()
    numbers = [*spatial.parameters(), *spatial.buffers()]
    if numbers[0].is_meta:
        return make()
    settings = [v for m in spatial.modules() for v in vars(m).values() if isinstance(v, bool | int | float | str | tuple)]
    of = (*what, type(spatial), numbers[0].dtype, numbers[0].device, *(tensor.shape for tensor in numbers), *settings)
    now = torch.cat([tensor.flatten() for tensor in numbers])
    if layer in KEPT:
        before, then, result = KEPT[layer]
        if of == before and torch.equal(now, then):
            return result
    KEPT[layer] = of, now, make()
    return KEPT[layer][2]
