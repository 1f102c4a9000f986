"""Lesson 08: known mistakes, name → (hint, the options of answers.py that make it)."""

EXTRA = "Look at each gradient's values: one that is all 0 moves nothing."
PRIOR = {
    "no ReLU": ("the hidden layer is not folded: without its ReLU, two linear layers are one, and f is a tilted plane.",
        {"fold": "none"}),
    "GELU": ("the hidden layer goes through a GELU. It is a ReLU here.", {"fold": "GELU"}),
    "sigmoid": ("the hidden layer goes through a sigmoid. It is a ReLU here.", {"fold": "σ"}),
    "tanh": ("the hidden layer goes through a tanh. It is a ReLU here.", {"fold": "tanh"}),
    "absolute hidden": ("the hidden layer is folded up: a ReLU makes 0 of what is negative.", {"fold": "absolute"}),
    "step": ("the hidden layer is 0 or 1. A ReLU keeps the values of what is positive.", {"fold": "1"}),
    "no b1": ("b1 is not used: all folds run through δ = 0.", {"first_bias": "left out"}),
    "b1 subtracted": ("b1 is subtracted. Look at its sign in the formula.", {"first_bias": "subtracted"}),
    "b1 after the ReLU": ("b1 is added after the ReLU. It shifts the folds, so it comes before.",
        {"first_bias": "after"}),
    "no b2": ("b2 is not used.", {"last_bias": "left out"}),
    "1 for b2": ("1 stands where b2 belongs. b2 is 1 only at the start.", {"last_bias": "1"}),
    "1 and b2": ("1 is added besides b2. That the prior starts as 1 is b2's business.", {"last_bias": "1 too"}),
    "the first b2": ("all heads have the first one's b2.", {"last_bias": "the first"}),
    "shared hidden layer": ("all heads have the first one's hidden layer. Each head has a network of its own: w1, b1 "
        "begin with the axis of heads.", {"hidden": "shared"}),
    "mean hidden layer": ("the hidden layers of the heads are averaged. Each head has its own.",
        {"hidden": "the mean"}),
    "shared w2": ("all heads have the first one's w2. Each head has its own.", {"last": "shared"}),
    "no w2": ("the hidden units are added up as they are: each is to be multiplied by its entry of w2.",
        {"last": "left out"}),
    "mean over units": ("the hidden units are averaged. w2 · hidden is a sum.", {"total": "mean"}),
    "normalised": ("offsets are divided by the farthest one. They stay in patches: “one to the right” is (0, 1) on any "
        "grid.", {"seen": "by the farthest"}),
    "normalised by axis": ("offsets are divided, each axis by its farthest one. They stay in patches: “one to the "
        "right” is (0, 1) on any grid.", {"seen": "each by its farthest"}),
    "logarithm": ("the logarithm of the offsets is taken, as in lesson 04. Here they come as they are.",
        {"seen": "log"}),
    "from 0": ("offsets are shifted, to count from 0. They are signed: left and above are negative.",
        {"seen": "shifted from 0"}),
    "axes swapped": ("rows and columns of δ have changed places: the last axis of w1 is (row, column), as that of δ is.",
        {"seen": "columns, rows"}),
    "sign": ("the signs of δ are turned. It points from query to key, as given.", {"seen": "query − key"}),
    "sign of the rows": ("above and below have changed places: look at the sign of the row offset.",
        {"seen": "rows turned"}),
    "sign of the columns": ("left and right have changed places: look at the sign of the column offset.",
        {"seen": "columns turned"}),
    "absolute value": ("the signs of the offsets are lost: three up gets the number of three down.",
        {"seen": "absolute"}),
    "rows only": ("the column offset is not used. δ has two components.", {"seen": "rows only"}),
    "columns only": ("the row offset is not used. δ has two components.", {"seen": "columns only"}),
    "length": ("only the length of δ is seen, so all directions are alike.", {"seen": "length"}),
    "ReLU at the end": ("the result goes through a ReLU too. A prior may be negative: nothing comes after b2.",
        {"output": "ReLU"}),
    "ReLU at the end alone": ("one ReLU goes around everything, b2 included, and none around the hidden layer. It "
        "belongs to each hidden unit.", {"fold": "none", "output": "ReLU"}),
    "ReLU around the sum": ("the ReLU stands around the sum over the units. Look which brackets it has in the formula: "
        "each unit is folded for itself, before w2.", {"fold": "none", "total": "folded"}),
    "ReLU around the sum too": ("the sum over the units goes through a ReLU of its own. What w2 makes of the units may "
        "be negative.", {"total": "folded"}),
    "sigmoid at the end": ("the result goes through a sigmoid. Nothing comes after b2: f may be any number.",
        {"output": "σ"}),
    "exp at the end": ("the result goes through exp. Nothing comes after b2: f may be any number.", {"output": "exp"}),
    "heads last": ("the axis of heads stands last. It comes first: (H, …).", {"heads": "last"}),
    "heads added": ("the heads are added up. Each has a prior of its own: (H, …).", {"heads": "added"}),
}

ONE_WHOLE = "Each query has one whole to give away, to its keys: check which sums are 1."
SPSA = {
    "added": ("the prior is added to the scores: that is a bias, lesson 04. Here it multiplies them.",
        {"way": "added"}),
    "multiplied after": ("the prior multiplies the weights, after the softmax, so rows no longer sum to 1. It belongs "
        "on the scores.", {"way": "multiplied after"}),
    "multiplied after, shared anew": ("the prior multiplies the weights, and each row is brought back to 1: that is f "
        "· exp(S), shared. It belongs on the scores, inside the softmax.", {"way": "shared anew"}),
    "1 + f": ("the scores are added once more to what f makes of them: their factor is 1 + f. f is the factor, 1 at "
        "the start.", {"way": "both"}),
    "divided": ("the scores are divided by the prior. It multiplies them.", {"way": "divided"}),
    "signs lost": ("the signs of the scores are lost. A score may be negative, and f > 1 makes it more so.",
        {"way": "on sizes"}),
    "scores left out": ("the scores are left out: the prior alone becomes weights. It multiplies the scores.",
        {"way": "alone"}),
    "prior left out": ("this is plain attention: the prior is not used.", {"way": "left out"}),
    "matrix product": ("prior and scores are multiplied as matrices. Each score has a factor of its own: element by "
        "element.", {"way": "matrix product"}),
    "no root": ("the scores are not divided by √C. C is the width of a head: how many numbers a query has.",
        {"root": "none"}),
    "C for its root": ("the scores are divided by √C twice, or by C: `self.scores` has divided them already.",
        {"root": "C"}),
    "√D for √C": ("the scores are divided by √D too. C is the width of one head.", {"root": "√D"}),
    "root after the softmax": ("the weights are divided by √C, after the softmax. The root belongs to the scores: "
        "`self.scores` has it.", {"root": "after"}),
    "softmax over queries": (f"the softmax runs over the queries: each column sums to 1. {ONE_WHOLE}",
        {"axis": "queries"}),
    "softmax over heads": (f"the softmax runs over the heads. {ONE_WHOLE}", {"axis": "heads"}),
    "no softmax": (f"there is no softmax: these are scores still. {ONE_WHOLE}", {"axis": "none"}),
    "softmax twice": ("there is a softmax too many, after the first. One does it.", {"times": "after too"}),
    "softmax before too": ("there is a softmax before the product as well: then all scores are positive, and none is "
        "suppressed. One softmax, last.", {"times": "before too"}),
    "transposed": ("the prior is transposed: pair [i, j] gets the factor for looking from j to i. Queries come first.",
        {"pairs": "key, query"}),
    "one map for all": ("all heads have the first one's prior. Each has its own.", {"maps": "the first"}),
    "mean map": ("the heads' priors are averaged. Each head has its own.", {"maps": "the mean"}),
    "prefix 0": ("scores of prefix tokens are multiplied by 0. What is neutral for a sum isn't for a product.",
        {"frame": "0"}),
    "prefix 0 but for itself": ("scores between prefix tokens and patches are multiplied by 0. They keep their scores, "
        "in rows and in columns.", {"frame": "0 but for itself"}),
    "prefix rows 0": ("the rows of prefix tokens are multiplied by 0: queries keep their scores.",
        {"frame": "rows of 0"}),
    "prefix columns 0": ("the columns of prefix tokens are multiplied by 0: as keys, they keep their scores.",
        {"frame": "columns of 0"}),
    "prefix not seen": ("patches can't see prefix tokens, or NaN comes out. They keep their scores.",
        {"frame": "−inf"}),
    "prefix last": ("the last rows and columns are taken for the prefix. Prefix tokens come first.", {"frame": "last"}),
    "one prefix token": ("right for one prefix token only. There may be none, or more: P is what S has more than f.",
        {"frame": "one token"}),
    "none or one prefix token": ("right for one prefix token at most. P is not always 0 or 1: it is what S has "
        "more than f.", {"frame": "none or one"}),
    "no prefix": ("no prefix tokens are assumed. P is not always 0: it is what S has more than f.", {"frame": "none"}),
    "prefix cut off": ("the weights of prefix tokens are missing: all tokens come back, (B, H, P+N, P+N).",
        {"frame": "patches alone"}),
}

MOVES_AT_STEP0 = {
    "all": (f"all four are named, whatever the layer. That a gradient is there does not mean that it isn't 0. {EXTRA}",
        {"counts": "exists"}),
    "none": ("none is named, whatever the layer. Is there a loss of the output, and a backward pass?",
        {"counts": "never"}),
    "w1": (f"w1 is always among them. {EXTRA}", {"named": "w1 too"}),
    "b1": (f"b1 is always among them. {EXTRA}", {"named": "b1 too"}),
    "w1 and b1": (f"w1 and b1 are always among them. {EXTRA}", {"named": "w1 and b1 too"}),
    "w2 left out": ("w2 is never among them. A parameter that is 0 may well have a gradient.",
        {"named": "w2 left out"}),
    "b2 left out": ("b2 is never among them. It multiplies all scores of a head.", {"named": "b2 left out"}),
    "values for gradients": ("those are named whose *values* are not 0. What moves is what has a gradient, at 0 or "
        "elsewhere.", {"counts": "value"}),
    "the others": ("those that stay are named. Asked for are those that move.", {"counts": "no gradient"}),
    "every entry": ("a parameter is named only if all entries of its gradient differ from 0. One is enough to move it.",
        {"counts": "all of it"}),
    "old gradients": ("gradients from before are counted: `backward` adds to what `.grad` holds. Begin with "
        "`layer.zero_grad()`, or use `torch.autograd.grad`.", {"old": "kept"}),
    "always w2 and b2": ("the same two are named for every layer. They are right for one start; the function is asked "
        "about others too.", {"named": "always w2, b2"}),
    "always w1 and b1": ("the same two are named for every layer, and not those that move at a start.",
        {"named": "always w1, b1"}),
}
