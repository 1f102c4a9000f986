"""Lesson 09's bank of mistakes: each is refused with its own hint, nothing else is, and right answers pass."""

import itertools
from functools import partial

import pytest
import torch

from spvit_course.checks.engine import examine, same
from spvit_course.checks.lesson_09 import EXERCISES, MIX_LABELS, in_double, unmix
from spvit_course.checks.lesson_09_answers import blended, summed, swapped, undone
from spvit_course.checks.lesson_09_cases import cut, draws
from spvit_mini.training import token_loss
from spvit_mini.vit import ViT, ViTConfig

from .bank import agree, each_mistake, outcomes, table

SEEDS = range(4)
ANSWERS = {"mixtoken": swapped, "unmix": undone, "mix_labels": blended, "dense_loss": summed}
each_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)


# The cases, in order.
# mixtoken, unmix: a wide grid, a tall one, a box in a corner, one image, one row, an empty box, a box of all patches, one
# patch. mix_labels, boxes as they are drawn: a wide grid, a tall one, a square one, one image, one row (the box is empty),
# an empty box, a large one, one patch (empty). dense_loss: more classes than patches, targets that are one class, as many
# patches as classes, one image, one patch, two classes, logits far apart.
# "x": another result than the right one, "!": an error, ".": the right result, so nothing to be learned from the case.
TOLD_APART = """
mixtoken
    partner rolled                      xx..x.x.
    partner rolled back                 xx..x.x.
    the first for all                   xxx.x.xx
    nothing exchanged                   xxx.x.xx
    the mean                            xxx.x.xx
    features reversed                   xxxxx.xx
    mirrored                            xxxxx.xx
    upside down                         xxx.x.xx
    all axes reversed                   xxxxx.xx
    places reversed                     xxxxx.x.
    outside swapped                     xxx.xxxx
    everywhere                          xxx.xx..
    rows or columns                     xxx.xx..
    half the batch                      xxx.x.xx
    left, top, right, bottom            xxx.x.x.
    top, bottom, left, right            xxx..xxx
    left, right, top, bottom            xxx.xxxx
    top, left, height, width            xx..xx..
    ends included                       xxx.xx..
    rows only                           xxx.x...
    columns only                        xxx..x..
    emptied                             xxxxx.xx
unmix
    partner rolled                      xx..x.x.
    partner rolled back                 xx..x.x.
    the first for all                   xxx.x.xx
    nothing exchanged                   xxx.x.xx
    the mean                            xxx.x.xx
    features reversed                   xxxxx.xx
    mirrored                            xxxxx.xx
    upside down                         xxx.x.xx
    all axes reversed                   xxxxx.xx
    places reversed                     xxxxx.x.
    outside swapped                     xxx.xxxx
    everywhere                          xxx.xx..
    rows or columns                     xxx.xx..
    half the batch                      xxx.x.xx
    left, top, right, bottom            xxx.x.x.
    top, bottom, left, right            xxx..xxx
    left, right, top, bottom            xxx.xxxx
    top, left, height, width            xx..xx..
    ends included                       xxx.xx..
    rows only                           xxx.x...
    columns only                        xxx..x..
    column by column                    xxx.....
    sides swapped                       xx..x.x.
    reshaped                            xxx.x...
    classes last                        xxx.x.xx
    a grid                              xxxxxxxx
    classes first                       xxxxxxxx
mix_labels
    λ drawn                             xxx.xxxx
    sides from λ                        xxx...x.
    even sides from λ                   x.....x.
    numbers of patches                  xxxxxxx.
    λ drawn, inverted                   xxx.xxxx
    inverted                            xxx.xxxx
    unmixed                             xxx...x.
    half and half                       xxx.xxxx
    the greater part                    xxx...x.
    the height                          xxx...x.
    the width                           xxx.x.x.
    root of the area                    xxx...x.
    ends included                       xxx.xxxx
    top, bottom, left, right            xxx...x.
    top, left, height, width            xxx..xx.
    R²                                  xx......
    C²                                  xx......
    a count                             xxx...x.
    added                               xxxx..x.
    partner whole                       xxxxxxxx
    partner rolled                      xx....x.
    partner rolled back                 xx....x.
    classes reversed                    xxxx..x.
    partner missing                     xxxx..x.
dense_loss
    w missing                           xxxxxxx
    w on the class head                 xxxxxxx
    w on both                           xxxxxxx
    1 − w and w                         xxxxxxx
    halved                              xxxxxxx
    class head only                     xxxxxxx
    dense head only                     xxxxxxx
    dense head only, no w               xxxxxxx
    sum over patches                    xxxx.xx
    sum over images                     xxx.xxx
    sum of the patches                  xxxxxxx
    sum of the classes' part            xxx.xxx
    sums                                xxxxxxx
    mean over classes                   xxxxxxx
    mean over classes, class token      xxxxxxx
    means over classes                  xxxxxxx
    patches for classes                 xxxxxxx
    softmax over patches                xxxxxxx
    softmax over images                 xxxxxxx
    softmax twice, patches              xxxxxxx
    softmax twice, class token          xxxxxxx
    softmax twice                       xxxxxxx
    log of a softmax                    ......x
    softmax of the maps                 xxxxxxx
    no log                              xxxxxxx
    no softmax                          xxxxxxx
    sign                                xxxxxxx
    hard maps                           xxxxxxx
    hard labels                         x.xxxxx
    hard targets                        xxxxxxx
    maps across                         !!x!!!!
    logits across                       !!x!!!!
    the image's label for each patch    xxxxxxx
    the mean map for each patch         xxxx.xx
    pooled                              xxxx.xx
    divergence                          xxxxxxx
    divergence of the patches           xxxxxxx
"""


@pytest.mark.parametrize("seed", SEEDS)
def test_the_table_of_what_each_case_tells(seed):
    assert table(EXERCISES, seed, width=36) == TOLD_APART


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


@each_exercise
@pytest.mark.slow
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
    assert refused > 40


@each_exercise
@pytest.mark.parametrize("seed", range(6))
def test_random_wrong_answers_get_no_diagnosis(exercise, seed):
    noise = torch.Generator().manual_seed(seed)

    def disturbed(*arguments):
        right = ANSWERS[exercise.name](*arguments)
        return right + torch.rand(right.shape, dtype=right.dtype, generator=noise)

    result = examine(exercise, disturbed)
    assert result.status == "NOT YET" and result.mistake is None


# The checks' own ways are the package's --------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_package_s_up_to_its_precision(smoothing):
    torch.manual_seed(0)
    cls, dense = torch.randn(3, 5), torch.randn(3, 4, 5)
    y, maps = torch.randn(3, 5).softmax(-1), torch.randn(3, 4, 5).softmax(-1)
    softer = [(1 - smoothing) * target + smoothing / 5 for target in (y, maps)]
    found = in_double(cls, dense, *softer, 0.5)
    expected = token_loss.dense_loss(cls, dense, y, maps, dense_weight=0.5, smoothing=smoothing)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("box", [(0, 1, 2, 3), (1, 0, 3, 1), (1, 1, 1, 2)])
def test_what_is_unmixed_is_what_the_package_s_model_gives(box):
    torch.manual_seed(0)
    config = ViTConfig(image_size=(12, 16), depth=1, dim=16, heads=2, pool="class", dense_head=True)
    model, images = ViT(config).eval(), torch.randn(3, 3, 12, 16)
    with torch.no_grad():
        tokens = model.forward_features(images, mix=box)
        expected = model(images, dense=True, mix=box)[1]
    torch.testing.assert_close(unmix(model.dense_head(tokens[:, 1:]), box, (3, 4)), expected)
    torch.testing.assert_close(undone(model.dense_head(tokens[:, 1:]), box, (3, 4)), expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_labels_are_mixed_as_the_tokens_are(seed):
    """Count, by swapped tokens that name their image, of which image each patch is."""
    for case in MIX_LABELS.cases(torch.Generator().manual_seed(seed)):
        y, box, grid, _ = case.arguments
        names = torch.arange(len(y))[:, None, None, None].expand(-1, 1, *grid)
        mixed = swapped(names, box).flatten(1)
        shares = torch.stack([(mixed == image).double().mean(1) for image in range(len(y))], dim=1)  # (B, B)
        torch.testing.assert_close(blended(*case.arguments), shares @ y)


class Given:
    """Stand in for a RandomState: the λ and the centre that it is to draw."""

    def __init__(self, lam, centre):
        self.lam, self.centre = lam, iter(centre)

    def beta(self, *_):
        return self.lam

    def randint(self, _):
        return next(self.centre)


@pytest.mark.parametrize("seed", SEEDS)
def test_boxes_of_labels_are_boxes_that_training_draws(seed):
    drawn = [
        (cut(grid, centre, lam), token_loss.draw_box(grid, 1.0, random=Given(lam, centre)))
        for _, grid, centre, lam in draws(torch.Generator().manual_seed(seed))
    ]
    assert all(ours == theirs for ours, theirs in drawn)
    cases = MIX_LABELS.cases(torch.Generator().manual_seed(seed))
    assert [case.arguments[1] for case in cases] == [box for box, _ in drawn]
