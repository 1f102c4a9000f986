"""Lesson 01: right answers that are written in an unusual way, and wrong ones that the bank does not hold as they stand."""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import nn

from spvit_course.checks.lesson_01 import answers
from spvit_mini.explain import attribution

from .lesson_02 import stub


def one_head_by_loops(q, k, v):
    rows = []
    for query in q:
        shares = [((query * key).sum() / math.sqrt(len(query))).exp() for key in k]
        rows.append(sum(share * value for share, value in zip(shares, v, strict=True)) / sum(shares))
    return torch.stack(rows)


def one_head_by_einsum(q, k, v):
    weights = torch.einsum("ic,jc->ij", q, k).div(torch.sqrt(torch.tensor(k.shape[1]))).softmax(1)
    return torch.einsum("ij,je->ie", weights, v)


def one_head_with_both_sides_scaled(q, k, v):
    quarter = q.size(1) ** 0.25
    scores = (q / quarter) @ (k / quarter).T
    grown = (scores - scores.max(dim=1, keepdim=True).values).exp()
    return grown @ v / grown.sum(1, keepdim=True)


class Given(nn.Module):
    """What the notebook gives of MHSA."""

    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)


class MHSAHeadByHead(Given):
    def forward(self, x, grid=None):
        q, k, v = (part.split(part.shape[-1] // self.heads, dim=-1) for part in self.qkv(x).chunk(3, dim=-1))
        return self.proj(torch.cat([answers.one_head(*head) for head in zip(q, k, v, strict=True)], dim=-1))


class MHSAByEinsum(Given):
    def forward(self, x, grid=None):
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, self.heads, -1).unbind(2)
        scores = torch.einsum("bihc,bjhc->bhij", q, k) / (x.shape[-1] / self.heads) ** 0.5
        return self.proj(torch.einsum("bhij,bjhc->bihc", scores.softmax(-1), v).flatten(2))


class MHSAByTorch(Given):
    def forward(self, x, grid=None):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class MHSAByTorchsOwnLayer(Given):
    def forward(self, x, grid=None):
        dim, none = x.shape[-1], torch.zeros(0, dtype=x.dtype)
        tokens_first = x.transpose(0, 1)
        mixed, _ = F.multi_head_attention_forward(
            *[tokens_first] * 3, dim, self.heads, self.qkv.weight, none.new_zeros(3 * dim), None, None, False, 0.0,
            self.proj.weight, self.proj.bias, training=False, need_weights=False,
        )  # fmt: skip
        return mixed.transpose(0, 1)


class MHSAWithTheWeightsCut(Given):
    def forward(self, x, grid=None):
        width = x.shape[-1] // self.heads
        q, k, v = self.qkv.weight.reshape(3, self.heads, width, -1)
        out = self.proj.bias
        for h in range(self.heads):
            mixed = answers.one_head(x @ q[h].T, x @ k[h].T, x @ v[h].T)
            out = out + mixed @ self.proj.weight[:, h * width : (h + 1) * width].T
        return out


def entropy_by_where(w):
    logs = torch.where(w > 0, w, torch.ones_like(w)).log()
    return -(w * logs).sum(dim=-1)


def entropy_by_loops(w):
    rows = [-sum(p * p.log() for p in row if p > 0) for row in w.reshape(-1, w.shape[-1])]
    return torch.stack(rows).reshape(w.shape[:-1])


def turning(turn):
    """Make a class that is right but for one step: `turn` makes the scores' second factor of k."""

    def forward(self, x, grid=None):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        weights = (q @ turn(k) / q.shape[-1] ** 0.5).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).flatten(2))

    return type("MHSA", (Given,), {"forward": forward})


class Renamed(MHSAByEinsum):
    def __init__(self, dim, heads):
        super().__init__(dim, heads)
        self.out = self.proj
        del self.proj


RIGHT = {
    "one_head": [
        one_head_by_loops, one_head_by_einsum,
        lambda q, k, v: F.scaled_dot_product_attention(q[None], k[None], v[None]).squeeze(0),
        one_head_with_both_sides_scaled,
        lambda q, k, v: (v.T @ (k @ q.T * q.shape[1] ** -0.5).softmax(dim=0)).T,
    ],
    "MHSA": [MHSAHeadByHead, MHSAByEinsum, MHSAByTorch, MHSAByTorchsOwnLayer, MHSAWithTheWeightsCut],
    "entropy": [
        entropy_by_where,
        lambda w: -torch.xlogy(w, w).sum(-1),
        lambda w: torch.distributions.Categorical(probs=w).entropy(),
        entropy_by_loops,
        lambda w: -(w * w.log()).nansum(-1),
        lambda w: -torch.nan_to_num(w * w.log(), nan=0.0).sum(-1),
        lambda w: -(w * (w + 1e-12).log()).sum(-1),
    ],
}
NAMED = [
    ("MHSA", "all axes turned", turning(lambda k: k.T)),
    ("MHSA", "k not turned", turning(lambda k: k)),
    ("MHSA", "k turned by reshape", turning(lambda k: k.reshape(k.mT.shape))),
    ("entropy", "one sum", lambda w: -(w[w > 0] * w[w > 0].log()).sum(-1)),
]
REFUSED = [
    ("MHSA", "the weights do not fit: only the package has: proj.weight, proj.bias", Renamed),
    ("MHSA", "not done yet", type("MHSA", (Given,), {"forward": stub})),
    ("entropy", "() expected, (1,) returned", lambda w: torch.special.entr(w).sum(-1, keepdim=True)),
    ("entropy", "left over, with length 1", lambda w: torch.special.entr(w).sum(-1, keepdim=True)),
    ("entropy", "the gradients differ", lambda w: answers.entropy(w).detach()),
    ("entropy", "the package's own solution", lambda w: attribution.entropy(w)),
]
OTHER_OPTIONS = {
    "MHSA": [
        {"split": split, "merge": merge}
        for split in (*(f"({' '.join(order)})" for order in itertools.permutations("shc")), "one head")
        + ("reshaped", "reshaped, three first", "reshaped, images first")
        for merge in ("(h c)", "(c h)", "reshaped")
    ],
}
