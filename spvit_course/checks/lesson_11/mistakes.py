"""Lesson 11: known mistakes, name → (hint, the options of answers.py that make it)."""

LARGEST = "the largest head counts at each place. Some do so; here it is the mean of the heads."
SUMMED = "the heads are summed, so that the identity counts for less the more heads there are. Take their mean."
PADDED_0 = (
    "where the class token joins, its row of the running product is all 0: it is lost before it has looked at anything. Bringing "
    "rows back to 1 afterwards gives its share to the others. What is it up to then, seen from itself?"
)
CLASS_LAST = "the class token stands behind the patches. Prefix tokens come first, so room is made in front."
ROLLOUT = {
    "order": ("the layers are multiplied in the wrong order. What comes later asks about what was before: the first "
        "layer stands on the right.", {"order": "first on the left"}),
    "no identity": ("the skip connection is missing: a token that looks elsewhere keeps itself as well. What stands "
        "for that in Â?", {"identity": "left out"}),
    "no renormalisation": ("rows no longer sum to 1 once the identity is added, and the product grows with every layer.",
        {"rows": "as they are"}),
    "columns to 1": ("each column is brought to a sum of 1. Rows are queries: their sums count.",
        {"rows": "columns to 1"}),
    "whole to 1": ("the whole matrix is divided by its sum. Each row is to sum to 1.", {"rows": "whole to 1"}),
    "softmax": ("a softmax brings the rows to 1, and changes all that stands in them. The numbers are shares already: "
        "divide.", {"rows": "softmax"}),
    "heads summed": (SUMMED, {"heads": "their sum"}),
    "heads summed, halved": (SUMMED, {"heads": "their sum", "rows": "halved"}),
    "heads' largest": (LARGEST, {"heads": "their largest"}),
    "heads' largest, halved": (LARGEST, {"heads": "their largest", "rows": "halved"}),
    "heads one by one": ("each head is followed through all layers by itself, and the mean comes last. A layer mixes "
        "its heads before the next one looks: take their mean in each layer.", {"heads": "each by itself"}),
    "first head": ("one head is followed and the others are left out. Take their mean.", {"heads": "the first"}),
    "transposed": ("the attention is transposed: you follow where each token's value went, not where it came from. "
        "Rows are queries.", {"turned": "rows are keys"}),
    "class padded with 0": ("where the class token joins, its row of the running product is all 0: it is lost before "
        "it has looked at anything. What is it up to then, seen from itself?", {"joins": "0"}),
    "class padded with 0, row to 1": (PADDED_0, {"joins": "0", "read": "row brought to 1"}),
    "class padded with 0, rows to 1": (PADDED_0, {"joins": "0, rows to 1"}),
    "class halved": ("the class token loses half of itself in every layer before it joins: there its map is padded "
        "with 0, and the row then sums to ½. Up to then it is nothing but itself.", {"joins": "halved"}),
    "class looks everywhere": ("where the class token joins, it is taken to have seen all tokens alike. Up to then it "
        "has seen nothing but itself.", {"joins": "looks everywhere"}),
    "class placed last": (CLASS_LAST, {"joins": "last"}),
    "early layers left out": ("the layers before the class token's are left out. By then patches have mixed: what it "
        "reads in place j is no longer patch j alone.", {"layers": "late ones"}),
    "last layer alone": ("only the last layer counts. What its tokens hold came through all layers before it.",
        {"layers": "the last"}),
    "own share left out": ("the class token's own share is cut off. Give the whole row, (1+N,), that share first.",
        {"read": "patches of it"}),
    "column": ("this is the class token's column: who has heard it. Asked for is its row: whom it has heard.",
        {"read": "its column"}),
    "last row": ("this is the row of the last patch. The class token is the first token.", {"read": "last row"}),
    "all rows": ("this is the mean of all rows. The answer is read from the class token alone.",
        {"read": "mean of all rows"}),
    "patches' rows": ("this is the mean of the patches' rows. That is where a model without a class token reads; this "
        "one reads the class token.", {"read": "mean of the patches' rows"}),
    "whole product": ("this is the whole product, (1+N, 1+N). Give the class token's row of it.",
        {"read": "whole product"}),
    "matrix of one row": ("the row comes as a matrix of one row, (1, 1+N). Give it as a vector, (1+N,).",
        {"read": "a matrix of one row"}),
}

ONE_TENSOR = (
    "all patches are gone in every image that the model is shown. Does a list hold one tensor again and again, which the loop "
    "goes on changing? Then append a copy of it (`.clone()`)."
)
DELETION = {
    "ascending": ("the lowest patches go first. The highest are to go first.", {"order": "lowest first"}),
    "map ignored": ("patches go in reading order, whatever the map says.", {"order": "reading order"}),
    "ranks and patches mixed up": ("ranks and patches are mixed up. argsort says which patch has rank k; an argsort of it says "
        "which rank patch i has. Which of the two does each of your lines need?", {"order": "argsort of argsort"}),
    "one tensor": (ONE_TENSOR, {"states": "one tensor"}),
    "one tensor but for the first": (ONE_TENSOR, {"states": "one tensor but for the first"}),
    "one tensor, the image apart": (ONE_TENSOR, {"states": "one tensor, the image apart"}),
    "insertion": ("you begin with nothing and let patches in: that is insertion. Here the image begins whole.",
        {"begins": "blank"}),
    "columns first": ("patches are counted down the columns. They are numbered row by row, in a map as everywhere.",
        {"places": "column by column"}),
    "R for C": ("a patch's row and column are found with R where C belongs: right for square grids only.",
        {"places": "row by row, R for C"}),
    "square patches": ("each patch is taken for a square as wide as it is high. It has height/R rows and width/C "
        "columns of pixels.", {"size": "squares as high"}),
    "square patches of the width": ("each patch is taken for a square as high as it is wide. It has height/R rows and "
        "width/C columns of pixels.", {"size": "squares as wide"}),
    "zeros": ("patches are filled with 0. Fill them with the image's mean colour.", {"fill": "0"}),
    "one grey": ("one mean is taken over all channels. A colour has three numbers: one mean for each channel.",
        {"fill": "one grey"}),
    "own mean": ("each patch is filled with its own mean, so its colour stays. Take the mean of the whole image.",
        {"fill": "patch's own mean"}),
    "mean by now": ("the mean is taken anew of an image with holes. Take it once, of the image as it came.",
        {"fill": "mean by now"}),
    "mean over channels": ("the mean is taken over the channels, pixel by pixel: the patch turns grey and keeps its "
        "drawing. Take it over the pixels, for each channel.", {"fill": "mean over channels"}),
    "not cumulative": ("each patch goes alone, and the ones before it come back. What is gone stays gone.",
        {"gone": "each alone"}),
    "patch reused": ("the same patch goes again and again. One that is gone can't be the next.",
        {"gone": "the highest again"}),
    "label drifts": ("the probability of whatever class is best by then. Stay with the class that the whole image is "
        "given.", {"label": "drifts"}),
    "label of the blank": ("this is the class that the blank image is given. Stay with that of the whole image.",
        {"label": "the blank's"}),
    "logits": ("these are logits. They have no zero of their own, so a quotient of two says nothing: take the softmax "
        "first.", {"value": "logit"}),
    "sigmoid": ("a sigmoid asks of each class by itself. An image has one class of several: their probabilities sum to "
        "1.", {"value": "sigmoid"}),
    "log-probabilities": ("these are logarithms of probabilities. Take the probabilities.", {"value": "log of it"}),
    "no baseline": ("these are the probabilities themselves. Divide by the first, so that every image starts at 1.",
        {"base": "none"}),
    "divided by the largest": ("it is divided by the largest value. Divide by the first, that of the whole image, also "
        "where the curve rises above it.", {"base": "the largest"}),
    "divided by the last": ("it is divided by the value of the blank image. Divide by the first, that of the whole one.",
        {"base": "the blank's"}),
    "subtracted": ("the first value is subtracted. Divide by it.", {"base": "subtracted"}),
    "first left out": ("the first value is missing, that of the whole image: N+1 values, with 0 to N patches gone.",
        {"returned": "without the first"}),
    "last left out": ("the last value is missing, with all patches gone: N+1 values, with 0 to N patches gone.",
        {"returned": "without the last"}),
    "mean": ("the curve's mean comes back. Give the curve, N+1 values.", {"returned": "their mean"}),
}
