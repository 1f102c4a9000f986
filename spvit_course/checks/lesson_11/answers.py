"""Lesson 11's answers with options: each is right as it stands, and each changed option is one mistake."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

HEADS = {
    "their mean": lambda weights: weights.mean(0),
    "their sum": lambda weights: weights.sum(0),
    "their largest": lambda weights: weights.amax(0),
    "the first": lambda weights: weights[0],
}
ROWS = {  # what is done to a layer's matrix once the identity is in it
    "to 1": lambda layer: layer / layer.sum(-1, keepdim=True),
    "as they are": lambda layer: layer,
    "halved": lambda layer: layer / 2,  # right for the mean of the heads
    "columns to 1": lambda layer: layer / layer.sum(-2, keepdim=True),
    "whole to 1": lambda layer: layer / layer.sum(),
    "softmax": lambda layer: layer.softmax(-1),
}
READ = {
    "class token's row": lambda product: product[0],
    "patches of it": lambda product: product[0, 1:],
    "its column": lambda product: product[:, 0],
    "last row": lambda product: product[-1],
    "mean of all rows": lambda product: product.mean(0),
    "mean of the patches' rows": lambda product: product[1:].mean(0),
    "whole product": lambda product: product,
    "a matrix of one row": lambda product: product[:1],
    "row brought to 1": lambda product: product[0] / product[0].sum(),
}


def rollout(
    maps: Sequence[Tensor],
    enter: int,
    *,
    heads: str = "their mean",
    identity: str = "added",
    rows: str = "to 1",
    turned: str = "rows are queries",
    order: str = "last on the left",
    layers: str = "all",
    joins: str = "1",
    read: str = "class token's row",
) -> Tensor:
    """Multiply attention maps (H, T, T) of one image from the first layer to the last; the class token's row, (1+N,)."""
    if layers == "late ones":
        maps, enter = maps[enter:], 0
    elif layers == "the last":
        maps, enter = maps[-1:], 0
    if heads == "each by itself":
        options = {"identity": identity, "rows": rows, "turned": turned, "order": order, "joins": joins, "read": read}
        alone = [rollout([weights[[h]] for weights in maps], enter, **options) for h in range(len(maps[0]))]
        return torch.stack(alone).mean(0)
    product = torch.eye(maps[0].shape[-1], dtype=maps[0].dtype)
    for i, weights in enumerate(maps):
        if i == enter and i > 0:
            ahead = (0, 1) if joins == "last" else (1, 0)
            product = F.pad(product, ahead * 2)
            place = -1 if joins == "last" else 0
            product[place, place] = {"0": 0.0, "0, rows to 1": 0.0, "halved": 0.5**enter}.get(joins, 1.0)
            if joins == "looks everywhere":
                product[0] = 1 / len(product)
        layer = HEADS[heads](weights)
        if turned == "rows are keys":
            layer = layer.T
        if identity == "added":
            layer = layer + torch.eye(len(layer), dtype=layer.dtype)
        layer = ROWS[rows](layer)
        product = layer @ product if order == "last on the left" else product @ layer
        if joins == "0, rows to 1":
            product = product / product.sum(-1, keepdim=True)
    return READ[read](product)


FILLS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {  # of the image, its patch, the image as it is by now
    "mean colour": lambda image, patch, now: image.mean((1, 2), keepdim=True),
    "0": lambda image, patch, now: torch.zeros(3, 1, 1).to(image),
    "one grey": lambda image, patch, now: image.mean().expand(3, 1, 1),
    "patch's own mean": lambda image, patch, now: patch.mean((1, 2), keepdim=True),
    "mean by now": lambda image, patch, now: now.mean((1, 2), keepdim=True),
    "mean over channels": lambda image, patch, now: patch.mean(0, keepdim=True).expand_as(patch),
}
VALUES = {
    "probability": lambda logits: logits.softmax(-1),
    "logit": lambda logits: logits,
    "log of it": lambda logits: logits.log_softmax(-1),
    "sigmoid": lambda logits: logits.sigmoid(),
}
KEPT = {  # which images the model sees; a list that holds one tensor again and again has its last state only
    "each": lambda shown: shown,
    "one tensor": lambda shown: shown[-1:] * len(shown),
    "one tensor but for the first": lambda shown: shown[:1] + shown[-1:] * (len(shown) - 1),
    "one tensor, the image apart": lambda shown: shown[:1] + shown[-1:] * len(shown),
}
BASES = {
    "the whole image's": lambda curve: curve / curve[0],
    "none": lambda curve: curve,
    "the largest": lambda curve: curve / curve.max(),
    "the blank's": lambda curve: curve / curve[-1],
    "subtracted": lambda curve: curve - curve[0],
}
RETURNED = {
    "all": lambda curve: curve,
    "without the first": lambda curve: curve[1:],
    "without the last": lambda curve: curve[:-1],
    "their mean": lambda curve: curve.mean(),
}


def deletion(
    model: Callable[[Tensor], Tensor],
    image: Tensor,
    map: Tensor,
    *,
    order: str = "highest first",
    begins: str = "whole",
    places: str = "row by row",
    size: str = "as the grid says",
    fill: str = "mean colour",
    gone: str = "all so far",
    states: str = "each",
    label: str = "the whole image's",
    value: str = "probability",
    base: str = "the whole image's",
    returned: str = "all",
) -> Tensor:
    """Take patches of an image (3, height, width) away in the order of a map (R, C): N+1 values."""
    rows, columns = map.shape
    high, wide = image.shape[1] // rows, image.shape[2] // columns
    if size != "as the grid says":
        high = wide = {"squares as high": high, "squares as wide": wide}[size]
    ranked = {
        "highest first": map.flatten().argsort(descending=True),
        "lowest first": map.flatten().argsort(),
        "reading order": torch.arange(map.numel()),
        "argsort of argsort": map.flatten().argsort(descending=True).argsort(),
    }[order]
    if gone == "the highest again":
        ranked = ranked[:1].expand_as(ranked)
    blank = image.mean((1, 2), keepdim=True).expand_as(image)
    now = (image if begins == "whole" else blank).clone()
    shown = [now.clone()]
    for number in ranked.tolist():
        row, column = {
            "row by row": (number // columns, number % columns),
            "column by column": (number % rows, number // rows),
            "row by row, R for C": (number // rows, number % rows),
        }[places]
        here = (slice(None), slice(row * high, (row + 1) * high), slice(column * wide, (column + 1) * wide))
        if gone == "each alone":
            now = image.clone()
        now[here] = FILLS[fill](image, image[here], now) if begins == "whole" else image[here]
        shown.append(now.clone())
    values = VALUES[value](model(torch.stack(KEPT[states](shown))))
    if label == "drifts":
        curve = values.amax(-1)
    else:
        curve = values[:, (values[0] if label == "the whole image's" else values[-1]).argmax()]
    curve = BASES[base](curve)
    return RETURNED[returned](curve[1:] if states.endswith("apart") else curve)
