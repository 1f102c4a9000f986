"""Lesson 05's answers with options: each is right as it stands, and each changed option is one mistake."""

from torch import Tensor

from spvit_mini.geometry import Grid

from ..composition import locate_tokens

MOVES = {"down, right": (1, 1), "up, left": (-1, -1), "none": (0, 0), "rows only": (1, 0), "columns only": (0, 1)}

TOO_FEW_NUMBERS = {  # how many are kept free for each row of windows; at a border it takes up to ⌈columns / size⌉ + 1
    "sum of the numbers": lambda columns, size: 1,
    "whole windows": lambda columns, size: columns // size,
    "and one more": lambda columns, size: columns // size + 1,
    "rounded up": lambda columns, size: -(-columns // size),
}


def window_mask(
    grid: Grid,
    size: int,
    shift: int,
    *,
    kind: str = "partition",
    move: str = "down, right",
    border: str = "cut",
    both: str = "row and column",
    tokens: str = "row by row",
    sides: str = "R, C",
    says: str = "inside",
) -> Tensor:
    """Tell which patches lie in the same window of a partition: (N, N) booleans."""
    rows, columns = {"R, C": grid, "R, R": (grid[0], grid[0]), "C, C": (grid[1], grid[1])}[sides]
    line, place = locate_tokens(tokens, rows, columns)
    down, right = (shift * way for way in MOVES[move])
    same_rows = share_window(line - down, rows, size, kind, border)
    same_columns = share_window(place - right, columns, size, kind, border)
    if both in TOO_FEW_NUMBERS:
        numbers = (line - down) // size * TOO_FEW_NUMBERS[both](columns, size) + (place - right) // size
        result = numbers[:, None] == numbers
    else:
        result = {
            "row and column": same_rows & same_columns,
            "row or column": same_rows | same_columns,
            "rows only": same_rows,
            "columns only": same_columns,
        }[both]
    return result if says == "inside" else ~result


def share_window(positions: Tensor, side: int, size: int, kind: str, border: str) -> Tensor:
    """Tell along one axis which positions, counted from the first whole window, lie together: (N, N) booleans."""
    delta = (positions[None] - positions[:, None]).abs()
    if kind == "sliding, centred":
        return delta <= size // 2
    if kind == "sliding, nearer than the size":
        return delta < size
    if border == "wrapped":
        positions = positions % side
    if kind == "remainder":
        number = positions % size
    else:
        length = size + 1 if kind == "one too large" else size
        number = positions.div(length, rounding_mode="trunc" if border == "joined to the next" else "floor")
    same = number[:, None] == number
    if kind == "both ends":  # the first place of a window also belongs to the window before it
        touches = (number[None] == number[:, None] + 1) & (positions % size == 0)[None]
        same = same | touches | touches.T
    return same


def masked_weights(
    scores: Tensor,
    mask: Tensor,
    *,
    way: str = "−∞",
    says: str = "inside",
    mask_axes: str = "query, key",
    heads: str = "each its own",
    axis: str = "keys",
    frame: str = "seen and seeing",
    place: str = "first",
    count: str = "from the shapes",
    empty: str = "zeros",
) -> Tensor:
    """Attend through a mask of the patches: scores (B, H, P+N, P+N), mask (N, N) or (H, N, N) → weights."""
    n = mask.shape[-1]
    prefix = scores.shape[-1] - n
    if count != "from the shapes":
        prefix = {"none": 0, "one": 1, "one at most": min(prefix, 1)}[count]
    if says == "outside":
        mask = ~mask
    if mask_axes == "key, query":
        mask = mask.mT
    if heads == "the first's for all" and mask.ndim == 3:
        mask = mask[0]
    visible = pad_mask(mask, prefix, frame, last=place == "last")
    if says == "outside, and no prefix":
        visible = ~visible
    hidden, along = ~visible, -1 if axis == "keys" else -2
    infinite = float("inf")
    if way == "after":
        return scores.softmax(along) * visible
    if way == "after, sum clamped":
        inside = scores.softmax(along) * visible
        return inside / inside.sum(along, keepdim=True).clamp(min=1e-9)
    if way == "all 0":
        return scores * 0
    if way == "in, then out":
        return scores.masked_fill(visible, -infinite).softmax(along).masked_fill(hidden, 0)
    if way == "exp, sum clamped":
        inside = scores.exp() * visible
        return inside / inside.sum(along, keepdim=True).clamp(min=1e-9)
    if way != "−∞":
        changed = {
            "× 0/1": lambda: scores * visible,
            "+ 0/1": lambda: scores + visible,
            "−1 filled": lambda: scores.masked_fill(hidden, -1),
            "−100 added": lambda: scores - 100 * hidden.to(scores),
            "−1e9 filled": lambda: scores.masked_fill(hidden, -1e9),
            "0 · ∞": lambda: scores - hidden.to(scores) * infinite,
        }[way]()
        return changed.softmax(along)
    weights = scores.masked_fill(hidden, -infinite).softmax(along)
    return weights.masked_fill(hidden, 0) if empty == "zeros" else weights


def pad_mask(mask: Tensor, prefix: int, frame: str, *, last: bool) -> Tensor:
    """Give a mask of the patches rows and columns for prefix tokens: (..., P+N, P+N)."""
    n = mask.shape[-1]
    result = mask.new_ones(*mask.shape[:-2], prefix + n, prefix + n)
    first, patches = slice(0, prefix), slice(prefix, prefix + n)
    if last:
        first, patches = slice(n, prefix + n), slice(0, n)
    result[..., patches, patches] = mask
    if frame in ("shut out", "seeing, not seen"):
        result[..., patches, first] = False
    if frame in ("shut out", "seen, not seeing"):
        result[..., first, patches] = False
    if frame in ("shut out", "apart"):
        result[..., first, first] = False
    return result
