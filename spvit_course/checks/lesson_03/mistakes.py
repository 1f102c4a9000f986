"""Lesson 03: known mistakes, name → (hint, the options of answers.py that make it)."""

OFFSETS = {
    "components swapped": ("each offset is given as (column, row). Row first, as everywhere in this course: how far "
        "down, then how far right.", {"entry": "column, row"}),
    "table transposed": ("the table is lying on its side: its first axis must run over the offsets between rows, its "
        "second over those between columns. If you used meshgrid, look at its `indexing`.",
        {"layout": "(2C−1, 2R−1, 2)"}),
    "rows and columns swapped throughout": ("the numbers of rows and columns have changed places: the first axis, and "
        "the first number of an offset, belong to the rows.", {"sides": "columns, rows"}),
    "sign": ("both signs are turned round: the table runs from below right to above left. Its first entry belongs to "
        "the farthest key above and to the left, and these offsets are negative.",
        {"down": "turned round", "right": "turned round"}),
    "sign of the rows": ("rows count upwards in your table. They count downwards, as in a tensor: a key above the "
        "query has a negative row offset, and comes first.", {"down": "turned round"}),
    "sign of the columns": ("columns count to the left in your table. They count to the right: a key to the left of "
        "the query has a negative column offset, and comes first.", {"right": "turned round"}),
    "absolute value": ("the signs are lost. Three to the left is another offset than three to the right.",
        {"down": "absolute", "right": "absolute"}),
    "origin not shifted": ("your offsets begin at (0, 0). These are the table's indices; the offsets themselves run "
        "from negative to positive, with (0, 0) in the middle.", {"down": "from 0", "right": "from 0"}),
    "one way only": ("these are offsets to keys below and to the right alone, as the first patch sees them. The last "
        "patch looks the other way: each axis needs negative offsets too.", {"down": "one way", "right": "one way"}),
    "square assumed: rows": ("right for square grids only: the second axis has as many offsets as the rows ask for. "
        "Take them from the columns.", {"sides": "rows, rows"}),
    "square assumed: columns": ("right for square grids only: the first axis has as many offsets as the columns ask "
        "for. Take them from the rows.", {"sides": "columns, columns"}),
    "the last left out": ("the largest offset of each axis is missing: the end of torch.arange is not part of it.",
        {"down": "the last left out", "right": "the last left out"}),
    "one too far up and left": ("each axis begins one step too early: two patches of R rows are R − 1 rows apart at "
        "most.", {"down": "one more at the start", "right": "one more at the start"}),
    "one too far at both ends": ("each axis is one step too long at both ends: two patches of R rows are R − 1 rows "
        "apart at most.", {"down": "one more at both ends", "right": "one more at both ends"}),
    "a list": ("the offsets are right, but they stand in one long list. Keep rows and columns as two axes, so that a "
        "map of them can be looked at.", {"layout": "((2R−1)·(2C−1), 2)"}),
    "components first": ("the offsets are right, but row and column stand on the first axis. They come last: entry [a, "
        "b] is one offset.", {"layout": "(2, 2R−1, 2C−1)"}),
    "all pairs": ("that is δ for all pairs of patches, with each offset many times over. Here each one stands once, in "
        "its place in a table.", {"layout": "(N, N, 2)"}),
}

IN_FRONT = (
    "right only for tables with as many axes in front as you thought of. There may be none, one or more: two indices alone "
    "are for the first two axes, and dots before them stand for all others."
)
ONE_INDEX = (
    "δ as a whole is one index, for one axis: its rows and its columns are both looked up along the table's last axis. Take "
    "δ apart: one tensor of row offsets, one of column offsets."
)
SIDE = (
    "right for square grids only: the side is taken from the number of tokens. 36 tokens may be 6 × 6 or 4 × 9; `grid` says "
    "which."
)
SPREAD = {
    "sign": ("the map is transposed: entry [i, j] has the value for looking from j to i. Either the sign of δ is "
        "turned round (it is key minus query), or queries and keys have changed places (queries come first).",
        {"down": "query − key", "right": "query − key"}),
    "sign of the rows": ("above and below have changed places, left and right have not: look at the sign of the row "
        "offset.", {"down": "query − key"}),
    "sign of the columns": ("left and right have changed places, above and below have not: look at the sign of the "
        "column offset.", {"right": "query − key"}),
    "absolute value": ("the signs of the offsets are lost: only the part of the table below and right of its middle is "
        "ever read.", {"down": "absolute", "right": "absolute"}),
    "sum for difference": ("the places of query and key are added, where their difference is asked for. With sliding "
        "windows: each query has its own window, but the first query does not have the first one.",
        {"down": "key + query", "right": "key + query"}),
    "axes swapped": ("the table is read with rows and columns in each other's place. Its first axis belongs to row "
        "offsets, on square grids too.", {"axes": "columns, rows"}),
    "origin not shifted": ("δ itself is used as the index. δ = (0, 0) stands in the middle of the table, not at its "
        "beginning; and a negative index counts from the end without a word.", {"shift": "0, 0"}),
    "origin not shifted, one index": ("δ itself is made into one index. δ = (0, 0) stands in the middle of the table, "
        "not at its beginning; and a negative index counts from the end without a word.",
        {"shift": "0, 0", "stride": "2C−1"}),
    "rows not shifted": ("the column offset is shifted to the middle of the table, the row offset is not. A negative "
        "index counts from the end without a word.", {"shift": "0, C−1"}),
    "columns not shifted": ("the row offset is shifted to the middle of the table, the column offset is not. A "
        "negative index counts from the end without a word.", {"shift": "R−1, 0"}),
    "square assumed: rows": ("right for square grids only: the column offset is shifted by as much as the rows need. "
        "Each axis has a middle of its own.", {"shift": "R−1, R−1"}),
    "square assumed: columns": ("right for square grids only: the row offset is shifted by as much as the columns "
        "need. Each axis has a middle of its own.", {"shift": "C−1, C−1"}),
    "half the rows, half the columns": ("δ = (0, 0) stands in the middle of the *table*, not of the image: shift each "
        "offset by its largest value.", {"shift": "R//2, C//2"}),
    "R and C swapped": ("right for square grids only, rows and columns have changed places: either in the shifts (row "
        "offsets are R − 1 at most, column offsets C − 1), or in the places of the tokens (a row has as many tokens as "
        "there are columns).", {"tokens": "row by row, R for C"}),
    "square assumed: √N": (SIDE, {"sides": "√N"}),
    "square assumed: √N for all tokens": (SIDE, {"sides": "√N, for all tokens"}),
    "column by column": ("the tokens are taken column by column. They are numbered row by row, as you read.",
        {"tokens": "column by column"}),
    "wrong stride: 2R−1": ("right for square grids only: one row of the table down is as many entries further on as "
        "the table has columns.", {"stride": "2R−1"}),
    "wrong stride: C": ("one row of the table down is as many entries further on as the *table* has columns, and the "
        "table has more of them than the grid.", {"stride": "C"}),
    "rows with rows": ("the values are all there, but in the order (query row, key row, query column, key column). "
        "Bring the two axes of the query together before you join axes.", {"pairs": "rows, columns"}),
    "axes in front forgotten": (IN_FRONT, {"index": "[a, b]"}),
    "one axis in front": (IN_FRONT, {"index": "[:, a, b]"}),
    "δ as one index": (ONE_INDEX, {"index": "[..., δ]"}),
    "δ as one index, not shifted": (ONE_INDEX, {"index": "[..., δ]", "shift": "0, 0"}),
    "row and column on the first axis": ("row and column stand on the *last* axis of δ: δ[0] is not the row offset of "
        "each pair, but the offsets from query 0.", {"index": "δ[0] and δ[1]"}),
}

PAD_PREFIX = {
    "placed last": ("the neutral rows and columns stand after the patches. Prefix tokens come first.",
        {"rows": "last", "columns": "last"}),
    "rows last": ("the neutral columns come first, but the neutral rows last. Torch's `pad` counts (left, right, "
        "above, below).", {"rows": "last"}),
    "columns last": ("the neutral rows come first, but the neutral columns last. Torch's `pad` counts (left, right, "
        "above, below).", {"columns": "last"}),
    "both ends": ("there is a frame all around. Prefix tokens come first: rows above and columns to the left are "
        "enough.", {"rows": "both ends", "columns": "both ends"}),
    "rows only": ("there are rows for the prefix tokens as queries, but no columns for them as keys. The map stays "
        "square.", {"columns": "none"}),
    "columns only": ("there are columns for the prefix tokens as keys, but no rows for them as queries. The map stays "
        "square.", {"rows": "none"}),
    "columns left at 0": ("the rows of the prefix tokens are neutral, but where patches look at prefix tokens there is "
        "0.", {"other": "columns 0"}),
    "rows left at 0": ("the columns of the prefix tokens are neutral, but where prefix tokens look at patches there is "
        "0.", {"other": "rows 0"}),
    "corner left at 0": ("where prefix tokens look at each other there is 0. That corner is to be neutral too.",
        {"other": "corner 0"}),
    "always one token": ("there is one prefix token in your map, whatever `prefix` says. It may be none, or several.",
        {"count": "one"}),
    "one token at most": ("there is room for one prefix token only. There may be several.", {"count": "one at most"}),
    "always 0": ("the frame is 0, whatever `neutral` says. What is neutral depends on the way in, so the caller "
        "decides.", {"value": "0"}),
    "always 1": ("the frame is 1, whatever `neutral` says. What is neutral depends on the way in, so the caller "
        "decides.", {"value": "1"}),
    "patches written over": ("the first patches' rows and columns are written over. The map must grow: nothing that it "
        "says of patches gets lost.", {"patches": "written over"}),
    "patches left out": ("the shape is right, but it is neutral everywhere: the map of the patches was not put in.",
        {"patches": "left out"}),
    "axes in front forgotten": ("right only for a map without axes in front. There may be one, for heads, or more: the "
        "frame needs them too.", {"leading": "forgotten"}),
}
