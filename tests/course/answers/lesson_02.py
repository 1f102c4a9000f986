"""Lesson 02: right answers that are written in an unusual way, and wrong ones that the bank does not hold as they stand."""

from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from spvit_mini import vit


class Given(nn.Module):
    """What the notebook gives for the block."""

    def __init__(self, attention, config, drop_path=0.0):
        super().__init__()
        hidden = int(config.dim * config.mlp_ratio)
        self.norm1 = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.attention = attention
        self.norm2 = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.mlp = nn.Sequential(nn.Linear(config.dim, hidden), nn.GELU(), nn.Linear(hidden, config.dim))


class BlockInTwoLines(Given):
    def forward(self, x, grid):
        x = x + self.attention(self.norm1(x), grid)
        return x + self.mlp(self.norm2(x))


class BlockInOneSum(Given):
    def forward(self, x, grid):
        talked = self.attention(self.norm1(x), grid)
        return sum([x, talked, self.mlp(self.norm2(talked + x))])


class BlockByLoop(Given):
    def forward(self, x, grid):
        for norm, branch in ((self.norm1, lambda y: self.attention(y, grid)), (self.norm2, self.mlp)):
            x = torch.add(x, branch(norm(x)))
        return x


class BlockTokenByToken(Given):
    def forward(self, x, grid):
        centred = x - x.mean(-1, keepdim=True)
        normed = centred / (centred.square().mean(-1, keepdim=True) + self.norm1.eps).sqrt()
        x = x + self.attention(normed * self.norm1.weight + self.norm1.bias, grid)
        norm2 = partial(F.layer_norm, normalized_shape=x.shape[-1:], weight=self.norm2.weight, bias=self.norm2.bias, eps=1e-6)
        return torch.stack([row + self.mlp(norm2(row)) for row in x.flatten(0, 1)]).reshape(x.shape)


class Parts(nn.Module):
    """What the notebook gives for the model."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embed = nn.Conv2d(config.channels, config.dim, config.patch, stride=config.patch)
        self.positions = nn.Parameter(0.02 * torch.randn(1, config.dim, *config.grid))
        self.class_token = nn.Parameter(torch.zeros(1, 1, config.dim)) if config.pool == "class" else None
        self.blocks = nn.ModuleList(vit.Block(vit.attention_of(config, i), config, 0.0) for i in range(config.depth))
        self.norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.head = nn.Linear(config.dim, config.num_classes)

    def run_blocks(self, x, grid=None):
        for block in self.blocks:
            x = block(x, grid or self.config.grid)
        return x


class ViTAsTaught(Parts):
    def forward(self, images):
        x = (self.embed(images) + self.positions).flatten(2).transpose(1, 2)
        if self.class_token is not None:
            x = torch.cat([self.class_token.expand(len(x), -1, -1), x], dim=1)
        x = self.norm(self.run_blocks(x))
        return self.head(x[:, 0] if self.class_token is not None else x.mean(dim=1))


class ViTThatFlattensEarly(Parts):
    def forward(self, images):
        x = rearrange(self.embed(images), "b d r c -> b (r c) d") + rearrange(self.positions, "b d r c -> b (r c) d")
        grid = self.embed(images).shape[2:]
        if self.config.pool == "class":
            x = torch.cat([self.class_token.repeat(x.shape[0], 1, 1), x], 1)
        x = self.run_blocks(x, tuple(grid))
        return self.head(self.norm(x[:, 0]) if self.config.pool == "class" else self.norm(x).mean(-2))


class ViTThatAveragesLogits(Parts):
    def forward(self, images):
        x = torch.einsum("bdrc->brcd", self.embed(images) + self.positions).flatten(1, 2)
        token = [] if self.class_token is None else [self.class_token.expand(len(images), 1, self.config.dim)]
        logits = self.head(self.norm(self.run_blocks(torch.cat([*token, x], dim=1))))
        return logits[:, 0] if token else logits.mean(1)


class ViTByPatchify(Parts):
    def forward(self, images):
        patch = self.config.patch
        cut = rearrange(images, "b ch (r p) (c q) -> b (r c) (ch p q)", p=patch, q=patch)
        x = F.linear(cut, self.embed.weight.flatten(1), self.embed.bias) + self.positions.flatten(2).mT
        if self.class_token is not None:
            x = torch.cat([self.class_token + 0 * x[:, :1], x], 1)
        x = self.norm(self.run_blocks(x))
        return self.head(x[:, 0] if self.class_token is not None else x.sum(1) / x.shape[1])


class PositionsTooLate(Parts):
    def forward(self, images):
        return self.embed(images).flatten(2).mT + self.positions


def stub(self, *arguments):
    raise NotImplementedError()


def renamed(right):
    """Make a right class with one more layer."""

    def __init__(self, *arguments):
        right.__init__(self, *arguments)
        self.last = nn.Linear(3, 3)

    return type("Renamed", (right,), {"__init__": __init__})


RIGHT = {
    "Block": [BlockInTwoLines, BlockInOneSum, BlockByLoop, BlockTokenByToken],
    "ViT": [ViTAsTaught, ViTThatFlattensEarly, ViTThatAveragesLogits, ViTByPatchify],
}
REFUSED = [
    ("Block", "not done yet", type("Block", (Given,), {"forward": stub})),
    ("ViT", "not done yet", type("ViT", (Parts,), {"forward": stub})),
    ("Block", "only yours has: last.weight, last.bias", renamed(BlockInTwoLines)),
    ("ViT", "only yours has: last.weight, last.bias", renamed(ViTAsTaught)),
]
STUMBLING = [("ViT", PositionsTooLate)]
