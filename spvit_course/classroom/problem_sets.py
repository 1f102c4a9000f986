"""The problem sets: four of them and a project, as data. `assignments` puts them together as notebooks.

Exercises are taken from the lessons by name, so that their text, solution and check have one source; `variants` can give
them another mechanism. What stands here is what the lesson's other cells say before an exercise, and the questions that a
person grades (questions.py, project.py).
"""

from dataclasses import dataclass

from . import project, questions
from .questions import Question


@dataclass(frozen=True)
class Part:
    """An exercise of a lesson, graded by its check: the lesson's number, the solution cell's grade_id.

    `before` is Markdown put before it, for what the lesson says elsewhere; `setup` is code that has to run before it.
    """

    lesson: str
    exercise: str
    before: str = ""
    setup: str = ""


@dataclass(frozen=True)
class ProblemSet:
    """A problem set: name, title, a student's minutes, when it is due, what it teaches, and its parts in order."""

    name: str
    title: str
    minutes: int
    after: str
    about: str
    parts: tuple[Part | Question, ...]


GRID = (
    "Patches lie on a grid of R rows and C columns and are numbered row by row: patch n lies in row ⌊n/C⌋ and column "
    "n mod C. Rows count downwards, columns to the right."
)

SET_1 = ProblemSet(
    name="set_1",
    title="Problem set 1 · Attention and geometry",
    minutes=120,
    after="after lesson 03",
    about="How widely a query listens; what attention knows of an order; offsets between patches, tables of them, and tokens "
    "that have no place. The exercises are short; the questions ask what a check cannot.",
    parts=(
        Part(
            "01",
            "entropy",
            before="The entropy of weights $w$ that sum to 1 is $-\\sum_j w_j \\log w_j$: 0 where one key has all the weight, "
            "log N where N keys have the same.",
        ),
        questions.LARGE_SCORES,
        questions.TWO_SHUFFLES,
        Part(
            "03",
            "offsets",
            before=f"{GRID} An **offset** is an arrow between two patches, counted in patches; on one grid many pairs share "
            "the same. (For “the picture with the two frames” see *The idea* of lesson 03; you can do without.)",
        ),
        Part(
            "03",
            "spread",
            before="A **table** holds one value for each distinct offset of a grid. A **map** holds one for each pair: entry "
            "[i, j] is the table's value for the offset of the query i and the key j. (Where nothing else is said that is the "
            "place of j minus the place of i, the row first, and the table's axes run from negative to positive.) The next "
            "cell imports the lesson's `pair_offsets(rows, columns)`, (N, N, 2): the place of j minus the place of i.",
            setup="from spvit_mini.geometry import pair_offsets",
        ),
        questions.PASSING_TEST,
        Part(
            "03",
            "pad_prefix",
            before="A class token is no patch and has no place. It comes before the patches, and its rows and columns of a map "
            "get a **neutral** value, which the caller chooses.",
        ),
    ),
)

SET_2 = ProblemSet(
    name="set_2",
    title="Problem set 2 · Bias and windows",
    minutes=135,
    after="after lesson 05",
    about="Positions that meet the query, offsets for a network, windows as masks, and a finding to judge. Exercise 7 "
    "needs a pocket calculator.",
    parts=(
        Part(
            "04",
            "shaw2d",
            before=f"{GRID} In Shaw's way each offset δ has an embedding, $e_\\delta = e^{{\\text{{row}}}}_{{\\bar\\delta_"
            "\\text{row}} + e^{\\text{column}}_{\\bar\\delta_\\text{column}}$, which meets the query as a key does. The bar "
            "brings a number into −clip … clip: $\\bar x = \\min(\\max(x, -\\text{clip}), \\text{clip})$. (Where nothing else is "
            "said, δ[i, j] is the place of the key j minus the place of the query i; `geometry.pair_offsets` gives whole "
            "numbers, (N, N, 2), each (row, column).)",
        ),
        Part(
            "04",
            "log_offsets",
            before="Swin v2 squeezes offsets before its network sees them. With R and C the rows and columns of the window in "
            "which it was trained, a row offset δ becomes\n\n"
            "$$\\delta' = \\frac{8\\,\\delta}{R - 1} \\qquad\\qquad \\tilde\\delta = \\text{sign}(\\delta')\\,"
            "\\frac{\\log_2(1 + |\\delta'|)}{\\log_2 8}$$\n\nand a column offset likewise with $C - 1$.",
        ),
        questions.LARGER_GRID,
        Part(
            "05",
            "window_mask",
            before=f"{GRID} A window says for each pair of patches: in or out. (Where a task speaks of tiles, they are laid over "
            "the grid, and patches see those of their own tile. For instance, seven patches in a row, tiles of three, the first "
            "whole tile at patch 2: the pieces are {0, 1}, {2, 3, 4} and {5, 6}.)",
        ),
        questions.WHO_HEARS,
        Part(
            "05",
            "masked_weights",
            before="A mask is True where a query may look: weights = softmax(S + {0, −∞}). But what is the softmax of a row of "
            "nothing but −∞, and what would a large negative number do there? The next cell shows it; the text below calls "
            "its output “the first line above” and “the second”. (The check also asks in float32, with scores up to 20,000 "
            "apart.)",
            setup="print(torch.full((3,), -math.inf).softmax(0))\nprint(torch.full((3,), -1e9).softmax(0))",
        ),
        questions.FINDING,
    ),
)

SET_3 = ProblemSet(
    name="set_3",
    title="Problem set 3 · Attention by place, and a gate",
    minutes=120,
    after="after lesson 07",
    about="Maps of a few numbers a head and how to read them, two opinions mixed by a gate, and how far a head looks. The "
    "questions ask you to read heads, a line of code and a record.",
    parts=(
        Part(
            "06",
            "psa_map",
            before=f"{GRID} Positional self-attention leaves content out: a head's scores are a function of the offset δ "
            "alone, made from three learned numbers. (Where nothing else is said, δ[i, j] is the place of the key j minus the "
            "place of the query i, row first.)",
        ),
        questions.READ_A_HEAD,
        Part(
            "07",
            "gpsa",
            before="GPSA mixes two distributions: $A = (1 - \\sigma(\\lambda))\\,\\text{softmax}(S) + "
            "\\sigma(\\lambda)\\,\\text{softmax}(f)$, with a gate λ for each head, content scores S and positional scores f. "
            "Prefix tokens have no place. The two rules:\n\n"
            "- by position a patch gives a prefix token **nothing**: 0 *after* the softmax, which runs over the patches only;\n"
            "- a prefix token, as a query, looks **by content alone**, whatever the gate says.\n\n"
            "*By hand* stands in lesson 07: three patches in a row.",
            setup="import torch.nn.functional as F",
        ),
        questions.ONE_LINE,
        Part(
            "07",
            "nonlocality",
            before="The nonlocality of a head is the mean distance at which it looks, in patches: $D_h = \\frac1N \\sum_{i,j} "
            "A_{h,ij}\\,\\lVert\\delta_{ij}\\rVert$, with weights A whose rows sum to 1.",
        ),
        questions.THREE_HEADS,
    ),
)

SET_4 = ProblemSet(
    name="set_4",
    title="Problem set 4 · Learned priors, and a fair comparison",
    minutes=150,
    after="after lesson 10",
    about="A prior that is learned, its way into attention, the start from which it moves; then what a record supports. The "
    "last question is a referee's work.",
    parts=(
        Part(
            "08",
            "prior",
            before="SP-SA multiplies the scores of each head by a **prior** f, a function of the offset δ (in patches) that is "
            "learned: $A = \\text{softmax}(f \\odot S)$. (Where nothing else is said, δ is (row, column).)",
        ),
        Part("08", "SPSA", before="Now the layer. Its prior is the lesson's network, ready-made: `spatial.PriorMLP`."),
        questions.FACTOR_OR_BIAS,
        Part(
            "08",
            "moves_at_step0",
            before="SP-SA's prior is $f_h(\\delta) = w_{2,h} \\cdot \\text{ReLU}(W_{1,h}\\,\\delta + b_{1,h}) + b_{2,h}$. It "
            "starts with a random first layer, $w_2 = 0$ and $b_2 = 1$, so f = 1 and the layer is plain attention. Which of "
            "the four move in the very first step?",
        ),
        questions.ZERO_START,
        Part(
            "10",
            "steps_to",
            before="Where outcomes have two humps a mean misleads. Then one counts runs that got to a level, and the steps "
            "until they did.",
        ),
        questions.AN_ABSTRACT,
    ),
)

PROJECT = ProblemSet(
    name="project",
    title="Project · A comparison of your own",
    minutes=480,
    after="after lesson 10",
    about="Choose a map, a way in and a start; say beforehand what you expect; run at least five seeds within an hour of a "
    "laptop; and report what the runs support, and no more. The eight hours can be spread over two weeks.",
    parts=(
        Part(
            "10",
            "paired",
            before="First the tool. For n pairs of runs with differences $d_s$, mean m and standard deviation $s_d$ (divided "
            "by n − 1) the 95 % interval is $m \\pm t_{n-1}\\,s_d/\\sqrt n$, with the quantile t of Student's distribution "
            "for n − 1 degrees of freedom. The next cell imports it.",
            setup="from spvit_experiments.statistics import t_quantile",
        ),
        project.PLAN,
        project.COMPARISON,
    ),
)

SETS: dict[str, ProblemSet] = {problem_set.name: problem_set for problem_set in (SET_1, SET_2, SET_3, SET_4, PROJECT)}
