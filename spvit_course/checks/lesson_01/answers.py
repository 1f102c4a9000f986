"""Lesson 01's answers with options: each is right as it stands, and each changed option is one mistake."""

import math

import torch
from einops import rearrange
from torch import Tensor, nn


def one_head(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    root: str = "√C",
    roles: str = "query, key, value",
    turned: str = "k",
    axis: str = "keys",
    share: str = "softmax",
    scaled: str = "scores",
    result: str = "average",
    width: int | None = None,
) -> Tensor:
    """Compute softmax(q kᵀ / √C) v, right as it stands; each changed option is one mistake. `width` is D for "√D"."""
    by_role = {"query": q, "key": k, "value": v}
    q, k, v = (by_role[role] for role in roles.split(", "))
    divisor = {
        "√C": q.shape[-1] ** 0.5,
        "none": 1.0,
        "C": q.shape[-1],
        "1/√C": q.shape[-1] ** -0.5,
        "√queries": q.shape[-2] ** 0.5,
        "√keys": k.shape[-2] ** 0.5,
        "√E": v.shape[-1] ** 0.5,
        "√D": (width or q.shape[-1]) ** 0.5,
    }[root]
    keys = {
        "k": lambda: k.mT,
        "not": lambda: k,
        "by reshape": lambda: k.reshape(k.mT.shape),
        "all axes": lambda: k.permute(*reversed(range(k.ndim))),
    }[turned]()
    scores = q @ keys / (divisor if scaled == "scores" else 1.0)
    if axis == "all":
        weights = scores.flatten(-2).softmax(-1).view_as(scores)
    else:
        dim = {"keys": -1, "queries": -2, "heads": 1}[axis]
        weights = {"softmax": scores.softmax, "exp": lambda dim: scores.exp(), "scores": lambda dim: scores}[share](dim)
    weights = weights / (divisor if scaled == "weights" else 1.0)
    return {"average": lambda: weights @ v, "weights": lambda: weights, "given": lambda: weights.mT @ v}[result]()


class MHSA(nn.Module):
    """Multi-head attention, right as it stands; each changed option is one mistake. Those of `one_head` too."""

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        split: str = "(s h c)",
        meet: str = "tokens",
        merge: str = "(h c)",
        output: str = "projected",
        **options,
    ):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)
        self.split, self.meet, self.merge, self.output, self.options = split, meet, merge, output, options

    def forward(self, x: Tensor, grid) -> Tensor:
        batch, _, dim = x.shape
        head = (self.heads, -1, dim // self.heads)
        if self.split == "reshaped":
            q, k, v = (part.reshape(batch, *head) for part in self.qkv(x).chunk(3, dim=-1))
        elif self.split == "reshaped, three first":
            q, k, v = self.qkv(x).reshape(3, batch, *head)
        elif self.split == "reshaped, images first":
            q, k, v = self.qkv(x).reshape(batch, 3, *head).unbind(1)
        else:
            count = 1 if self.split == "one head" else self.heads
            pattern = "(s h c)" if self.split == "one head" else self.split
            q, k, v = rearrange(self.qkv(x), f"b n {pattern} -> s b h n c", s=3, h=count)
        last = (1, 2) if self.meet == "heads" else (1, 1)  # an axis exchanged with itself stays where it is
        q, k, v = (part.transpose(*last) for part in (q, k, v))
        mixed = one_head(q, k, v, width=dim, **self.options).transpose(*last)
        mixed = mixed.reshape(x.shape) if self.merge == "reshaped" else rearrange(mixed, f"b h n c -> b n {self.merge}")
        outputs = {"projected": self.proj, "bare": lambda y: y, "with skip": lambda y: x + self.proj(y)}
        return outputs[self.output](mixed)


def entropy(
    w: Tensor,
    *,
    source: str = "weights",
    base: float = math.e,
    axis: int = -1,
    sign: int = -1,
    inner: str = "w log w",
    zero: str = "0",
    total: str = "sum",
) -> Tensor:
    """Compute −Σ w log w, right as it stands; each changed option is one mistake."""
    if source == "scores":
        w = w.softmax(-1)
    way, _, small = zero.partition(" ")
    if way == "clamped":
        w = w.clamp(min=float(small))
    inside = {
        "0": lambda: torch.where(w > 0, w, 1.0),
        "plus": lambda: w + float(small),
        "log-clamped": lambda: w.clamp(min=float(small)),
    }.get(way, lambda: w)()
    terms = w * w if inner == "w²" else w * inside.log() / math.log(base)
    if total == "one number":
        return sign * terms.sum(axis).mean()
    if total == "one sum":
        return sign * terms.sum()
    result = sign * (terms.mean(axis) if total == "mean" else terms.sum(axis))
    after = {
        "effective": result.exp,
        "normalised": lambda: result / math.log(w.shape[-1]),
        "one minus": lambda: 1 + result,
    }
    return after.get(total, lambda: result)()
