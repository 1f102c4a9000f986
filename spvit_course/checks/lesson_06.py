"""Lesson 06: attention by place alone. PSA's map of three numbers a head, and the heads that are a convolution.

A number added to a whole row of a map is lost in the softmax, so maps are compared after it. And heads may stand in any
order, so what is compared are not their numbers but what they do to tokens.
"""

from functools import partial

import torch
from torch import Tensor

from spvit_mini.geometry import Grid
from spvit_mini.spatial import Quadratic, conv_heads

from .engine import Case, Exercise, Mistake, Property, Verdict, article, same
from .lesson_03 import drawer
from .lesson_06_answers import attend_by_place, quadratic, tap_heads

LENGTH = "the first number of v multiplies the length ‖δ‖. It belongs to its square."


def maps(generator: torch.Generator) -> list[Case]:
    draw = drawer(generator)
    grids = [(3, draw(4, 5)), (draw(4, 5), 3), (3, 3), (1, draw(4, 5)), (draw(4, 5), 1), (3, draw(6, 7)), (1, 1)]
    cases = []
    for heads, grid in zip([2, 3, 1, 2, 4, 9, 1], grids, strict=True):
        v = (0.4 * torch.randn(heads, 3, dtype=torch.float64, generator=generator)).round(decimals=2)
        cases.append(Case(f"v of shape {(heads, 3)} and the grid {grid}, after a softmax over the keys", (v, grid)))
    return cases


def by_place(answer, v: Tensor, grid: Grid) -> Tensor:
    """Make the attention weights by an answer's map, or by the package's class."""
    if answer is Quadratic:
        scores = torch.func.functional_call(Quadratic(len(v), strength=0.0), {"v": v}, (grid,))
    else:
        scores = answer(v, grid)
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        return scores
    weights = scores.softmax(-1)
    if is_length_rounded(weights, quadratic(v, grid, square="norm").softmax(-1)):
        raise Verdict(LENGTH, mistake="norm for square")
    return weights


def is_length_rounded(weights: Tensor, lengths: Tensor) -> bool:
    """Tell whether ‖δ‖ was taken for its square, with a root in single precision: whole numbers have no other in torch.

    Such a root may be off by one in its last digit, differently on each machine, so no known mistake has its numbers.
    """
    if weights.shape != lengths.shape:
        return False
    weights = weights.to(lengths)
    return torch.allclose(weights, lengths, rtol=1e-5, atol=1e-7) and not same(weights, lengths)


def keeps_the_type(answer) -> bool:
    """Tell whether a map of single precision stays so."""
    return answer(torch.tensor([[-1.0, 0.0, 2.0]]), (2, 3)).dtype == torch.float32


PSA_MAP = Exercise(
    name="psa_map",
    solution=Quadratic,
    cases=maps,
    call=by_place,
    properties=(
        Property(
            "float32 stays float32",
            "the values are right, but v of float32 gives a map of another type: keep the type of v.",
            keeps_the_type,
        ),
    ),
    stumble="types or shapes do not fit together. The offsets are whole numbers: cast the features to the type of v "
    "(not to float32) before you multiply. The last axis of v, and of the features, has three numbers.",
    mistakes=(
        Mistake(
            "no square",
            "the first number of v does nothing. It belongs to ‖δ‖².",
            partial(quadratic, square="none"),
        ),
        Mistake(
            "norm for square",
            LENGTH,
            partial(quadratic, square="norm"),
        ),
        Mistake(
            "sum for squares",
            "the first number of v multiplies the sum of both parts of δ. Square them before you add.",
            partial(quadratic, square="sum"),
        ),
        Mistake(
            "sizes for squares",
            "the first number of v multiplies |row| + |column|. ‖δ‖² adds the squares.",
            partial(quadratic, square="sum of sizes"),
        ),
        Mistake(
            "square of the sum",
            "the parts of δ are added before they are squared. ‖δ‖² adds the squares.",
            partial(quadratic, square="square of the sum"),
        ),
        Mistake(
            "rows only",
            "‖δ‖² lacks the columns' part. Along which axis do you sum?",
            partial(quadratic, square="rows only"),
        ),
        Mistake(
            "linear part left out",
            "only ‖δ‖² counts, so every head looks around its own query. The other two numbers of v belong to δ itself.",
            partial(quadratic, linear="left out"),
        ),
        Mistake(
            "square last",
            "‖δ‖² is multiplied by the last number of v. In this course it comes first: (‖δ‖², row, column).",
            partial(quadratic, order="row, column, square"),
        ),
        Mistake(
            "square last, columns first",
            "this is the order (column, row, ‖δ‖²) of ConViT's code. In this course: (‖δ‖², row, column).",
            partial(quadratic, order="column, row, square"),
        ),
        Mistake(
            "axes swapped",
            "the second number of v multiplies the column offset, the third the row offset. Row first.",
            partial(quadratic, order="square, column, row"),
        ),
        Mistake(
            "sign",
            "the offsets point the wrong way, or queries and keys have changed places: entry [h, i, j] is for query i, and δ is "
            "the place of j minus the place of i.",
            partial(quadratic, down="query − key", right="query − key"),
        ),
        Mistake(
            "sign of the rows",
            "the row offsets have the wrong sign. δ is key minus query, and rows count downwards.",
            partial(quadratic, down="query − key"),
        ),
        Mistake(
            "sign of the columns",
            "the column offsets have the wrong sign. δ is key minus query, and columns count to the right.",
            partial(quadratic, right="query − key"),
        ),
        Mistake(
            "absolute value",
            "the signs of δ are lost in its linear part, so no head can tell left from right.",
            partial(quadratic, down="absolute", right="absolute"),
        ),
        Mistake(
            "square assumed",
            "patch n is placed as if the grid had as many columns as rows. Its row is n // C, its column n % C.",
            partial(quadratic, tokens="row by row, R for C"),
        ),
        Mistake(
            "column by column",
            "your tokens run down the columns. Patches are numbered row by row.",
            partial(quadratic, tokens="column by column"),
        ),
        Mistake(
            "strength and centre",
            "v is read as a strength and a centre, −v₀·‖δ − (v₁, v₂)‖². It holds the factors of ‖δ‖², δ_row and δ_column.",
            partial(quadratic, reading="strength and centre"),
        ),
        Mistake(
            "minus put in",
            "the whole map has the wrong sign. If a head is to look near, that minus stands in v already.",
            partial(quadratic, after="minus"),
        ),
        Mistake(
            "divided by √3",
            "the map is divided by √3, the width of v. Only the product of two random vectors grows with its width (lesson 01).",
            partial(quadratic, after="by √3"),
        ),
        Mistake(
            "divided by √C",
            "the map is divided by √C, of the grid's columns. The root belongs to content scores, and its C "
            "is the width of a head.",
            partial(quadratic, after="by √C"),
        ),
        Mistake(
            "softmax taken",
            "the softmax is taken already. A map is what goes into it; whoever uses the map takes it.",
            partial(quadratic, after="softmax"),
        ),
        Mistake(
            "not spread",
            "this is the table over the distinct offsets. A map has a number for each pair of patches (lesson 03).",
            partial(quadratic, layout="table"),
        ),
        Mistake(
            "heads last",
            "the heads stand last. A map is (H, N, N), heads first.",
            partial(quadratic, after="heads last"),
        ),
    ),
)


def kernels(generator: torch.Generator) -> list[Case]:
    draw = drawer(generator)
    cases = []
    # Strengths that single precision holds exactly: an answer may make its centres there before it takes the kernel's type.
    for out, inside, high, wide, rows, columns, strength in [
        (3, 2, 3, 3, 3, 5, 1.25),
        (3, 3, 3, 3, 5, 4, 0.5),
        (1, 1, 3, 3, 4, 4, 8.0),
        (2, 2, 1, 3, 3, draw(4, 5), 0.75),
        (2, 2, 3, 1, draw(4, 5), 3, 1.75),
        (1, 2, 5, 3, draw(5, 6), 4, 2.25),
        (2, 3, 3, 3, 3, draw(4, 6), 60.0),
        (3, 2, 1, 1, 2, 3, 1.5),
    ]:
        kernel = torch.randn(out, inside, high, wide, dtype=torch.float64, generator=generator)
        tokens = torch.randn(rows * columns, inside, dtype=torch.float64, generator=generator)
        label = f"a kernel of shape {tuple(kernel.shape)}, α = {strength:g}, as applied to {rows} × {columns} tokens"
        cases.append(Case(label, (kernel, strength, tokens, (rows, columns))))
    return cases


def apply_heads(answer, kernel: Tensor, strength: float, tokens: Tensor, grid: Grid) -> Tensor:
    """Let the heads of an answer attend by place, and add them up: (N, out)."""
    heads = answer(kernel, strength)
    if not isinstance(heads, (tuple, list)) or len(heads) != 2 or not all(isinstance(part, Tensor) for part in heads):
        what = f"{len(heads)} parts" if isinstance(heads, (tuple, list)) else article(heads)
        forgotten = " Is the `return` missing?" if heads is None else ""
        raise Verdict(f"it returns {what}, not two tensors, v and w.{forgotten}")
    v, w = heads
    if v.ndim == 3 and w.ndim == 2:
        raise Verdict("v and w are swapped. Return the three numbers v first, then the matrices w.")
    out, inside = kernel.shape[:2]
    if v.ndim != 2 or w.ndim != 3 or v.shape != (len(w), 3) or w.shape[1:] != (inside, out):
        shapes = f"{tuple(v.shape)} and {tuple(w.shape)}, not (heads, 3) and (heads, {inside}, {out})"
        raise ValueError(f"for a kernel of shape {tuple(kernel.shape)}, v and w are {shapes}")
    if v.dtype != kernel.dtype or w.dtype != kernel.dtype:
        raise ValueError(f"for a kernel of {kernel.dtype}, v and w are of {v.dtype} and {w.dtype}: keep its type")
    return attend_by_place((v, w), tokens, grid)


CONV_HEADS = Exercise(
    name="conv_heads",
    solution=conv_heads,
    cases=kernels,
    call=apply_heads,
    mistakes=(
        Mistake(
            "flipped",
            "the kernel is turned by half a circle: each head looks to the opposite side of its tap. conv2d doesn't flip "
            "(it is a cross-correlation): the tap [.., 0, 0] of a 3 × 3 kernel belongs to the patch above and to the left. "
            "If your centres say so already, look at the sign before 2Δ in v.",
            partial(tap_heads, down=-1, right=-1),
        ),
        Mistake(
            "flipped rows",
            "the kernel stands on its head: taps of its upper row look down. Rows count downwards.",
            partial(tap_heads, down=-1),
        ),
        Mistake(
            "flipped columns",
            "the kernel is mirrored: taps of its left column look to the right.",
            partial(tap_heads, right=-1),
        ),
        Mistake(
            "axes",
            "the centres are (column, row). Row first, in Δ as in v.",
            partial(tap_heads, axes="column, row"),
        ),
        Mistake(
            "head order",
            "v and w count the taps in two orders, one row by row, the other column by column. Head h needs its own centre.",
            partial(tap_heads, order="column by column"),
        ),
        Mistake(
            "origin not shifted",
            "the centres begin at (0, 0). The middle of the kernel lies on the query, so its first "
            "tap lies above and to the left.",
            partial(tap_heads, origin="corner"),
        ),
        Mistake(
            "middle of 3 × 3",
            "the middle of each kernel is taken to be its tap [1, 1], as in a 3 × 3 one. Other sizes have another middle.",
            partial(tap_heads, origin="(1, 1)"),
        ),
        Mistake(
            "sign of α",
            "the sign of α is wrong: each head flees from its centre. Where is −α‖δ − Δ‖² largest?",
            partial(tap_heads, alpha="sign turned"),
        ),
        Mistake(
            "no 2",
            "each head looks half as far as it should. Multiply −α‖δ − Δ‖² out once more: what stands before Δ·δ?",
            partial(tap_heads, linear=1),
        ),
        Mistake(
            "α on the square alone",
            "α multiplies ‖δ‖² alone, so the centres move with it. It multiplies all of ‖δ − Δ‖².",
            partial(tap_heads, alpha="on the square alone"),
        ),
        Mistake(
            "α left out",
            "the heads are the same whatever α is.",
            partial(tap_heads, alpha="left out"),
        ),
        Mistake(
            "no centre",
            "every head looks around the query itself: the linear part of v is 0.",
            partial(tap_heads, linear=0),
        ),
        Mistake(
            "in and out swapped",
            "w[h] is (out, in), as it lies in the kernel. The head multiplies tokens from the right, so it needs (in, out).",
            partial(tap_heads, mixes="out, in"),
        ),
        Mistake(
            "channels mixed",
            "w has the right shape, but channels and taps are mixed: a reshape cannot move an axis. Permute, then join.",
            partial(tap_heads, mixes="as they lie"),
        ),
        Mistake(
            "averaged",
            "the heads are averaged. A convolution adds its taps up.",
            partial(tap_heads, share="mean"),
        ),
        Mistake(
            "square assumed",
            "the kernel is taken to have as many columns as rows. Here it may be 1 × 3, or 5 × 3.",
            partial(tap_heads, sides="rows, rows"),
        ),
    ),
)

EXERCISES = (PSA_MAP, CONV_HEADS)
