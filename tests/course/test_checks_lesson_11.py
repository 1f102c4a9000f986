"""Lesson 11's bank of mistakes: each is refused with its own hint, nothing else is, and right answers pass."""

import itertools
from functools import partial, reduce

import pytest
import torch
import torch.nn.functional as F

from spvit_course.checks.engine import examine, same
from spvit_course.checks.lesson_11 import DELETION, EXERCISES, ROLLOUT
from spvit_course.checks.lesson_11_answers import deleted, rolled
from spvit_mini.explain import attribution, faithfulness

from .bank import agree, each_mistake, outcomes, table

SEEDS = range(4)
ANSWERS = {"rollout": rolled, "deletion": deleted}
each_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)


# The cases, in order.
# rollout: a late class token, a later one, one from the start, one head, one layer, one patch, five heads.
# deletion: wide, tall, square, one row, one column, oblong patches, one patch.
# "x": another result than the right one, "!": an error, ".": the right result, so nothing to be learned from the case.
TOLD_APART = """
rollout
    order                           xxxx..x
    no identity                     xxxxxxx
    no renormalisation              xxxxxxx
    columns to 1                    xxxxxxx
    whole to 1                      xxxxxxx
    softmax                         xxxxxxx
    heads summed                    xxx.xxx
    heads summed, halved            xxx.xxx
    heads' largest                  xxx.xxx
    heads' largest, halved          xxx.xxx
    heads one by one                xxx...x
    first head                      xxx.xxx
    transposed                      xxxxxxx
    class padded with 0             xx.x.xx
    class padded with 0, row to 1   xx.x.xx
    class padded with 0, rows to 1  xx.x.xx
    class halved                    xx.x.xx
    class looks everywhere          xx.x.xx
    class placed last               xx.x..x
    early layers left out           xx.x..x
    last layer alone                xxxx..x
    own share left out              xxxxxxx
    column                          xxxxxxx
    last row                        xxxxxxx
    all rows                        xxxxxxx
    patches' rows                   xxxxxxx
    whole product                   xxxxxxx
    matrix of one row               xxxxxxx
deletion
    ascending                       xxxxxx.
    map ignored                     xxxxxx.
    ranks for numbers               xxxxxx.
    insertion                       xxxxxxx
    columns first                   xxx..x.
    R for C                         xx.xxx.
    square patches                  .....x.
    square patches of the width     .....x.
    zeros                           xxxxxxx
    one grey                        xxxxxxx
    own mean                        xxxxxx.
    mean by now                     xxxxxx.
    mean over channels              xxxxxxx
    not cumulative                  xxxxxx.
    patch reused                    xxxxxx.
    label drifts                    xxxxxxx
    label of the blank              xxxxxxx
    logits                          xxxxxxx
    sigmoid                         xxxxxxx
    log-probabilities               xxxxxxx
    no baseline                     xxxxxxx
    divided by the largest          xxxxxx.
    divided by the last             xxxxxxx
    subtracted                      xxxxxxx
    first left out                  xxxxxxx
    last left out                   xxxxxxx
    mean                            xxxxxxx
"""


@pytest.mark.parametrize("seed", SEEDS)
def test_the_table_of_what_each_case_tells(seed):
    assert table(EXERCISES, seed, width=32) == TOLD_APART


@each_exercise
def test_the_answers_with_options_are_right_as_they_stand(exercise):
    assert agree(exercise, ANSWERS[exercise.name], exercise.solution)
    assert {mistake.answer.func for mistake in exercise.mistakes} == {ANSWERS[exercise.name]}


@each_exercise
def test_any_two_mistakes_are_told_apart(exercise):
    for seed in SEEDS:
        found = {mistake.name: outcomes(exercise, mistake.answer, seed) for mistake in exercise.mistakes}
        for one, other in itertools.combinations(found, 2):
            assert not all(same(a, b) for a, b in zip(found[one], found[other], strict=True)), (one, other)


@pytest.mark.parametrize(("exercise", "mistake"), each_mistake(EXERCISES))
def test_each_mistake_is_refused_with_its_own_hint(exercise, mistake):
    for seed in SEEDS:
        result = examine(exercise, mistake.answer, seed=seed)
        assert (result.status, result.mistake, result.lines[0]) == ("NOT YET", mistake.name, mistake.hint)
        assert len(str(result).splitlines()) <= 3


@pytest.mark.slow
@each_exercise
def test_pairs_of_mistakes_are_refused_and_never_taken_for_another(exercise):
    refused = 0
    for one, other in itertools.combinations(exercise.mistakes, 2):
        changes = {**one.answer.keywords, **other.answer.keywords}
        if len(changes) < len(one.answer.keywords) + len(other.answer.keywords):
            continue  # both change the same part
        pair = partial(one.answer.func, **changes)
        result = examine(exercise, pair)
        assert result.passed == agree(exercise, pair, exercise.solution, [0]), (one.name, other.name)
        refused += not result.passed
        if result.mistake:
            named = next(m for m in exercise.mistakes if m.name == result.mistake)
            assert agree(exercise, pair, named.answer, [0]), (one.name, other.name, result.mistake)
    assert refused > 100


@each_exercise
@pytest.mark.parametrize("seed", range(6))
def test_random_wrong_answers_get_no_diagnosis(exercise, seed):
    noise = torch.Generator().manual_seed(seed)

    def disturbed(*arguments):
        right = ANSWERS[exercise.name](*arguments)
        return right + torch.rand(right.shape, dtype=right.dtype, generator=noise)

    result = examine(exercise, disturbed)
    assert result.status == "NOT YET" and result.mistake is None


# Right answers that nobody would have thought of ------------------------------------------------------------------------


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

    return reduce(step, maps, torch.eye(maps[0].shape[1], dtype=maps[0].dtype))[0]


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


RIGHT = [
    (exercise, answer)
    for exercise in EXERCISES
    for name, answer in list(globals().items())
    if name.startswith(f"{exercise.name}_")
]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("exercise", "answer"), RIGHT, ids=[answer.__name__ for _, answer in RIGHT])
def test_unusual_right_answers_pass(exercise, answer, seed):
    result = examine(exercise, answer, seed=seed)
    assert result.passed, str(result)


@each_exercise
def test_there_are_enough_of_each(exercise):
    assert len(exercise.mistakes) >= 6
    assert sum(of is exercise for of, _ in RIGHT) >= 3


# Other answers ----------------------------------------------------------------------------------------------------------


def in_place(maps, enter):
    for weights in maps:
        weights += torch.eye(weights.shape[-1])
    return rolled(maps, enter)


def popping(maps, enter):
    right = rolled(maps, enter)
    maps.pop()
    return right


def spoils_the_image(model, image, map):
    right = deleted(model, image, map)
    image[:] = 0
    return right


def with_types_mixed(maps, enter):
    product = torch.eye(maps[0].shape[-1])
    for i, weights in enumerate(maps):
        if i == enter and i > 0:
            product = torch.block_diag(torch.ones(1, 1), product)
        product = (weights.mean(0) + torch.eye(weights.shape[-1])) / 2 @ product
    return product[0]


def without_room(maps, enter):
    product = torch.eye(maps[0].shape[-1], dtype=torch.float64)
    for weights in maps:
        product = weights.mean(0) @ product
    return product[0]


@pytest.mark.parametrize(
    ("exercise", "answer", "words"),
    [
        (ROLLOUT, lambda maps, enter: attribution.rollout([m[None] for m in maps])[0, 0], "the package's own solution"),
        (
            DELETION,
            lambda model, image, map: faithfulness.deletion(model, image[None], map[None])[0],
            "the package's own solution",
        ),
        (ROLLOUT, in_place, "changes its input in place"),
        (ROLLOUT, popping, "the list of maps is changed"),
        (ROLLOUT, without_room, "make room for the class token"),
        (ROLLOUT, with_types_mixed, "unless they are told a dtype"),
        (DELETION, lambda model, image, map: deleted(model, image, map).float(), "torch.stack keeps it"),
        (ROLLOUT, lambda maps, enter: None, "Is the `return` missing?"),
        (DELETION, spoils_the_image, "changes its input in place"),
        (DELETION, lambda model, image, map: model(image), "The model takes a batch"),
        (DELETION, lambda model, image, map: deleted(model, image, map).tolist(), "it returns a list"),
    ],
)
def test_what_is_no_answer_is_told_so(exercise, answer, words):
    result = examine(exercise, answer)
    assert words in str(result) and result.status == "NOT YET"


# Other ways to the numbers of a known mistake get its hint; two of them together may be right.
SAME_NUMBERS = [
    (ROLLOUT, "order", lambda maps, enter: rolled([m.mT for m in maps], enter, rows="columns to 1", read="its column")),
    (ROLLOUT, "transposed", lambda maps, enter: rolled([m.mT for m in maps], enter)),
    (ROLLOUT, None, lambda maps, enter: rolled([m.mT for m in maps], enter, turned="rows are keys")),
    (DELETION, "ascending", lambda model, image, map: deleted(model, image, -map)),
    (DELETION, None, lambda model, image, map: deleted(model, image, -map, order="lowest first")),
    (DELETION, None, lambda model, image, map: deleted(model, image, map.exp())),
    (DELETION, "no baseline", lambda model, image, map: deleted(model, image, map, value="log of it", base="none").exp()),
]


@pytest.mark.parametrize(("exercise", "name", "answer"), SAME_NUMBERS)
def test_other_ways_to_the_same_numbers_get_the_same_hint(exercise, name, answer):
    result = examine(exercise, answer)
    assert (result.passed, result.mistake) == (name is None, name), str(result)
