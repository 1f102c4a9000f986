"""Images held out of the training images: of every class, none twice, and none of the validation split."""

from collections import Counter
from dataclasses import replace

import pytest

from spvit_mini.data import DataOptions, load_data
from spvit_mini.errors import UserError

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


@pytest.mark.parametrize("holdout", [0.01, 0.25, 0.5, 0.75, 0.99])
@pytest.mark.parametrize("fraction", [0.01, 0.5, 1.0])
def test_small_classes_keep_an_image_for_training(make_image_folder, caplog, holdout, fraction):
    counts = {"one": 1, "two": 2, "three": 3, "ten": 10}
    folder = make_image_folder("pets", counts, val={"one": 1}, width=8, height=8)
    options = DataOptions(name=folder.name, root=folder.parent, image_size=8, holdout=holdout, fraction=fraction)
    data = load_data(options, seed=0)
    held, trained = (Counter(data.classes[label] for label in part.labels.tolist()) for part in (data.val, data.train))
    for name, count in counts.items():
        expected = min(count - 1, max(1, round(holdout * count)))
        assert held[name] == expected and trained[name] == max(1, round(fraction * (count - expected)))
    (message,) = caplog.messages
    assert message.startswith("1 of 4 classes, one first: one image each, which stays in training; none is held out")


def test_classes_of_one_image_alone_cannot_be_held_out(make_image_folder):
    folder = make_image_folder("pets", {"cat": 1, "dog": 1}, val={"cat": 1}, width=8, height=8)
    options = DataOptions(name=folder.name, root=folder.parent, image_size=8, holdout=0.25)
    with pytest.raises(UserError, match=r"data.holdout is 0.25; expected a class with at least two training images.* Use 0, and"):
        load_data(options, seed=0)
    assert len(load_data(replace(options, holdout=0.0), seed=0).train) == 2
