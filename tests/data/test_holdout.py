"""Images held out of the training images: of every class, none twice, and none of the validation split."""

from collections import Counter
from dataclasses import replace

import pytest

from spvit_mini.data import DataOptions, load_data

COMPASS = DataOptions(name="compass6", train_images=80, val_images=16)


def images(part) -> list[bytes]:
    return [part[index][0].numpy().tobytes() for index in range(len(part))]


@pytest.fixture(params=["synthetic", "directory"])
def options(request, make_image_folder):
    if request.param == "synthetic":
        return COMPASS
    folder = make_image_folder("pets", {"cat": 10, "dog": 5}, val={"cat": 2, "dog": 2}, width=8, height=8)
    return DataOptions(name=folder.name, root=folder.parent, image_size=8)


def test_the_training_images_are_divided_and_the_validation_split_is_not_used(options):
    whole, split = load_data(options, seed=3), load_data(replace(options, holdout=0.2), seed=3)
    assert sorted(images(split.train) + images(split.val)) == sorted(images(whole.train))
    assert not set(images(split.val)) & set(images(whole.val))
    before, held = Counter(whole.train.labels.tolist()), Counter(split.val.labels.tolist())
    assert held == {label: round(0.2 * count) for label, count in before.items()}


def test_the_split_depends_on_the_seed_and_fraction_applies_to_the_rest(options):
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
