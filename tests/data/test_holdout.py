"""Images held out of the training part: every class, none twice, and the set's own validation part not looked at."""

from collections import Counter
from dataclasses import replace

import pytest

from spvit_mini.data import DataOptions, load_data
from spvit_mini.errors import UserError

COMPASS = DataOptions(name="compass6", train_images=80, val_images=16)


def images(part) -> list[bytes]:
    return [part[index][0].numpy().tobytes() for index in range(len(part))]


@pytest.fixture(params=["made", "tree"])
def options(request, make_tree):
    if request.param == "made":
        return COMPASS
    tree = make_tree("pets", {"cat": 10, "dog": 5}, val={"cat": 2, "dog": 2}, width=8, height=8)
    return DataOptions(name=tree.name, root=tree.parent, image_size=8)


def test_the_training_images_are_split_and_the_validation_images_are_none_of_the_set_s_own(options):
    whole, split = load_data(options, seed=3), load_data(replace(options, holdout=0.2), seed=3)
    assert sorted(images(split.train) + images(split.val)) == sorted(images(whole.train))
    assert not set(images(split.val)) & set(images(whole.val))
    before, held = Counter(whole.train.labels.tolist()), Counter(split.val.labels.tolist())
    assert held == {label: round(0.2 * count) for label, count in before.items()}


def test_the_split_is_the_seed_s_and_a_fraction_is_taken_of_the_rest(options):
    def held(seed, **others):
        return images(load_data(replace(options, holdout=0.2, **others), seed=seed).val)

    assert held(3) == held(3) == held(3, fraction=0.5) != held(4)
    rest = images(load_data(replace(options, holdout=0.2), seed=3).train)
    half = images(load_data(replace(options, holdout=0.2, fraction=0.5), seed=3).train)
    assert len(half) < len(rest) and set(half) < set(rest)


def test_evaluation_alone_finds_the_same_images(options):
    options = replace(options, holdout=0.2)
    alone = load_data(options, seed=3, train=False)
    assert alone.train is None and images(alone.val) == images(load_data(options, seed=3).val)


@pytest.mark.parametrize("holdout", [-0.1, 1.0])
def test_a_part_that_is_none_is_refused(holdout):
    with pytest.raises(UserError, match="data.holdout is .*; expected a number of at least 0 and below 1"):
        load_data(replace(COMPASS, holdout=holdout), seed=0)
