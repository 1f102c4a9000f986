"""Lesson 11: what a model looks at. Attention followed back to the patches, and patches taken away to see what counts."""

from collections.abc import Callable

import torch
from torch import Tensor

from spvit_mini.explain import attribution, faithfulness

from ..cases import draw_integer, draw_normal, format_count
from ..engine import Case, Exercise, Property, Verdict
from . import answers, mistakes

# Cases ------------------------------------------------------------------------------------------------------------------


def draw_layers(generator: torch.Generator) -> list[Case]:
    """Draw attention maps: a late class token, a later one, one from the start, one head, one layer, one patch, many heads.

    The maps are handed over one by one, so that a change in place is seen.
    """
    n = draw_integer(generator, 4, 6)
    cases = []
    for layers, enter, heads, patches in [
        (4, 2, 3, n), (4, 3, 2, n), (3, 0, 2, n), (3, 1, 1, n), (1, 0, 2, n), (3, 2, 2, 1), (2, 1, 5, n)
    ]:  # fmt: skip
        maps = []
        for i in range(layers):
            tokens = patches + (i >= enter)
            scores = 1.5 * draw_normal(generator, heads, tokens, tokens)
            maps.append(scores.softmax(-1))
        label = f"{format_count(layers, 'map')} of {format_count(heads, 'head')}, {format_count(patches, 'patch', 'es')}"
        cases.append(Case(f"{label}, enter = {enter}", (enter, *maps)))
    return cases


def run_rollout(answer: Callable, enter: int, *maps: Tensor) -> Tensor:
    """Call an answer on a list of maps; the package's takes batches, and returns the whole product."""
    if answer is attribution.rollout:
        return attribution.rollout([weights[None] for weights in maps])[0, 0]
    return answer(list(maps), enter)


def draw_scenes(generator: torch.Generator) -> list[Case]:
    """Draw images, maps and the weights of a small model: wide, tall, square, one row, one column, oblong patches, one patch.

    Redrawn until the blank image is given another class, and, with more than one patch, the first class becomes surer
    at some place and ranks are no order: else some mistakes would not show.
    """
    more = draw_integer(generator, 1, 2)
    cases = []
    for rows, columns, high, wide in [
        (2, 2 + more, 2, 2), (2 + more, 2, 3, 3), (3, 3, 1, 1), (1, 3 + more, 2, 2), (3 + more, 1, 2, 2), (2, 3, 3, 1),
        (1, 1, 3, 3),
    ]:  # fmt: skip
        while True:
            shapes = (3, rows * high, columns * wide), (rows, columns), (3 * rows * high * columns * wide, 8), (8, 4)
            image, map, w1, w2 = (draw_normal(generator, *shape) for shape in shapes)
            image += torch.tensor([0.5, -0.8, 1.2], dtype=torch.float64)[:, None, None]
            curve = answers.deletion(make_model(w1, w2), image, map)
            drifts = not torch.allclose(curve, answers.deletion(make_model(w1, w2), image, map, label="the blank's"))
            order = map.flatten().argsort(descending=True)
            if drifts and (map.numel() == 1 or (curve.max() > 1.001 and not torch.equal(order, order.argsort()))):
                break
        label = f"an image of {rows * high} × {columns * wide} pixels and a map of {rows} × {columns} patches"
        cases.append(Case(label, (image, map, w1, w2)))
    return cases


def make_model(w1: Tensor, w2: Tensor) -> Callable[[Tensor], Tensor]:
    """Make a model of two layers: images (B, 3, height, width) → logits (B, classes)."""

    def model(images: Tensor) -> Tensor:
        if images.ndim != 4:
            raise ValueError(f"the model takes a batch of images, (B, 3, height, width), not {tuple(images.shape)}")
        return torch.tanh(images.flatten(1) @ w1.to(images) / 4) @ w2.to(images)

    return model


class Small(torch.nn.Module):
    """The model as a module, as the package's function asks for it."""

    def __init__(self, w1: Tensor, w2: Tensor):
        super().__init__()
        self.forward = make_model(w1, w2)


def run_deletion(answer: Callable, image: Tensor, map: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
    """Call an answer with a model of these weights; the package's takes batches."""
    if answer is faithfulness.deletion:
        return faithfulness.deletion(Small(w1, w2), image[None], map[None])[0]
    output = answer(make_model(w1, w2), image, map)
    if isinstance(output, (list, tuple)):
        raise Verdict(f"it returns a {type(output).__name__}, not a torch.Tensor. torch.stack joins numbers of torch to one.")
    if isinstance(output, Tensor) and output.shape == (map.numel() + 1,) and output.dtype != image.dtype:
        raise Verdict(
            f"it returns {output.dtype} for an image of {image.dtype}. Numbers that .item() or .tolist() took out of torch have "
            "lost their type: torch.stack keeps it, torch.tensor(…, dtype=image.dtype) gives it back."
        )
    return output


# Exercises ---------------------------------------------------------------------------------------------------------------


def is_list_unchanged(answer: Callable) -> bool:
    """Tell whether the list of maps is as long as before: popping from it would take it from the caller."""
    maps = [torch.full((1, 2, 2), 0.5, dtype=torch.float64), torch.full((1, 3, 3), 1 / 3, dtype=torch.float64)]
    copy = list(maps)
    answer(copy, 1)
    return len(copy) == 2 and all(one is other for one, other in zip(copy, maps, strict=True))


ALONE = Property(
    "the list stays",
    "the values are right, but the list of maps is changed. Whoever called still needs it.",
    is_list_unchanged,
)
ROLLOUT = Exercise(
    name="rollout",
    solution=attribution.rollout,
    cases=draw_layers,
    call=run_rollout,
    answer=answers.rollout,
    mistakes=mistakes.ROLLOUT,
    properties=(ALONE,),
    gradients=False,
    shape_hint="sizes don't fit. Up to map `enter` the product is (N, N), from then on maps are (1+N, 1+N): make room "
    "for the class token in the product before that map. With enter = 0 it is there from the start.",
)
DELETION = Exercise(
    name="deletion",
    solution=faithfulness.deletion,
    cases=draw_scenes,
    call=run_deletion,
    answer=answers.deletion,
    mistakes=mistakes.DELETION,
    gradients=False,
    shape_hint="shapes don't fit. The model takes a batch, (B, 3, height, width). A patch has height // R rows and "
    "width // C columns of pixels.",
)
EXERCISES = (ROLLOUT, DELETION)
