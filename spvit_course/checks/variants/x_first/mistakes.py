"""The variant `x_first`: known mistakes, name → (hint, the options that make it)."""

from ...composition import LESSONS_OWN, select
from ...lesson_03 import mistakes as lesson_03
from ...lesson_04 import mistakes as lesson_04
from ...lesson_06 import mistakes as lesson_06
from ...lesson_08 import mistakes as lesson_08

OFFSETS = {
    LESSONS_OWN: ("this is the lesson's table, rows first. This set asks for x first: columns on the first axis, and "
        "(column, row) in each entry.", {"sides": "rows, columns"}),
    **select(lesson_03.OFFSETS, "absolute value", "origin not shifted", "one way only", "the last left out",
        "one too far up and left", "one too far at both ends", "a list", "components first"),
    "table alone": ("the table has its columns first, but its entries are still (row, column). Both are x first here.",
        {"entry": "column, row"}),
    "entries alone": ("the entries are (column, row), but the table still has its rows first. Both are x first here.",
        {"sides": "rows, columns", "entry": "column, row"}),
    "sign": ("both signs are turned round: the first entry belongs to the key farthest to the left and above, whose "
        "offsets are negative.", {"down": "turned round", "right": "turned round"}),
    "sign of the columns": ("columns count to the left in your table. They count to the right.",
        {"down": "turned round"}),
    "sign of the rows": ("rows count upwards in your table. They count downwards.", {"right": "turned round"}),
    "square assumed: rows": ("right for square grids only: the first axis belongs to the columns, and there may be "
        "more or fewer of them.", {"sides": "rows, rows"}),
    "square assumed: columns": ("right for square grids only: the second axis belongs to the rows, and there may be "
        "more or fewer of them.", {"sides": "columns, columns"}),
    "all pairs": ("that is an offset for each pair of patches. Here each distinct offset stands once, in its place in "
        "a table.", {"layout": "(N, N, 2)"}),
}

LOG_OFFSETS = {
    LESSONS_OWN: ("this is the lesson's answer: the first number of an offset is divided by what belongs to rows. In "
        "this set it is the column, while `window` is (rows, columns) as ever.", {"axes": "rows, columns"}),
    **select(lesson_04.LOG_OFFSETS, "no sign", "no absolute value", "sign outside only", "no + 1", "rounded down",
        "rounded down, then times 8", "clamped", "by the input", "by the input, both axes", "natural logarithm",
        "base 10", "not divided", "natural, not divided", "divided by 8", "R for R − 1", "2R − 1 for R − 1",
        "no factor 8"),
    "not normalised": ("the window is not used: offsets are divided by its farthest one, each axis by its own.",
        {"sides": "1"}),
    "raw": ("offsets are taken in patches: they are to be divided by the window's farthest one, and multiplied by 8.",
        {"sides": "1", "factor": 1.0}),
    "square assumed: rows": ("right for square windows only: columns are divided by what belongs to rows.",
        {"axes": "rows, rows"}),
    "square assumed: columns": ("right for square windows only: rows are divided by what belongs to columns.",
        {"axes": "columns, columns"}),
}

PSA_MAP = {
    LESSONS_OWN: ("v is read in the lesson's order, (‖δ‖², row, column). This set has the order of ConViT's code: "
        "(column, row, ‖δ‖²).", {"order": "square, row, column"}),
    **select(lesson_06.PSA_MAP, "sign of the rows", "sign of the columns", "absolute value", "sign", "rows only",
        "square assumed", "column by column", "divided by √3", "divided by √C", "softmax taken", "not spread",
        "heads last"),
    "no square": ("the last number of v does nothing. It belongs to ‖δ‖².", {"square": "none"}),
    "norm for square": ("the last number of v multiplies the length ‖δ‖. It belongs to its square.",
        {"square": "norm"}),
    "sizes for squares": ("the last number of v multiplies |row| + |column|. ‖δ‖² adds the squares.",
        {"square": "sum of sizes"}),
    "square of the sum": ("the parts of δ are added before they are squared. ‖δ‖² adds the squares.",
        {"square": "square of the sum"}),
    "rows before columns": ("the square is in its place, but the first number of v belongs to the column offset: x "
        "first.", {"order": "row, column, square"}),
    "square in front": ("columns come before rows, but ‖δ‖² is the last of the three, not the first.",
        {"order": "square, column, row"}),
    "minus put in": ("the whole map has the wrong sign. If a head is to look near, that minus stands in v already.",
        {"after": "minus"}),
}

PRIOR = {
    LESSONS_OWN: ("this is the lesson's answer: it takes the first number of an offset for the row. In this set that "
        "is the column, while the last axis of `w1` is (row, column) as ever.", {"seen": "as it is"}),
    **select(lesson_08.PRIOR, "no ReLU", "GELU", "sigmoid", "tanh", "absolute hidden", "step", "no b1", "b1 subtracted",
        "b1 after the ReLU", "no b2", "1 for b2", "1 and b2", "the first b2", "shared hidden layer",
        "mean hidden layer", "shared w2", "no w2", "mean over units", "heads last", "heads added"),
}
