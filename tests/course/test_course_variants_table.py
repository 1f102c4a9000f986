"""The table of what each case tells of each mistake of the variants: what can be told apart, and where."""

import pytest

from spvit_course.checks.variants import BANKS

from .bank import table

# "x": another result than the right one, "!": an error, ".": the right result, so nothing to be learned from the case; "*":
# one or another of these, with the sizes that are drawn. The cases are described in the checks' modules.
TOLD_APART = """
x_first 03 offsets
    the lesson's answer                   xx.xxx.
    absolute value                        xxxxxx.
    origin not shifted                    xxxxxx.
    one way only                          xxxxxx.
    the last left out                     xxxxxxx
    one too far up and left               xxxxxxx
    one too far at both ends              xxxxxxx
    a list                                xxxxxxx
    components first                      xxxxxxx
    table alone                           xxxxxx.
    entries alone                         xxxxxx.
    sign                                  xxxxxx.
    sign of the columns                   xxxx.x.
    sign of the rows                      xxx.xx.
    square assumed: rows                  xx.xxx.
    square assumed: columns               xx.xxx.
    all pairs                             xxxxxx.
x_first 04 log_offsets
    the lesson's answer                   .xx.xx
    no sign                               xxxxxx
    no absolute value                     xxxxxx
    sign outside only                     xxxxxx
    no + 1                                xxxxxx
    rounded down                          .xxx.x
    rounded down, then times 8            xxxxxx
    clamped                               .xx.xx
    by the input                          .xxxxx
    by the input, both axes               .xxxxx
    natural logarithm                     xxxxxx
    base 10                               xxxxxx
    not divided                           xxxxxx
    natural, not divided                  xxxxxx
    divided by 8                          xxxxxx
    R for R − 1                           xxxxxx
    2R − 1 for R − 1                      xxxxxx
    no factor 8                           xxxxxx
    not normalised                        xxxxxx
    raw                                   .xxxxx
    square assumed: rows                  .xx.xx
    square assumed: columns               .xx.xx
x_first 06 psa_map
    the lesson's answer                   xxxxxx.
    sign of the rows                      xxx.xx.
    sign of the columns                   xxxx.x.
    absolute value                        xxxxxx.
    sign                                  xxxxxx.
    rows only                             xxxx.x.
    square assumed                        xx.xxx.
    column by column                      xxx..x.
    divided by √3                         xxxxxx.
    divided by √C                         xxxx.x.
    softmax taken                         xxxxxx.
    not spread                            xxxxxx.
    heads last                            xxxxxx.
    no square                             xxxxxx.
    norm for square                       xxxxxx.
    sizes for squares                     xxxxxx.
    square of the sum                     xxx..x.
    rows before columns                   xxxxxx.
    square in front                       xxxxxx.
    minus put in                          xxxxxx.
x_first 08 prior
    the lesson's answer                   xxxxxx.
    no ReLU                               xxxxxxx
    GELU                                  xxxxxxx
    sigmoid                               xxxxxxx
    tanh                                  xxxxxxx
    absolute hidden                       xxxxxxx
    step                                  xxxxxxx
    no b1                                 xxxxxxx
    b1 subtracted                         xxxxxxx
    b1 after the ReLU                     xxxxxxx
    no b2                                 xxxxxxx
    1 for b2                              xxxxxxx
    1 and b2                              xxxxxxx
    the first b2                          xxx.xxx
    shared hidden layer                   xxx.xxx
    mean hidden layer                     xxx.xxx
    shared w2                             xxx.xxx
    no w2                                 xxxxxxx
    mean over units                       xxxx.xx
    heads last                            xxxxx.x
    heads added                           xxxxxxx
i_minus_j 03 offsets
    the lesson's answer                   xxxxxx.
    components swapped                    xxxxxx.
    table transposed                      xxxxxx.
    absolute value                        xxxxxx.
    square assumed: rows                  xx.xxx.
    square assumed: columns               xx.xxx.
    a list                                xxxxxxx
    components first                      xxxxxxx
    rows only turned                      xxxx.x.
    columns only turned                   xxx.xx.
    rows and columns swapped throughout   xx.xxx.
    origin not shifted                    xxxxxx.
i_minus_j 03 spread
    the lesson's answer                   xxxxxx.
    sum for difference                    xxxxxx.
    axes swapped                          !!x!!!.
    column by column                      xxx..x.
    axes in front forgotten               !.!!!!x
    one axis in front                     .!..!..
    R and C swapped                       !!.!!!.
    wrong stride: 2R−1                    x!..!x.
    wrong stride: C                       xxx..x.
    rows with rows                        xxx..x.
    origin not shifted                    xxxxxx.
    rows not shifted                      xxx.xx.
    columns not shifted                   xxxx.x.
    square assumed: rows                  x!.x!x.
    square assumed: columns               !x.!x!.
    rows only turned                      xxxx.x.
    columns only turned                   xxx.xx.
    absolute value                        xxxxxx.
i_minus_j 04 shaw2d
    the lesson's answer                   xxxxxx.
    no clip                               .!!!!!.
    clips the norm                        .xxx...
    clipped above only                    .xxxxx.
    0 beyond                              .xxxxx.
    unscaled                              xxxxx.x
    C for its root                        xxxxx.x
    times the root                        xxxxx.x
    axes swapped                          xxxxxx.
    rows only turned                      xxxxx..
    columns only turned                   xxxx.x.
    absolute value                        xxxxxx.
    key for query                         xxxxxx.
    rows only                             xxxxxxx
    columns only                          xxxxxxx
    product                               xxxxxxx
i_minus_j 06 psa_map
    the lesson's answer                   xxxxxx.
    no square                             xxxxxx.
    norm for square                       xxxxxx.
    sizes for squares                     xxxxxx.
    square of the sum                     xxx..x.
    linear part left out                  xxxxxx.
    square last                           xxxxxx.
    axes swapped                          xxxxxx.
    column by column                      xxx..x.
    strength and centre                   xxxxxx.
    minus put in                          xxxxxx.
    divided by √3                         xxxxxx.
    softmax taken                         xxxxxx.
    heads last                            xxxxxx.
    rows only turned                      xxxx.x.
    columns only turned                   xxx.xx.
    absolute value                        xxxxxx.
decay 06 psa_map
    the lesson's answer                   xxxxxx.
    length                                xxxxxx.
    squared length                        xxxxxx.
    the larger                            xxxxxx.
    with signs                            xxxxxx.
    size of the sum                       xxxxxx.
    rows only                             xxxx.x.
    columns only                          xxx.xx.
    times τ                               xxxxxx.
    no τ                                  xxxxxx.
    τ squared                             xxxxxx.
    no centre                             xxxxxx.
    centre of sizes                       xxxxxx.
    sign                                  xxxxxx.
    sign of the rows                      xxx.xx.
    sign of the columns                   xxxx.x.
    axes swapped                          xxxxxx.
    τ last                                xxxxxx.
    column by column                      xxx..x.
    square assumed                        xx.xxx.
    growing                               xxxxxx.
    exp taken                             xxxxxx.
    softmax taken                         xxxxxx.
    heads last                            xxxxxx.
decay 08 prior
    the lesson's answer                   xxxxxxx
    length                                xxxxxxx
    squared length                        xxxxxxx
    the larger                            xxxxxxx
    with signs                            xxxxx*x
    size of the sum                       xxxxx**
    rows only                             xxxxxxx
    columns only                          xxxxxxx
    times the reach                       xxxxxxx
    no reach                              xxxxxxx
    reach squared                         xxxxxxx
    centre added                          xxxxxx.
    no centre                             xxxxxxx
    axes swapped                          xxxxxx.
    growing                               xxxxxxx
    no heights                            xxxxxxx
    mean over hills                       xxxx.xx
    highest hill                          xxxx.xx
    no floor                              xxxxxxx
    1 for the floor                       xxxxxxx
    the first floor                       xxx.xxx
    shared centres                        xxx.xxx
    shared reach                          xxx.xxx
    shared heights                        xxx.xxx
    heads last                            xxxxx.x
    heads added                           xxxxxxx
dilated 05 window_mask
    the lesson's answer                   xxxxxxx.x
    no holes                              xxxxxx..x
    not stretched                         xxxxxx..x
    dilation ignored                      xxxxxx..x
    one hole too many                     xxxxxxx.x
    size to each side                     xxxxxxxx.
    last left out                         xxxxxxxx.
    no end                                xxxxxxxx.
    tiles                                 xxxxxxx..
    holes in the image                    xxxxxx.xx
    holes in rows only                    xxxx.x..x
    holes in columns only                 xxx.xx..x
    row or column                         xxxxxxxxx
    rows only                             xxxx.xxxx
    columns only                          xxx.xxxxx
    wrapped                               xxxxxxx..
    clamped to the border                 xxxxxx..x
    flat index                            xxx.xxx.x
    column by column                      xx...xx.x
    square assumed: rows                  xx.xxxxxx
    square assumed: columns               xx.xxxxxx
    query left out                        xxxxxxxxx
    inverted                              xxxxxxxxx
"""


def told(exercise) -> list[str]:
    """Write an exercise's table, with a star where seeds differ."""
    tables = [table([exercise], seed, width=38).strip("\n").split("\n") for seed in range(4)]
    rows = zip(*tables, strict=True)
    return ["".join(seen[0] if len(set(seen)) == 1 else "*" for seen in zip(*row, strict=True)) for row in rows]


@pytest.mark.slow
def test_the_table_of_what_each_case_tells():
    lines = [""]
    for variant, lessons in BANKS.items():
        for number, bank in lessons.items():
            for exercise in bank.values():
                first, *others = told(exercise)
                lines += [f"{variant} {number} {first}", *others]
    assert "\n".join([*lines, ""]) == TOLD_APART
