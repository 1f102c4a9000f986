"""Others' layers behind our interface, tokens and grid in: the released SP-SA's layout, and timm's, where it is installed.

Each is built from one of our layers and has its numbers, so that both compute the same; tests hold them to it.
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
    """SP-SA in the layout of the released code: the MLP on all N² pairs, its result repeated for each image."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: Grid) -> Tensor:
        f = self.spatial
        hidden = torch.relu(pair_offsets(*grid).to(q) @ f.w1.flatten(0, 1).T + f.b1.flatten())  # (N, N, H·K)
        prior = torch.einsum("ijhk,hk->hij", hidden.unflatten(-1, f.w2.shape), f.w2) + f.b2[:, None, None]
        return (prior.repeat(len(q), 1, 1, 1) * self.scores(q, k)).softmax(-1) @ v


def all_pairs(ours: SPSA) -> AllPairs:
    """Build the released layout with the numbers of a layer of ours, without a bias of q, k and v."""
    theirs = AllPairs(ours.proj.in_features, ours.heads, ours.spatial.w1.shape[1])
    theirs.load_state_dict(ours.state_dict())
    return theirs


def written_out(ours: MHSA) -> MHSA:
    """Copy a layer, to compute it by its equation: scores and weights stand in memory, all of a batch at once."""
    theirs = deepcopy(ours)
    theirs.attend = lambda q, k, v, grid: theirs.mix(theirs.weights(q, k, grid), v)
    return theirs


class OfTimm(nn.Module):
    """A layer of timm: it sees tokens alone, so its grid is the one it was built for."""

    def __init__(self, layer: nn.Module, ours: MHSA):
        super().__init__()
        self.layer = layer
        with torch.no_grad():
            layer.proj.load_state_dict(ours.proj.state_dict())
            if hasattr(layer, "qkv"):
                layer.qkv.load_state_dict(ours.qkv.state_dict())

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        return self.layer(x)


class InWindows(OfTimm):
    """Swin's layer on the windows of a grid, cut out and put back together."""

    def __init__(self, layer: nn.Module, ours: MHSA, size: int):
        super().__init__(layer, ours)
        self.size = size

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        rows, columns = (side // self.size for side in grid)
        batch, _, dim = x.shape
        cut = x.view(batch, rows, self.size, columns, self.size, dim).transpose(2, 3)  # (B, rows, columns, s, s, D)
        mixed = self.layer(cut.reshape(-1, self.size**2, dim)).view(cut.shape)
        return mixed.transpose(2, 3).reshape(x.shape)


def of_timm(room: str, kind: str) -> Callable[..., nn.Module]:
    """Find a class of timm."""
    return getattr(importlib.import_module(f"timm.{room}"), kind)


@torch.no_grad()
def timm_peers(ours: MHSA, grid: Grid) -> dict[str, nn.Module]:
    """Build timm's layers that do the same as one of ours on a grid, by name; none without timm or where it has none."""
    if not has_timm() or grid[0] != grid[1]:
        return {}
    dim, heads = ours.proj.in_features, ours.heads
    if type(ours) is MHSA:
        return {"timm Attention": OfTimm(of_timm("layers", "Attention")(dim, heads), ours)}
    if type(ours) is GPSA:
        layer = of_timm("models.convit", "GPSA")(dim, heads)
        qk, v = ours.qkv.weight.split([2 * dim, dim])
        layer.qk.weight.copy_(qk), layer.v.weight.copy_(v)
        layer.pos_proj.weight.copy_(ours.spatial.v[:, [2, 1, 0]])  # (columns, rows, distance²)
        layer.gating_param.copy_(ours.gate)
        return {"timm GPSA": OfTimm(layer, ours)}
    if type(ours) is WindowAttention and not ours.spatial.shift and grid[0] % ours.spatial.size == 0:
        layer = swin(dim, heads, (ours.spatial.size,) * 2)
        layer.relative_position_bias_table.zero_()
        return {"timm Swin, in windows": InWindows(layer, ours, ours.spatial.size)}
    if type(ours) is RelativeBias:
        # timm numbers the offsets by query − key, we by key − query: its table is ours read backwards on both axes.
        table = ours.spatial.values.flip(1, 2).flatten(1).T
        relative = relative_attention(dim, heads, "RelPosBias", window_size=grid)
        relative.rel_pos.relative_position_bias_table.copy_(table)
        window = swin(dim, heads, grid)
        window.relative_position_bias_table.copy_(table)
        return {"timm RelPosAttention": OfTimm(relative, ours), "timm Swin": OfTimm(window, ours)}
    if isinstance(getattr(ours, "spatial", None), LogCPB):
        hidden = ours.spatial.mlp[0].out_features
        layer = relative_attention(dim, heads, "RelPosMlp", window_size=grid, hidden_dim=hidden, mode="swin")
        mlp = layer.rel_pos.mlp
        mlp.fc1.weight.copy_(-ours.spatial.mlp[0].weight), mlp.fc1.bias.copy_(ours.spatial.mlp[0].bias)
        mlp.fc2.weight.copy_(ours.spatial.mlp[2].weight)
        mlp.drop1.p = 0.0  # ours drops nothing
        return {"timm RelPosMlp": OfTimm(layer, ours)}
    return {}


def swin(dim: int, heads: int, window: Grid) -> nn.Module:
    """Build Swin's attention of a window."""
    return of_timm("models.swin_transformer", "WindowAttention")(dim, heads, window_size=window, qkv_bias=False)


def relative_attention(dim: int, heads: int, kind: str, **options) -> nn.Module:
    """Build timm's attention with a relative position bias of a kind."""
    bias = of_timm("layers", kind)
    return of_timm("models.vision_transformer_relpos", "RelPosAttention")(
        dim, heads, rel_pos_cls=lambda **more: bias(**{**more, **options})
    )
