"""Lesson 00: cutting an image into patches and putting it together again. What matters is the order of things.

A mistake is the right pattern with one part changed, so pairs of mistakes can be made by changing two.
"""

import math
from functools import partial

import torch
from einops import rearrange
from torch import Tensor

from spvit_mini.geometry import patchify, unpatchify

from .engine import Case, Exercise, Mistake, Property

NUMBERED = ", its values numbered in reading order"


def sizes(generator: torch.Generator) -> list[tuple[int, int, int, int]]:
    """Draw (channels, rows, columns, p) of several kinds: wide, tall, square, one row, one patch, one channel, one pixel.

    The number of patches is a square only where the grid is one, so that a root taken of it fails on all others.
    """

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    rows = draw(2, 3)
    return [
        (3, rows, rows + draw(1, 2), 2),
        (3, rows + draw(1, 2), rows, 3),
        (2, draw(2, 3), draw(4, 5), 2),
        (4, rows, rows, 2),
        (3, 1, draw(2, 3), 3),
        (1, 2, 3, 2),
        (3, 1, 1, draw(2, 4)),
        (3, 3, 2, 1),
    ]


def images(generator: torch.Generator) -> list[Case]:
    cases = []
    for channels, rows, columns, p in sizes(generator):
        shape = (channels, rows * p, columns * p)
        image = torch.randn(shape, dtype=torch.float64, generator=generator)
        if not cases:  # a value that says where it comes from, for the message of the first difference
            image = torch.arange(image.numel(), dtype=torch.float64).reshape(shape)
        cases.append(Case(f"an image of shape {shape} and p = {p}{NUMBERED * (not cases)}", (image, p)))
    return cases


def tokens(generator: torch.Generator) -> list[Case]:
    cases = []
    for channels, rows, columns, p in sizes(generator):
        shape = (rows * columns, channels * p * p)
        values = torch.randn(shape, dtype=torch.float64, generator=generator)
        if not cases:
            values = torch.arange(values.numel(), dtype=torch.float64).reshape(shape)
        label = f"tokens of shape {shape}, a grid of {(rows, columns)} and p = {p}{NUMBERED * (not cases)}"
        cases.append(Case(label, (values, (rows, columns), p)))
    return cases


def cut(
    image: Tensor,
    p: int,
    *,
    pixels: str = "c (r a) (s b)",
    order: str = "(r s)",
    token: str = "(c a b)",
    shape: str = "tokens",
    grid: str = "told",
    step: str = "p",
) -> Tensor:
    """Cut an image into tokens, right as it stands; each changed option is one mistake.

    r and s count rows and columns of the grid, a and b those inside a patch, c channels.
    """
    if step == "one pixel":
        image = image.unfold(1, p, 1).unfold(2, p, 1)  # c, place down, place right, a, b
        image = rearrange(image, "c r s a b -> c (r a) (s b)")
    rows = columns = None
    if grid != "told":
        rows = columns = image.shape[1] // p
    if grid == "square, the rest left out":
        image = image[:, :, : columns * p]
    if shape == "reshaped":
        return image.reshape(-1, image.shape[0] * p * p)
    sides = {"a": p, "b": p} | ({"r": rows, "s": columns} if rows else {})
    if shape == "channels outermost":
        return rearrange(image, f"{pixels} -> c r s a b", **sides).reshape(-1, image.shape[0] * p * p)
    result = rearrange(image, f"{pixels} -> {order} {token}", **sides)
    return result.T if shape == "transposed" else result


def join(
    tokens: Tensor,
    grid: tuple[int, int],
    p: int,
    *,
    order: str = "(r s)",
    token: str = "(c a b)",
    pixels: str = "c (r a) (s b)",
    sides: str = "(rows, columns)",
    channels: int | None = None,
    shape: str = "image",
) -> Tensor:
    """Put tokens together to an image, right as it stands; each changed option is one mistake."""
    rows, columns = reversed(grid) if sides == "(columns, rows)" else grid
    if sides == "root":
        rows = columns = math.isqrt(len(tokens))
    if shape == "reshaped":
        return tokens.reshape(-1, rows * p, columns * p)
    lengths = {"r": rows, "s": columns, "a": p, "b": p} | ({"c": channels} if channels else {})
    if shape == "channels first":
        return rearrange(tokens.reshape(-1), f"(c r s a b) -> {pixels}", **lengths)
    if shape != "image":  # the axes in another order, then the right shape by force
        return rearrange(tokens, f"{order} {token} -> {shape}", **lengths).reshape(-1, rows * p, columns * p)
    return rearrange(tokens, f"{order} {token} -> {pixels}", **lengths)


PATCHIFY = Exercise(
    name="patchify",
    solution=patchify,
    cases=images,
    properties=(
        Property(
            "float32 stays float32",
            "an image in float32 comes back in another type: keep the type of the image.",
            lambda answer: answer(torch.zeros(3, 4, 6), 2).dtype == torch.float32,
        ),
    ),
    mistakes=(
        Mistake(
            "column-major",
            "the patches are taken column by column. Tokens follow each other as you read: look at the order of the two "
            "axes that count patches.",
            partial(cut, order="(s r)"),
        ),
        Mistake(
            "no permute",
            "the shape is right, but the pixels were never regrouped: a reshape alone goes on along the image's rows, "
            "across all patches. Split the axes first, then move them.",
            partial(cut, shape="reshaped"),
        ),
        Mistake(
            "channels last",
            "each token holds the right values, but with the channel changing fastest. Inside a token the order is channel, "
            "row, column.",
            partial(cut, token="(a b c)"),
        ),
        Mistake(
            "rows and columns swapped inside",
            "the patches are in the right order, but each is lying on its side: look at the order of row and column inside "
            "a patch.",
            partial(cut, token="(c b a)"),
        ),
        Mistake(
            "square assumed",
            "right for square images only: the numbers of patches down and across differ in general. Compute each from its "
            "own side of the image.",
            partial(cut, grid="square"),
        ),
        Mistake(
            "square assumed, the rest left out",
            "right for square images only: the numbers of patches down and across differ in general. Compute each from its "
            "own side of the image.",
            partial(cut, grid="square, the rest left out"),
        ),
        Mistake(
            "overlap",
            "the patches overlap: the next one begins one pixel further on, not p pixels.",
            partial(cut, step="one pixel"),
        ),
        Mistake(
            "every n-th pixel",
            "a token gathers pixels that lie far apart, one from each part of the image. A patch is a block of neighbours: "
            "of the two axes that a side splits into, the outer one counts patches.",
            partial(cut, pixels="c (a r) (b s)"),
        ),
        Mistake(
            "tokens across",
            "the numbers are right, but the result is lying on its side: tokens come first, then the values of a token.",
            partial(cut, shape="transposed"),
        ),
        Mistake(
            "a token for each channel",
            "each channel makes tokens of its own. One token holds all channels of its patch.",
            partial(cut, order="(c r s)", token="(a b)"),
        ),
        Mistake(
            "channels outermost",
            "all patches of one channel come before those of the next. A token gathers the channels of its patch: the two "
            "axes that count patches come first.",
            partial(cut, shape="channels outermost"),
        ),
        Mistake(
            "pixel rows before channels",
            "inside a token the rows of pixels come before the channels. The order is channel, row, column.",
            partial(cut, token="(a c b)"),
        ),
    ),
)

UNPATCHIFY = Exercise(
    name="unpatchify",
    solution=unpatchify,
    cases=tokens,
    properties=(
        Property(
            "float32 stays float32",
            "tokens in float32 come back in another type: keep the type of the tokens.",
            lambda answer: answer(torch.zeros(6, 12), (2, 3), 2).dtype == torch.float32,
        ),
    ),
    mistakes=(
        Mistake(
            "column-major",
            "the patches are laid out column by column. Tokens follow each other as you read: the first axis splits into "
            "rows, then columns, of the grid.",
            partial(join, order="(s r)"),
        ),
        Mistake(
            "no permute",
            "the shape is right, but the values were never regrouped: a reshape alone fills the image's rows with one token "
            "after the other. Split the axes first, then move them.",
            partial(join, shape="reshaped"),
        ),
        Mistake(
            "channels last in the token",
            "the values of a token are read with the channel changing fastest. Inside a token the order is channel, row, "
            "column.",
            partial(join, token="(a b c)"),
        ),
        Mistake(
            "rows and columns swapped inside",
            "the patches are in the right places, but each is lying on its side: look at the order of row and column inside "
            "a patch.",
            partial(join, token="(c b a)"),
        ),
        Mistake(
            "grid swapped",
            "the grid is taken as (columns, rows). It is (rows, columns), as everywhere in this course.",
            partial(join, sides="(columns, rows)"),
        ),
        Mistake(
            "square assumed",
            "right for square grids only: the number of rows cannot be guessed from the number of tokens. Use the grid "
            "that is given.",
            partial(join, sides="root"),
        ),
        Mistake(
            "three channels assumed",
            "right for three channels only. Compute their number from the length of a token and p.",
            partial(join, channels=3),
        ),
        Mistake(
            "channels last in the image",
            "the pixels are right, but the image comes back with its channels last. In torch they come first.",
            partial(join, pixels="(r a) (s b) c"),
        ),
        Mistake(
            "patches taken apart",
            "neighbours in a patch end up far apart. A patch is a block: of the two parts of a side, the outer one counts "
            "patches, the inner one pixels.",
            partial(join, pixels="c (a r) (b s)"),
        ),
        Mistake(
            "image transposed",
            "the image is lying on its side: height comes before width.",
            partial(join, pixels="c (s b) (r a)"),
        ),
        Mistake(
            "patchify's own permute",
            "the axes are moved as on the way there. The way back starts from another order of the axes (rows, columns, "
            "channels, p, p), so it needs another permutation: the one that undoes the first.",
            partial(join, shape="s a r c b"),
        ),
        Mistake(
            "pixel rows not interleaved",
            "the channels are right, but rows of patches and rows of pixels do not alternate. A column of the image runs "
            "through a patch before it enters the next: put each p behind the axis that it belongs to.",
            partial(join, shape="c r s a b"),
        ),
        Mistake(
            "channels read first",
            "the tokens are split as if channels came first. They are rows · columns tokens of channels · p · p values: the "
            "grid comes first, the channels after it.",
            partial(join, shape="channels first"),
        ),
    ),
)

EXERCISES = (PATCHIFY, UNPATCHIFY)
