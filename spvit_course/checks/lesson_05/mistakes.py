"""Lesson 05: known mistakes, name → (hint, the options of answers.py that make it)."""

COLLIDE = (
    "several windows have the same number: between one row of windows and the next too few numbers are kept free. Where the "
    "border cuts windows off there are more pieces than whole windows. Comparing rows and columns one by one needs no count."
)
FILLS = "`masked_fill` fills where its mask is True; ours is True for what is seen."
WINDOW_MASK = {
    "≤ for <: both ends": ("windows share their edges: the first row (column) of each counts as the last of the one "
        "before as well. A window that begins at s ends before s + size.", {"kind": "both ends"}),
    "≤ for <: one too large": ("windows are one patch too wide: a window that begins at s ends before s + size.",
        {"kind": "one too large"}),
    "sign of the shift": ("the windows are moved up and left. They move down and right: the first whole window begins "
        "at row `shift` and column `shift`.", {"move": "up, left"}),
    "not shifted": ("the shift has no effect: the first whole window begins at row and column `shift`.",
        {"move": "none"}),
    "only rows shifted": ("the windows are moved down, but not to the right.", {"move": "rows only"}),
    "only columns shifted": ("the windows are moved to the right, but not down.", {"move": "columns only"}),
    "wrap leak": ("windows leak round the border: patches before the first whole window are with patches at the far "
        "end, across the image. Pieces that the border cuts off stay on their own.", {"border": "wrapped"}),
    "first piece joined": ("patches before the first whole window are put into it. They are a piece of their own. If "
        "you divide: which way does your division round a negative number?", {"border": "joined to the next"}),
    "sliding for partition": ("each patch has a window around itself. Here windows are laid over the image once, like "
        "tiles, and a patch sees its tile, wherever in it it lies.", {"kind": "sliding, centred"}),
    "sliding, nearer than the size": ("each patch sees whatever is nearer than `size`. Here windows are laid over the "
        "image once, like tiles, and a patch sees its tile, wherever in it it lies.",
        {"kind": "sliding, nearer than the size"}),
    "remainder for quotient": ("patches see each other if they lie at the *same place* of their windows. They should "
        "see those in the same window: that is about the quotient, not the remainder.", {"kind": "remainder"}),
    "axes": ("right for square grids only: rows and columns have changed places. Either the tokens are taken column by "
        "column (they are numbered row by row), or a row is taken to have as many tokens as there are rows.",
        {"tokens": "column by column"}),
    "square assumed: rows": ("right for square grids only: the grid has `columns` columns, not `rows`.",
        {"sides": "R, R"}),
    "square assumed: columns": ("right for square grids only: the grid has `rows` rows, not `columns`.",
        {"sides": "C, C"}),
    "row or column": ("patches see each other if their rows *or* their columns fall into the same piece. A window is "
        "where both do.", {"both": "row or column"}),
    "rows only": ("these are stripes across the whole image: columns have pieces too.", {"both": "rows only"}),
    "columns only": ("these are stripes down the whole image: rows have pieces too.", {"both": "columns only"}),
    "numbers that collide": ("several windows have the same number: the sum of a row's piece and a column's is not one "
        "of a kind. Compare the two one by one.", {"both": "sum of the numbers"}),
    "numbers: whole windows": (COLLIDE, {"both": "whole windows"}),
    "numbers: and one more": (COLLIDE, {"both": "and one more"}),
    "numbers: rounded up": (COLLIDE, {"both": "rounded up"}),
    "inverted": ("in and out have changed places: True is for those that see each other.", {"says": "outside"}),
}

MASKED_WEIGHTS = {
    "× 0/1": ("the outside still gets weight. Which score does a key have that is out, and what does softmax make of "
        "it?", {"way": "× 0/1"}),
    "0/1 added": ("the outside is only 1 behind the inside, so it keeps exp(−1) = 0.37 of its share. What has to be "
        "added so that exp gives 0?", {"way": "+ 0/1"}),
    "−1 filled": ("the outside has a score of −1, and exp(−1) = 0.37. It must get no weight at all.",
        {"way": "−1 filled"}),
    "a finite number added": ("100 is taken from the outside's scores. Where scores are large, that is not enough; and "
        "a query that sees nothing sees everything again.", {"way": "−100 added"}),
    "a finite number filled": ("a large negative number stands for −∞. For a query that sees nothing all scores are "
        "then the same, and it gets equal weights instead of none.", {"way": "−1e9 filled"}),
    "0 · ∞": ("everything is NaN: 0 · ∞ is not 0. Put −∞ where it belongs, without a product.", {"way": "0 · ∞"}),
    "after the softmax": ("the outside's weights are taken away after the softmax, so what is left does not sum to 1. "
        "The inside must share the whole.", {"way": "after"}),
    "inverted": (f"the inside is masked, the outside seen. {FILLS}", {"says": "outside"}),
    "inverted, prefix as well": (f"the inside is masked, the outside seen, and prefix tokens see nobody. {FILLS}",
        {"says": "outside, and no prefix"}),
    "inverted, prefix NaN": ("the inside is masked, the outside seen, and prefix tokens, which then see nobody, get "
        f"NaN. {FILLS}", {"says": "outside, and no prefix", "empty": "NaN"}),
    "first in, then out": (f"first the inside is masked, then the outside gets 0, so nothing is left. {FILLS}",
        {"way": "in, then out"}),
    "all 0": ("all weights are 0. Was NaN replaced by 0? Then look at what was NaN before: 0 · ∞ is, so a mask that is "
        "multiplied by −∞ is NaN where it should be 0.", {"way": "all 0"}),
    "sum clamped": ("a query that matches nothing well gets no weights: all its exponentials are tiny, and their sum "
        "is clamped to something larger. Only a query that *sees* nothing gets 0. softmax subtracts the largest score "
        "first.", {"way": "exp, sum clamped"}),
    "sum clamped after the softmax": ("a query whose best matches are outside gets too little: the softmax, which saw "
        "them, has left the inside next to nothing, and its sum is clamped to something larger. Mask before the "
        "softmax.", {"way": "after, sum clamped"}),
    "transposed": ("queries and keys have changed places in the mask. A window's mask does not show it; this one need "
        "not be symmetric.", {"mask_axes": "key, query"}),
    "one mask for all heads": ("every head gets the mask of head 0.", {"heads": "the first's for all"}),
    "softmax over queries": ("the softmax runs over queries: each *row* of the weights has to sum to 1.",
        {"axis": "queries"}),
    "NaN in an empty row": ("a query that sees nothing gets NaN: softmax of a row of −∞ is 0/0. Its weights should be "
        "0.", {"empty": "NaN"}),
    "prefix forgotten": ("right without prefix tokens only: the scores have P rows and columns more than the mask, in front.",
        {"count": "none"}),
    "always one prefix token": ("it works for one prefix token only. How many there are is told by the shapes.",
        {"count": "one"}),
    "one prefix token at most": ("it works for up to one prefix token. How many there are is told by the shapes.",
        {"count": "one at most"}),
    "prefix last": ("the prefix tokens are taken to come last. They come first.", {"place": "last"}),
    "prefix shut out": ("prefix tokens are masked. For a mask the neutral value is True: they see everyone and are "
        "seen by everyone.", {"frame": "shut out"}),
    "prefix: rows only": ("prefix tokens see the patches, but patches do not see them: their columns are masked.",
        {"frame": "seeing, not seen"}),
    "prefix: columns only": ("patches see the prefix tokens, but these do not see the patches: their rows are masked.",
        {"frame": "seen, not seeing"}),
    "prefix: apart": ("prefix tokens do not see each other, nor themselves.", {"frame": "apart"}),
}
