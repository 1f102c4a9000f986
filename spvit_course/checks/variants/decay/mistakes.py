"""The variant `decay`: known mistakes, name → (hint, the options that make it)."""

from ...composition import LESSONS_OWN
from ...lesson_06 import answers as lesson_06
from ...lesson_08 import answers as lesson_08

DISTANCES = {
    "length": ("the distance is the length ‖·‖ of an arrow. Here it is the city block's: |rows| + |columns|.",
        {"distance": "length"}),
    "squared length": ("the distance is squared, as in the lesson's bell. Here it is |rows| + |columns|, not squared.",
        {"distance": "squared length"}),
    "the larger": ("the larger of |rows| and |columns| is taken. They are to be added.", {"distance": "the larger"}),
    "with signs": ("rows and columns are added with their signs. A distance adds their sizes.",
        {"distance": "with signs"}),
    "size of the sum": ("rows and columns are added before the size is taken. Take the size of each, then add.",
        {"distance": "size of the sum"}),
    "rows only": ("the columns' part of the distance is missing.", {"distance": "rows only"}),
    "columns only": ("the rows' part of the distance is missing.", {"distance": "columns only"}),
}

PSA_MAP = {
    LESSONS_OWN: ("this is the lesson's map, v · (‖δ‖², row, column): a bell. This set asks for a tent: v holds (τ, "
        "Δ_row, Δ_column), and the score falls in equal steps with |rows| + |columns| from the centre.",
        lesson_06.psa_map),
    **DISTANCES,
    "times τ": ("the distance is multiplied by τ. A wide tent has a large τ, so it is divided.",
        {"reach": "multiplied"}),
    "no τ": ("τ is not used: all heads decay alike.", {"reach": "left out"}),
    "τ squared": ("the distance is divided by τ², as a bell's would be. Here it is τ.", {"reach": "squared"}),
    "no centre": ("the centre is not used: every head's tent stands on its own query.", {"centre": "left out"}),
    "centre of sizes": ("the signs of δ are lost before the centre is subtracted: a head that looks right looks left "
        "as well.", {"centre": "of sizes"}),
    "sign": ("the tent stands on the other side of the query. Either the centre is added where it is to be subtracted, "
        "or δ is taken as query minus key.", {"down": "query − key", "right": "query − key"}),
    "sign of the rows": ("above and below have changed places: look at the sign of the row offset, and of the centre's "
        "row.", {"down": "query − key"}),
    "sign of the columns": ("left and right have changed places: look at the sign of the column offset, and of the "
        "centre's column.", {"right": "query − key"}),
    "axes swapped": ("the second number of v belongs to rows, the third to columns; yours are the other way round.",
        {"order": (0, 2, 1)}),
    "τ last": ("τ is taken from the end of v. It comes first: (τ, Δ_row, Δ_column).", {"order": (2, 0, 1)}),
    "column by column": ("your tokens run down the columns. Patches are numbered row by row.",
        {"tokens": "column by column"}),
    "square assumed": ("patch n is placed as if the grid had as many columns as rows. Its row is n // C, its column n "
        "% C.", {"tokens": "row by row, R for C"}),
    "growing": ("the map grows with the distance. It decays: what is far gets less.", {"after": "minus"}),
    "exp taken": ("the exponential is taken already. A map is what goes into the softmax, which takes it.",
        {"after": "exp"}),
    "softmax taken": ("the softmax is taken already. A map is what goes into it; whoever uses the map takes it.",
        {"after": "softmax"}),
    "heads last": ("the heads stand last. A map is (H, N, N), heads first.", {"after": "heads last"}),
}

PRIOR = {
    LESSONS_OWN: ("this is the lesson's network: ramps, ReLU(W₁δ + b₁). This set asks for hills: each unit is "
        "exp(−distance / reach), and the distance is counted from the unit's centre.", lesson_08.prior),
    **DISTANCES,
    "times the reach": ("the distance is multiplied by the reach. A far-reaching hill has a large one: divide.",
        {"divided": "multiplied"}),
    "no reach": ("the reach is not used: all hills are equally steep.", {"divided": "left out"}),
    "reach squared": ("the distance is divided by the square of the reach. Here it is the reach.",
        {"divided": "squared"}),
    "centre added": ("the centres are added. A hill stands where δ − centre is 0.", {"centre": "added"}),
    "no centre": ("the centres are not used: all hills stand on the query.", {"centre": "left out"}),
    "axes swapped": ("rows and columns have changed places: both δ and the centres are (row, column).",
        {"axes": "column, row"}),
    "growing": ("the hills grow with the distance. They decay: the minus is missing.", {"slope": 1.0}),
    "no heights": ("the heights are not used: each hill is to be multiplied by its own.", {"total": "no heights"}),
    "mean over hills": ("the hills are averaged. They are added.", {"total": "mean"}),
    "highest hill": ("only the largest term counts. The hills are added.", {"total": "the highest"}),
    "no floor": ("the floor is not used.", {"base": "left out"}),
    "1 for the floor": ("1 stands where the floor belongs. Each head has its own.", {"base": "1"}),
    "the first floor": ("all heads have the first one's floor.", {"base": "the first"}),
    "shared centres": ("all heads have the first one's centres. Each has its own.", {"shared": "centres"}),
    "shared reach": ("all heads have the first one's reach. Each has its own.", {"shared": "reach"}),
    "shared heights": ("all heads have the first one's heights. Each has its own.", {"shared": "heights"}),
    "heads last": ("the axis of heads stands last. It comes first: (H, …).", {"heads": "last"}),
    "heads added": ("the heads are added up. Each has a prior of its own: (H, …).", {"heads": "added"}),
}
