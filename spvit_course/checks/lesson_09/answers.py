"""Lesson 09's answers with options: each is right as it stands, and each changed option is one mistake."""

import torch
from torch import Tensor

from spvit_mini.geometry import Grid

Box = tuple[int, int, int, int]
FAR = 10**6

PARTNERS = {
    "reversed": lambda x: x.flip(0),
    "the one before": lambda x: x.roll(1, 0),
    "the one after": lambda x: x.roll(-1, 0),
    "the first": lambda x: x[:1].expand_as(x),
    "itself": lambda x: x,
    "zeros": torch.zeros_like,
    "the mean": lambda x: (x + x.flip(0)) / 2,
    "the features": lambda x: x.flip(1),
    "the columns": lambda x: x.flip(-1),
    "the rows": lambda x: x.flip(-2),
    "everything": lambda x: x.flip(0, 1, 2, 3),
    "the batch and places": lambda x: x.flip(0, 2, 3),
}
READINGS = {  # of the four numbers: first row, first column, end of rows, end of columns
    "top, left, bottom, right": lambda a, b, c, d: (a, b, c, d),
    "left, top, right, bottom": lambda a, b, c, d: (b, a, d, c),
    "top, bottom, left, right": lambda a, b, c, d: (a, c, b, d),
    "left, right, top, bottom": lambda a, b, c, d: (c, a, d, b),
    "top, left, height, width": lambda a, b, c, d: (a, b, a + c, b + d),
    "ends included": lambda a, b, c, d: (a, b, c + 1, d + 1),
    "rows only": lambda a, b, c, d: (a, 0, c, FAR),
    "columns only": lambda a, b, c, d: (0, b, FAR, d),
}


def mixtoken(
    x: Tensor,
    box: Box,
    *,
    partner: str = "reversed",
    reading: str = "top, left, bottom, right",
    where: str = "inside",
    images: str = "all",
) -> Tensor:
    """Exchange a box of x (B, D, R, C) with the partner in the reversed batch."""
    top, left, bottom, right = READINGS[reading](*box)
    row, column = torch.arange(x.shape[2])[:, None], torch.arange(x.shape[3])
    in_rows, in_columns = (row >= top) & (row < bottom), (column >= left) & (column < right)
    inside = {
        "inside": in_rows & in_columns,
        "outside": ~(in_rows & in_columns),
        "either": in_rows | in_columns,
        "everywhere": torch.ones_like(in_rows & in_columns),
    }[where]
    mixed = torch.where(inside, PARTNERS[partner](x), x)
    if images == "the first half":  # one after the other in place: the rest finds its own tokens back
        half = (len(x) + 1) // 2
        mixed = torch.cat([mixed[:half], x[half:]])
    return mixed


LAYOUTS = {  # how N tokens become a grid
    "row by row": lambda x, grid: x.mT.unflatten(-1, grid),
    "column by column": lambda x, grid: x.mT.unflatten(-1, grid[::-1]).mT,
    "sides swapped": lambda x, grid: x.mT.unflatten(-1, grid[::-1]),
    "reshaped": lambda x, grid: x.reshape(len(x), x.shape[2], *grid),
    "classes last": lambda x, grid: x.unflatten(1, grid),
}


def unmix(dense: Tensor, box: Box, grid: Grid, *, layout: str = "row by row", returned: str = "tokens", **options) -> Tensor:
    """Bring outputs dense (B, R·C, K) of mixed images back to their own images; options are those of `mixtoken`."""
    on_grid = mixtoken(LAYOUTS[layout](dense, grid), box, **options)
    if returned == "a grid":
        return on_grid
    if returned == "features first":
        return on_grid.flatten(2)
    if layout == "classes last":
        return on_grid.flatten(1, 2)
    if layout == "reshaped":
        return on_grid.reshape(dense.shape)
    return (on_grid.mT if layout == "column by column" else on_grid).flatten(2).mT


def mix_labels(
    y: Tensor,
    box: Box,
    grid: Grid,
    lam: float,
    *,
    share: str = "area",
    reading: str = "top, left, bottom, right",
    whole: str = "R·C",
    partner: str = "reversed",
    goes: str = "to the partner",
) -> Tensor:
    """Mix targets y (B, K) with those of the partners, by the patches that each image holds."""
    rows, columns = grid
    top, left, bottom, right = READINGS[reading](*box)
    high, wide = bottom - top, right - left
    size = {"R·C": rows * columns, "R²": rows**2, "C²": columns**2, "1": 1}[whole]
    meant = [int(side * (1 - lam) ** 0.5) for side in grid]  # what the box's sides would be, rounded down
    part = {
        "area": high * wide / size,
        "λ drawn": 1 - lam,
        "sides from λ": meant[0] * meant[1] / size,
        "even sides from λ": (meant[0] // 2 * 2) * (meant[1] // 2 * 2) / size,
        "height": high / rows,
        "width": wide / columns,
        "root of the area": (high * wide / size) ** 0.5 if high * wide > 0 else 0.0,
        "a half": 0.5,
        "none": 0.0,
        "the greater part": float(2 * high * wide > size),
    }[share]
    other = y.flip(1) if partner == "the classes" else PARTNERS[partner](y)
    own, others = {
        "to the partner": (1 - part, part),
        "to the image": (part, 1 - part),
        "added": (1.0, part),
        "not divided": (1 - part, 1.0),
        "in numbers of patches": (size * (1 - part), size * part),
    }[goes]
    return own * y + others * other


LOGS = {
    "once": lambda x, axis: x.log_softmax(axis),
    "softmax twice": lambda x, axis: x.softmax(axis).log_softmax(axis),
    "one by one": lambda x, axis: x.softmax(axis).log(),
    "no log": lambda x, axis: x.softmax(axis),
    "no softmax": lambda x, axis: x,
}
WEIGHTS = {
    "1 and w": lambda w: (1, w),
    "1 and 1": lambda w: (1, 1),
    "w and 1": lambda w: (w, 1),
    "w and w": lambda w: (w, w),
    "1 − w and w": lambda w: (1 - w, w),
    "halved": lambda w: (0.5, 0.5 * w),
    "the class head alone": lambda w: (1, 0),
    "the dense head alone": lambda w: (0, w),
    "the dense head alone, no w": lambda w: (0, 1),
}


def dense_loss(
    cls: Tensor,
    dense: Tensor,
    y: Tensor,
    maps: Tensor,
    w: float,
    *,
    weights: str = "1 and w",
    class_log: str = "once",
    dense_log: str = "once",
    class_axis: str = "classes",
    dense_axis: str = "classes",
    class_target: str = "as given",
    dense_target: str = "maps",
    class_mean: str = "over images",
    dense_mean: str = "over patches and images",
    less: str = "nothing",
    sign: int = -1,
) -> Tensor:
    """Add the class token's cross-entropy and w times the patches' mean one."""
    images, patches, classes = dense.shape
    if class_target == "its largest class":
        y = torch.eye(classes, dtype=y.dtype)[y.argmax(-1)]
    if dense_target == "its largest class":
        maps = torch.eye(classes, dtype=y.dtype)[maps.argmax(-1)]
    elif dense_target == "y":
        maps = y[:, None].expand_as(dense)
    elif dense_target == "their mean":
        maps = maps.mean(1, keepdim=True).expand_as(dense)
    elif dense_target == "pooled":
        maps, dense, patches = maps.mean(1, keepdim=True), dense.mean(1, keepdim=True), 1
    elif dense_target == "across":
        if patches != classes:
            raise ValueError("patches stand on the axis of the classes")
        maps = maps.mT
    elif dense_target == "softmax again":
        maps = maps.softmax(-1)

    along = {"classes": -1, "images": 0, "patches": 1}
    of_class = LOGS[class_log](cls, along[class_axis]) * y
    of_dense = LOGS[dense_log](dense, along[dense_axis]) * maps
    if less in ("the targets' entropy", "the maps' entropy"):
        of_dense = of_dense - torch.xlogy(maps, maps)
    if less == "the targets' entropy":
        of_class = of_class - torch.xlogy(y, y)
    parts = []
    for part, mean in ((of_class, class_mean), (of_dense, dense_mean)):
        count = {
            "over images": images,
            "over patches and images": images * patches,
            "over images alone": images,
            "over patches alone": patches,
            "over images and classes": images * classes,
            "over all entries": part.numel(),
            "a sum": 1,
        }[mean]
        parts.append(sign * part.sum() / count)
    one, other = WEIGHTS[weights](w)
    return one * parts[0] + other * parts[1]
