"""Baseline layers behind our interface (tokens and grid in, tokens out): the released layout of SP-SA, and timm's layers.

Each is built from one of our layers and has its weights, so that both compute the same; tests check that.
"""

import importlib
from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn

from spvit_mini.attention import GPSA, MHSA, SPSA, RelativeBias, WindowAttention
from spvit_mini.geometry import Grid, pair_offsets
from spvit_mini.spatial import LogCPB

from .timing import has_timm


class AllPairs(SPSA):
    """SP-SA in the layout of the released code: the MLP on all N² pairs, and its result repeated for each image."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: Grid) -> Tensor:
        f = self.spatial
        hidden = torch.relu(pair_offsets(*grid).to(q) @ f.w1.flatten(0, 1).T + f.b1.flatten())  # (N, N, H·K)
        prior = torch.einsum("ijhk,hk->hij", hidden.unflatten(-1, f.w2.shape), f.w2) + f.b2[:, None, None]
        return (prior.repeat(len(q), 1, 1, 1) * self.scores(q, k)).softmax(-1) @ v


def build_all_pairs(ours: SPSA) -> AllPairs:
    """Build the released layout with the weights of our layer, which has no bias of q, k and v."""
    theirs = AllPairs(ours.proj.in_features, ours.heads, ours.spatial.w1.shape[1])
    theirs.load_state_dict(ours.state_dict())
    return theirs


def build_eager(ours: MHSA) -> MHSA:
    """Copy a layer, to compute it by its equation: scores and weights of the whole batch are stored."""
    eager = deepcopy(ours)
    eager.attend = lambda q, k, v, grid: eager.mix(eager.weights(q, k, grid), v)
    return eager


class TimmLayer(nn.Module):
    """A layer of timm, for the grid that it was built for."""

    def __init__(self, layer: nn.Module, ours: MHSA):
        super().__init__()
        self.layer = layer
        with torch.no_grad():
            layer.proj.load_state_dict(ours.proj.state_dict())
            if hasattr(layer, "qkv"):
                layer.qkv.load_state_dict(ours.qkv.state_dict())

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        return self.layer(x)


class TimmWindows(TimmLayer):
    """timm's layer of Swin on the windows of a grid."""

    def __init__(self, layer: nn.Module, ours: MHSA, size: int):
        super().__init__(layer, ours)
        self.size = size

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        rows, columns = (side // self.size for side in grid)
        batch, _, dim = x.shape
        windows = x.view(batch, rows, self.size, columns, self.size, dim).transpose(2, 3)  # (B, rows, columns, s, s, D)
        mixed = self.layer(windows.reshape(-1, self.size**2, dim)).view(windows.shape)
        return mixed.transpose(2, 3).reshape(x.shape)


def get_timm_class(module: str, name: str) -> Callable[..., nn.Module]:
    """Get a class of timm."""
    return getattr(importlib.import_module(f"timm.{module}"), name)


@torch.no_grad()
def build_timm_layers(ours: MHSA, grid: Grid) -> dict[str, nn.Module]:
    """Build timm's counterparts of our layer on a grid, by name; none without timm, or if timm has no counterpart."""
    if not has_timm() or grid[0] != grid[1]:
        return {}
    dim, heads = ours.proj.in_features, ours.heads
    if type(ours) is MHSA:
        return {"timm Attention": TimmLayer(get_timm_class("layers", "Attention")(dim, heads), ours)}
    if type(ours) is GPSA:
        layer = get_timm_class("models.convit", "GPSA")(dim, heads)
        qk, v = ours.qkv.weight.split([2 * dim, dim])
        layer.qk.weight.copy_(qk), layer.v.weight.copy_(v)
        layer.pos_proj.weight.copy_(ours.spatial.v[:, [2, 1, 0]])  # (columns, rows, distance²)
        layer.gating_param.copy_(ours.gate)
        return {"timm GPSA": TimmLayer(layer, ours)}
    if type(ours) is WindowAttention and not ours.spatial.shift and grid[0] % ours.spatial.size == 0:
        layer = build_swin(dim, heads, (ours.spatial.size,) * 2)
        layer.relative_position_bias_table.zero_()
        return {"timm Swin, in windows": TimmWindows(layer, ours, ours.spatial.size)}
    if type(ours) is RelativeBias:
        # timm's offsets are query − key, ours key − query: its table is ours, flipped on both axes.
        table = ours.spatial.values.flip(1, 2).flatten(1).T
        relative = build_relative(dim, heads, "RelPosBias", window_size=grid)
        relative.rel_pos.relative_position_bias_table.copy_(table)
        window = build_swin(dim, heads, grid)
        window.relative_position_bias_table.copy_(table)
        return {"timm RelPosAttention": TimmLayer(relative, ours), "timm Swin": TimmLayer(window, ours)}
    if isinstance(getattr(ours, "spatial", None), LogCPB):
        hidden = ours.spatial.mlp[0].out_features
        layer = build_relative(dim, heads, "RelPosMlp", window_size=grid, hidden_dim=hidden, mode="swin")
        mlp = layer.rel_pos.mlp
        mlp.fc1.weight.copy_(-ours.spatial.mlp[0].weight), mlp.fc1.bias.copy_(ours.spatial.mlp[0].bias)
        mlp.fc2.weight.copy_(ours.spatial.mlp[2].weight)
        mlp.drop1.p = 0.0  # ours has no dropout
        return {"timm RelPosMlp": TimmLayer(layer, ours)}
    return {}


def build_swin(dim: int, heads: int, window: Grid) -> nn.Module:
    """Build timm's attention of Swin for a window."""
    return get_timm_class("models.swin_transformer", "WindowAttention")(dim, heads, window_size=window, qkv_bias=False)


def build_relative(dim: int, heads: int, kind: str, **options) -> nn.Module:
    """Build timm's attention with a relative position bias of a kind, a class of timm.layers."""
    bias = get_timm_class("layers", kind)
    return get_timm_class("models.vision_transformer_relpos", "RelPosAttention")(
        dim, heads, rel_pos_cls=lambda **more: bias(**{**more, **options})
    )
