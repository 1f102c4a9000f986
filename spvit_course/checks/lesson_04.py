"""Lesson 04: a learned number for each offset, a vector that meets the query, and coordinates for a network.

Rectangles, and tables with random values: what is wrong with signs and axes shows on them only.
"""

import torch
from torch import Tensor, nn

from spvit_mini.attention import RelativeBias
from spvit_mini.geometry import Grid, pair_offsets
from spvit_mini.spatial import log_offsets as of_the_package

from .engine import Case, Exercise, Property
from .exchange import compare_states
from .lesson_01 import slips, stays_float32
from .lesson_03 import drawer
from .lesson_04_answers import Biased, logged, meet


def shaw2d(q: Tensor, tables: Tensor, grid: Grid, clip: int) -> Tensor:
    """Compute q · e_δ / √C: queries (…, N, C) and tables (2, 2·clip+1, C) → (…, N, N)."""
    index = pair_offsets(*grid).clamp(-clip, clip) + clip  # (N, N, 2)
    embeddings = tables[0][index[..., 0]] + tables[1][index[..., 1]]  # (N, N, C)
    return torch.einsum("...ic,ijc->...ij", q, embeddings) * q.shape[-1] ** -0.5


def log_offsets(delta: Tensor, window: Grid) -> Tensor:
    """Compute Swin v2's coordinates of offsets (…, 2) for the window that they were learned in."""
    return of_the_package(8 * delta / delta.new_tensor([side - 1 for side in window])) / 3


# Cases. Widths of heads are powers of 4, so that a root taken in float32 is exact too ---------------------------------


def layers(generator: torch.Generator) -> list[Case]:
    """Draw queries, keys and a table on grids of several kinds."""
    wide = drawer(generator)(4, 5)
    cases = []
    for batch, heads, width, grid in [
        (2, 2, 4, (2, 3)),
        (1, 3, 4, (3, 2)),
        (1, 2, 16, (3, 3)),
        (2, 1, 4, (2, wide)),
        (1, 2, 1, (1, 4)),
        (1, 2, 4, (wide, 1)),
        (2, 2, 4, (1, 1)),
    ]:
        rows, columns = grid
        tokens = (batch, heads, rows * columns, width)
        shapes = (tokens, tokens, (heads, 2 * rows - 1, 2 * columns - 1))
        q, k, table = (1.5 * torch.randn(shape, dtype=torch.float64, generator=generator) for shape in shapes)
        label = f"q and k of shape {tokens} on the grid {grid}"
        cases.append(Case(label, (heads, grid, table, q, k)))
    return cases


class Asked(nn.Module):
    """Let `functional_call`, which calls a module, ask a layer for its weights."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, q: Tensor, k: Tensor, grid: Grid) -> Tensor:
        return self.layer.weights(q, k, grid)


def ask_layer(made, heads: int, grid: Grid, table: Tensor, q: Tensor, k: Tensor) -> Tensor:
    """Build a layer, give it this table, and ask for the weights of these queries and keys."""
    layer = made(heads * q.shape[-1], heads, grid).double().eval()
    own = {name: value for name, value in layer.state_dict().items() if name.startswith("spatial")}
    compare_states({"spatial.values": table}, own)
    return torch.func.functional_call(Asked(layer), {"layer.spatial.values": table}, (q, k, grid))


def queries(generator: torch.Generator) -> list[Case]:
    """Draw queries and embeddings: the clip smaller than the grid on both axes, on one, on none."""
    wide = drawer(generator)(4, 5)
    cases = []
    for leading, width, grid, clip in [
        ((2, 2), 4, (2, 3), 2),
        ((1, 2), 4, (3, wide), 1),
        ((2, 1), 4, (wide, 3), 2),
        ((1, 2), 16, (4, 4), 1),
        ((), 4, (1, wide), 2),
        ((3,), 1, (wide, 1), 1),
        ((1, 1), 4, (1, 1), 1),
    ]:
        shape = (*leading, grid[0] * grid[1], width)
        q = torch.randn(shape, dtype=torch.float64, generator=generator)
        tables = torch.randn((2, 2 * clip + 1, width), dtype=torch.float64, generator=generator)
        cases.append(Case(f"q of shape {shape} on the grid {grid}, clip = {clip}", (q, tables, grid, clip)))
    return cases


def deltas(generator: torch.Generator) -> list[Case]:
    """List offsets: all of the window that they were learned in, of a larger grid, of a smaller one, any."""
    draw = drawer(generator)
    small, large = draw(3, 4), draw(6, 7)
    cases = []
    for window, grid in [
        ((9, 9), (9, 9)),
        ((small, large), (small, large)),
        ((large, small), (8, 8)),
        ((7, 7), (2, 3)),
        ((2, 5), (2, 5)),
    ]:
        label = f"all offsets of a grid {grid} for the window {window}"
        cases.append(Case(label, (pair_offsets(*grid).double(), window)))
    other = 4 * torch.randn((5, 2), dtype=torch.float64, generator=generator)
    return [*cases, Case("any five offsets for the window (5, 4)", (other, (5, 4)))]


# Exercises ------------------------------------------------------------------------------------------------------------

SIDES = "right for square grids only: each axis has a middle of its own."
SILENT = "A negative index counts from the end without a word."
TWICE = "by √(D/H) twice, since `self.scores` has divided them already."
FLOORED = "a division rounds down to whole numbers: `//` is not `/`."
OF_INPUT = "offsets are divided by the farthest of the input. It is the window of training that counts, whatever is asked"

RELATIVE_BIAS = Exercise(
    name="RelativeBias",
    solution=RelativeBias,
    cases=layers,
    call=ask_layer,
    mistakes=slips(
        Biased,
        {
            "sign": (
                "the map is transposed: pair [i, j] gets the number for looking from j to i. δ is key minus query, and "
                "queries come first.",
                {"down": "query − key", "right": "query − key"},
            ),
            "sign of the rows": (
                "above and below have changed places, left and right have not: look at the sign of the row offset.",
                {"down": "query − key"},
            ),
            "sign of the columns": (
                "left and right have changed places, above and below have not: look at the sign of the column offset.",
                {"right": "query − key"},
            ),
            "absolute value": (
                "the signs of the offsets are lost: three up gets the number of three down.",
                {"down": "absolute", "right": "absolute"},
            ),
            "axes swapped": (
                "the table is read with rows and columns in each other's place. Its first axis belongs to row offsets.",
                {"axes": "columns, rows"},
            ),
            "origin not shifted": (
                f"δ itself is used as the index, but δ = (0, 0) stands in the middle of the table. {SILENT}",
                {"shift": "0, 0"},
            ),
            "origin not shifted, one index": (
                f"δ itself is made into one index, but δ = (0, 0) stands in the middle of the table. {SILENT}",
                {"shift": "0, 0", "stride": "2C−1"},
            ),
            "square assumed: rows": (
                f"{SIDES} The column offset is shifted by as much as the rows need.",
                {"shift": "R−1, R−1"},
            ),
            "square assumed: columns": (
                f"{SIDES} The row offset is shifted by as much as the columns need.",
                {"shift": "C−1, C−1"},
            ),
            "square assumed: tokens": (
                "right for square grids only: the row of a token is its number divided by how many tokens a row has, which "
                "is the number of columns.",
                {"tokens": "row by row, R for C"},
            ),
            "column by column": (
                "the tokens are taken column by column. They are numbered row by row, as you read.",
                {"tokens": "column by column"},
            ),
            "wrong stride: 2R−1": (
                "right for square grids only: one row of the table down is as many entries further on as the table has "
                "columns.",
                {"stride": "2R−1"},
            ),
            "wrong stride: C": (
                "one row of the table down is as many entries further on as the *table* has columns, and it has more than "
                "the grid.",
                {"stride": "C"},
            ),
            "multiplied": ("the bias multiplies the scores. Here it is added to them.", {"way": "multiplied"}),
            "subtracted": ("the bias is subtracted. It is added to the scores.", {"way": "subtracted"}),
            "added after": (
                "the bias is added to the weights, after the softmax: then rows do not sum to 1. It belongs to the scores.",
                {"way": "added after"},
            ),
            "multiplied after": (
                "the bias multiplies the weights, after the softmax: then rows do not sum to 1. It is added to the scores.",
                {"way": "multiplied after"},
            ),
            "alone": ("these are weights by position alone: the scores of queries and keys are missing.", {"way": "alone"}),
            "left out": ("these are the weights of plain attention: the table was not used.", {"way": "left out"}),
            "one map for all heads": (
                "all heads use the table of the first one. Each has its own: keep the axis of the heads.",
                {"tables": "the first"},
            ),
            "tables averaged": (
                "the tables of the heads are averaged. Each head keeps its own.",
                {"tables": "the mean"},
            ),
            "softmax before": (
                "there is a softmax too many: the scores went through one before the bias was added.",
                {"times": "before too"},
            ),
            "softmax after": ("there is a softmax too many: the weights went through a second one.", {"times": "after too"}),
            "over queries": (
                "the softmax runs over the queries. Each query has one whole to give away, to its keys: check which sums are 1.",
                {"axis": "queries"},
            ),
            "no softmax": (
                "these are scores with the bias. What is asked for are weights, each row of which sums to 1.",
                {"axis": "none"},
            ),
            "no root": ("the scores are not divided by √(D/H). `self.scores` does it for you.", {"root": "none"}),
            "root of the bias": (
                "the bias is divided by √(D/H) as well. Only the product of query and key is; the bias is added to that.",
                {"root": "bias too"},
            ),
            "root twice": (f"the scores are divided {TWICE}", {"root": "twice"}),
            "root twice, of the bias too": (f"the sum is divided: the scores {TWICE}", {"root": "twice, bias too"}),
        },
    ),
)

SHAW2D = Exercise(
    name="shaw2d",
    solution=shaw2d,
    cases=queries,
    stumble="shapes or indices do not fit together. Is each index between 0 and 2·clip? And each pair has an embedding of its "
    "own, (N, N, D/H) in all: in `q @ e.mT` their first axis would be a batch. Name axes (einsum), or multiply and sum.",
    properties=(stays_float32(lambda answer: answer(torch.ones(1, 6, 4), torch.ones(2, 3, 4), (2, 3), 1)),),
    mistakes=slips(
        meet,
        {
            "no clip": (
                "offsets beyond the clip are looked up as they are, past the end of the tables. Bring each into "
                "−clip … clip first.",
                {"limit": "none"},
            ),
            "clips the norm": (
                "the offset is shortened as an arrow, so a far row moves its column too. Clip its two numbers apart.",
                {"limit": "norm"},
            ),
            "clipped above only": (f"offsets are clipped at clip, but not at −clip. {SILENT}", {"limit": "above"}),
            "all negative ones as −clip": (
                "offsets are clipped to 0 … 2·clip before they are shifted, so all that lies above, or to the left, is alike. "
                "In which order do clipping and shifting belong?",
                {"limit": "from 0", "shift": "0"},
            ),
            "0 beyond": (
                "pairs beyond the clip get 0. They share the embedding of the clip itself: far away is not nowhere.",
                {"limit": "0 outside"},
            ),
            "key for query": (
                "in your result the *key's* vector meets the embedding. It should be the query's: row i depends on query i only.",
                {"asks": "key"},
            ),
            "unscaled": ("the products are not divided by √(D/H), as the scores beside them are.", {"root": "none"}),
            "C for its root": ("the products are divided by D/H, not by its square root.", {"root": "C"}),
            "times the root": ("the products are multiplied by √(D/H). They are to be divided by it.", {"root": "1/√C"}),
            "flattened": (
                "j − i of the token numbers is used for an offset. Take rows and columns apart: δ has two numbers.",
                {"ruler": "j − i"},
            ),
            "axes swapped": (
                "the tables have changed places: tables[0] belongs to row offsets, tables[1] to column offsets.",
                {"order": "columns, rows"},
            ),
            "sign": (
                "both offsets have the wrong sign: δ is key minus query.",
                {"down": "query − key", "right": "query − key"},
            ),
            "sign of the rows": (
                "above and below have changed places, left and right have not: look at the sign of the row offset.",
                {"down": "query − key"},
            ),
            "sign of the columns": (
                "left and right have changed places, above and below have not: look at the sign of the column offset.",
                {"right": "query − key"},
            ),
            "transposed": (
                "the result is transposed: row i belongs to query i, column j to key j.",
                {"down": "query − key", "right": "query − key", "asks": "key"},
            ),
            "absolute value": (
                "the signs of the offsets are lost: one up gets the embedding of one down.",
                {"down": "absolute", "right": "absolute"},
            ),
            "origin not shifted": (
                f"the clipped offset itself is used as the index, but offset 0 stands in the middle of a table. {SILENT}",
                {"shift": "0"},
            ),
            "square assumed": (
                "right for square grids only: the row of a token is its number divided by how many tokens a row has, which "
                "is the number of columns.",
                {"tokens": "row by row, R for C"},
            ),
            "column by column": (
                "the tokens are taken column by column. They are numbered row by row, as you read.",
                {"tokens": "column by column"},
            ),
            "rows only": ("only the row's embedding meets the query: the column's is missing.", {"join": "rows only"}),
            "columns only": ("only the column's embedding meets the query: the row's is missing.", {"join": "columns only"}),
            "product": ("the two embeddings are multiplied. They are added.", {"join": "product"}),
            "mean": ("the mean of the two embeddings is taken. They are added.", {"join": "mean"}),
        },
    ),
)

LOG_OFFSETS = Exercise(
    name="log_offsets",
    solution=log_offsets,
    cases=deltas,
    gradients=False,
    properties=(
        Property(
            "whole numbers as input",
            "offsets that are whole numbers come out otherwise than the same offsets as real ones.",
            lambda answer: torch.allclose(
                answer(pair_offsets(2, 3), (4, 3)).double(), answer(pair_offsets(2, 3).double(), (4, 3)), atol=1e-6
            ),
        ),
    ),
    mistakes=slips(
        logged,
        {
            "no sign": ("the sign is lost: three up and three down have the same coordinate.", {"sign": "lost"}),
            "no absolute value": (
                "the logarithm is taken of 1 + δ′ with its sign: nothing comes of it where δ′ is −1 or less. Take the "
                "size's, and give it the sign.",
                {"sign": "inside"},
            ),
            "sign outside only": (
                "the logarithm is taken of 1 + δ′ with its sign, and multiplied by the sign. Take the size's: 1 + |δ′|.",
                {"sign": "inside and out"},
            ),
            "no + 1": (
                "the 1 is missing under the logarithm: |δ′| = 1 becomes 0, what is nearer gets the wrong sign, and 0 is nan.",
                {"one": 0.0},
            ),
            "rounded down": (FLOORED, {"division": "floor"}),
            "rounded down, then times 8": (FLOORED, {"division": "floor first"}),
            "clamped": ("δ′ is clamped to −8 … 8. Beyond the window it may be larger: that is the point.", {"bound": 8.0}),
            "by the input": (f"{OF_INPUT}.", {"sides": "input, each axis"}),
            "by the input, both axes": (f"{OF_INPUT}, and each axis has its own.", {"sides": "input"}),
            "natural logarithm": (
                "the logarithm is the natural one, but divided by log2 8 = 3. Both must have one base.",
                {"log": "ln"},
            ),
            "base 10": (
                "the logarithm has base 10, but is divided by log2 8 = 3. Both must have one base.",
                {"log": "log10"},
            ),
            "not divided": ("the division by log2 8 is missing: an offset with δ′ = 7 should become 1.", {"divided": 1.0}),
            "natural, not divided": (
                "this is the natural logarithm, undivided: an offset with δ′ = 7 should become 1.",
                {"log": "ln", "divided": 1.0},
            ),
            "divided by 8": ("it is divided by 8, not by log2 8 = 3.", {"divided": 8.0}),
            "R for R − 1": (
                "offsets are divided by the side of the window. The farthest is one less: R − 1 rows.",
                {"sides": "R"},
            ),
            "2R − 1 for R − 1": (
                "offsets are divided by how many there are, 2R − 1. The farthest is R − 1 rows.",
                {"sides": "2R − 1"},
            ),
            "not normalised": ("the window is not used: offsets are divided by its farthest one.", {"sides": "1"}),
            "raw": (
                "offsets are taken in patches: they are to be divided by the window's farthest one, and multiplied by 8.",
                {"sides": "1", "factor": 1.0},
            ),
            "no factor 8": ("the factor of 8 is missing: the farthest offset of the window has δ′ = 8.", {"factor": 1.0}),
            "axes swapped": (
                "rows are divided by what belongs to columns, and columns by what belongs to rows.",
                {"axes": "columns, rows"},
            ),
            "square assumed: rows": (
                "right for square windows only: columns are divided by what belongs to rows.",
                {"axes": "rows, rows"},
            ),
            "square assumed: columns": (
                "right for square windows only: rows are divided by what belongs to columns.",
                {"axes": "columns, columns"},
            ),
        },
    ),
)

EXERCISES = (RELATIVE_BIAS, SHAW2D, LOG_OFFSETS)
