"""Lesson 06: known mistakes, name → (hint, the options of answers.py that make it)."""

LENGTH = "the first number of v multiplies the length ‖δ‖. It belongs to its square."
PSA_MAP = {
    "no square": ("the first number of v does nothing. It belongs to ‖δ‖².", {"square": "none"}),
    "norm for square": (LENGTH, {"square": "norm"}),
    "sum for squares": ("the first number of v multiplies the sum of both parts of δ. Square them before you add.",
        {"square": "sum"}),
    "sizes for squares": ("the first number of v multiplies |row| + |column|. ‖δ‖² adds the squares.",
        {"square": "sum of sizes"}),
    "square of the sum": ("the parts of δ are added before they are squared. ‖δ‖² adds the squares.",
        {"square": "square of the sum"}),
    "rows only": ("‖δ‖² lacks the columns' part. Along which axis do you sum?", {"square": "rows only"}),
    "linear part left out": ("only ‖δ‖² counts, so every head looks around its own query. The other two numbers of v "
        "belong to δ itself.", {"linear": "left out"}),
    "square last": ("‖δ‖² is multiplied by the last number of v. In this course it comes first: (‖δ‖², row, column).",
        {"order": "row, column, square"}),
    "square last, columns first": ("this is the order (column, row, ‖δ‖²) of ConViT's code. In this course: (‖δ‖², "
        "row, column).", {"order": "column, row, square"}),
    "axes swapped": ("the second number of v multiplies the column offset, the third the row offset. Row first.",
        {"order": "square, column, row"}),
    "sign": ("the offsets point the wrong way, or queries and keys have changed places: entry [h, i, j] is for query "
        "i, and δ is the place of j minus the place of i.", {"down": "query − key", "right": "query − key"}),
    "sign of the rows": ("the row offsets have the wrong sign. δ is key minus query, and rows count downwards.",
        {"down": "query − key"}),
    "sign of the columns": ("the column offsets have the wrong sign. δ is key minus query, and columns count to the "
        "right.", {"right": "query − key"}),
    "absolute value": ("the signs of δ are lost in its linear part, so no head can tell left from right.",
        {"down": "absolute", "right": "absolute"}),
    "square assumed": ("patch n is placed as if the grid had as many columns as rows. Its row is n // C, its column n "
        "% C.", {"tokens": "row by row, R for C"}),
    "column by column": ("your tokens run down the columns. Patches are numbered row by row.",
        {"tokens": "column by column"}),
    "strength and centre": ("v is read as a strength and a centre, −v₀·‖δ − (v₁, v₂)‖². It holds the factors of ‖δ‖², "
        "δ_row and δ_column.", {"reading": "strength and centre"}),
    "minus put in": ("the whole map has the wrong sign. If a head is to look near, that minus stands in v already.",
        {"after": "minus"}),
    "divided by √3": ("the map is divided by √3, the width of v. Only the product of two random vectors grows with its "
        "width (lesson 01).", {"after": "by √3"}),
    "divided by √C": ("the map is divided by √C, of the grid's columns. The root belongs to content scores, and its C "
        "is the width of a head.", {"after": "by √C"}),
    "softmax taken": ("the softmax is taken already. A map is what goes into it; whoever uses the map takes it.",
        {"after": "softmax"}),
    "not spread": ("this is the table over the distinct offsets. A map has a number for each pair of patches (lesson "
        "03).", {"layout": "table"}),
    "heads last": ("the heads stand last. A map is (H, N, N), heads first.", {"after": "heads last"}),
}
ONE_TENSOR = "Does a list hold one tensor again and again, which the loop changes? Then append a copy of it (`.clone()`)."
CONV_HEADS = {
    "one v for all heads": (f"all heads look where the last one does. {ONE_TENSOR}", {"rows": "one v"}),
    "one w for all heads": (f"all heads have the matrix of the last one. {ONE_TENSOR}", {"rows": "one w"}),
    "flipped": ("the kernel is turned by half a circle: each head looks to the opposite side of its tap. conv2d "
        "doesn't flip (it is a cross-correlation): the tap [.., 0, 0] of a 3 × 3 kernel belongs to the patch above and "
        "to the left. If your centres say so already, look at the sign before 2Δ in v.", {"down": -1, "right": -1}),
    "flipped rows": ("the kernel stands on its head: taps of its upper row look down. Rows count downwards.",
        {"down": -1}),
    "flipped columns": ("the kernel is mirrored: taps of its left column look to the right.", {"right": -1}),
    "axes": ("the centres are (column, row). Row first, in Δ as in v.", {"axes": "column, row"}),
    "head order": ("v and w count the taps in two orders, one row by row, the other column by column. Head h needs its "
        "own centre.", {"order": "column by column"}),
    "origin not shifted": ("the centres begin at (0, 0). The middle of the kernel lies on the query, so its first tap "
        "lies above and to the left.", {"origin": "corner"}),
    "middle of 3 × 3": ("the middle of each kernel is taken to be its tap [1, 1], as in a 3 × 3 one. Other sizes have "
        "another middle.", {"origin": "(1, 1)"}),
    "sign of α": ("the sign of α is wrong: each head flees from its centre. Where is −α‖δ − Δ‖² largest?",
        {"alpha": "sign turned"}),
    "no 2": ("each head looks half as far as it should. Multiply −α‖δ − Δ‖² out once more: what stands before Δ·δ?",
        {"linear": 1}),
    "α on the square alone": ("α multiplies ‖δ‖² alone, so the centres move with it. It multiplies all of ‖δ − Δ‖².",
        {"alpha": "on the square alone"}),
    "α left out": ("the heads are the same whatever α is.", {"alpha": "left out"}),
    "no centre": ("every head looks around the query itself: the linear part of v is 0.", {"linear": 0}),
    "in and out swapped": ("w[h] is (out, in), as it lies in the kernel. The head multiplies tokens from the right, so "
        "it needs (in, out).", {"mixes": "out, in"}),
    "channels mixed": ("w has the right shape, but channels and taps are mixed: a reshape cannot move an axis. "
        "Permute, then join.", {"mixes": "as they lie"}),
    "averaged": ("the heads are averaged. A convolution adds its taps up.", {"share": "mean"}),
    "square assumed": ("the kernel is taken to have as many columns as rows. Here it may be 1 × 3, or 5 × 3.",
        {"sides": "rows, rows"}),
}
