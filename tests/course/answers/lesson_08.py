"""Lesson 08: right answers that are written in an unusual way, and wrong ones that the bank does not hold as they stand."""

import itertools
import math

import torch
import torch.nn.functional as F

from spvit_mini.attention import MHSA
from spvit_mini.geometry import offsets
from spvit_mini.spatial import PriorMLP


def prior_by_loops(delta, w1, b1, w2, b2):
    ramps = [[(delta @ w1[h, k] + b1[h, k]).clamp(min=0) for k in range(w1.shape[1])] for h in range(len(b2))]
    return torch.stack([sum(w * ramp for w, ramp in zip(w2[h], ramps[h], strict=True)) + b2[h] for h in range(len(b2))])


def prior_by_linear(delta, w1, b1, w2, b2):
    hidden = F.linear(delta, w1.flatten(0, 1), b1.flatten()).unflatten(-1, b1.shape)
    return torch.einsum("...hk,hk->...h", F.relu(hidden), w2).add(b2).movedim(-1, 0)


def prior_with_ones(delta, w1, b1, w2, b2):
    """Take both biases for weights of a 1."""
    longer = torch.cat([delta, torch.ones_like(delta[..., :1])], dim=-1)
    hidden = torch.einsum("hkd,...d->h...k", torch.cat([w1, b1[..., None]], dim=-1), longer).relu()
    hidden = torch.cat([hidden, torch.ones_like(hidden[..., :1])], dim=-1)
    last = torch.cat([w2, b2[:, None]], dim=-1)
    return torch.einsum("h...k,hk->h...", hidden, last)


class ByHand(MHSA):
    """What the right classes share: the given `__init__`."""

    def __init__(self, dim, heads, hidden=32):
        super().__init__(dim, heads)
        self.spatial = PriorMLP(heads, hidden)

    def attend(self, q, k, v, grid):
        return self.weights(q, k, grid) @ v


class ByScaling(ByHand):
    def weights(self, q, k, grid):
        f, prefix = self.spatial(grid), q.shape[2] - grid[0] * grid[1]
        factor = torch.ones(len(f), q.shape[2], q.shape[2]).to(f)
        factor[:, prefix:, prefix:] = f
        return torch.softmax(q @ k.mT * factor / math.sqrt(q.shape[-1]), dim=-1)


class ByCutting(ByHand):
    def weights(self, q, k, grid):
        f, scores = self.spatial(grid), self.scores(q, k)
        prefix = scores.shape[-1] - f.shape[-1]
        patches = torch.cat([scores[..., prefix:, :prefix], f * scores[..., prefix:, prefix:]], dim=-1)
        return F.softmax(torch.cat([scores[..., :prefix, :], patches], dim=-2), dim=3)


class ByChange(ByHand):
    """f ⊙ S = S + (f − 1) ⊙ S, and 0 is neutral for what is added."""

    def weights(self, q, k, grid):
        scores = self.scores(q, k)
        prefix = q.shape[-2] - grid[0] * grid[1]
        more = F.pad(self.spatial(grid) - 1, (prefix, 0, prefix, 0))
        exponentials = (scores + more * scores).exp()
        return exponentials / exponentials.sum(-1, keepdim=True)


def moves_by_autograd(layer, x, grid):
    named = list(layer.spatial.named_parameters())
    gradients = torch.autograd.grad((layer(x, grid) ** 3).mean(), [p for _, p in named])
    return frozenset(name for (name, _), gradient in zip(named, gradients, strict=True) if gradient.abs().max() > 0)


def moves_by_stepping(layer, x, grid):
    optimiser = torch.optim.SGD(layer.spatial.parameters(), lr=1.0)
    before = {name: value.detach().clone() for name, value in layer.spatial.named_parameters()}
    optimiser.zero_grad()
    layer(x, grid).square().sum().backward()
    optimiser.step()
    return {name for name, value in layer.spatial.named_parameters() if not torch.equal(value, before[name])}


def moves_by_reasoning(layer, x, grid):
    """Follow the chain rule by hand: what stands between a parameter and f, and is it 0?"""
    s = layer.spatial
    hidden = (torch.einsum("hkd,abd->hkab", s.w1, offsets(*grid).to(s.w1)) + s.b1[..., None, None]).relu()
    moves = {"b2": True, "w2": hidden.any(), "w1": (s.w2[..., None, None] * hidden).any()}
    return {name for name, it_does in (moves | {"b1": moves["w1"]}).items() if it_does}


class Renamed(MHSA):
    def __init__(self, dim, heads, hidden=32):
        super().__init__(dim, heads)
        self.prior = PriorMLP(heads, hidden)


class Sliced(ByHand):
    """Cut with [:-P], which is nothing for P = 0."""

    def weights(self, q, k, grid):
        f, scores = self.spatial(grid), self.scores(q, k)
        prefix = scores.shape[-1] - f.shape[-1]
        return (f * scores[..., :-prefix, :-prefix]).softmax(-1)


odd_sets = itertools.cycle([{"w1"}, {"b1", "b2"}, set(), {"w1", "w2"}])

RIGHT = {
    "prior": [prior_by_loops, prior_by_linear, prior_with_ones],
    "SPSA": [ByScaling, ByCutting, ByChange],
    "moves_at_step0": [moves_by_autograd, moves_by_stepping, moves_by_reasoning],
}
REFUSED = [
    ("SPSA", "the weights do not fit", Renamed),
    ("SPSA", "P is not always 0 or 1", Sliced),
    ("moves_at_step0", "different from the expected values", lambda layer, x, grid: next(odd_sets)),
    ("moves_at_step0", "not a set of names", lambda layer, x, grid: "w2"),
    ("moves_at_step0", "it returns a list, not a set of names", lambda layer, x, grid: ["w2", "b2"]),
    ("moves_at_step0", "[0] to [3] stand for w1, b1, w2, b2",
        lambda layer, x, grid: {"w1", "w2", "b1"} if x.shape[1] == 4 else {"w2"}),
    ("moves_at_step0", "'spatial.w2' is none of the names", lambda layer, x, grid: {"spatial.w2"}),
    ("moves_at_step0", "is none of the names", lambda layer, x, grid: {"qkv.weight", "w2"}),
]
STUMBLING = [("prior", lambda delta, w1, b1, w2, b2: (delta @ w1.mT + b1).relu() @ w2 + b2)]
