"""Lesson 02's answers with options: each is right as it stands, and each changed option is one mistake."""

import torch
from torch import Tensor, nn

from spvit_mini import vit
from spvit_mini.vit import ViTConfig

ACTIVATIONS = {"GELU": nn.functional.gelu, "ReLU": torch.relu, "none": lambda y: y}


class Block(nn.Module):
    """A pre-norm block, right as it stands; each changed option is one mistake.

    Options of the attention's branch and of the MLP's: where the norm stands ("before" the branch, "after" the sum,
    "inside" at the branch's end, "nowhere"), and what the branch is added to ("x", "its norm", "nothing").
    """

    def __init__(
        self,
        attention: nn.Module,
        config: ViTConfig,
        drop_path: float = 0.0,
        *,
        attention_norm: str = "before",
        mlp_norm: str = "before",
        attention_skip: str = "x",
        mlp_skip: str = "x",
        norms: str = "12",
        first: str = "attention",
        second_reads: str = "the sum",
        second_joins: str = "the sum",
        activation: str = "GELU",
    ):
        super().__init__()
        dim, hidden = config.dim, int(config.dim * config.mlp_ratio)
        self.norm1 = nn.LayerNorm(dim, eps=config.norm_eps)
        self.attention = attention
        self.norm2 = nn.LayerNorm(dim, eps=config.norm_eps)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
        self.branches = [(0, attention_norm, attention_skip), (1, mlp_norm, mlp_skip)]
        if first == "mlp":
            self.branches.reverse()
        self.norms, self.activation = norms, ACTIVATIONS[activation]
        self.second_reads, self.second_joins = second_reads, second_joins

    def forward(self, x: Tensor, grid) -> Tensor:
        functions = (lambda y: self.attention(y, grid), lambda y: self.mlp[2](self.activation(self.mlp[0](y))))
        norms = [{"1": self.norm1, "2": self.norm2}[number] for number in self.norms]
        both = [(functions[which], norms[which], norm, skip) for which, norm, skip in self.branches]
        total = add_branch(x, x, *both[0])
        reads = {"the sum": total, "x": x}
        return add_branch(reads[self.second_reads], reads[self.second_joins], *both[1])


def add_branch(x: Tensor, skipped: Tensor, function, norm, where: str, skip: str) -> Tensor:
    """Add function(norm(x)) to what the skip connection carries."""
    result = function(norm(x) if where == "before" else x)
    result = norm(result) if where == "inside" else result
    total = {"x": skipped, "its norm": norm(skipped), "nothing": 0.0}[skip] + result
    return norm(total) if where == "after" else total


class ViT(nn.Module):
    """A vision transformer, right as it stands; each changed option is one mistake."""

    def __init__(
        self,
        config: ViTConfig,
        *,
        positions: str = "before",
        order: str = "row by row",
        token: str = "first",
        grid: str = "(R, C)",
        way: str = "through all",
        norm: str = "tokens",
        pool: str = "as configured",
        output: str = "logits",
    ):
        super().__init__()
        self.embed = nn.Conv2d(config.channels, config.dim, config.patch, stride=config.patch)
        self.positions = nn.Parameter(torch.zeros(1, config.dim, *config.grid))
        self.class_token = nn.Parameter(torch.zeros(1, 1, config.dim)) if config.pool == "class" else None
        self.blocks = nn.ModuleList(vit.Block(vit.attention_of(config, i), config, 0.0) for i in range(config.depth))
        self.norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.head = nn.Linear(config.dim, config.num_classes)
        self.place, self.order, self.token, self.is_turned = positions, order, token, grid == "(C, R)"
        self.way, self.norm_of, self.pool, self.output = way, norm, pool, output

    def forward(self, images: Tensor) -> Tensor:
        x = self.embed(images)
        grid = x.shape[:1:-1] if self.is_turned else x.shape[-2:]
        x = self.flatten_grid(x + self.positions if self.place == "before" else x)
        prefix = 0
        if self.class_token is not None and self.token != "missing":
            alone = self.class_token if self.token == "for one image" else self.class_token.expand(len(x), -1, -1)
            prefix = int(self.token != "last")
            x = torch.cat([alone, x] if prefix else [x, alone], dim=1)
        x = self.run_blocks(x, tuple(grid), prefix)
        x = self.norm(x) if self.norm_of == "tokens" else x
        x = self.pool_tokens(x)
        x = self.norm(x) if self.norm_of == "pooled" else x
        if self.output == "pooled":
            return x
        logits = self.head(x)
        return {"logits": logits, "softmax": logits.softmax(-1), "log": logits.log_softmax(-1)}[self.output]

    def flatten_grid(self, x: Tensor) -> Tensor:
        """Flatten a grid of tokens, (B, D, R, C), to (B, R·C, D)."""
        if self.order == "reshaped":
            return x.reshape(len(x), -1, x.shape[1])
        x = (x.mT if self.order == "column by column" else x).flatten(2)
        return x if self.order == "not transposed" else x.mT

    def run_blocks(self, x: Tensor, grid, prefix: int) -> Tensor:
        """Pass the tokens through the blocks, and add positions on the way if they come late."""
        positions = self.positions.flatten(2).mT  # (1, N, D)
        late = nn.functional.pad(positions, (0, 0, prefix, x.shape[1] - prefix - positions.shape[1]))
        start, before = x, x
        for number, block in enumerate(self.blocks):
            x = block(start if self.way == "always the first tokens" else x, grid)
            x = x + late if self.place == "after the first block" and number == 0 else x
            if self.way == "all but the last" and number == len(self.blocks) - 1:
                x = before
            before = x
        return x + late if self.place == "after the blocks" else x

    def pool_tokens(self, x: Tensor) -> Tensor:
        """Make one vector of all tokens."""
        has_token = self.class_token is not None
        right = (lambda y: y[:, 0]) if has_token else (lambda y: y.mean(1))
        return {
            "as configured": right,
            "width": right if has_token else lambda y: y.mean(-1),
            "batch": right if has_token else lambda y: y.mean(0),
            "all": lambda y: y.mean(1),
            "patches": lambda y: y[:, int(has_token) :].mean(1),
            "first": lambda y: y[:, 0],
            "last of a class token": (lambda y: y[:, -1]) if has_token else right,
            "sum": right if has_token else lambda y: y.sum(1),
            "max": right if has_token else lambda y: y.amax(1),
        }[self.pool](x)
