"""Lesson 08's answers with options: each is right as it stands, and each changed option is one mistake."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spvit_mini.attention import MHSA
from spvit_mini.geometry import Grid
from spvit_mini.spatial import PriorMLP

OFFSETS = {
    "as it is": lambda delta: delta,
    "columns, rows": lambda delta: delta.flip(-1),
    "query − key": lambda delta: -delta,
    "absolute": lambda delta: delta.abs(),
    "rows turned": lambda delta: delta * delta.new_tensor([-1.0, 1.0]),
    "columns turned": lambda delta: delta * delta.new_tensor([1.0, -1.0]),
    "rows only": lambda delta: delta * delta.new_tensor([1.0, 0.0]),
    "columns only": lambda delta: delta * delta.new_tensor([0.0, 1.0]),
    "by the farthest": lambda delta: delta / delta.abs().max(),
    "each by its farthest": lambda delta: delta / delta.reshape(-1, 2).abs().amax(0),
    "length": lambda delta: delta.norm(dim=-1, keepdim=True).expand_as(delta),
    "log": lambda delta: delta.sign() * delta.abs().add(1).log2(),
    "shifted from 0": lambda delta: delta - delta.reshape(-1, 2).amin(0),
}
ACTIVATIONS = {
    "ReLU": torch.relu,
    "none": lambda hidden: hidden,
    "GELU": F.gelu,
    "σ": torch.sigmoid,
    "tanh": torch.tanh,
    "absolute": torch.abs,
    "1": lambda hidden: (hidden > 0).to(hidden),
}


def prior(
    delta: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    *,
    seen: str = "as it is",
    fold: str = "ReLU",
    first_bias: str = "before",
    last_bias: str = "own",
    hidden: str = "own",
    last: str = "w2",
    total: str = "sum",
    output: str = "as it is",
    heads: str = "first",
) -> Tensor:
    """Compute f_h(δ) = w2_h · ReLU(W1_h δ + b1_h) + b2_h: offsets (…, 2), weights of H heads → (H, …)."""
    if hidden == "shared":
        w1, b1 = w1[:1].expand_as(w1), b1[:1].expand_as(b1)
    elif hidden == "the mean":
        w1, b1 = w1.mean(0, keepdim=True).expand_as(w1), b1.mean(0, keepdim=True).expand_as(b1)
    w2 = {"w2": w2, "shared": w2[:1].expand_as(w2), "left out": torch.ones_like(w2)}[last]
    units = torch.einsum("...d,hkd->...hk", OFFSETS[seen](delta), w1)
    before = units + b1 if first_bias == "before" else units - b1 if first_bias == "subtracted" else units
    after = ACTIVATIONS[fold](before) + (b1 if first_bias == "after" else 0)
    result = (after * w2).mean(-1) if total == "mean" else (after * w2).sum(-1)
    result = result.relu() if total == "folded" else result
    result = result + {"own": b2, "left out": 0.0, "1": 1.0, "the first": b2[:1], "1 too": b2 + 1}[last_bias]
    result = {"as it is": result, "ReLU": result.relu(), "σ": result.sigmoid(), "exp": result.exp()}[output]
    if heads == "added":
        return result.sum(-1)
    return result.movedim(-1, 0) if heads == "first" else result


class SPSA(MHSA):
    """SP-SA: a learned prior multiplies the scores. The options say what goes wrong."""

    def __init__(
        self,
        dim: int,
        heads: int,
        hidden: int = 32,
        *,
        way: str = "multiplied",
        root: str = "√C",
        axis: str = "keys",
        pairs: str = "query, key",
        maps: str = "one each",
        frame: str = "1",
        times: str = "once",
    ):
        super().__init__(dim, heads)
        self.spatial = PriorMLP(heads, hidden)
        self.way, self.root, self.axis, self.pairs, self.maps = way, root, axis, pairs, maps
        self.frame, self.times = frame, times

    def weights(self, q: Tensor, k: Tensor, grid: Grid) -> Tensor:
        f = self.spatial(grid)
        if self.pairs == "key, query":
            f = f.mT
        f = {"one each": f, "the first": f[:1], "the mean": f.mean(0, keepdim=True)}[self.maps]
        width, prefix = q.shape[-1], q.shape[-2] - f.shape[-1]
        factor = {"√C": 1, "none": width**0.5, "after": width**0.5, "C": width**-0.5, "√D": self.heads**-0.5}[self.root]
        scores = self.scores(q, k) * factor
        if self.frame == "patches alone":
            scores, prefix = scores[..., prefix:, prefix:], 0
        f = pad_map(f, prefix, self.frame)
        if self.times == "before too":
            scores = self.share(scores)
        if self.way in ("multiplied after", "shared anew"):
            mixed = self.share(scores) * f
            mixed = mixed / mixed.sum(-1, keepdim=True) if self.way == "shared anew" else mixed
        else:
            mixed = {
                "multiplied": lambda: f * scores,
                "added": lambda: scores + f,
                "both": lambda: scores + f * scores,
                "divided": lambda: scores / f,
                "on sizes": lambda: f * scores.abs(),
                "alone": lambda: f.expand_as(scores),
                "left out": lambda: scores,
                "matrix product": lambda: f @ scores,
            }[self.way]()
            mixed = self.share(mixed)
        mixed = mixed * width**-0.5 if self.root == "after" else mixed
        return self.share(mixed) if self.times == "after too" else mixed

    def share(self, scores: Tensor) -> Tensor:
        if self.axis == "none":
            return scores
        return scores.softmax({"keys": -1, "queries": -2, "heads": 1}[self.axis])


def pad_map(f: Tensor, prefix: int, how: str) -> Tensor:
    """Frame a map (H, N, N) for prefix tokens: with 1, or as a mistake does."""
    if how == "last":
        return F.pad(f, (0, prefix, 0, prefix), value=1.0)
    if how in ("one token", "none or one", "none"):  # with another prefix than that, shapes don't fit
        assumed = {"one token": 1, "none or one": min(prefix, 1), "none": 0}[how]
        return F.pad(f, (assumed, 0, assumed, 0), value=1.0)
    whole = F.pad(f, (prefix, 0, prefix, 0), value=1.0)
    if how in ("0", "0 but for itself", "rows of 0"):
        whole[..., :prefix, prefix:] = 0.0
    if how in ("0", "0 but for itself", "columns of 0"):
        whole[..., prefix:, :prefix] = 0.0
    if how in ("0", "rows of 0", "columns of 0"):  # the corner goes with either
        whole[..., :prefix, :prefix] = 0.0
    if how == "−inf":
        whole[..., prefix:, :prefix] = float("-inf")
    return whole


def moves_at_step0(
    layer: nn.Module,
    x: Tensor,
    grid: Grid,
    *,
    counts: str = "gradient",
    old: str = "dropped",
    named: str = "those that move",
) -> set[str]:
    """Name the parameters of a layer's prior whose gradient is not 0 at its present values."""
    parameters = dict(layer.spatial.named_parameters())
    if old == "dropped":
        layer.zero_grad()
    layer(x, grid).square().sum().backward()
    moves = {
        "gradient": lambda p: bool(p.grad.any()),
        "exists": lambda p: True,
        "value": lambda p: bool(p.detach().any()),
        "no gradient": lambda p: not p.grad.any(),
        "all of it": lambda p: bool(p.grad.all()),
        "never": lambda p: False,
    }[counts]
    names = {name for name, parameter in parameters.items() if moves(parameter)}
    return {
        "those that move": names,
        "w1 too": names | {"w1"},
        "b1 too": names | {"b1"},
        "w1 and b1 too": names | {"w1", "b1"},
        "w2 left out": names - {"w2"},
        "b2 left out": names - {"b2"},
        "always w2, b2": {"w2", "b2"},
        "always w1, b1": {"w1", "b1"},
    }[named]
