"""The variant `i_minus_j`: known mistakes, name → (hint, the options that make it)."""

from ...composition import LESSONS_OWN, select
from ...lesson_03 import mistakes as lesson_03
from ...lesson_04 import mistakes as lesson_04
from ...lesson_06 import mistakes as lesson_06

NOT_THIS_WAY = (
    "the lesson's answer: it measures from query to key, j − i. This set asks for i − j: the query's place minus the key's."
)
ONE_SIGN = {
    "rows only turned": ("rows are measured from key to query, as this set asks; columns still from query to key. Both "
        "are i − j.", {"right": "key − query"}),
    "columns only turned": ("columns are measured from key to query, as this set asks; rows still from query to key. "
        "Both are i − j.", {"down": "key − query"}),
    "absolute value": ("the signs of the offsets are lost. Three to the left is another offset than three to the right.",
        {"down": "absolute", "right": "absolute"}),
}

OFFSETS = {
    LESSONS_OWN: (f"this is {NOT_THIS_WAY} So a key above and to the left has positive numbers, and it comes first.",
        {"down": "both ways", "right": "both ways"}),
    **select(lesson_03.OFFSETS, "components swapped", "table transposed", "absolute value", "square assumed: rows",
        "square assumed: columns", "a list", "components first"),
    "rows only turned": ("the row offsets run from positive to negative, as i − j asks; the column offsets do not.",
        {"right": "both ways"}),
    "columns only turned": ("the column offsets run from positive to negative, as i − j asks; the row offsets do not.",
        {"down": "both ways"}),
    "rows and columns swapped throughout": ("the numbers of rows and columns have changed places: the first axis "
        "belongs to the rows.", {"sides": "columns, rows"}),
    "origin not shifted": ("your offsets begin at (0, 0). These are the table's indices; the offsets run from positive "
        "to negative, with (0, 0) in the middle.", {"down": "from 0", "right": "from 0"}),
}

SPREAD = {
    LESSONS_OWN: (f"this is {NOT_THIS_WAY} Your map is the transposed of what is asked for.",
        {"down": "key − query", "right": "key − query"}),
    **select(lesson_03.SPREAD, "sum for difference", "axes swapped", "column by column", "axes in front forgotten",
        "one axis in front", "R and C swapped", "wrong stride: 2R−1", "wrong stride: C", "rows with rows",
        "origin not shifted", "rows not shifted", "columns not shifted", "square assumed: rows",
        "square assumed: columns"),
    **ONE_SIGN,
}

SHAW2D = {
    LESSONS_OWN: (f"this is {NOT_THIS_WAY}", {"down": "key − query", "right": "key − query"}),
    **select(lesson_04.SHAW2D, "no clip", "clips the norm", "clipped above only", "0 beyond", "unscaled",
        "C for its root", "times the root", "axes swapped"),
    **ONE_SIGN,
    "key for query": ("in your result the *key's* vector meets the embedding. The sign of the offset has changed, not "
        "who asks: row i depends on query i only.", {"asks": "key"}),
    "rows only": ("the embeddings of the columns are missing: an offset has the sum of two.", {"join": "rows only"}),
    "columns only": ("the embeddings of the rows are missing: an offset has the sum of two.", {"join": "columns only"}),
    "product": ("a row's and a column's embedding are multiplied. They are added.", {"join": "product"}),
}

PSA_MAP = {
    LESSONS_OWN: (f"this is {NOT_THIS_WAY} ‖δ‖² does not notice, δ itself does.",
        {"down": "key − query", "right": "key − query"}),
    **select(lesson_06.PSA_MAP, "no square", "norm for square", "sizes for squares", "square of the sum",
        "linear part left out", "square last", "axes swapped", "column by column", "strength and centre",
        "minus put in", "divided by √3", "softmax taken", "heads last"),
    **ONE_SIGN,
}
