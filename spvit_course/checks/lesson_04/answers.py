"""Lesson 04's answers with options: each is right as it stands, and each changed option is one mistake."""

import math

import torch
from torch import Tensor

from spvit_mini.attention import MHSA
from spvit_mini.geometry import Grid
from spvit_mini.spatial import Table

from ..composition import DIRECTIONS, locate_tokens, spread_table


class RelativeBias(MHSA):
    """Relative position bias. Options of `spread_table` say how the table is spread."""

    def __init__(
        self,
        dim: int,
        heads: int,
        grid: Grid,
        *,
        tables: str = "one each",
        way: str = "added",
        root: str = "√C",
        axis: str = "keys",
        times: str = "once",
        **spread,
    ):
        super().__init__(dim, heads)
        self.spatial = Table(heads, grid)
        self.tables, self.way, self.root, self.axis, self.times, self.spread = tables, way, root, axis, times, spread

    def weights(self, q: Tensor, k: Tensor, grid: Grid) -> Tensor:
        table = self.spatial.values
        table = {"one each": table, "the first": table[:1], "the mean": table.mean(0, keepdim=True)}[self.tables]
        f = spread_table(table, grid, **self.spread)
        width = q.shape[-1]
        factors = {"none": width**0.5, "twice": width**-0.5, "twice, bias too": width**-0.5}
        scores = self.scores(q, k) * factors.get(self.root, 1)
        f = f * (width**-0.5 if self.root.endswith("bias too") else 1)
        if self.times == "before too":
            scores = self.share(scores)
        mixed = {
            "added": lambda: self.share(scores + f),
            "subtracted": lambda: self.share(scores - f),
            "multiplied": lambda: self.share(scores * f),
            "added after": lambda: self.share(scores) + f,
            "multiplied after": lambda: self.share(scores) * f,
            "alone": lambda: self.share(f).expand_as(scores),
            "left out": lambda: self.share(scores),
        }[self.way]()
        return self.share(mixed) if self.times == "after too" else mixed

    def share(self, scores: Tensor) -> Tensor:
        if self.axis == "none":
            return scores
        return scores.softmax({"keys": -1, "queries": -2}[self.axis])


def shaw2d(
    q: Tensor,
    tables: Tensor,
    grid: Grid,
    clip: int,
    *,
    limit: str = "each",
    ruler: str = "row, column",
    down: str = "key − query",
    right: str = "key − query",
    tokens: str = "row by row",
    shift: str = "clip",
    order: str = "rows, columns",
    join: str = "sum",
    asks: str = "query",
    root: str = "√C",
) -> Tensor:
    """Let each query meet the embeddings of its offsets: q · (row embedding + column embedding) / √C."""
    rows, columns = grid
    line, place = locate_tokens(tokens, rows, columns)
    if ruler == "j − i":
        line = place = torch.arange(rows * columns)
    first, second = (DIRECTIONS[how](x[None, :], x[:, None]) for how, x in ((down, line), (right, place)))
    outside = (first.abs() > clip) | (second.abs() > clip)
    if limit == "norm":
        norm = torch.stack([first, second]).double().norm(dim=0)
        first, second = ((x * clip / norm.clamp(min=clip)).round().long() for x in (first, second))
    elif limit != "none":
        ends = {"above": (None, clip), "from 0": (0, 2 * clip)}.get(limit, (-clip, clip))
        first, second = (x.clamp(*ends) for x in (first, second))
    middle = clip if shift == "clip" else 0
    vectors = tables[0][first + middle], tables[1][second + middle]  # (N, N, C) each
    if order == "columns, rows":
        vectors = tables[1][first + middle], tables[0][second + middle]
    together = {
        "sum": lambda: vectors[0] + vectors[1],
        "product": lambda: vectors[0] * vectors[1],
        "mean": lambda: (vectors[0] + vectors[1]) / 2,
        "rows only": lambda: vectors[0],
        "columns only": lambda: vectors[1],
    }[join]()
    if limit == "0 outside":
        together = together.masked_fill(outside[..., None], 0.0)
    result = torch.einsum("...ic,ijc->...ij" if asks == "query" else "...jc,ijc->...ij", q, together)
    return result * {"√C": q.shape[-1] ** -0.5, "none": 1.0, "C": 1 / q.shape[-1], "1/√C": q.shape[-1] ** 0.5}[root]


def log_offsets(
    delta: Tensor,
    window: Grid,
    *,
    sign: str = "own",
    one: float = 1.0,
    log: str = "log2",
    divided: float = 3.0,
    sides: str = "R − 1",
    axes: str = "rows, columns",
    factor: float = 8.0,
    division: str = "real",
    bound: float = math.inf,
) -> Tensor:
    """Make Swin v2's coordinates: sign(δ') log2(1 + |δ'|) / log2 8, with δ' = 8δ / (R − 1, C − 1)."""
    rows, columns = window
    sides_of = {
        "rows, columns": (rows, columns),
        "columns, rows": (columns, rows),
        "rows, rows": (rows, rows),
        "columns, columns": (columns, columns),
    }[axes]
    reach = {"R − 1": lambda side: side - 1, "R": lambda side: side, "2R − 1": lambda side: 2 * side - 1, "1": lambda side: 1}
    if sides.startswith("input"):
        farthest = delta.abs().flatten(0, -2).amax(0)
        farthest = farthest if sides == "input, each axis" else farthest.amax()
    else:
        farthest = delta.new_tensor([reach[sides](side) for side in sides_of])
    near = {
        "real": lambda: factor * delta / farthest,
        "floor": lambda: factor * delta // farthest,
        "floor first": lambda: factor * (delta // farthest),
    }[division]().clamp(-bound, bound)
    base = {"log2": 2.0, "ln": math.e, "log10": 10.0}[log]
    size = (one + (near if "inside" in sign else near.abs())).log() / math.log(base) / divided
    return size * near.sign() if sign in ("own", "inside and out") else size
