"""Exercises of the variant `decay`: tents in place of PSA's bells, hills in place of the prior's ramps.

As in the lessons' answers, each function with options is right as it stands, and each changed option is one mistake.
"""

import torch
from torch import Tensor

from spvit_mini.geometry import Grid

from .engine import Case, Exercise, Mistake, Property
from .lesson_01 import slips, stays_float32
from .lesson_03 import drawer
from .lesson_03_answers import STEPS
from .lesson_06 import keeps_the_type
from .lesson_06_answers import quadratic
from .lesson_08_answers import folded

# How far two numbers, of rows and of columns, are from 0 together.
DISTANCES = {
    "sum of sizes": lambda down, right: down.abs() + right.abs(),
    "length": lambda down, right: (down.square() + right.square()).sqrt(),
    "squared length": lambda down, right: down.square() + right.square(),
    "the larger": lambda down, right: torch.maximum(down.abs(), right.abs()),
    "with signs": lambda down, right: down + right,
    "size of the sum": lambda down, right: (down + right).abs(),
    "rows only": lambda down, right: down.abs(),
    "columns only": lambda down, right: right.abs(),
}
REACHES = {
    "divided": lambda distance, reach: distance / reach,
    "multiplied": lambda distance, reach: distance * reach,
    "left out": lambda distance, reach: distance,
    "squared": lambda distance, reach: distance / reach**2,
}
DISTANCE_HINTS = {
    "length": "the distance is the length ‖·‖ of an arrow. Here it is the city block's: |rows| + |columns|.",
    "squared length": "the distance is squared, as in the lesson's bell. Here it is |rows| + |columns|, not squared.",
    "the larger": "the larger of |rows| and |columns| is taken. They are to be added.",
    "with signs": "rows and columns are added with their signs. A distance adds their sizes.",
    "size of the sum": "rows and columns are added before the size is taken. Take the size of each, then add.",
    "rows only": "the columns' part of the distance is missing.",
    "columns only": "the rows' part of the distance is missing.",
}


def numbered(tokens: str, grid: Grid) -> tuple[Tensor, Tensor]:
    """Give the row and the column of each token, numbered rightly or not: (N,) each."""
    rows, columns = grid
    n = torch.arange(rows * columns)
    return {
        "row by row": (n // columns, n % columns),
        "column by column": (n % rows, n // rows),
        "row by row, R for C": (n // rows, n % rows),
    }[tokens]


# Lesson 06: tents -------------------------------------------------------------------------------------------------------

AFTER = {
    "nothing": lambda scores: scores,
    "softmax": lambda scores: scores.softmax(-1),
    "exp": torch.exp,
    "minus": lambda scores: -scores,
    "heads last": lambda scores: scores.permute(1, 2, 0),
}


def tents(
    v: Tensor,
    grid: Grid,
    *,
    distance: str = "sum of sizes",
    reach: str = "divided",
    centre: str = "subtracted",
    order: tuple[int, int, int] = (0, 1, 2),
    down: str = "key − query",
    right: str = "key − query",
    tokens: str = "row by row",
    after: str = "nothing",
) -> Tensor:
    """Make the map −(|δ_row − Δ_row| + |δ_column − Δ_column|) / τ of heads v = (τ, Δ_row, Δ_column): (H, N, N)."""
    line, place = numbered(tokens, grid)
    below, beside = (STEPS[how](at[None, :], at[:, None]).to(v) for how, at in ((down, line), (right, place)))
    tau, row, column = (v[:, k, None, None] for k in order)
    if centre == "of sizes":
        below, beside = below.abs(), beside.abs()
    if centre == "left out":
        row, column = 0 * row, 0 * column
    far = DISTANCES[distance](below - row, beside - column)
    return AFTER[after](-REACHES[reach](far, tau))


def psa_map_decay(v: Tensor, grid: Grid) -> Tensor:
    return tents(v, grid)


def by_place(answer, v: Tensor, grid: Grid) -> Tensor:
    """Make the attention weights by an answer's map: what a softmax does not see does not matter."""
    scores = answer(v, grid)
    return scores.softmax(-1) if isinstance(scores, Tensor) and scores.is_floating_point() else scores


def tent_cases(generator: torch.Generator) -> list[Case]:
    draw = drawer(generator)
    grids = [(3, draw(4, 5)), (draw(4, 5), 3), (3, 3), (1, draw(4, 5)), (draw(4, 5), 1), (3, draw(6, 7)), (1, 1)]
    cases = []
    for heads, grid in zip([2, 3, 1, 2, 4, 9, 1], grids, strict=True):
        v = torch.randn(heads, 3, dtype=torch.float64, generator=generator)
        v[:, 0] = 0.6 + v[:, 0].abs()
        cases.append(Case(f"v of shape {(heads, 3)} and the grid {grid}, after a softmax over the keys", (v, grid)))
    return cases


TENTS = Exercise(
    name="psa_map",
    solution=psa_map_decay,
    cases=tent_cases,
    call=by_place,
    properties=(
        Property(
            "float32 stays float32",
            "the values are right, but v of float32 gives a map of another type: keep the type of v.",
            keeps_the_type,
        ),
    ),
    stumble="types or shapes do not fit together. The offsets are whole numbers: cast them to the type of v. Each head has three "
    "numbers, and pairs stand on two axes behind the heads: v[:, 0, None, None] is (H, 1, 1).",
    mistakes=(
        Mistake(
            "the lesson's answer",
            "this is the lesson's map, v · (‖δ‖², row, column): a bell. This set asks for a tent: v holds (τ, Δ_row, Δ_column), "
            "and the score falls in equal steps with |rows| + |columns| from the centre.",
            quadratic,
        ),
        *slips(tents, {name: (hint, {"distance": name}) for name, hint in DISTANCE_HINTS.items()}),
        *slips(
            tents,
            {
                "times τ": (
                    "the distance is multiplied by τ. A wide tent has a large τ, so it is divided.",
                    {"reach": "multiplied"},
                ),
                "no τ": ("τ is not used: all heads decay alike.", {"reach": "left out"}),
                "τ squared": ("the distance is divided by τ², as a bell's would be. Here it is τ.", {"reach": "squared"}),
                "no centre": ("the centre is not used: every head's tent stands on its own query.", {"centre": "left out"}),
                "centre of sizes": (
                    "the signs of δ are lost before the centre is subtracted: a head that looks right looks left as well.",
                    {"centre": "of sizes"},
                ),
                "sign": (
                    "the tent stands on the other side of the query. Either the centre is added where it is to be subtracted, "
                    "or δ is taken as query minus key.",
                    {"down": "query − key", "right": "query − key"},
                ),
                "sign of the rows": (
                    "above and below have changed places: look at the sign of the row offset, and of the centre's row.",
                    {"down": "query − key"},
                ),
                "sign of the columns": (
                    "left and right have changed places: look at the sign of the column offset, and of the centre's column.",
                    {"right": "query − key"},
                ),
                "axes swapped": (
                    "the second number of v belongs to rows, the third to columns; yours are the other way round.",
                    {"order": (0, 2, 1)},
                ),
                "τ last": ("τ is taken from the end of v. It comes first: (τ, Δ_row, Δ_column).", {"order": (2, 0, 1)}),
                "column by column": (
                    "your tokens run down the columns. Patches are numbered row by row.",
                    {"tokens": "column by column"},
                ),
                "square assumed": (
                    "patch n is placed as if the grid had as many columns as rows. Its row is n // C, its column n % C.",
                    {"tokens": "row by row, R for C"},
                ),
                "growing": ("the map grows with the distance. It decays: what is far gets less.", {"after": "minus"}),
                "exp taken": (
                    "the exponential is taken already. A map is what goes into the softmax, which takes it.",
                    {"after": "exp"},
                ),
                "softmax taken": (
                    "the softmax is taken already. A map is what goes into it; whoever uses the map takes it.",
                    {"after": "softmax"},
                ),
                "heads last": ("the heads stand last. A map is (H, N, N), heads first.", {"after": "heads last"}),
            },
        ),
    ),
)

# Lesson 08: hills -------------------------------------------------------------------------------------------------------


def hills(
    delta: Tensor,
    centres: Tensor,
    reach: Tensor,
    heights: Tensor,
    floor: Tensor,
    *,
    distance: str = "sum of sizes",
    divided: str = "divided",
    centre: str = "subtracted",
    axes: str = "row, column",
    slope: float = -1.0,
    shared: str = "nothing",
    total: str = "sum",
    base: str = "own",
    heads: str = "first",
) -> Tensor:
    """Compute floor_h + Σ_k heights_hk · exp(−‖δ − centres_hk‖₁ / reach_hk) for offsets (…, 2): (H, …)."""
    if shared == "centres":
        centres = centres[:1].expand_as(centres)
    elif shared == "reach":
        reach = reach[:1].expand_as(reach)
    elif shared == "heights":
        heights = heights[:1].expand_as(heights)
    seen = delta if axes == "row, column" else delta.flip(-1)
    places = {"subtracted": centres, "added": -centres, "left out": 0 * centres}[centre]
    down, right = (seen[..., None, None, :] - places).unbind(-1)  # (…, H, K) each
    decayed = (slope * REACHES[divided](DISTANCES[distance](down, right), reach)).exp()
    weighed = decayed if total == "no heights" else decayed * heights
    result = weighed.mean(-1) if total == "mean" else weighed.amax(-1) if total == "the highest" else weighed.sum(-1)
    result = result + {"own": floor, "left out": 0 * floor, "1": 1 + 0 * floor, "the first": floor[:1]}[base]
    if heads == "added":
        return result.sum(-1)
    return result.movedim(-1, 0) if heads == "first" else result


def prior_decay(delta: Tensor, centres: Tensor, reach: Tensor, heights: Tensor, floor: Tensor) -> Tensor:
    return hills(delta, centres, reach, heights, floor)


def hill_cases(generator: torch.Generator) -> list[Case]:
    """Draw hills, and offsets: of a wide grid, of a tall one, any, one alone; one head, one hill; one patch."""
    more = drawer(generator)(1, 2)

    def grid(rows: int, columns: int) -> Tensor:
        spans = [torch.arange(1 - side, side, dtype=torch.float64) for side in (rows, columns)]
        return torch.stack(torch.meshgrid(*spans, indexing="ij"), dim=-1)

    any_five = 2 * torch.randn((5, 2), dtype=torch.float64, generator=generator)
    cases = []
    for heads, hidden, delta, told in [
        (3, 4, grid(2, 2 + more), f"all offsets of a grid (2, {2 + more})"),
        (2, 3, grid(2 + more, 2), f"all offsets of a grid ({2 + more}, 2)"),
        (2, 5, any_five, "any five offsets"),
        (1, 4, grid(3, 3), "all offsets of a grid (3, 3)"),
        (4, 1, grid(1, 3), "all offsets of a grid (1, 3)"),
        (3, 4, any_five[0], "one offset"),
        (2, 3, grid(1, 1), "the one offset of a grid (1, 1)"),
    ]:
        shapes = (heads, hidden, 2), (heads, hidden), (heads, hidden), (heads,)
        centres, reach, heights, floor = (torch.randn(s, dtype=torch.float64, generator=generator) for s in shapes)
        label = f"{heads} head{'s' * (heads > 1)}, K = {hidden}, {told}"
        cases.append(Case(label, (delta, centres, 0.5 + reach.abs(), heights, floor)))
    return cases


HILLS = Exercise(
    name="prior",
    solution=prior_decay,
    cases=hill_cases,
    stumble="shapes do not fit together. Offsets (…, 2) meet centres (H, K, 2): give the offsets two axes of length 1 before the "
    "last, and both broadcast to (…, H, K, 2). There may be no axis in front at all.",
    properties=(
        stays_float32(
            lambda answer: answer(torch.ones(3, 2), torch.zeros(2, 4, 2), torch.ones(2, 4), torch.ones(2, 4), torch.ones(2))
        ),
    ),
    mistakes=(
        Mistake(
            "the lesson's answer",
            "this is the lesson's network: ramps, ReLU(W₁δ + b₁). This set asks for hills: each unit is exp(−distance / reach), "
            "and the distance is counted from the unit's centre.",
            folded,
        ),
        *slips(hills, {name: (hint, {"distance": name}) for name, hint in DISTANCE_HINTS.items()}),
        *slips(
            hills,
            {
                "times the reach": (
                    "the distance is multiplied by the reach. A far-reaching hill has a large one: divide.",
                    {"divided": "multiplied"},
                ),
                "no reach": ("the reach is not used: all hills are equally steep.", {"divided": "left out"}),
                "reach squared": (
                    "the distance is divided by the square of the reach. Here it is the reach.",
                    {"divided": "squared"},
                ),
                "centre added": ("the centres are added. A hill stands where δ − centre is 0.", {"centre": "added"}),
                "no centre": ("the centres are not used: all hills stand on the query.", {"centre": "left out"}),
                "axes swapped": (
                    "rows and columns have changed places: both δ and the centres are (row, column).",
                    {"axes": "column, row"},
                ),
                "growing": ("the hills grow with the distance. They decay: the minus is missing.", {"slope": 1.0}),
                "no heights": ("the heights are not used: each hill is to be multiplied by its own.", {"total": "no heights"}),
                "mean over hills": ("the hills are averaged. They are added.", {"total": "mean"}),
                "highest hill": ("only the largest term counts. The hills are added.", {"total": "the highest"}),
                "no floor": ("the floor is not used.", {"base": "left out"}),
                "1 for the floor": ("1 stands where the floor belongs. Each head has its own.", {"base": "1"}),
                "the first floor": ("all heads have the first one's floor.", {"base": "the first"}),
                "shared centres": ("all heads have the first one's centres. Each has its own.", {"shared": "centres"}),
                "shared reach": ("all heads have the first one's reach. Each has its own.", {"shared": "reach"}),
                "shared heights": ("all heads have the first one's heights. Each has its own.", {"shared": "heights"}),
                "heads last": ("the axis of heads stands last. It comes first: (H, …).", {"heads": "last"}),
                "heads added": ("the heads are added up. Each has a prior of its own: (H, …).", {"heads": "added"}),
            },
        ),
    ),
    call=lambda answer, delta, *numbers: answer(delta.detach(), *numbers),  # a distance has no slope at a centre
)
