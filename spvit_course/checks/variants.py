"""Checks of exercises whose mechanism was changed: other axes, another sign, other maps. See course/variants.py.

Where only a convention changes, a variant's bank is the lesson's, with the variant's options in place of the right ones,
and new words where the lesson's would mislead. Everywhere the lesson's own answer is one of the mistakes.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from torch import Tensor

from spvit_mini.geometry import Grid

from . import lesson_03, lesson_04, lesson_06, lesson_08
from .engine import Exercise, Mistake
from .lesson_03_answers import lay, ruler
from .lesson_04_answers import logged, meet
from .lesson_06_answers import quadratic
from .lesson_08_answers import folded
from .resource_limits import out_of_reach
from .variants_maps import HILLS, TENTS, by_place
from .variants_windows import HOLES

LESSONS_OWN = "the lesson's answer"  # the name of that mistake, everywhere


def varied(
    lesson: Exercise,
    solution: Callable,
    *,
    right: dict,
    own: str,
    kept: Iterable[str] = (),
    anew: dict[str, tuple[str, dict]] | None = None,
    call: Callable | None = None,
) -> Exercise:
    """Change a lesson's exercise: `right` are the options with which the lesson's answer is right for the variant.

    `own` is the hint for the lesson's answer. Of the lesson's mistakes those in `kept` stay, hint and all; `anew` are
    others, name → (hint, the options that make it, in place of or beside the right ones).
    """
    function = lesson.mistakes[0].answer.func
    known = {mistake.name: mistake for mistake in lesson.mistakes}
    mistakes = [Mistake(LESSONS_OWN, own, partial(function))]
    mistakes += [
        Mistake(name, known[name].hint, partial(function, **right | known[name].answer.keywords)) for name in kept
    ]
    mistakes += [Mistake(name, hint, partial(function, **right | change)) for name, (hint, change) in (anew or {}).items()]
    asked = call or lesson.call

    def guarded(answer: Callable, *arguments) -> Tensor:
        """Keep the package's own solution of the lesson out of reach too: turned round it would be an answer."""
        with out_of_reach(lesson.solution):
            return asked(answer, *arguments)

    return replace(lesson, solution=solution, mistakes=tuple(mistakes), call=guarded)


# x first ----------------------------------------------------------------------------------------------------------------

COLUMNS_FIRST = {"sides": "columns, rows"}


def offsets_x_first(rows: int, columns: int) -> Tensor:
    return ruler(rows, columns, **COLUMNS_FIRST)


def log_offsets_x_first(delta: Tensor, window: Grid) -> Tensor:
    return logged(delta, window, axes="columns, rows")


def psa_map_x_first(v: Tensor, grid: Grid) -> Tensor:
    return quadratic(v, grid, order="column, row, square")


def prior_x_first(delta: Tensor, *weights: Tensor) -> Tensor:
    return folded(delta, *weights, seen="columns, rows")


X_FIRST = {
    "03": varied(
        lesson_03.OFFSETS,
        offsets_x_first,
        right=COLUMNS_FIRST,
        own="this is the lesson's table, rows first. This set asks for x first: columns on the first axis, and (column, row) "
        "in each entry.",
        kept=("absolute value", "origin not shifted", "one way only", "the last left out", "one too far up and left")
        + ("one too far at both ends", "a list", "components first"),
        anew={
            "table alone": (
                "the table has its columns first, but its entries are still (row, column). Both are x first here.",
                {"entry": "column, row"},
            ),
            "entries alone": (
                "the entries are (column, row), but the table still has its rows first. Both are x first here.",
                {"sides": "rows, columns", "entry": "column, row"},
            ),
            "sign": (
                "both signs are turned round: the first entry belongs to the key farthest to the left and above, whose "
                "offsets are negative.",
                {"down": "turned round", "right": "turned round"},
            ),
            "sign of the columns": (
                "columns count to the left in your table. They count to the right.",
                {"down": "turned round"},
            ),
            "sign of the rows": ("rows count upwards in your table. They count downwards.", {"right": "turned round"}),
            "square assumed: rows": (
                "right for square grids only: the first axis belongs to the columns, and there may be more or fewer of them.",
                {"sides": "rows, rows"},
            ),
            "square assumed: columns": (
                "right for square grids only: the second axis belongs to the rows, and there may be more or fewer of them.",
                {"sides": "columns, columns"},
            ),
            "all pairs": (
                "that is an offset for each pair of patches. Here each distinct offset stands once, in its place in a table.",
                {"layout": "(N, N, 2)"},
            ),
        },
    ),
    "04": varied(
        lesson_04.LOG_OFFSETS,
        log_offsets_x_first,
        right={"axes": "columns, rows"},
        own="this is the lesson's answer: the first number of an offset is divided by what belongs to rows. In this set it is "
        "the column, while `window` is (rows, columns) as ever.",
        kept=("no sign", "no absolute value", "sign outside only", "no + 1", "rounded down", "rounded down, then times 8")
        + ("clamped", "by the input", "by the input, both axes", "natural logarithm", "base 10", "not divided")
        + ("natural, not divided", "divided by 8", "R for R − 1", "2R − 1 for R − 1", "no factor 8"),
        anew={
            "not normalised": (
                "the window is not used: offsets are divided by its farthest one, each axis by its own.",
                {"sides": "1"},
            ),
            "raw": (
                "offsets are taken in patches: they are to be divided by the window's farthest one, and multiplied by 8.",
                {"sides": "1", "factor": 1.0},
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
    "06": varied(
        lesson_06.PSA_MAP,
        psa_map_x_first,
        call=by_place,
        right={"order": "column, row, square"},
        own="v is read in the lesson's order, (‖δ‖², row, column). This set has the order of ConViT's code: (column, row, ‖δ‖²).",
        kept=("sign of the rows", "sign of the columns", "absolute value", "sign", "rows only", "square assumed")
        + ("column by column", "divided by √3", "divided by √C", "softmax taken", "not spread", "heads last"),
        anew={
            "no square": ("the last number of v does nothing. It belongs to ‖δ‖².", {"square": "none"}),
            "norm for square": (
                "the last number of v multiplies the length ‖δ‖. It belongs to its square.",
                {"square": "norm"},
            ),
            "sizes for squares": (
                "the last number of v multiplies |row| + |column|. ‖δ‖² adds the squares.",
                {"square": "sum of sizes"},
            ),
            "square of the sum": (
                "the parts of δ are added before they are squared. ‖δ‖² adds the squares.",
                {"square": "square of the sum"},
            ),
            "rows before columns": (
                "the square is in its place, but the first number of v belongs to the column offset: x first.",
                {"order": "row, column, square"},
            ),
            "square in front": (
                "columns come before rows, but ‖δ‖² is the last of the three, not the first.",
                {"order": "square, column, row"},
            ),
            "minus put in": (
                "the whole map has the wrong sign. If a head is to look near, that minus stands in v already.",
                {"after": "minus"},
            ),
        },
    ),
    "08": varied(
        lesson_08.PRIOR,
        prior_x_first,
        right={"seen": "columns, rows"},
        own="this is the lesson's answer: it takes the first number of an offset for the row. In this set that is the column, "
        "while the last axis of `w1` is (row, column) as ever.",
        kept=("no ReLU", "GELU", "sigmoid", "tanh", "absolute hidden", "step", "no b1", "b1 subtracted", "b1 after the ReLU")
        + ("no b2", "1 for b2", "1 and b2", "the first b2", "shared hidden layer", "mean hidden layer", "shared w2", "no w2")
        + ("mean over units", "heads last", "heads added"),
    ),
}

# i − j ------------------------------------------------------------------------------------------------------------------

FROM_THE_KEY = {"down": "query − key", "right": "query − key"}
NOT_THIS_WAY = (
    "the lesson's answer: it measures from query to key, j − i. This set asks for i − j: the query's place minus the key's."
)


def offsets_i_minus_j(rows: int, columns: int) -> Tensor:
    return ruler(rows, columns, down="turned round", right="turned round")


def spread_i_minus_j(table: Tensor, grid: Grid) -> Tensor:
    return lay(table, grid, **FROM_THE_KEY)


def shaw2d_i_minus_j(q: Tensor, tables: Tensor, grid: Grid, clip: int) -> Tensor:
    return meet(q, tables, grid, clip, **FROM_THE_KEY)


def psa_map_i_minus_j(v: Tensor, grid: Grid) -> Tensor:
    return quadratic(v, grid, **FROM_THE_KEY)


ONE_SIGN = {
    "rows only turned": (
        "rows are measured from key to query, as this set asks; columns still from query to key. Both are i − j.",
        {"right": "key − query"},
    ),
    "columns only turned": (
        "columns are measured from key to query, as this set asks; rows still from query to key. Both are i − j.",
        {"down": "key − query"},
    ),
    "absolute value": (
        "the signs of the offsets are lost. Three to the left is another offset than three to the right.",
        {"down": "absolute", "right": "absolute"},
    ),
}

I_MINUS_J = {
    "03": (
        varied(
            lesson_03.OFFSETS,
            offsets_i_minus_j,
            right={"down": "turned round", "right": "turned round"},
            own=f"this is {NOT_THIS_WAY} So a key above and to the left has positive numbers, and it comes first.",
            kept=("components swapped", "table transposed", "absolute value", "square assumed: rows")
            + ("square assumed: columns", "a list", "components first"),
            anew={
                "rows only turned": (
                    "the row offsets run from positive to negative, as i − j asks; the column offsets do not.",
                    {"right": "both ways"},
                ),
                "columns only turned": (
                    "the column offsets run from positive to negative, as i − j asks; the row offsets do not.",
                    {"down": "both ways"},
                ),
                "rows and columns swapped throughout": (
                    "the numbers of rows and columns have changed places: the first axis belongs to the rows.",
                    {"sides": "columns, rows"},
                ),
                "origin not shifted": (
                    "your offsets begin at (0, 0). These are the table's indices; the offsets run from positive to "
                    "negative, with (0, 0) in the middle.",
                    {"down": "from 0", "right": "from 0"},
                ),
            },
        ),
        varied(
            lesson_03.SPREAD,
            spread_i_minus_j,
            right=FROM_THE_KEY,
            own=f"this is {NOT_THIS_WAY} Your map is the transposed of what is asked for.",
            kept=("sum for difference", "axes swapped", "column by column", "axes in front forgotten", "one axis in front")
            + ("R and C swapped", "wrong stride: 2R−1", "wrong stride: C", "rows with rows", "origin not shifted")
            + ("rows not shifted", "columns not shifted", "square assumed: rows", "square assumed: columns"),
            anew=ONE_SIGN,
        ),
    ),
    "04": varied(
        lesson_04.SHAW2D,
        shaw2d_i_minus_j,
        right=FROM_THE_KEY,
        own=f"this is {NOT_THIS_WAY}",
        kept=("no clip", "clips the norm", "clipped above only", "0 beyond", "unscaled", "C for its root", "times the root")
        + ("axes swapped",),
        anew=ONE_SIGN
        | {
            "key for query": (
                "in your result the *key's* vector meets the embedding. The sign of the offset has changed, not who asks: "
                "row i depends on query i only.",
                {"asks": "key"},
            ),
            "rows only": ("the embeddings of the columns are missing: an offset has the sum of two.", {"join": "rows only"}),
            "columns only": ("the embeddings of the rows are missing: an offset has the sum of two.", {"join": "columns only"}),
            "product": ("a row's and a column's embedding are multiplied. They are added.", {"join": "product"}),
        },
    ),
    "06": varied(
        lesson_06.PSA_MAP,
        psa_map_i_minus_j,
        call=by_place,
        right=FROM_THE_KEY,
        own=f"this is {NOT_THIS_WAY} ‖δ‖² does not notice, δ itself does.",
        kept=("no square", "norm for square", "sizes for squares", "square of the sum", "linear part left out", "square last")
        + ("axes swapped", "column by column", "strength and centre", "minus put in", "divided by √3")
        + ("softmax taken", "heads last"),
        anew=ONE_SIGN,
    ),
}


def as_bank(*exercises: Exercise) -> dict[str, Exercise]:
    return {exercise.name: exercise for exercise in exercises}


# The exercises of each variant: by lesson, then by name.
BANKS: dict[str, dict[str, dict[str, Exercise]]] = {
    "x_first": {number: as_bank(exercise) for number, exercise in X_FIRST.items()},
    "i_minus_j": {
        number: as_bank(*found) if isinstance(found, tuple) else as_bank(found) for number, found in I_MINUS_J.items()
    },
    "decay": {"06": as_bank(TENTS), "08": as_bank(HILLS)},
    "dilated": {"05": as_bank(HOLES)},
}
