"""Lesson 00: known mistakes, name → (hint, the options of answers.py that make it)."""

PATCHIFY = {
    "column-major": ("the patches are taken column by column. Tokens follow each other as you read: look at the order "
        "of the two axes that count patches.", {"order": "(s r)"}),
    "no permute": ("the shape is right, but the pixels were never regrouped: a reshape alone goes on along the image's "
        "rows, across all patches. Split the axes first, then move them.", {"shape": "reshaped"}),
    "channels last": ("each token holds the right values, but with the channel changing fastest. Inside a token the "
        "order is channel, row, column.", {"token": "(a b c)"}),
    "rows and columns swapped inside": ("the patches are in the right order, but each is lying on its side: look at "
        "the order of row and column inside a patch.", {"token": "(c b a)"}),
    "square assumed": ("right for square images only: the numbers of patches down and across differ in general. "
        "Compute each from its own side of the image.", {"grid": "square"}),
    "square assumed, the rest left out": ("right for square images only: the numbers of patches down and across differ "
        "in general. Compute each from its own side of the image.", {"grid": "square, the rest left out"}),
    "overlap": ("the patches overlap: the next one begins one pixel further on, not p pixels.", {"step": "one pixel"}),
    "every n-th pixel": ("a token gathers pixels that lie far apart, one from each part of the image. A patch is a "
        "block of neighbours: of the two axes that a side splits into, the outer one counts patches.",
        {"pixels": "c (a r) (b s)"}),
    "tokens across": ("the numbers are right, but the result is lying on its side: tokens come first, then the values "
        "of a token.", {"shape": "transposed"}),
    "a token for each channel": ("each channel makes tokens of its own. One token holds all channels of its patch.",
        {"order": "(c r s)", "token": "(a b)"}),
    "channels outermost": ("all patches of one channel come before those of the next. A token gathers the channels of "
        "its patch: the two axes that count patches come first.", {"shape": "channels outermost"}),
    "pixel rows before channels": ("inside a token the rows of pixels come before the channels. The order is channel, "
        "row, column.", {"token": "(a c b)"}),
}
UNPATCHIFY = {
    "column-major": ("the patches are laid out column by column. Tokens follow each other as you read: the first axis "
        "splits into rows, then columns, of the grid.", {"order": "(s r)"}),
    "no permute": ("the shape is right, but the values were never regrouped: a reshape alone fills the image's rows "
        "with one token after the other. Split the axes first, then move them.", {"shape": "reshaped"}),
    "channels last in the token": ("the values of a token are read with the channel changing fastest. Inside a token "
        "the order is channel, row, column.", {"token": "(a b c)"}),
    "rows and columns swapped inside": ("the patches are in the right places, but each is lying on its side: look at "
        "the order of row and column inside a patch.", {"token": "(c b a)"}),
    "grid swapped": ("the grid is taken as (columns, rows). It is (rows, columns), as everywhere in this course.",
        {"sides": "(columns, rows)"}),
    "square assumed": ("right for square grids only: the number of rows cannot be guessed from the number of tokens. "
        "Use the grid that is given.", {"sides": "root"}),
    "three channels assumed": ("right for three channels only. Compute their number from the length of a token and p.",
        {"channels": 3}),
    "channels last in the image": ("the pixels are right, but the image comes back with its channels last. In torch "
        "they come first.", {"pixels": "(r a) (s b) c"}),
    "patches taken apart": ("neighbours in a patch end up far apart. A patch is a block: of the two parts of a side, "
        "the outer one counts patches, the inner one pixels.", {"pixels": "c (a r) (b s)"}),
    "image transposed": ("the image is lying on its side: height comes before width.", {"pixels": "c (s b) (r a)"}),
    "patchify's own permute": ("the axes are moved as on the way there. The way back starts from another order of the "
        "axes (rows, columns, channels, p, p), so it needs another permutation: the one that undoes the first.",
        {"shape": "s a r c b"}),
    "pixel rows not interleaved": ("the channels are right, but rows of patches and rows of pixels do not alternate. A "
        "column of the image runs through a patch before it enters the next: put each p behind the axis that it "
        "belongs to.", {"shape": "c r s a b"}),
    "channels read first": ("the tokens are split as if channels came first. They are rows · columns tokens of "
        "channels · p · p values: the grid comes first, the channels after it.", {"shape": "channels first"}),
}
