"""Lesson 00: right answers that are written in an unusual way, and wrong ones that the bank does not hold as they stand."""

import itertools

import torch
import torch.nn.functional as F
from einops import rearrange

from spvit_mini import geometry


def patchify_by_loops(image, p):
    tokens = []
    for top in range(0, image.shape[1], p):
        for left in range(0, image.shape[2], p):
            tokens.append(image[:, top : top + p, left : left + p].flatten())
    return torch.stack(tokens)


def patchify_by_convolution(image, p):
    size = image.shape[0] * p * p
    kernel = torch.eye(size, dtype=image.dtype).reshape(size, image.shape[0], p, p)
    return F.conv2d(image[None], kernel, stride=p)[0].flatten(1).T


def unpatchify_by_loops(tokens, grid, p):
    channels = tokens.shape[1] // p**2
    image = torch.zeros(channels, grid[0] * p, grid[1] * p, dtype=tokens.dtype)
    for n, token in enumerate(tokens):
        r, c = divmod(n, grid[1])
        image[:, r * p : r * p + p, c * p : c * p + p] = token.reshape(channels, p, p)
    return image


def unpatchify_by_stacking(tokens, grid, p):
    rows = tokens.reshape(*grid, -1, p, p)
    return torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)


RIGHT = {
    "patchify": [
        patchify_by_loops,
        lambda image, p: F.unfold(image[None], p, stride=p)[0].T,
        patchify_by_convolution,
        lambda image, p: torch.stack([b.reshape(-1) for a in image.split(p, dim=1) for b in a.split(p, dim=2)]),
        lambda image, p: F.pixel_unshuffle(image, p).flatten(1).T,
    ],
    "unpatchify": [
        unpatchify_by_loops,
        lambda tokens, grid, p: F.fold(tokens.T[None], (grid[0] * p, grid[1] * p), p, stride=p)[0],
        unpatchify_by_stacking,
        lambda tokens, grid, p: F.pixel_shuffle(tokens.T.reshape(-1, *grid), p),
        lambda tokens, grid, p: rearrange(tokens, "(r s) (c a b) -> c (r a) (s b)", r=grid[0], a=p, b=p),
    ],
}
REFUSED = [
    ("patchify", "the package's own solution", lambda image, p: geometry.patchify(image[None], p)[0]),
]
# All 480 ways to make two axes of five: right, known to the bank, or some other mistake.
ORDERS = [
    {"order": f"({' '.join(axes[:split])})", "token": f"({' '.join(axes[split:])})"}
    for axes in itertools.permutations("crsab")
    for split in range(1, 5)
]
OTHER_OPTIONS = {"patchify": ORDERS, "unpatchify": ORDERS}
