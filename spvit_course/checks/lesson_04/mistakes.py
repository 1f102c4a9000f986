"""Lesson 04: known mistakes, name → (hint, the options of answers.py that make it)."""

SIDES = "right for square grids only: each axis has a middle of its own."
SILENT = "A negative index counts from the end without a word."
TWICE = "by √(D/H) twice, since `self.scores` has divided them already."
FLOORED = "a division rounds down to whole numbers: `//` is not `/`."
OF_INPUT = "offsets are divided by the farthest of the input. It is the window of training that counts, whatever is asked"
RELATIVE_BIAS = {
    "sign": ("the map is transposed: pair [i, j] gets the number for looking from j to i. δ is key minus query, and "
        "queries come first.", {"down": "query − key", "right": "query − key"}),
    "sign of the rows": ("above and below have changed places, left and right have not: look at the sign of the row "
        "offset.", {"down": "query − key"}),
    "sign of the columns": ("left and right have changed places, above and below have not: look at the sign of the "
        "column offset.", {"right": "query − key"}),
    "absolute value": ("the signs of the offsets are lost: three up gets the number of three down.",
        {"down": "absolute", "right": "absolute"}),
    "axes swapped": ("the table is read with rows and columns in each other's place. Its first axis belongs to row "
        "offsets.", {"axes": "columns, rows"}),
    "origin not shifted": (f"δ itself is used as the index, but δ = (0, 0) stands in the middle of the table. {SILENT}",
        {"shift": "0, 0"}),
    "origin not shifted, one index": ("δ itself is made into one index, but δ = (0, 0) stands in the middle of the "
        f"table. {SILENT}", {"shift": "0, 0", "stride": "2C−1"}),
    "square assumed: rows": (f"{SIDES} The column offset is shifted by as much as the rows need.",
        {"shift": "R−1, R−1"}),
    "square assumed: columns": (f"{SIDES} The row offset is shifted by as much as the columns need.",
        {"shift": "C−1, C−1"}),
    "R and C swapped": ("right for square grids only, rows and columns have changed places: either in the shifts (row "
        "offsets are R − 1 at most, column offsets C − 1), or in the places of the tokens (a row has as many tokens as "
        "there are columns).", {"tokens": "row by row, R for C"}),
    "column by column": ("the tokens are taken column by column. They are numbered row by row, as you read.",
        {"tokens": "column by column"}),
    "wrong stride: 2R−1": ("right for square grids only: one row of the table down is as many entries further on as "
        "the table has columns.", {"stride": "2R−1"}),
    "wrong stride: C": ("one row of the table down is as many entries further on as the *table* has columns, and it "
        "has more than the grid.", {"stride": "C"}),
    "multiplied": ("the bias multiplies the scores. Here it is added to them.", {"way": "multiplied"}),
    "subtracted": ("the bias is subtracted. It is added to the scores.", {"way": "subtracted"}),
    "added after": ("the bias is added to the weights, after the softmax: then rows do not sum to 1. It belongs to the "
        "scores.", {"way": "added after"}),
    "multiplied after": ("the bias multiplies the weights, after the softmax: then rows do not sum to 1. It is added "
        "to the scores.", {"way": "multiplied after"}),
    "alone": ("these are weights by position alone: the scores of queries and keys are missing.", {"way": "alone"}),
    "left out": ("these are the weights of plain attention: the table was not used.", {"way": "left out"}),
    "one map for all heads": ("all heads use the table of the first one. Each has its own: keep the axis of the heads.",
        {"tables": "the first"}),
    "tables averaged": ("the tables of the heads are averaged. Each head keeps its own.", {"tables": "the mean"}),
    "softmax before": ("there is a softmax too many: the scores went through one before the bias was added.",
        {"times": "before too"}),
    "softmax after": ("there is a softmax too many: the weights went through a second one.", {"times": "after too"}),
    "over queries": ("the softmax runs over the queries. Each query has one whole to give away, to its keys: check "
        "which sums are 1.", {"axis": "queries"}),
    "no softmax": ("these are scores with the bias. What is asked for are weights, each row of which sums to 1.",
        {"axis": "none"}),
    "no root": ("the scores are not divided by √(D/H). `self.scores` does it for you.", {"root": "none"}),
    "root of the bias": ("the bias is divided by √(D/H) as well. Only the product of query and key is; the bias is "
        "added to that.", {"root": "bias too"}),
    "root twice": (f"the scores are divided {TWICE}", {"root": "twice"}),
    "root twice, of the bias too": (f"the sum is divided: the scores {TWICE}", {"root": "twice, bias too"}),
}

SHAW2D = {
    "no clip": ("right only where no offset is beyond the clip: the tables end there. Bring each offset into −clip … clip "
        "first.", {"limit": "none"}),
    "clips the norm": ("the offset is shortened as an arrow, so a far row moves its column too. Clip its two numbers "
        "apart.", {"limit": "norm"}),
    "clipped above only": (f"offsets are clipped at clip, but not at −clip. {SILENT}", {"limit": "above"}),
    "all negative ones as −clip": ("offsets are clipped to 0 … 2·clip before they are shifted, so all that lies above, "
        "or to the left, is alike. In which order do clipping and shifting belong?", {"limit": "from 0", "shift": "0"}),
    "0 beyond": ("pairs beyond the clip get 0. They share the embedding of the clip itself: far away is not nowhere.",
        {"limit": "0 outside"}),
    "key for query": ("in your result the *key's* vector meets the embedding. It should be the query's: row i depends "
        "on query i only.", {"asks": "key"}),
    "unscaled": ("the products are not divided by √(D/H), as the scores beside them are.", {"root": "none"}),
    "C for its root": ("the products are divided by D/H, not by its square root.", {"root": "C"}),
    "times the root": ("the products are multiplied by √(D/H). They are to be divided by it.", {"root": "1/√C"}),
    "flattened": ("j − i of the token numbers is used for an offset. Take rows and columns apart: δ has two numbers.",
        {"ruler": "j − i"}),
    "axes swapped": ("the tables have changed places: tables[0] belongs to row offsets, tables[1] to column offsets.",
        {"order": "columns, rows"}),
    "sign": ("both offsets have the wrong sign: δ is key minus query.",
        {"down": "query − key", "right": "query − key"}),
    "sign of the rows": ("above and below have changed places, left and right have not: look at the sign of the row "
        "offset.", {"down": "query − key"}),
    "sign of the columns": ("left and right have changed places, above and below have not: look at the sign of the "
        "column offset.", {"right": "query − key"}),
    "transposed": ("the result is transposed: row i belongs to query i, column j to key j.",
        {"down": "query − key", "right": "query − key", "asks": "key"}),
    "absolute value": ("the signs of the offsets are lost: one up gets the embedding of one down.",
        {"down": "absolute", "right": "absolute"}),
    "origin not shifted": ("the clipped offset itself is used as the index, but offset 0 stands in the middle of a "
        f"table. {SILENT}", {"shift": "0"}),
    "square assumed": ("right for square grids only: the row of a token is its number divided by how many tokens a row "
        "has, which is the number of columns.", {"tokens": "row by row, R for C"}),
    "column by column": ("the tokens are taken column by column. They are numbered row by row, as you read.",
        {"tokens": "column by column"}),
    "rows only": ("only the row's embedding meets the query: the column's is missing.", {"join": "rows only"}),
    "columns only": ("only the column's embedding meets the query: the row's is missing.", {"join": "columns only"}),
    "product": ("the two embeddings are multiplied. They are added.", {"join": "product"}),
    "mean": ("the mean of the two embeddings is taken. They are added.", {"join": "mean"}),
}

LOG_OFFSETS = {
    "no sign": ("the sign is lost: three up and three down have the same coordinate.", {"sign": "lost"}),
    "no absolute value": ("the logarithm is taken of 1 + δ′ with its sign: nothing comes of it where δ′ is −1 or less. "
        "Take the size's, and give it the sign.", {"sign": "inside"}),
    "sign outside only": ("the logarithm is taken of 1 + δ′ with its sign, and multiplied by the sign. Take the "
        "size's: 1 + |δ′|.", {"sign": "inside and out"}),
    "no + 1": ("the 1 is missing under the logarithm: |δ′| = 1 becomes 0, what is nearer gets the wrong sign, and 0 is "
        "nan.", {"one": 0.0}),
    "rounded down": (FLOORED, {"division": "floor"}),
    "rounded down, then times 8": (FLOORED, {"division": "floor first"}),
    "clamped": ("δ′ is clamped to −8 … 8. Beyond the window it may be larger: that is the point.", {"bound": 8.0}),
    "by the input": (f"{OF_INPUT}.", {"sides": "input, each axis"}),
    "by the input, both axes": (f"{OF_INPUT}, and each axis has its own.", {"sides": "input"}),
    "natural logarithm": ("the logarithm is the natural one, but divided by log2 8 = 3. Both must have one base.",
        {"log": "ln"}),
    "base 10": ("the logarithm has base 10, but is divided by log2 8 = 3. Both must have one base.", {"log": "log10"}),
    "not divided": ("the division by log2 8 is missing: an offset with δ′ = 7 should become 1.", {"divided": 1.0}),
    "natural, not divided": ("this is the natural logarithm, undivided: an offset with δ′ = 7 should become 1.",
        {"log": "ln", "divided": 1.0}),
    "divided by 8": ("it is divided by 8, not by log2 8 = 3.", {"divided": 8.0}),
    "R for R − 1": ("offsets are divided by the side of the window. The farthest is one less: R − 1 rows.",
        {"sides": "R"}),
    "2R − 1 for R − 1": ("offsets are divided by how many there are, 2R − 1. The farthest is R − 1 rows.",
        {"sides": "2R − 1"}),
    "not normalised": ("the window is not used: offsets are divided by its farthest one.", {"sides": "1"}),
    "raw": ("offsets are taken in patches: they are to be divided by the window's farthest one, and multiplied by 8.",
        {"sides": "1", "factor": 1.0}),
    "no factor 8": ("the factor of 8 is missing: the farthest offset of the window has δ′ = 8.", {"factor": 1.0}),
    "axes swapped": ("rows are divided by what belongs to columns, and columns by what belongs to rows.",
        {"axes": "columns, rows"}),
    "square assumed: rows": ("right for square windows only: columns are divided by what belongs to rows.",
        {"axes": "rows, rows"}),
    "square assumed: columns": ("right for square windows only: rows are divided by what belongs to columns.",
        {"axes": "columns, columns"}),
}
