"""Lesson 11: right answers that are written in an unusual way, and wrong ones that the bank does not hold as they stand."""

from functools import partial, reduce

import torch
import torch.nn.functional as F

from spvit_course.checks.lesson_11 import answers
from spvit_mini.explain import attribution, faithfulness


def eye_of(maps):
    return torch.eye(maps[0].shape[-1], dtype=maps[0].dtype)


def rollout_by_paths(maps, enter):
    """Follow the class token's row from the last layer down: a vector times matrices, cut where the class token is new."""
    row, own = F.one_hot(torch.tensor(0), maps[-1].shape[-1]).to(maps[0]), maps[0].new_zeros(0)
    for i in range(len(maps) - 1, -1, -1):
        if i == enter - 1:
            own, row = row[:1], row[1:]
        row = row / 2 + torch.einsum("i,hij->j", row, maps[i]) / (2 * len(maps[i]))
    return torch.cat([own, row])


def rollout_padding_the_maps(maps, enter):
    """Let early layers have a row for the class token, that looks at itself."""
    whole = []
    for i, weights in enumerate(maps):
        if i < enter:
            weights = F.pad(weights, (1, 0, 1, 0))
            weights[:, 0, 0] = 1
        whole.append((weights.mean(0) + torch.eye(weights.shape[-1])) / 2)
    return torch.linalg.multi_dot(whole[::-1])[0] if len(whole) > 1 else whole[0][0]


def rollout_padding_with_nothing(maps, enter):
    """A row of 0 plus the identity is the identity, once it is brought to 1."""
    tokens, product = maps[-1].shape[-1], torch.eye(maps[-1].shape[-1], dtype=torch.float64)
    for weights in maps:
        late = tokens - weights.shape[-1]
        product = F.normalize(F.pad(weights.mean(0), (late, 0, late, 0)) + torch.eye(tokens), p=1, dim=-1) @ product
    return product[0, :]


def rollout_by_the_shapes(maps, enter):
    """Never ask for `enter`."""

    def step(product, weights):
        if len(product) < weights.shape[-1]:
            product = torch.block_diag(torch.ones(1, 1), product)
        return (product + weights.mean(0) @ product) / 2

    return reduce(step, maps, eye_of(maps))[0]


@torch.no_grad()
def deletion_by_masks(model, image, map):
    order = map.flatten().sort(descending=True).indices
    keep = torch.ones(map.numel() + 1, map.numel())
    for k, patch in enumerate(order):
        keep[k + 1 :, patch] = 0
    keep = keep.view(-1, 1, *map.shape).repeat_interleave(image.shape[1] // map.shape[0], 2)
    keep = keep.repeat_interleave(image.shape[2] // map.shape[1], 3)
    probabilities = model(image * keep + image.mean((1, 2), keepdim=True) * (1 - keep)).softmax(1)
    return probabilities[:, probabilities[0].argmax()] / probabilities[0].max()


def deletion_one_by_one(model, image, map):
    image, map, mean = image.clone(), map.clone(), image.mean(2).mean(1)
    first = torch.softmax(model(image[None])[0], 0)
    label, curve = first.argmax().item(), [first.max()]
    high, wide = image.shape[1] // len(map), image.shape[2] // map.shape[1]
    for _ in range(map.numel()):
        row, column = divmod(int(map.argmax()), map.shape[1])
        map[row, column] = -torch.inf
        image[:, row * high : (row + 1) * high, column * wide : (column + 1) * wide] = mean.view(3, 1, 1)
        curve.append(torch.softmax(model(image[None])[0], 0)[label])
    return torch.stack(curve) / curve[0]


def deletion_by_thresholds(model, image, map):
    """A patch is gone where the map is at least as high as the k-th highest."""
    levels = [torch.inf, *map.flatten().sort().values.flip(0).tolist()]
    big = F.interpolate(map[None, None], size=image.shape[1:], mode="nearest")[0]
    blank = image.mean(dim=(-2, -1), keepdim=True).expand_as(image)
    logits = torch.cat([model(torch.where(big >= level, blank, image)[None]) for level in levels])
    label = logits[0].argmax()
    answers = logits[:, label] - logits.logsumexp(-1)
    return (answers - answers[0]).exp()


def deletion_of_a_list(model, image, map, *, first=True, chosen=None, copied=False):
    """Collect the images in a list without copies, the image itself first or not; `chosen` is the class, by the image alone."""
    now, mean, (rows, columns) = image.clone(), image.mean((1, 2), keepdim=True), map.shape
    shown = [image] if first else [now]
    for patch in map.flatten().argsort(descending=True).tolist():
        view = now.unflatten(1, (rows, -1)).unflatten(3, (columns, -1))
        view[:, patch // columns, :, patch % columns] = mean
        shown.append(now.clone() if copied else now)
    chances = model(torch.stack(shown)).softmax(-1)
    whole = model(image[None]).softmax(-1)[0] if chosen else chances[0]
    return chances[:, whole.argmax()] / whole.max()


def deletion_with_ranks_for_order(model, image, map, *, again=False):
    """Compare the order itself, not the ranks, with the number of patches that are gone."""
    order = map.flatten().argsort(descending=True)
    rank = order.argsort() if again else order
    k = torch.arange(map.numel() + 1)[:, None]
    shown = (rank >= k).double().view(-1, 1, *map.shape)
    shown = shown.repeat_interleave(image.shape[1] // len(map), 2).repeat_interleave(image.shape[2] // map.shape[1], 3)
    mean = image.mean((1, 2), keepdim=True)
    chances = model(image * shown + mean * (1 - shown)).softmax(-1)[:, model(image[None]).argmax()]
    return chances / chances[0]


def with_types_mixed(maps, enter):
    product = torch.eye(maps[0].shape[-1])
    for i, weights in enumerate(maps):
        if i == enter and i > 0:
            product = torch.block_diag(torch.ones(1, 1), product)
        product = (weights.mean(0) + torch.eye(weights.shape[-1])) / 2 @ product
    return product[0]


RIGHT = {
    "rollout": [
        rollout_by_paths, rollout_padding_the_maps, rollout_padding_with_nothing, rollout_by_the_shapes,
        lambda maps, enter: answers.rollout([m.mT for m in maps], enter, turned="rows are keys"),
    ],
    "deletion": [
        deletion_by_masks, deletion_one_by_one, deletion_by_thresholds,
        partial(deletion_of_a_list, copied=True), partial(deletion_with_ranks_for_order, again=True),
        lambda model, image, map: answers.deletion(model, image, -map, order="lowest first"),
        lambda model, image, map: answers.deletion(model, image, map.exp()),
    ],
}
NAMED = [
    ("rollout", "order",
        lambda maps, enter: answers.rollout([m.mT for m in maps], enter, rows="columns to 1", read="its column")),
    ("rollout", "transposed", lambda maps, enter: answers.rollout([m.mT for m in maps], enter)),
    ("deletion", "ranks and patches mixed up", deletion_with_ranks_for_order),
    ("deletion", "one tensor but for the first", deletion_of_a_list),
    ("deletion", "one tensor", partial(deletion_of_a_list, first=False)),
    ("deletion", "one tensor, the image apart", partial(deletion_of_a_list, first=False, chosen=True)),
    ("deletion", "ascending", lambda model, image, map: answers.deletion(model, image, -map)),
    ("deletion", "no baseline",
        lambda model, image, map: answers.deletion(model, image, map, value="log of it", base="none").exp()),
]
REFUSED = [
    ("rollout", "the package's own solution", lambda maps, enter: attribution.rollout([m[None] for m in maps])[0, 0]),
    ("deletion", "the package's own solution",
        lambda model, image, map: faithfulness.deletion(model, image[None], map[None])[0]),
    ("rollout", "changes its input in place",
        lambda maps, enter: answers.rollout([m.add_(torch.eye(m.shape[-1])) for m in maps], enter)),
    ("rollout", "the list of maps is changed", lambda maps, enter: (answers.rollout(maps, enter), maps.pop())[0]),
    ("rollout", "make room for the class token",
        lambda maps, enter: reduce(lambda product, m: m.mean(0) @ product, maps, eye_of(maps))[0]),
    ("rollout", "unless they are given a dtype", with_types_mixed),
    ("deletion", "torch.stack keeps it", lambda model, image, map: answers.deletion(model, image, map).float()),
    ("deletion", "changes its input in place",
        lambda model, image, map: (answers.deletion(model, image, map), image.zero_())[0]),
    ("deletion", "The model takes a batch", lambda model, image, map: model(image)),
    ("deletion", "it returns a list", lambda model, image, map: answers.deletion(model, image, map).tolist()),
]
