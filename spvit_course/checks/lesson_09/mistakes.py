"""Lesson 09: known mistakes, name → (hint, the options of answers.py that make it)."""

ROLLED = (
    "the partner is a neighbour in the batch. The batch is *reversed*: the first image's partner is the last, the second's the "
    "last but one."
)
READING = {  # of the box: name → hint; for tokens and for their outputs
    "left, top, right, bottom": "the box's rows and columns have changed places. It says (top, left, bottom, right): rows first.",
    "top, bottom, left, right": "the box is read as (top, bottom, left, right). It says (top, left, bottom, right).",
    "left, right, top, bottom": "the box is read as (left, right, top, bottom). It says (top, left, bottom, right).",
    "top, left, height, width": (
        "the box's last two numbers are taken for its height and width. They are where it ends: bottom and right."
    ),
    "ends included": (
        "the box is a row and a column too large: bottom and right are the first that are *not* in it, as in a slice."
    ),
    "rows only": "whole rows are exchanged. The box has a left and a right end, too.",
    "columns only": "whole columns are exchanged. The box has an upper and a lower end, too.",
}

BOX = {
    "partner rolled": (ROLLED, {"partner": "the one before"}),
    "partner rolled back": (ROLLED, {"partner": "the one after"}),
    "the first for all": ("all images get their box from the first one. Each has a partner of its own.",
        {"partner": "the first"}),
    "nothing exchanged": ("nothing changes: each image keeps its own values, also inside the box.",
        {"partner": "itself"}),
    "the mean": ("inside the box stands the mean of both images. The box comes from the partner, whole: nothing is "
        "averaged.", {"partner": "the mean"}),
    "features reversed": ("within each image, a wrong axis is reversed: that of the features. Partners are found along "
        "the batch.", {"partner": "the features"}),
    "mirrored": ("the box is filled with the image's own mirror image, left to right. Partners are found along the "
        "batch.", {"partner": "the columns"}),
    "upside down": ("the box is filled with the image itself, upside down. Partners are found along the batch.",
        {"partner": "the rows"}),
    "all axes reversed": ("all axes are reversed. Only the batch is: the partner's tokens keep their places and their "
        "features.", {"partner": "everything"}),
    "places reversed": ("rows and columns are reversed, too. Only the batch is: the partner's tokens keep their places.",
        {"partner": "the batch and places"}),
    "outside swapped": ("inside and outside have changed places: an image keeps its own outside the box.",
        {"where": "outside"}),
    "everywhere": ("all patches are exchanged, not those in the box alone.", {"where": "everywhere"}),
    "rows or columns": ("a cross is exchanged: patches that are in the box's rows *or* in its columns. In the box are "
        "those that are in both.", {"where": "either"}),
    "half the batch": ("only the first half of the batch has new values. Is it read from what was already written "
        "over? Read from x.", {"images": "the first half"}),
    **{name: (hint, {"reading": name}) for name, hint in READING.items()},
}

MIXTOKEN = BOX | {
    "emptied": ("the box holds zeros. It is filled with the partner's tokens.", {"partner": "zeros"}),
}

UNMIX = BOX | {
    "column by column": ("tokens are laid out column by column. They come row by row: token n is patch (n // C, n % C).",
        {"layout": "column by column"}),
    "sides swapped": ("the grid is taken for (columns, rows): right for square grids only.",
        {"layout": "sides swapped"}),
    "reshaped": ("a reshape goes across tokens and classes: the axis of the tokens has to become the last one before "
        "it is split.", {"layout": "reshaped"}),
    "classes last": ("the box is looked for among columns and classes. swap_box takes (B, D, R, C): the last two axes "
        "must be the grid's.", {"layout": "classes last"}),
    "a grid": ("it comes back as a grid, (B, K, R, C). Asked for are tokens again, (B, R·C, K).",
        {"returned": "a grid"}),
    "classes first": ("it comes back as (B, K, R·C). Asked for are tokens again, (B, R·C, K).",
        {"returned": "features first"}),
}

DRAWN = "the share is the λ that was drawn. The box was rounded, and cut off at the border: how many patches has it really?"
FROM_SIDES = (
    "the share is reckoned from the λ that was drawn. The box was rounded, and cut off at the border: how many patches has it "
    "really?"
)
MIX_LABELS = {
    "λ drawn": (DRAWN, {"share": "λ drawn"}),
    "sides from λ": (FROM_SIDES, {"share": "sides from λ"}),
    "even sides from λ": (FROM_SIDES, {"share": "even sides from λ"}),
    "numbers of patches": ("the labels are multiplied by numbers of patches. The two shares must sum to 1.",
        {"goes": "in numbers of patches"}),
    "λ drawn, inverted": ("the share is the λ that was drawn, and it goes to the wrong image. Count the patches; and "
        "who keeps which?", {"share": "λ drawn", "goes": "to the image"}),
    "inverted": ("the two shares have changed places: what lies in the box is the *partner's*.",
        {"goes": "to the image"}),
    "unmixed": ("the labels are not mixed, though the tokens are.", {"share": "none"}),
    "half and half": ("both labels get a half, whatever the box.", {"share": "a half"}),
    "the greater part": ("the image with the greater part gets the whole label. Each gets its share.",
        {"share": "the greater part"}),
    "the height": ("the share is that of the rows. What about the columns?", {"share": "height"}),
    "the width": ("the share is that of the columns. What about the rows?", {"share": "width"}),
    "root of the area": ("the share is a side's, the root of the area's. Count the patches.",
        {"share": "root of the area"}),
    "ends included": ("the box is counted a row and a column too large: bottom and right are the first that are *not* "
        "in it.", {"reading": "ends included"}),
    "top, bottom, left, right": (READING["top, bottom, left, right"], {"reading": "top, bottom, left, right"}),
    "top, left, height, width": (READING["top, left, height, width"], {"reading": "top, left, height, width"}),
    "R²": ("the grid is taken for a square of its rows. How many patches are there in all?", {"whole": "R²"}),
    "C²": ("the grid is taken for a square of its columns. How many patches are there in all?", {"whole": "C²"}),
    "a count": ("the number of patches in the box is taken for its share. Of how many?", {"whole": "1"}),
    "added": ("an image's own label keeps its whole weight, so the sum is more than 1.", {"goes": "added"}),
    "partner whole": ("the partner's label has its whole weight, so the sum is more than 1.", {"goes": "not divided"}),
    "partner rolled": (ROLLED, {"partner": "the one before"}),
    "partner rolled back": (ROLLED, {"partner": "the one after"}),
    "classes reversed": ("the classes are reversed within each image. Partners are found along the batch.",
        {"partner": "the classes"}),
    "partner missing": ("the partner's label is missing, so the sum is less than 1.", {"partner": "zeros"}),
}

TWICE = "a softmax is taken of a softmax. Cross-entropy wants logits, or the logarithm of one softmax."
WRONG_AXIS = "does the softmax run over the *classes*? F.cross_entropy takes axis 1 for the classes, which here are the last one."
MOVED = "For F.cross_entropy a target of probabilities has the logits' shape: both need the move."
DENSE_LOSS = {
    "w missing": ("w has no say.", {"weights": "1 and 1"}),
    "w on the class head": ("w multiplies the class token's part. It belongs to the patches'.", {"weights": "w and 1"}),
    "w on both": ("w multiplies both parts. It belongs to the patches' alone.", {"weights": "w and w"}),
    "1 − w and w": ("the class token's part is multiplied by 1 − w. It keeps its whole weight, whatever w is.",
        {"weights": "1 − w and w"}),
    "halved": ("the sum of the two parts is halved. They are added, not averaged.", {"weights": "halved"}),
    "class head only": ("only the class token learns: the patches' part is missing.",
        {"weights": "the class head alone"}),
    "dense head only": ("only the patches learn: the class token's part is missing.",
        {"weights": "the dense head alone"}),
    "dense head only, no w": ("only the patches learn: the class token's part is missing. And w has no say.",
        {"weights": "the dense head alone, no w"}),
    "sum over patches": ("the patches' losses are added up within an image: with 196 of them they would drown the "
        "class token. Take their mean.", {"dense_mean": "over images alone"}),
    "sum over images": ("the patches' part is averaged over patches, but added up over images. Take the mean over both.",
        {"dense_mean": "over patches alone"}),
    "sum of the patches": ("the patches' losses are added up. Take their mean.", {"dense_mean": "a sum"}),
    "sum of the classes' part": ("the class token's losses are added up over the batch. Take their mean.",
        {"class_mean": "a sum"}),
    "sums": ("both parts are sums over the batch. Take means.", {"class_mean": "a sum", "dense_mean": "a sum"}),
    "mean over classes": ("the patches' part is divided by the number of classes as well. A cross-entropy is a *sum* "
        "over the classes; the mean is over patches and images.", {"dense_mean": "over all entries"}),
    "mean over classes, class token": ("the class token's part is divided by the number of classes as well. A "
        "cross-entropy is a *sum* over the classes.", {"class_mean": "over all entries"}),
    "means over classes": ("both parts are divided by the number of classes as well. A cross-entropy is a *sum* over "
        "the classes.", {"class_mean": "over all entries", "dense_mean": "over all entries"}),
    "patches for classes": (WRONG_AXIS, {"dense_axis": "patches", "dense_mean": "over images and classes"}),
    "softmax over patches": ("the dense softmax runs over the patches: they would compete for each class. Each patch "
        "has a distribution of its own.", {"dense_axis": "patches"}),
    "softmax over images": ("the class token's softmax runs over the images. It runs over the classes.",
        {"class_axis": "images"}),
    "softmax twice, patches": (f"{TWICE} (This is in the patches' part.)", {"dense_log": "softmax twice"}),
    "softmax twice, class token": (f"{TWICE} (This is in the class token's part.)", {"class_log": "softmax twice"}),
    "softmax twice": (TWICE, {"class_log": "softmax twice", "dense_log": "softmax twice"}),
    "log of a softmax": ("with logits far apart a softmax comes to 0, and its logarithm is infinite. Which function "
        "takes both in one?", {"class_log": "one by one", "dense_log": "one by one"}),
    "softmax of the maps": ("a softmax is taken of the maps. They are distributions already.",
        {"dense_target": "softmax again"}),
    "no log": ("probabilities are multiplied by the targets: the logarithm is missing.",
        {"class_log": "no log", "dense_log": "no log"}),
    "no softmax": ("the logits themselves are multiplied by the targets: a log-softmax comes first.",
        {"class_log": "no softmax", "dense_log": "no softmax"}),
    "sign": ("the sign: this would be made *large* by what is right.", {"sign": 1}),
    "hard maps": ("each patch learns its likeliest class alone. The maps are soft: a patch may show two things.",
        {"dense_target": "its largest class"}),
    "hard labels": ("the class token learns its likeliest class alone. y is soft too: after MixToken it is a mixture.",
        {"class_target": "its largest class"}),
    "hard targets": ("each target counts as its likeliest class alone. A target may be a mixture; argmax drops the "
        "rest of it.", {"class_target": "its largest class", "dense_target": "its largest class"}),
    "maps across": (f"the maps stand across: patches where the logits have classes. {MOVED}",
        {"dense_target": "across"}),
    "logits across": (f"the patches' logits stand across: patches where the maps have classes. {MOVED}",
        {"dense_target": "across", "dense_axis": "patches"}),
    "the image's label for each patch": ("each patch learns y, the image's own target. It has one of its own, in maps.",
        {"dense_target": "y"}),
    "the mean map for each patch": ("each patch learns the mean of the maps. It has a map of its own.",
        {"dense_target": "their mean"}),
    "pooled": ("logits and maps are averaged over the patches first, and one loss is taken. Each patch has a loss of "
        "its own; the mean comes last.", {"dense_target": "pooled"}),
    "divergence": ("this is the Kullback–Leibler divergence: the targets' entropy is taken off. Same gradient for a "
        "network, but not the cross-entropy.", {"less": "the targets' entropy"}),
    "divergence of the patches": ("the patches' part is the Kullback–Leibler divergence: the maps' entropy is taken "
        "off. Asked for is the cross-entropy.", {"less": "the maps' entropy"}),
}
