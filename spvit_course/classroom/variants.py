'''Variants: exercises whose mechanism was changed, so that the lessons' public solutions do not answer them.

The lessons' answers are public. For graded work an instructor picks a variant: different axes, a different sign, a different
map. It changes some exercises, in lessons and in problem sets: the task's text, the solution, and the check, whose bank of
mistakes has the lesson's own answer as one of them (checks/variants/).

These solutions are in this file: harder to find than the lessons', but not secret. If you need secrecy, add a variant of your
own here and to `checks.variants.BANKS`, in a copy of the repository that is not published.
'''

import re
from copy import deepcopy
from dataclasses import dataclass

from nbformat import NotebookNode

from spvit_mini.errors import UserError, near

from ..lessons import grading


@dataclass(frozen=True)
class VariantExercise:
    """An exercise in its changed form: the lesson, the solution cell's grade_id, the task's text, the solved cell."""

    lesson: str
    exercise: str
    text: str
    solution: str


@dataclass(frozen=True)
class Variant:
    """A changed mechanism: what it is, in a line, and the exercises that it changes."""

    about: str
    exercises: tuple[VariantExercise, ...]


def find_variant(name: str) -> Variant:
    """Return a variant by its name. Raises UserError for an unknown name."""
    if name not in VARIANTS:
        raise UserError(f"there is no variant {name!r}; the variants: {', '.join(VARIANTS)}.{near(name, VARIANTS)}")
    return VARIANTS[name]


def vary(notebook: NotebookNode, variant: str) -> NotebookNode:
    """Change the exercises of a solved notebook, a lesson or a problem set, that a variant lists; return a copy.

    A changed exercise has a different text, solution and check; headings, points, ids and all other cells stay. Raises
    UserError for an unknown variant, and for a variant that changes nothing in this notebook.
    """
    exercises = {exercise.exercise: exercise for exercise in find_variant(variant).exercises}
    copy = deepcopy(notebook)
    solutions = {index: exercises[name] for index, cell in enumerate(copy.cells) if (name := solution_name(cell)) in exercises}
    if not solutions:
        could = ", ".join(f"{exercise.exercise} (lesson {exercise.lesson})" for exercise in exercises.values())
        here = ", ".join(filter(None, map(solution_name, copy.cells))) or "none"
        raise UserError(f"the variant {variant!r} changes nothing here: it changes {could}; the exercises here: {here}")
    for index, exercise in solutions.items():
        task = next(cell for cell in reversed(copy.cells[:index]) if cell.cell_type == "markdown")
        check = next(cell for cell in copy.cells[index + 1 :] if cell.cell_type == "code" and grading(cell).get("grade"))
        task.source = replace_task(task.source, exercise.text)
        copy.cells[index].source = exercise.solution
        call = rf"(\.check\(\s*{exercise.exercise})\b"
        check.source, calls = re.subn(call, rf'\1, variant="{variant}"', check.source)
        if not calls:
            raise UserError(f"the check of {exercise.exercise} does not call lesson.check({exercise.exercise}): {check.source!r}")
        for cell in (copy.cells[index], check):
            cell.outputs, cell.execution_count = [], None
    return copy


def solution_name(cell: NotebookNode) -> str | None:
    """Return the name of the exercise whose solution a code cell holds; None for any other cell."""
    is_solution = cell.cell_type == "code" and grading(cell).get("solution")
    return grading(cell)["grade_id"] if is_solution else None


def replace_task(source: str, text: str) -> str:
    """Replace the text between a task's heading and its points."""
    heading = re.match(r"#+ .*", source)
    points = re.search(r"\*\(\d+ points?\)\*\s*$", source)
    return "\n\n".join(part for part in (heading and heading[0], text.strip(), points and points[0].strip()) if part)


# Texts and solutions --------------------------------------------------------------------------------------------------

X_FIRST = "**Unlike in the lesson: x first.** In this exercise the column comes before the row, wherever it says so."
I_MINUS_J = (
    "**Unlike in the lesson: i − j.** In this exercise an offset is the place of the query $i$ *minus* the place of the key "
    "$j$, $p_i - p_j$: positive where the key lies above, or to the left."
)
OWN = "The package's own solution of the lesson is out of reach here as well."

VARIANTS = {
    "x_first": Variant(
        "the column comes before the row, as in the official code of SP-ViT and ConViT",
        (
            VariantExercise(
                "03",
                "offsets",
                f"""{X_FIRST}

List each distinct offset of a grid once, in its place in a table: a tensor of whole numbers of shape
`(2·columns − 1, 2·rows − 1, 2)`.

- First axis: column offsets, from −(columns − 1) up to columns − 1. Second axis: row offsets, from −(rows − 1) up to
  rows − 1. Last axis: the pair (column, row).
- An offset is the place of the key minus the place of the query, as in the lesson; columns count to the right, rows
  downwards. So (0, 0) stands in the middle, and entry [0, 0] is for the key farthest to the left and up.
- The arguments are `rows, columns`, in this order. By hand: for 1 row and 2 columns the shape is (3, 1, 2), and the
  three entries are (−1, 0), (0, 0) and (1, 0).
- {OWN}""",
                '''def offsets(rows, columns):
    """List the distinct offsets of a grid: (2·columns−1, 2·rows−1, 2), each (column, row) in patches."""
    ### BEGIN SOLUTION
    right = torch.arange(-(columns - 1), columns)
    down = torch.arange(-(rows - 1), rows)
    return torch.stack(torch.meshgrid(right, down, indexing="ij"), dim=-1)
    ### END SOLUTION''',
            ),
            VariantExercise(
                "04",
                "log_offsets",
                f"""{X_FIRST}

Squeeze offsets as Swin v2 does. With R rows and C columns in the window in which the network was trained, a row
offset δ becomes

$$\\delta' = \\frac{{8\\,\\delta}}{{R - 1}} \\qquad\\qquad \\tilde\\delta =
\\text{{sign}}(\\delta')\\,\\frac{{\\log_2(1 + |\\delta'|)}}{{\\log_2 8}}$$

and a column offset likewise with $C - 1$ in place of $R - 1$.

- `delta` is (…, 2), with any axes in front; each offset is **(column, row)**. The result has the same shape and the
  same order.
- `window` is the pair of ints (rows, columns), rows first as everywhere; it has at least two of each.
- The offsets may go beyond the window, or not use it up. They come as whole numbers or as real ones.
- By hand: in a window of 9 rows and 5 columns the offset (3.5, 1), 3.5 columns to the right and one row down, becomes
  (1, ⅓).""",
                '''def log_offsets(delta, window):
    """Squeeze offsets (…, 2), each (column, row), for a network trained on `window` = (rows, columns)."""
    ### BEGIN SOLUTION
    rows, columns = window
    scaled = 8 * delta / delta.new_tensor([columns - 1, rows - 1])
    return scaled.sign() * (1 + scaled.abs()).log2() / 3  # log2 8 = 3
    ### END SOLUTION''',
            ),
            VariantExercise(
                "06",
                "psa_map",
                f"""{X_FIRST}

Make PSA's maps for all heads, with the features in the order of ConViT's code: `v` of shape (H, 3) and `grid` =
(R, C) in, (H, N, N) out. Entry [h, i, j] is the product of $v_h$ with
$(\\delta_{{\\text{{column}}}}, \\delta_{{\\text{{row}}}}, \\lVert\\delta\\rVert^2)$ of δ[i, j].

- δ[i, j] is the place of the key j minus the place of the query i; columns count to the right, rows downwards;
  patches are numbered row by row.
- It is a map, so no softmax yet; but the check compares *after* a softmax over the keys. What doesn't matter to
  attention doesn't matter to it either.
- `geometry.pair_offsets(rows, columns)` gives δ as whole numbers, (N, N, 2), **row first**. The result has the type of
  `v`.
- By hand: one row of three patches and v = (1, 0, −1). For the query 1 the scores of the keys are (−2, 0, 0).""",
                '''def psa_map(v, grid):
    """Make PSA's map, v · (δ_column, δ_row, ‖δ‖²): v (H, 3), grid (R, C) → (H, N, N)."""
    ### BEGIN SOLUTION
    delta = geometry.pair_offsets(*grid).to(v).flip(-1)  # (N, N, 2), now (column, row)
    features = torch.cat([delta, delta.square().sum(-1, keepdim=True)], dim=-1)
    return torch.einsum("hk,ijk->hij", v, features)
    ### END SOLUTION''',
            ),
            VariantExercise(
                "08",
                "prior",
                f"""{X_FIRST}

Write the prior's network:
$f_h(\\delta) = w_{{2,h}} \\cdot \\text{{ReLU}}(W_{{1,h}}\\,\\delta + b_{{1,h}}) + b_{{2,h}}$, for all heads and all
offsets that are asked for.

- `delta` is (…, 2) with any axes in front, none included. Each offset comes as **(column, row)**, in patches: real
  numbers of the same type as the weights.
- `w1` (H, K, 2), `b1` (H, K), `w2` (H, K), `b2` (H,). Each head has a network of its own. The last axis of `w1` is
  **(row, column)**: these weights were trained by a network that has rows first.
- Out comes (H, …): for offsets of shape (11, 11, 2) and four heads (4, 11, 11), for a single offset (2,) just (4,).
- By hand: one head, K = 1, w1 = (1, 0), b1 = 0, w2 = 1, b2 = 0. It counts the rows down: f is 2 at the offset (5, 2),
  five columns to the right and two rows down.""",
                '''def prior(delta, w1, b1, w2, b2):
    """Say what each head's network makes of offsets (…, 2), each (column, row): (H, …)."""
    ### BEGIN SOLUTION
    hidden = torch.einsum("...d,hkd->...hk", delta.flip(-1), w1) + b1  # (…, H, K)
    f = (hidden.relu() * w2).sum(dim=-1) + b2  # (…, H)
    return f.movedim(-1, 0)
    ### END SOLUTION''',
            ),
        ),
    ),
    "i_minus_j": Variant(
        "an offset points from the key to the query: the query's place minus the key's",
        (
            VariantExercise(
                "03",
                "offsets",
                f"""{I_MINUS_J}

List each distinct offset of a grid once, in its place in a table: a tensor of whole numbers of shape
`(2·rows − 1, 2·columns − 1, 2)`, each offset (row, column).

- The table is laid out as the keys lie around a query: its first axis runs from keys far above to keys far below, its
  second from keys far to the left to keys far to the right. So entry [0, 0] is for the key farthest up and left, and
  (0, 0) stands in the middle.
- With $p_i - p_j$ that key has the offset (rows − 1, columns − 1): rows count downwards and columns to the right, as
  ever, and the numbers *fall* along each axis.
- By hand: for 1 row and 2 columns the shape is (1, 3, 2), and the three entries are (0, 1), (0, 0) and (0, −1).
- {OWN}""",
                '''def offsets(rows, columns):
    """List the distinct offsets i − j of a grid, from keys above left to keys below right:
(2·rows−1, 2·columns−1, 2)."""
    ### BEGIN SOLUTION
    up = torch.arange(rows - 1, -rows, -1)
    left = torch.arange(columns - 1, -columns, -1)
    return torch.stack(torch.meshgrid(up, left, indexing="ij"), dim=-1)
    ### END SOLUTION''',
            ),
            VariantExercise(
                "03",
                "spread",
                f"""{I_MINUS_J}

Lay a table out over all pairs: `(…, 2R−1, 2C−1)` to `(…, N, N)`. The dots stand for any number of axes in front, such
as heads; keep them.

- Entry [a, b] of the table belongs to the offset (a − (R−1), b − (C−1)), as (row, column): both axes run from
  negative to positive, and the offset (0, 0) stands in the middle. Entry [i, j] of the map is the table's entry for
  $p_i - p_j$.
- `grid` is the pair (rows, columns); patches are numbered row by row. The map has the type of the table.
- Any way is right. `geometry.pair_offsets(rows, columns)`, (N, N, 2), gives $p_j - p_i$ for [i, j], as in the lesson.
- By hand: one row of two patches and the table (10, 20, 30). The map is (20, 10) in its first row and (30, 20) in its
  second.
- {OWN}""",
                '''def spread(table, grid):
    """Lay a table of the offsets i − j, (..., 2R−1, 2C−1), out over all pairs of patches: (..., N, N)."""
    rows, columns = grid
    ### BEGIN SOLUTION
    pairs = -geometry.pair_offsets(rows, columns)  # (N, N, 2): query minus key
    return table[..., pairs[..., 0] + rows - 1, pairs[..., 1] + columns - 1]
    ### END SOLUTION''',
            ),
            VariantExercise(
                "04",
                "shaw2d",
                f"""{I_MINUS_J}

Compute what positions add to the scores in Shaw's way, for all pairs: $q_i \\cdot e_\\delta / \\sqrt{{D/H}}$ with
$\\delta = p_i - p_j$. The embedding $e_\\delta$ is the sum of a row's and a column's.

- `q` is (…, N, D/H), with any axes in front; the result is (…, N, N), row i for query i. D/H is the width of a query,
  its last axis.
- `tables` is (2, 2·clip + 1, D/H): `tables[0]` has the embeddings of row offsets −clip … clip, in this order;
  `tables[1]` those of column offsets.
- An offset beyond the clip uses the embedding of the clip, each axis for itself.
- `grid` is (rows, columns); patches are numbered row by row. `geometry.pair_offsets(rows, columns)`, (N, N, 2), gives
  $p_j - p_i$ for [i, j], as in the lesson.
- By hand: one row of two patches, clip 1, a width of 1, both queries 1; row embeddings 0, column embeddings
  (5, 0, 7). The result is (0, 5) in its first row and (7, 0) in its second.""",
                '''def shaw2d(q, tables, grid, clip):
    """Compute q · e_δ / √(D/H) for all pairs, δ = i − j: queries (…, N, D/H) → (…, N, N)."""
    rows, columns = grid
    ### BEGIN SOLUTION
    delta = (-geometry.pair_offsets(rows, columns)).clamp(-clip, clip) + clip  # (N, N, 2), from 0
    embeddings = tables[0][delta[..., 0]] + tables[1][delta[..., 1]]  # (N, N, D/H)
    return torch.einsum("...ic,ijc->...ij", q, embeddings) / q.shape[-1] ** 0.5
    ### END SOLUTION''',
            ),
            VariantExercise(
                "06",
                "psa_map",
                f"""{I_MINUS_J}

Make PSA's maps for all heads: `v` of shape (H, 3) and `grid` = (R, C) in, (H, N, N) out. Entry [h, i, j] is the
product of $v_h$ with the features
$(\\lVert\\delta\\rVert^2, \\delta_{{\\text{{row}}}}, \\delta_{{\\text{{column}}}})$ of $\\delta = p_i - p_j$.

- Rows count downwards, columns to the right; patches are numbered row by row.
- It is a map, so no softmax yet; but the check compares *after* a softmax over the keys. What doesn't matter to
  attention doesn't matter to it either.
- `geometry.pair_offsets(rows, columns)`, (N, N, 2), gives $p_j - p_i$ for [i, j] as whole numbers, as in the lesson.
  The result has the type of `v`.
- By hand: one row of three patches and v = (−1, 0, 1). For the query 1 the scores of the keys are (0, 0, −2).""",
                '''def psa_map(v, grid):
    """Make PSA's map, v · (‖δ‖², δ_row, δ_column) with δ = i − j: v (H, 3), grid (R, C) → (H, N, N)."""
    ### BEGIN SOLUTION
    delta = -geometry.pair_offsets(*grid).to(v)  # (N, N, 2): query minus key
    features = torch.cat([delta.square().sum(-1, keepdim=True), delta], dim=-1)
    return torch.einsum("hk,ijk->hij", v, features)
    ### END SOLUTION''',
            ),
        ),
    ),
    "decay": Variant(
        "maps that decay with the distance: tents in place of PSA's bells, hills in place of the prior's ramps",
        (
            VariantExercise(
                "06",
                "psa_map",
                """**Unlike in the lesson: a map that decays.** In place of PSA's bell each head has a *tent*: its
score falls in equal steps with the city-block distance from a centre,

$$f_h[i, j] = -\\frac{|\\delta_{\\text{row}} - \\Delta_{h,\\text{row}}| + |\\delta_{\\text{column}} -
\\Delta_{h,\\text{column}}|}{\\tau_h}$$

so that after a softmax each further step costs the same factor, $e^{-1/\\tau_h}$. Make the maps of all heads: `v` of
shape (H, 3) and `grid` = (R, C) in, (H, N, N) out.

- `v` holds $(\\tau_h, \\Delta_{h,\\text{row}}, \\Delta_{h,\\text{column}})$ for each head, in this order. $\\tau_h$
  is positive; the centre need not lie on a patch.
- δ[i, j] is the place of the key j minus the place of the query i, (row, column); rows count downwards, columns to
  the right; patches are numbered row by row. `geometry.pair_offsets(rows, columns)` gives it as whole numbers,
  (N, N, 2).
- It is a map, so no softmax yet; but the check compares *after* a softmax over the keys. The result has the type of
  `v`.
- By hand: one row of three patches and v = (2, 0, 1). For the query 0 the scores of the keys are (−½, 0, −½).""",
                '''def psa_map(v, grid):
    """Make tents, −(|δ_row − Δ_row| + |δ_column − Δ_column|) / τ: v (H, 3) holds (τ, Δ_row, Δ_column) → (H, N, N)."""
    ### BEGIN SOLUTION
    delta = geometry.pair_offsets(*grid).to(v)  # (N, N, 2)
    distance = (delta - v[:, None, None, 1:]).abs().sum(-1)  # (H, N, N)
    return -distance / v[:, 0, None, None]
    ### END SOLUTION''',
            ),
            VariantExercise(
                "08",
                "prior",
                """**Unlike in the lesson: a prior that decays.** In place of ramps the hidden units are *hills*, which
decay with the city-block distance from a centre of their own:

$$f_h(\\delta) = \\text{floor}_h + \\sum_{k=1}^{K} \\text{heights}_{h,k} \\cdot
\\exp\\left(-\\frac{|\\delta_{\\text{row}} - c_{h,k,\\text{row}}| + |\\delta_{\\text{column}} -
c_{h,k,\\text{column}}|}{\\text{reach}_{h,k}}\\right)$$

Write it for all heads and all offsets that are asked for.

- `delta` is (…, 2) with any axes in front, none included: δ as (row, column), real numbers of the same type as the
  other arguments, in patches.
- `centres` (H, K, 2), each $c_{h,k}$ as (row, column); `reach` (H, K), positive; `heights` (H, K); `floor` (H,). Each
  head has its own.
- Out comes (H, …): for offsets of shape (11, 11, 2) and four heads (4, 11, 11), for a single offset (2,) just (4,).
  It is a factor for scores, so no softmax is taken.
- By hand: one head, K = 1, centre (0, 1), reach 2, height 3, floor 1. At δ = (0, 1) f is 4; at (2, 1) it is 1 + 3/e ≈
  2.10; far away it is 1. Gradients with respect to `delta` are not asked for.""",
                '''def prior(delta, centres, reach, heights, floor):
    """Add up hills that decay with the city-block distance from their centres: offsets (…, 2) → (H, …)."""
    ### BEGIN SOLUTION
    distance = (delta[..., None, None, :] - centres).abs().sum(dim=-1)  # (…, H, K)
    f = (heights * (-distance / reach).exp()).sum(dim=-1) + floor  # (…, H)
    return f.movedim(-1, 0)
    ### END SOLUTION''',
            ),
        ),
    ),
    "dilated": Variant(
        "a window around each query, with holes, in place of tiles",
        (
            VariantExercise(
                "05",
                "window_mask",
                """**Unlike in the lesson: dilated windows.** No tiles here: every query is in the middle of a window of
its own, and the window has holes. Return an (N, N) tensor of booleans, True where query i (first axis) sees key j.

- `grid` is (rows, columns), any rectangle; tokens are numbered row by row. `size` is odd; `dilation` is at least 1.
- A query sees `size` × `size` keys where the grid has room: in each direction the query's own row (column) and
  `size // 2` further ones on each side, in steps of `dilation`. So with `size` 3 and `dilation` 2 it sees the offsets
  −2, 0 and +2, in rows and in columns: nine keys.
- What lies beyond the border of the grid is left out. Nothing is moved inwards, and nothing comes in from the other
  side.
- By hand: seven patches in a row, `size` 3, `dilation` 2. Patch 3 sees 1, 3 and 5; patch 0 sees 0 and 2; patch 1 sees
  1 and 3.""",
                '''def window_mask(grid, size, dilation):
    """Tell which keys lie in a query's window of size × size keys, `dilation` patches apart: (N, N) booleans."""
    rows, columns = grid
    ### BEGIN SOLUTION
    delta = geometry.pair_offsets(rows, columns)  # (N, N, 2)
    near = delta.abs() <= dilation * (size // 2)
    return (near & (delta % dilation == 0)).all(-1)
    ### END SOLUTION''',
            ),
        ),
    ),
}
