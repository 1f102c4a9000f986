"""Lesson 01: known mistakes, name → (hint, the options of answers.py that make it)."""

TOKENS = "the root is that of the number of tokens. C is how many numbers a query has: its last axis."
ONE_WHOLE = "Each query has one whole to give away, to its keys: check which sums are 1."
IN_A_HEAD = {
    "no root": ("the scores are not divided by √C. C is the width of a head: how many numbers a query has.",
        {"root": "none"}),
    "C for its root": ("the scores are divided by C, not by its square root.", {"root": "C"}),
    "times the root": ("the scores are multiplied by √C. They are to be divided by it.", {"root": "1/√C"}),
    "root of the keys": (TOKENS, {"root": "√keys"}),
    "over queries": (f"the softmax runs over the queries. {ONE_WHOLE}", {"axis": "queries"}),
    "over all pairs": (f"the softmax runs over all pairs at once. {ONE_WHOLE}", {"axis": "all"}),
    "no softmax": ("the scores themselves are used as weights. Weights are positive and sum to 1.",
        {"share": "scores"}),
    "exp without the sum": ("exp is taken, but not divided by its sum: the weights of a query sum to something else "
        "than 1.", {"share": "exp"}),
    "scaled after": ("the division by √C comes after the softmax: so the weights sum to 1/√C. It belongs to the scores.",
        {"scaled": "weights"}),
    "queries and keys exchanged": ("queries and keys are exchanged: row i of the scores belongs to query i, column j "
        "to key j.", {"roles": "key, query, value"}),
    "keys averaged": ("it is the keys that are averaged. Keys decide who is listened to; what is taken are the values.",
        {"roles": "query, key, key"}),
    "k not turned": ("q meets k as it is. Each query is to meet each key: k must be transposed, so that its last axis "
        "comes first.", {"turned": "not"}),
    "k turned by reshape": ("a reshape is not a transpose: the shape is right, but the numbers of several keys run "
        "into one column.", {"turned": "by reshape"}),
    "given, not taken": ("the weights act the wrong way round: row i of the result is what query i takes from all "
        "keys, by the weights of row i.", {"result": "given"}),
}

ONE_HEAD = IN_A_HEAD | {
    "root of the queries": (TOKENS, {"root": "√queries"}),
    "root of the values": ("the root is that of the width of a value. C is the width of a query.", {"root": "√E"}),
    "stops at the weights": ("these are the weights, and they are right. What is asked for is the average that they "
        "make of the values.", {"result": "weights"}),
}

MIXED = "heads and tokens are mixed: a reshape alone lets the numbers of one token run into several heads."
APART = "Split the last axis first, then move the axis of the heads."
AT_ONCE = (
    "q, k and v are mixed: one reshape lets the 3·D numbers of a token run into all three. It may split the last axis and "
    "nothing else; then move axes."
)
THIRDS = "The 3·D numbers of a token are its query, then its key, then its value."
JOINED = "The same happens where the heads are put together again."
MHSA = IN_A_HEAD | {
    "√D for √C": ("the scores are divided by the root of the whole width D. A query of one head has C = D/H numbers.",
        {"root": "√D"}),
    "over heads": ("the softmax runs over the heads. Each head has its own weights: check which sums are 1.",
        {"axis": "heads"}),
    "split by reshape": (f"{MIXED} It happens where the heads are split. {APART}", {"split": "reshaped"}),
    "merged by reshape": (f"{MIXED} It happens where they are put together again: first move the axis of the heads "
        "back beside their numbers.", {"merge": "reshaped"}),
    "split and merged by reshape": (f"{MIXED} It happens where the heads are split, and again where they are put "
        f"together. {APART}", {"split": "reshaped", "merge": "reshaped"}),
    "heads look at heads, then moved": ("the heads were not moved before the product, so inside each token heads are "
        "compared with heads; then they are moved before they are joined, which mixes tokens. Move them once before, "
        "and back after.", {"meet": "heads", "merge": "reshaped"}),
    "all axes turned": ("k.T turns round all four axes. Only the last two are to be exchanged: k.mT, or "
        "k.transpose(-2, -1).", {"turned": "all axes"}),
    "heads look at heads": ("inside each token, heads are compared with heads. Tokens are to be compared with tokens, "
        "in each head apart: the last two axes of q and k must be tokens and C.", {"meet": "heads"}),
    "heads innermost": ("each head takes every H-th number. It should take C numbers side by side: the head is the "
        "outer axis, its numbers the inner one.", {"split": "(s c h)"}),
    "heads outermost": ("q, k and v are looked for inside each head. The 3·D numbers are first q, then k, then v; each "
        "of these has the heads.", {"split": "(h s c)"}),
    "merged with heads innermost": ("in the result the heads alternate number by number. Head 0 comes first with all "
        "its C numbers, then head 1.", {"merge": "(c h)"}),
    "one head": ("this is one head of the whole width. Each of the H heads has weights of its own.",
        {"split": "one head"}),
    "keys and values exchanged": (f"keys and values are exchanged. {THIRDS}", {"roles": "query, value, key"}),
    "no output projection": ("the heads stand side by side, but the last linear layer, `proj`, is missing.",
        {"output": "bare"}),
    "skip connection": ("x itself is added to the result. That is for the block to do (lesson 02); the layer returns "
        "what attention gives.", {"output": "with skip"}),
} | {
    f"one reshape, {first} first{also}": (hint, {"split": f"reshaped, {first} first"} | merge)
    for first in ("three", "images")
    for also, hint, merge in (("", AT_ONCE, {}), (", and merged", f"{AT_ONCE} {JOINED}", {"merge": "reshaped"}))
} | {
    f"thirds read as {order}": (f"{THIRDS} Here they are read as {order}.", {"roles": roles})
    for order, roles in (
        ("k, v, q", "value, query, key"),
        ("v, q, k", "key, value, query"),
        ("v, k, q", "value, key, query"),
    )
}

ADDED = "nearly: a small number was added to save the logarithm of 0, and it shifts every row a little."
RAISED = "nearly: weights of 0 were raised to a small number, and it is counted."
INSIDE = "nearly: inside the logarithm small weights were raised to a small number, so theirs is not their own."
COUNTS_AS_0 = "0 · log 0 counts as 0: treat those places alone, and leave the others exact."
ENTROPY = {
    "over queries": ("the sum runs over the queries. A row holds the weights of one query: sum over its keys, the last "
        "axis.", {"axis": -2}),
    "log2": ("this is the entropy in bits. In nats the logarithm is the natural one.", {"base": 2}),
    "log10": ("the logarithm has base 10. In nats it is the natural one.", {"base": 10}),
    "sign": ("the sign is the other one: the logarithm of a weight is never positive, an entropy never negative.",
        {"sign": 1}),
    "0 · log 0": ("a weight of 0 gives nan, but 0 · log 0 counts as 0. Take care of those places before the logarithm.",
        {"zero": "nan"}),
    "squares": ("w · w is summed. A summand is w · log w.", {"inner": "w²", "sign": 1}),
    "one minus squares": ("this is 1 − Σ w², another measure of spread. A summand of the entropy is w · log w.",
        {"inner": "w²", "total": "one minus"}),
    "mean for sum": ("the mean over the keys is taken. An entropy is a sum: more keys can hold more of it.",
        {"total": "mean"}),
    "one number": ("all rows are put together in one number. Each query has an entropy of its own.",
        {"total": "one number"}),
    "one sum": ("all rows are summed into one number: was the sum given no axis, or did w[w > 0] forget the rows? A "
        "mask as an index leaves one long list. Each query has an entropy of its own.", {"total": "one sum"}),
    "softmax again": ("softmax is taken of w. But w are weights already: each row sums to 1.", {"source": "scores"}),
    "effective number": ("this is e to the power of the entropy, the effective number of keys. Asked for is the "
        "entropy itself.", {"total": "effective"}),
    "normalised": ("this is the entropy as a share of its largest value. Asked for is the entropy itself, in nats.",
        {"total": "normalised"}),
} | {
    f"{way} 1e-{power:02}": (f"{hint} {COUNTS_AS_0}", {"zero": f"{way} 1e-{power}"})
    for way, hint, powers in (
        ("plus", ADDED, range(9, 4, -1)),
        ("clamped", RAISED, range(10, 4, -1)),
        ("log-clamped", INSIDE, range(8, 3, -1)),
    )
    for power in powers
}
