"""The variant `dilated`: known mistakes, name → (hint, the options that make it)."""

from ...composition import LESSONS_OWN
from ...lesson_05 import answers as lesson_05

WINDOW_MASK = {
    LESSONS_OWN: ("these are the lesson's tiles, moved by the third argument. This set asks for a window around each "
        "query, with holes, and the third argument is the dilation.", lesson_05.window_mask),
    "no holes": ("the window is as wide as asked, but it has no holes: only every `dilation`-th row and column is seen.",
        {"gaps": "none"}),
    "not stretched": ("the window has holes, but it is not stretched: `size` counts keys that are seen, not patches "
        "that are covered.", {"reach": "not stretched"}),
    "dilation ignored": ("this is an ordinary sliding window: the dilation is not used.",
        {"reach": "not stretched", "gaps": "none"}),
    "one hole too many": ("`dilation` patches are skipped between two keys. It is the step from one key to the next: "
        "with 1 there are no holes.", {"gaps": "skipped"}),
    "size to each side": ("the window goes `size` keys to each side. It has `size` keys in all: size // 2 to each "
        "side, and the query.", {"reach": "size"}),
    "last left out": ("the outermost keys are missing: those size // 2 steps away are still seen.",
        {"reach": "one short"}),
    "no end": ("the window has no end: at most size // 2 steps to each side are seen.", {"reach": "none"}),
    "tiles": ("the image is cut into tiles. Here each query is in the middle of its own window.", {"kind": "tiles"}),
    "holes in the image": ("the same patches are seen by everybody, those in every `dilation`-th row and column of the "
        "image. Count from the query: it is the offset that has to be a multiple.", {"gaps": "of the key's place"}),
    "holes in rows only": ("rows are skipped, columns are not. Both offsets have to be multiples of the dilation.",
        {"both": "holes in rows only"}),
    "holes in columns only": ("columns are skipped, rows are not. Both offsets have to be multiples of the dilation.",
        {"both": "holes in columns only"}),
    "row or column": ("keys are seen if row *or* column fits. Both have to.", {"both": "row or column"}),
    "rows only": ("the columns are not looked at.", {"both": "rows only"}),
    "columns only": ("the rows are not looked at.", {"both": "columns only"}),
    "wrapped": ("the window goes round the border: what it loses at one end it gains at the other. Here it is just cut.",
        {"border": "wrapped"}),
    "clamped to the border": ("what lies beyond the border is moved onto it, so that some queries see the border's "
        "patches without reason. It is left out.", {"border": "clamped"}),
    "flat index": ("the window runs over the end of a row into the next one: a token's number alone does not say where "
        "its row ends. Take rows and columns apart.", {"border": "flat"}),
    "column by column": ("right for square grids only: rows and columns have changed places. Tokens are numbered row "
        "by row.", {"tokens": "column by column"}),
    "square assumed: rows": ("right for square grids only: the grid has `columns` columns, not `rows`.",
        {"sides": "R, R"}),
    "square assumed: columns": ("right for square grids only: the grid has `rows` rows, not `columns`.",
        {"sides": "C, C"}),
    "query left out": ("the query does not see itself. It is the middle of its window.", {"says": "others"}),
    "inverted": ("in and out have changed places: True is for keys that are seen.", {"says": "outside"}),
}
