"""Lesson 07's answers with options: each is right as it stands, and each changed option is one mistake."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from spvit_mini.geometry import Grid, pair_offsets

SHARES = {
    "σ(λ)": torch.sigmoid,
    "λ": lambda gate: gate,
    "1 − σ(λ)": lambda gate: (-gate).sigmoid(),
    "softmax over heads": lambda gate: gate.softmax(0),
}
MIXTURES = {
    "gated": lambda content, positional, part: (1 - part) * content + part * positional,
    "content ungated": lambda content, positional, part: content + part * positional,
    "positions ungated": lambda content, positional, part: (1 - part) * content + positional,
    "added": lambda content, positional, part: content + positional,
    "multiplied": lambda content, positional, part: content ** (1 - part) * positional**part,
}


def among_patches(scores: Tensor, prefix: int, along: int) -> Tensor:
    """Weigh the rows of the patches by content, prefix tokens left out: (B, H, N, P+N)."""
    return F.pad(scores[..., prefix:, prefix:].softmax(along), (prefix, 0))


def mix_scores(scores: Tensor, positions: Tensor, form: str, mix: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Mix scores (B, H, P+N, P+N) with those of the patches, (H, N, N); the form says what becomes of prefix tokens."""
    prefix = scores.shape[-1] - positions.shape[-1]
    if form == "scores: all":
        return mix(scores, F.pad(positions, (prefix, 0, prefix, 0)))
    first, patches = scores[:, :, :prefix], scores[:, :, prefix:]
    if form == "scores: patches":
        patches = torch.cat([patches[..., :prefix], mix(patches[..., prefix:], positions)], dim=-1)
    else:
        filled = {"scores: patch rows": 0.0, "scores: −inf": float("-inf")}[form]
        patches = mix(patches, F.pad(positions, (prefix, 0), value=filled))
    return torch.cat([first, patches], dim=2)


def gpsa(
    scores: Tensor,
    positions: Tensor,
    gate: Tensor,
    *,
    mixed: str = "weights",
    mixture: str = "gated",
    share: str = "σ(λ)",
    heads: str = "own",
    axis: str = "keys",
    columns: str = "0 by position",
    rows: str = "content alone",
    after: str = "nothing",
) -> Tensor:
    """Mix content and positions, head by head: scores (B, H, P+N, P+N), positions (H, N, N), gate (H,)."""
    prefix, along = scores.shape[-1] - positions.shape[-1], {"keys": -1, "queries": -2}[axis]
    part = SHARES[share](gate)[:, None, None]
    if heads != "own":
        part = {"the mean": part.mean(0), "the first": part[0]}[heads]
    mix = MIXTURES[mixture]
    if mixed != "weights":
        result = mix_scores(scores, positions, mixed, partial(mix, part=part)).softmax(along)
    elif rows == "0 by position":
        result = mix(scores.softmax(along), F.pad(positions.softmax(along), (prefix, 0, prefix, 0)), part)
    elif rows == "a score of 0":
        result = mix(scores.softmax(along), F.pad(positions, (prefix, 0, prefix, 0)).softmax(along), part)
    elif rows == "−inf":
        padded = F.pad(positions, (prefix, 0, prefix, 0), value=float("-inf"))
        result = mix(scores.softmax(along), padded.softmax(along), part)
    elif rows == "last, as −P" and prefix == 0:  # [:-0] is nothing, [-0:] everything
        result = scores.softmax(along)
    elif rows.startswith("last"):
        n = positions.shape[-1]
        content, positional = scores.softmax(along), F.pad(positions.softmax(along), (0, prefix))
        result = torch.cat([mix(content[..., :n, :], positional, part), content[..., n:, :]], dim=-2)
    else:
        content = scores.softmax(along)
        if columns == "a score of 0":
            positional = F.pad(positions, (prefix, 0)).softmax(-1)
        else:
            if columns == "left out":
                content = torch.cat([content[..., :prefix, :], among_patches(scores, prefix, along)], dim=-2)
            positional = F.pad(positions if columns == "no softmax" else positions.softmax(along), (prefix, 0))
        result = torch.cat([content[..., :prefix, :], mix(content[..., prefix:, :], positional, part)], dim=-2)
    return result.softmax(-1) if after == "softmax again" else result


DISTANCES = {
    "Euclid's": lambda delta: delta.norm(dim=-1),
    "squared": lambda delta: delta.square().sum(-1),
    "signed": lambda delta: delta.sum(-1),
    "row and column": lambda delta: delta.abs().sum(-1),
    "the larger": lambda delta: delta.abs().amax(-1),
    "rows only": lambda delta: delta[..., 0].abs(),
    "columns only": lambda delta: delta[..., 1].abs(),
}


WHOLES = {  # what is done to the weights among patches
    "left out": lambda patches: patches / patches.sum(-1, keepdim=True),
    "cut off": lambda patches: patches,
    "columns to 1": lambda patches: patches / patches.sum(-2, keepdim=True),
    "all to 1": lambda patches: patches / patches.sum((-2, -1), keepdim=True),
    "softmax again": lambda patches: patches.softmax(-1),
}


def nonlocality(
    w: Tensor,
    grid: Grid,
    *,
    distance: str = "Euclid's",
    prefix: str = "left out",
    queries: str = "their mean",
    heads: str = "one by one",
    images: str = "one by one",
    unit: int = 1,
    sides: str = "rows, columns",
) -> Tensor:
    """Measure how far heads look: w (B, H, P+N, P+N) → (B, H), in patches."""
    n = grid[0] * grid[1]
    delta = pair_offsets(*(grid if sides == "rows, columns" else grid[::-1])).to(w)
    first = w.shape[-1] - n
    if prefix == "counted":  # at no distance
        distances = F.pad(DISTANCES[distance](delta), (first, 0, first, 0))
        each = (w * distances).sum(-1)
    else:
        patches = w[..., :n, :n] if prefix == "taken for the last" else w[..., first:, first:]
        patches = WHOLES.get(prefix, WHOLES["left out"])(patches)
        if distance == "of the mean":
            each = (patches[..., None] * delta).sum(-2).norm(dim=-1)
        else:
            each = (patches * DISTANCES[distance](delta)).sum(-1)
    gathered = {
        "their mean": each.mean(-1),
        "their sum": each.sum(-1),
        "over pairs": each.mean(-1) / n,
        "over all tokens": each.sum(-1) / w.shape[-1],
        "one by one": each,
    }
    result = unit * gathered[queries]
    if heads == "their mean":
        result = result.mean(1)
    return result.mean(0) if images == "their mean" else result


def late_token(
    x: Tensor,
    cls: Tensor,
    blocks: Sequence[Callable[[Tensor], Tensor]],
    k: int,
    *,
    before: str = "k",
    place: str = "first",
    again: str = "once",
    early: str = "run",
    returned: str = "all tokens",
) -> Tensor:
    """Pass patches x (B, N, D) through blocks; a class token cls (1, 1, D) joins before block k."""
    count = len(blocks)
    enters = {
        "k": k,
        "k − 1": max(0, k - 1),
        "k − 1, or never": k - 1,
        "k − 1, or from the end": (k - 1) % max(count, 1),
        "k + 1": min(count, k + 1),
        "k + 1, or never": k + 1 if k + 1 < count else -1,
        "0": 0,
        "the end": count,
    }[before]  # −1: never
    token = cls.expand(len(x), -1, -1)

    def join(x: Tensor) -> Tensor:
        if place == "added":
            return x + token
        return torch.cat([token, x] if place == "first" else [x, token], dim=1)

    for i, block in enumerate(blocks):
        if i == enters or (again == "each block" and i > enters >= 0):
            x = join(x)
        elif again == "reset" and i > enters >= 0:
            x = torch.cat([token, x[:, 1:]] if place == "first" else [x[:, :-1], token], dim=1)
        if i >= enters or early == "run":
            x = block(x)
    if enters == count:
        x = join(x)
    return {"all tokens": x, "patches": x[:, 1:], "the class token": x[:, :1], "its vector": x[:, 0]}[returned]
