"""Lesson 07: known mistakes, name → (hint, the options of answers.py that make it)."""

SCORES_MIXED = (
    "scores are mixed, and one softmax is taken of the mixture. Then large enough scores drown the others, whatever the gate "
    "says: mix after the softmax, weights with weights."
)
SCORES_ADDED = (
    "content and positional scores are added before one softmax: that is PSA, lesson 06. Here two softmaxes are mixed, by the "
    "gate."
)
FORMS = ("all", "patch rows", "patches", "−inf")
GPSA = {
    **{f"scores mixed: {form}": (SCORES_MIXED, {"mixed": f"scores: {form}"}) for form in FORMS},
    **{
        f"scores mixed: {form}, no σ": (
            f"{SCORES_MIXED} And the share is σ(λ), not λ itself.",
            {"mixed": f"scores: {form}", "share": "λ"},
        )
        for form in FORMS
    },
    "scores added": (SCORES_ADDED, {"mixed": "scores: all", "mixture": "added"}),
    "scores added: −inf": (SCORES_ADDED, {"mixed": "scores: −inf", "mixture": "added"}),
    "gate swapped": ("the gate's two shares have changed places: σ(λ) is what the *positions* get.",
        {"share": "1 − σ(λ)"}),
    "no σ": ("λ itself is taken as the share. It may be any number; σ brings it between 0 and 1.", {"share": "λ"}),
    "softmax over heads": ("the heads' gates compete for one whole. Each head has a gate of its own, between 0 and 1: "
        "a sigmoid, not a softmax.", {"share": "softmax over heads"}),
    "shared gate, the mean": ("all heads have the same share, that of the mean gate. λ has an entry for each head.",
        {"heads": "the mean"}),
    "shared gate, the first": ("all heads have the share of the first one. λ has an entry for each head.",
        {"heads": "the first"}),
    "softmax twice": ("there is one softmax too many, around the mixture. Its rows sum to 1 already.",
        {"after": "softmax again"}),
    "softmax over queries": ("each column sums to 1, not each row: the softmax runs over the queries. Rows are queries.",
        {"axis": "queries"}),
    "content ungated": ("the content keeps its whole weight. It gets what the positions leave over: 1 − σ(λ).",
        {"mixture": "content ungated"}),
    "positions ungated": ("the positions have their whole weight, whatever the gate says. They get σ(λ) of it.",
        {"mixture": "positions ungated"}),
    "not gated": ("both softmaxes are added, and the gate has no say. Weigh them by 1 − σ(λ) and σ(λ).",
        {"mixture": "added"}),
    "no softmax of the positions": ("the positional scores themselves are mixed in. They too become weights first, by "
        "a softmax of their own.", {"columns": "no softmax"}),
    "prefix tokens have a place": ("patches look at prefix tokens by position too: to a softmax, a score of 0 is a "
        "score. Positional weights concern the patches alone; what prefix tokens get of them is 0, after the softmax.",
        {"columns": "a score of 0"}),
    "prefix rows scaled down": ("the rows of the prefix tokens don't sum to 1: the gate takes from them, and the "
        "positions give them nothing. They look by content alone.", {"rows": "0 by position"}),
    "prefix tokens are patches": ("prefix tokens look, and are looked at, by position, as if they had a place: a score "
        "of 0 is a score. Their rows are content alone, and by position they get nothing.", {"rows": "a score of 0"}),
    "rows of −inf": ("the rows of the prefix tokens are NaN: a softmax over nothing but −inf divides 0 by 0. Prefix "
        "tokens need no positional rows: they look by content alone.", {"rows": "−inf"}),
    "content among patches": ("by content too, patches give prefix tokens nothing. Only by position do they get "
        "nothing: by content a prefix token is looked at like any other.", {"columns": "left out"}),
    "prefix last": ("the last rows and columns are taken for the prefix. Prefix tokens come first.", {"rows": "last"}),
    "prefix last, by −P": ("the last rows and columns are taken for the prefix, and with P = 0 all of them: [-0:] is "
        "everything. Prefix tokens come first.", {"rows": "last, as −P"}),
}

NONLOCALITY = {
    "squared": ("the squares of the distances are averaged. Take the root: the length of δ.", {"distance": "squared"}),
    "signed": ("the components of δ are added with their signs, so left and right cancel. A distance is the length of "
        "δ.", {"distance": "signed"}),
    "length of the mean": ("this is the length of the mean offset: a head that looks far to both sides would pass for "
        "a local one. Take the length first, then the mean.", {"distance": "of the mean"}),
    "row and column": ("rows and columns are added, as a taxi drives. Asked for is the length of δ, as the crow flies.",
        {"distance": "row and column"}),
    "the larger": ("this is the larger of rows and columns. Asked for is the length of δ.", {"distance": "the larger"}),
    "rows only": ("the columns are missing: δ has two components.", {"distance": "rows only"}),
    "columns only": ("the rows are missing: δ has two components.", {"distance": "columns only"}),
    "sum over queries": ("the distances of all queries are added up. Take their mean, or a larger image would seem to "
        "look farther.", {"queries": "their sum"}),
    "mean over pairs": ("it is divided by the number of keys once too often: the weights of a row sum to 1 already, so "
        "over the keys a sum is the mean.", {"queries": "over pairs"}),
    "queries kept": ("there is a number for each query. Take the mean over the queries too.",
        {"queries": "one by one"}),
    "heads averaged": ("the heads are averaged. Each has a number of its own: which of them is local is the question.",
        {"heads": "their mean"}),
    "images averaged": ("the images are averaged. Each has numbers of its own.", {"images": "their mean"}),
    "prefix counted": ("prefix tokens are counted, as if they were at no distance. They have no place: leave out their "
        "rows and columns, and bring each row back to a sum of 1.", {"prefix": "counted"}),
    "rows not brought back": ("prefix tokens are cut off, but then a row sums to less than 1: a head that looks at the "
        "class token would pass for a local one. Divide each row by its sum.", {"prefix": "cut off"}),
    "columns brought to 1": ("each column is brought to a sum of 1. Rows are queries: divide each row by its sum.",
        {"prefix": "columns to 1"}),
    "whole brought to 1": ("the whole matrix is divided by its sum: then queries that look at prefix tokens count less "
        "than others. Divide each row by its own sum, then take the mean.",
        {"prefix": "all to 1", "queries": "their sum"}),
    "whole brought to 1, and mean": ("the whole matrix is divided by its sum, and then the mean is taken as well. "
        "Divide each row by its own sum.", {"prefix": "all to 1"}),
    "second softmax": ("a softmax is taken of the weights. They are weights already: divide each row by its sum.",
        {"prefix": "softmax again"}),
    "divided by P+N": ("it is divided by the number of all tokens, P + N. Prefix tokens are left out, so N queries are "
        "averaged.", {"queries": "over all tokens"}),
    "prefix last": ("the last rows and columns are cut off. Prefix tokens come first.",
        {"prefix": "taken for the last"}),
    "pixels": ("this is in pixels of patches of 16. Asked for are patches.", {"unit": 16}),
    "small pixels": ("this is in pixels of patches of 4. Asked for are patches.", {"unit": 4}),
    "sides swapped": ("rows and columns of the grid have changed places: right for square grids only.",
        {"sides": "columns, rows"}),
}

EARLY = "the class token joins one block too early: blocks count from 0, and block k is the first to see it."
TOO_LATE = "the class token joins one block too late: it is there *before* block k, which is the first to see it."
LATE_TOKEN = {
    "too early": (EARLY, {"before": "k − 1"}),
    "too early, or never": (EARLY, {"before": "k − 1, or never"}),
    "too early, or from the end": (EARLY, {"before": "k − 1, or from the end"}),
    "too late": (TOO_LATE, {"before": "k + 1"}),
    "too late, or never": (TOO_LATE, {"before": "k + 1, or never"}),
    "from the start": ("the class token is there from the start, so the blocks with a prior get to see it, a token "
        "without a place. It joins before block k.", {"before": "0"}),
    "after the last": ("the class token joins after the last block, so it never hears a patch. Blocks from k on take "
        "all tokens.", {"before": "the end"}),
    "placed last": ("the class token stands behind the patches. Prefix tokens come first.", {"place": "last"}),
    "added to the patches": ("the class token is added to every patch. It is a token of its own: one more along the "
        "axis of tokens.", {"place": "added"}),
    "reset": ("the class token starts anew in each block, and what it has heard is lost. It joins once, then it is a "
        "token like the others.", {"again": "reset"}),
    "one for each block": ("a new class token joins in each block from k on. It joins once.", {"again": "each block"}),
    "early blocks skipped": ("the blocks before k are never run: the patches pass all blocks, the class token those "
        "from k on.", {"early": "skipped"}),
    "not returned": ("the class token is left behind: patches come back alone. Return all tokens, the class token "
        "first.", {"returned": "patches"}),
    "returned alone": ("the class token comes back alone. Return all tokens, the class token first.",
        {"returned": "the class token"}),
    "its vector returned": ("the class token comes back alone, without its axis. Return all tokens, the class token "
        "first.", {"returned": "its vector"}),
}
