"""Lesson 13: known mistakes, name → (hint, the options of answers.py that make it)."""

ORIGIN = (
    "Offset (0, 0) stands in the middle of the table, and is what a query reads for itself: ask which entry the first query "
    "reads for itself in your map."
)
FIRST_FRAME = "Which frame belongs to the first query: the one at the upper left of the table, or the one at the lower right?"
STRIDE = (
    "right only where the steps happen to fit: look at the strides. A step of one row goes over a whole row of the *table*, "
    "which is longer than a row of the grid; `table.stride()` says how long."
)
PIECES = "your steps are those of a table that lies in one piece, row after row; {} Ask the table for its own."
TOO_FEW = "a head keeps fewer offsets than are asked for, such as 7 where 8 are. Look at the rounding"
PER_NETWORK = (
    "all heads are ranked together: loud heads keep much, quiet ones nearly nothing. Each head has a density of its own"
)

SPREAD_FAST = {
    "not turned round": ("the frames stand in the order in which they were cut, so place of query and place of key are "
        f"added. {FIRST_FRAME}", {"down": "key + query", "right": "key + query"}),
    "rows not turned round": ("right within a row of patches, wrong between rows: the frames of the columns are in "
        f"order, those of the rows are not. {FIRST_FRAME}", {"down": "key + query"}),
    "columns not turned round": ("right between rows, wrong within a row of patches: the frames of the rows are in "
        f"order, those of the columns are not. {FIRST_FRAME}", {"right": "key + query"}),
    "transposed": ("the map is transposed: queries and keys have changed places, or the axes that were turned round "
        "are those within a frame. Which axes belong to the query?", {"down": "query − key", "right": "query − key"}),
    "sign of the rows": ("above and below have changed places, left and right have not. Of the axes of the rows, which "
        "belongs to the query and which to the key?", {"down": "query − key"}),
    "sign of the columns": ("left and right have changed places, above and below have not. Of the axes of the columns, "
        "which belongs to the query and which to the key?", {"right": "query − key"}),
    "absolute value": ("the signs of the offsets are lost: only the lower right quarter of the table is ever read.",
        {"down": "absolute", "right": "absolute"}),
    "axes swapped": ("the table is read with rows and columns in each other's place. Its axis before last belongs to "
        "row offsets, on square grids too.", {"axes": "columns, rows"}),
    "square assumed: √N": ("right for square grids only: the side is taken from the number of tokens. `grid` says both "
        "sides.", {"sides": "√N"}),
    "R and C swapped": ("right for square grids only: rows and columns of the grid have changed places.",
        {"tokens": "row by row, R for C"}),
    "column by column": ("the tokens are taken column by column. They are numbered row by row, as you read: look at "
        "the order of the axes that you join.", {"tokens": "column by column"}),
    "wrong stride: C": (STRIDE, {"stride": "C"}),
    "wrong stride: 2R−1": (STRIDE, {"stride": "2R−1"}),
    "origin not shifted": (f"the table is entered at its wrong end. {ORIGIN}", {"shift": "0, 0"}),
    "rows not shifted": (f"the rows of the table are entered at the wrong end. {ORIGIN}", {"shift": "0, C−1"}),
    "columns not shifted": (f"the columns of the table are entered at the wrong end. {ORIGIN}", {"shift": "R−1, 0"}),
    "half the rows, half the columns": (f"the middle of the image is taken for the middle of the table. {ORIGIN}",
        {"shift": "R//2, C//2"}),
    "rows with rows": ("the values are all there, but in the order (query row, key row, query column, key column). "
        "Bring the two axes of the query together before you join axes.", {"pairs": "rows, columns"}),
    "one head's table": ("all heads read the first head's table. The heads are an axis of the view too: how far is it "
        "from one head's table to the next?", {"heads": "the first's"}),
    "heads turned round": ("the heads have changed their order: an axis too many was turned round.",
        {"heads": "turned round"}),
    "axes not joined": ("the values are right, but queries and keys still have two axes each. Join them, row by row, "
        "to N and N.", {"joined": "none"}),
    "keys not joined": ("queries are joined to one axis, keys are not yet.", {"joined": "queries"}),
    "queries not joined": ("keys are joined to one axis, queries are not yet.", {"joined": "keys"}),
    "steps of one piece": (PIECES.format("this table may be a view."), {"steps": "one piece"}),
    "begins at 0": ("your view begins where the memory begins. A table that is cut from a larger one begins later: see "
        "what `as_strided` does if it is told no beginning.", {"steps": "own, from 0"}),
    "steps of one piece, begins at 0": (
        PIECES.format("and your view begins where the memory begins. A table may be a view, cut from a larger one."),
        {"steps": "one piece, from 0"}),
}

SPARSIFY = {
    "threshold: the density": ("values are compared with the density itself. A density is a share of the offsets; how "
        "large their values are plays no part in how many are kept.", {"by": "above the density"}),
    "threshold: the range": ("values are compared with a part of the range between the smallest and the largest. How "
        "many lie above it depends on the values; the density says how many it must be.", {"by": "part of the range"}),
    "threshold: the largest": ("values are compared with a part of the largest. How many lie above it depends on the "
        "values; the density says how many it must be.", {"by": "part of the largest"}),
    "ties all kept": ("where values are equal, more are kept than the density allows: a comparison with the last value "
        "that is kept lets all its equals in.", {"by": "ties all kept"}),
    "ties: the last": ("where values are equal, the last ones are kept. The first in reading order go first.",
        {"ties": "last"}),
    "absolute value": ("values are ranked by their size, signs left aside. A strongly negative value is not one to "
        "keep.", {"sizes": "absolute"}),
    "smallest kept": ("the smallest values are kept. Look at the direction of the sorting.", {"order": "smallest"}),
    "per network": (f"{PER_NETWORK}.", {"who": "network"}),
    "per network, rounded once": (f"{PER_NETWORK}, and a number of its own.", {"who": "network, rounded once"}),
    "per network, (0, 0) on top": (f"{PER_NETWORK}; and (0, 0) is one of its number.",
        {"who": "network", "middle": "added"}),
    "per network, rounded once, (0, 0) on top": (f"{PER_NETWORK} and a number of its own, and (0, 0) is one of that "
        "number.", {"who": "network, rounded once", "middle": "added"}),
    "per network, the diagonal lost": (f"{PER_NETWORK}; and (0, 0) has to be kept, whatever its value.",
        {"who": "network", "middle": "ranked"}),
    "per network, rounded once, the diagonal lost": (f"{PER_NETWORK} and a number of its own, and (0, 0) has to be "
        "kept, whatever its value.", {"who": "network, rounded once", "middle": "ranked"}),
    "mean of the heads": ("all heads keep the same offsets. Each head ranks its own values.", {"who": "mean"}),
    "the diagonal lost": ("a query may have lost itself: the offset (0, 0) has to be kept, whatever its value, or a "
        "row of the mask could become empty.", {"middle": "ranked"}),
    "one too many": ("the offset (0, 0) comes on top of the number that is asked for. It is one of them.",
        {"middle": "added"}),
    "the corner for the middle": ("another offset than (0, 0) is always kept. Where in a table does (0, 0) stand? At "
        "its beginning stands the farthest one.", {"middle": "first"}),
    "rounded down": (f"{TOO_FEW}.", {"count": "down"}),
    "rounded down, but 1": (f"{TOO_FEW}; that it is never 0 is taken care of.", {"count": "down, but 1"}),
    "rounded down, (0, 0) on top": (f"{TOO_FEW}, and at (0, 0), which is one of that number and does not come on top.",
        {"count": "down", "middle": "added"}),
    "rounded down, the diagonal lost": (f"{TOO_FEW}, and see to (0, 0), which is kept whatever its value.",
        {"count": "down", "middle": "ranked"}),
    "rounded to the nearest": (f"{TOO_FEW}: it is right for some densities only.", {"count": "to the nearest"}),
    "rounded to the nearest, but 1": (f"{TOO_FEW}: it is right for some densities only. That it is never 0 is taken "
        "care of.", {"count": "to the nearest, but 1"}),
    "rounded to the nearest, (0, 0) on top": (f"{TOO_FEW}, right for some densities only; and (0, 0) is one of that "
        "number, it does not come on top.", {"count": "to the nearest", "middle": "added"}),
    "rounded to the nearest, the diagonal lost": (f"{TOO_FEW}, right for some densities only; and (0, 0) is kept "
        "whatever its value.", {"count": "to the nearest", "middle": "ranked"}),
    "one fewer": ("a head keeps one offset fewer than is asked for, such as 7 where 8 are. How far does a slice `[:n]` "
        "reach?", {"count": "one fewer"}),
    "one more": ("a head keeps one offset more than is asked for, such as 9 where 8 are. Is (0, 0) counted twice?",
        {"count": "one more"}),
    "of the others": ("the density is counted of the other offsets, with (0, 0) on top. It is a share of all offsets, "
        "(0, 0) included.", {"of": "others"}),
    "of the pairs": ("the density is counted in pairs of patches, of which near offsets have more. Here each offset "
        "counts once.", {"of": "pairs"}),
    "of the patches": ("the density is counted of the N patches. It is a share of the offsets, of which there are "
        "nearly four times as many.", {"of": "patches"}),
    "share left out": ("the density is taken for the share that is left out. It is the share that stays.",
        {"of": "dropped"}),
    "turned round": ("True and False have changed places: True is what is kept.", {"result": "turned round"}),
    "multiplied": ("the prior comes back with zeros in it. Multiplied into scores, a 0 is no mask: exp(0) is 1. What "
        "is asked for are booleans.", {"result": "multiplied"}),
    "0 and −∞": ("these are numbers to be added to scores, 0 and −∞. What is asked for are booleans; a mask is made of "
        "them later.", {"result": "scores"}),
    "one for all heads": ("the axis of the heads is gone. Each head keeps its own offsets.",
        {"result": "one for all heads"}),
}
