"""Datasets by name: their images, which depend on their key alone, and the errors for missing and corrupt files."""

import random
import shutil
from collections import Counter
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from spvit_mini.data import (
    AugmentOptions,
    Compass,
    DataOptions,
    Key,
    Preprocessing,
    Rings,
    Textures,
    TrainBatches,
    load_data,
)
from spvit_mini.errors import UserError

PETS = {"cat": 8, "dog": 4, "eel": 2}
AUGMENTED = AugmentOptions(flip=True, crop="resized", randaugment=(1, 9), random_erasing_prob=0.5, colour=0.2)


@pytest.fixture
def pets(make_image_folder):
    """Return the options of a directory with 14 training and 6 validation images, 32 px."""
    tree = make_image_folder("pets", PETS, val=dict.fromkeys(PETS, 2))
    return DataOptions(name="pets", root=tree.parent, image_size=32)


def break_file(path):
    path.write_bytes(path.read_bytes()[:200])


# --- synthetic datasets

SYNTHETIC = {
    "compass": (Compass, {}),
    "compass6": (Compass, {"rows": 6, "cols": 6, "reach": 3}),
    "compass_easy": (Compass, {"rows": 6, "cols": 6, "directions": 2, "reach": 1, "decoys": 0}),
    "textures": (Textures, {}),
    "textures6": (Textures, {"rows": 6, "cols": 6}),
    "rings": (Rings, {}),
    "rings6": (Rings, {"rows": 6, "cols": 6, "reach": 3}),
}


@pytest.mark.parametrize("name", SYNTHETIC)
def test_a_synthetic_dataset_is_what_its_class_draws(name):
    (kind, sizes), seed = SYNTHETIC[name], 5
    data = load_data(DataOptions(name=name, train_images=30, val_images=20), seed=seed)
    train, val = kind(30, seed=seed, **sizes), kind(20, seed=0, split="val", **sizes)
    assert (data.name, data.classes) == (name, train.classes)
    assert (len(data.train), len(data.val), data.skipped_files) == (30, 20, [])
    for index in (0, 29):
        for key in (index, Key(0, index), Key(7, index, 3)):
            image, label = data.train[key]
            assert torch.equal(image, train.images[index]) and label == int(train.labels[index])
    assert torch.equal(data.val[19][0], val.images[19]) and torch.equal(data.val.labels, val.labels)
    assert torch.equal(data.train.labels, train.labels)
    assert data.preprocessing == Preprocessing(tuple(val.images.shape[-2:]), mean=(0, 0, 0), std=(1, 1, 1))


def test_a_synthetic_dataset_has_the_requested_size():
    data = load_data(DataOptions(name="compass", image_size=48, train_images=4, val_images=4), seed=0)
    assert data.train[0][0].shape == (3, 48, 48) and data.preprocessing.image_size == (48, 48)
    assert torch.equal(data.val[0][0], Compass(4, seed=0, split="val", rows=12, cols=12).images[0])
    with pytest.raises(UserError, match="data.image_size is 30; expected a multiple of 4, the patch size of compass"):
        load_data(DataOptions(name="compass", image_size=30), seed=0)
    with pytest.raises(UserError, match="reach is 4; expected 1 to 3"):
        load_data(DataOptions(name="compass", image_size=16), seed=0)


def test_augmentation_of_a_synthetic_dataset_is_refused():
    with pytest.raises(UserError, match="rings is a synthetic dataset: augmentation would change its labels"):
        load_data(DataOptions(name="rings"), AugmentOptions(flip=True), seed=0)


# --- an ImageFolder directory


def test_the_images_of_a_directory_are_normalised(pets):
    data = load_data(pets, seed=0)
    assert data.classes == ["cat", "dog", "eel"] and data.preprocessing == Preprocessing((32, 32))
    assert data.train.labels.tolist() == [0] * 8 + [1] * 4 + [2] * 2
    assert data.val.labels.tolist() == [0, 0, 1, 1, 2, 2]
    # 24 × 16 pixels: enlarged to 48 × 32, then the middle 32 columns.
    image = Image.open(pets.root / "pets" / "val" / "dog" / "001.jpg").resize((48, 32), Image.Resampling.BICUBIC)
    expected = np.asarray(image)[:, 8:40] / 255
    expected = (expected - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    got, label = data.val[3]
    np.testing.assert_allclose(got.permute(1, 2, 0).numpy(), expected, atol=1e-5)
    assert label == 1 and type(label) is int and got.dtype == torch.float32
    assert torch.equal(data.train[13][0], data.train[Key(5, 13, 1)][0])  # nothing is varied by default


def test_image_size_and_crop_of_a_directory(pets):
    assert load_data(DataOptions(name="pets", root=pets.root), seed=0).val[0][0].shape == (3, 224, 224)
    assert load_data(pets, AUGMENTED, seed=0).preprocessing.crop == 0.875
    assert load_data(pets, AugmentOptions(crop="shift"), seed=0).preprocessing.crop == 1.0
    assert load_data(replace(pets, eval_crop=0.9), AUGMENTED, seed=0).preprocessing.crop == 0.9


def test_a_trained_models_preprocessing_is_used(pets):
    own = Preprocessing((24, 40), mean=(0.1, 0.2, 0.3), crop=0.7, interpolation="bilinear")
    options = DataOptions(name="pets", root=pets.root)
    assert load_data(options, seed=0, preprocessing=own).preprocessing == own
    assert load_data(options, seed=0, preprocessing=own).val[0][0].shape == (3, 24, 40)
    resized = load_data(pets, seed=0, preprocessing=own).preprocessing
    assert resized == Preprocessing((32, 32), mean=(0.1, 0.2, 0.3), crop=0.7, interpolation="bilinear")
    closer = load_data(replace(pets, eval_crop=0.5), seed=0, preprocessing=own).preprocessing
    assert closer == replace(resized, crop=0.5)


def test_the_second_split_may_be_called_test_and_the_root_may_be_the_directory(make_image_folder):
    tree = make_image_folder("pets", {"cat": 2}, val={"cat": 3}, part="test")
    assert len(load_data(DataOptions(name="pets", root=tree.parent), seed=0).val) == 3
    assert len(load_data(DataOptions(name="folder", root=tree), seed=0).val) == 3
    with pytest.raises(UserError, match="If .*pets itself is the ImageFolder directory, use --data.name folder"):
        load_data(DataOptions(name="pets", root=tree), seed=0)


def test_a_loop_over_a_split_ends(pets):
    data = load_data(pets, seed=0)
    assert [label for _, label in islice(data.val, 20)] == data.val.labels.tolist()
    assert len(list(islice(data.train, 20))) == 14


def test_evaluation_needs_no_training_images(make_image_folder):
    tree = make_image_folder("pets", None, val={"cat": 2, "dog": 1})
    options = DataOptions(name="pets", root=tree.parent)
    data = load_data(options, seed=0, train=False)
    assert data.train is None and data.classes == ["cat", "dog"] and data.val.labels.tolist() == [0, 0, 1]
    with pytest.raises(UserError, match="pets has no training images; expected .*/pets/{train,val}/CLASS"):
        load_data(options, seed=0)


def test_the_training_folder_defines_the_classes(make_image_folder):
    tree = make_image_folder("pets", {"cat": 1, "dog": 1, "eel": 1}, val={"eel": 2})
    for train in (True, False):
        data = load_data(DataOptions(name="pets", root=tree.parent), seed=0, train=train)
        assert data.classes == ["cat", "dog", "eel"] and data.val.labels.tolist() == [2, 2]


# --- randomness is a function of (seed, epoch, index, copy)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_key_determines_its_view(pets, seed):
    data, again = load_data(pets, AUGMENTED, seed=seed), load_data(pets, AUGMENTED, seed=seed)
    keys = [Key(epoch, index, copy) for epoch in (0, 1) for index in (0, 9) for copy in (0, 1)]
    views = [data.train[key][0] for key in keys]
    for disturb in (0, 1):
        torch.manual_seed(disturb)
        random.seed(disturb)
        np.random.seed(disturb)
        for key, view in reversed(list(zip(keys, views, strict=True))):
            assert torch.equal(again.train[key][0], view)
    assert len({view.numpy().tobytes() for view in views}) == len(keys)
    other = load_data(pets, AUGMENTED, seed=seed + 1)
    assert not any(torch.equal(other.train[key][0], view) for key, view in zip(keys, views, strict=True))
    assert torch.equal(data.train[9][0], data.train[Key(0, 9, 0)][0])


def test_drawing_images_leaves_the_global_generators_alone(pets):
    data = load_data(pets, AUGMENTED, seed=0)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    data.train[3], data.val[1]
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("held", [False, True])
def test_worker_processes_give_the_same_images(make_image_folder, held):
    tree = make_image_folder("cifar10" if held else "pets", PETS, val=PETS, width=32, height=32)
    options = DataOptions(name=tree.name, root=tree.parent, image_size=32)
    data = load_data(options, AugmentOptions(flip=True, crop="shift", randaugment=(1, 9)), seed=0)
    streams = []
    for workers in (0, 2):
        loader = DataLoader(data.train, batch_sampler=TrainBatches(len(data.train), 4, 0, 2), num_workers=workers)
        streams.append(list(islice(iter(loader), 6)))
    for (images, labels), (others, other_labels) in zip(*streams, strict=True):
        assert torch.equal(images, others) and torch.equal(labels, other_labels)


# --- a part of the training images


@pytest.mark.parametrize("name", ["pets", "compass"])
@pytest.mark.parametrize(
    "fraction, expected", [(0.5, {0: 4, 1: 2, 2: 1}), (0.25, {0: 2, 1: 1, 2: 1}), (0.01, {0: 1, 1: 1, 2: 1})]
)
def test_a_fraction_is_taken_of_each_class(pets, name, fraction, expected):
    if name == "pets":
        options, per_class = pets, expected
    else:
        options, per_class = DataOptions(name="compass", train_images=64), dict.fromkeys(range(8), expected[0])
    whole = load_data(options, seed=0)
    part = load_data(DataOptions(**{**vars(options), "fraction": fraction}), seed=0)
    assert Counter(part.train.labels.tolist()) == per_class
    assert len(part.val) == len(whole.val)
    everything = [whole.train[index][0].numpy().tobytes() for index in range(len(whole.train))]
    taken = [everything.index(part.train[index][0].numpy().tobytes()) for index in range(len(part.train))]
    assert taken == sorted(set(taken))
    assert [whole.train[index][1] for index in taken] == part.train.labels.tolist()


def test_smaller_fractions_are_subsets_of_larger_ones_and_seeds_differ(pets):
    def taken(fraction, seed):
        files = load_data(DataOptions(**{**vars(pets), "fraction": fraction}), seed=seed).train.source
        return {files.files.path(index) for index in range(len(files))}

    for seed in range(5):
        assert taken(0.25, seed) < taken(0.5, seed) < taken(0.75, seed) < taken(1.0, seed)
    assert len({frozenset(taken(0.25, seed)) for seed in range(5)}) > 1


# --- missing and corrupt files


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_training_file_is_an_error_in_one_line(pets, error_of, workers):
    break_file(pets.root / "pets" / "train" / "dog" / "001.jpg")
    data = load_data(pets, AUGMENTED, seed=0)
    said = error_of(DataLoader(data.train, batch_sampler=TrainBatches(14, 7, 0), num_workers=workers))
    assert "pets/train/dog/001.jpg is truncated or damaged" in said and "\n" not in said


@pytest.mark.parametrize("workers", [0, 2])
def test_skipped_files_are_never_loaded_and_counted(pets, workers):
    data = load_data(DataOptions(**{**vars(pets), "on_corrupt_image": "skip"}), seed=0)
    whole = {data.train[index][0].numpy().tobytes(): index for index in range(14)}
    names = {"val/eel/000.jpg", "train/cat/007.jpg", "train/eel/001.jpg"}
    for name in names:
        break_file(pets.root / "pets" / name)

    data = load_data(DataOptions(**{**vars(pets), "on_corrupt_image": "skip"}), seed=0)
    # The validation part knows its bad file from the start, and is exactly one shorter.
    assert data.skipped_files == [str(pets.root / "pets/val/eel/000.jpg")]
    assert data.val.labels.tolist() == [0, 0, 1, 1, 2]
    loader = DataLoader(data.train, batch_sampler=TrainBatches(14, 7, 0), num_workers=workers)
    seen = [whole[image.numpy().tobytes()] for images, _ in islice(iter(loader), 2) for image in images]
    # In place of 7 (cat/007) comes 8 (dog/000), in place of 13 (eel/001) comes 0.
    assert Counter(seen) == Counter([*range(7), 8, *range(8, 13), 0])
    assert set(data.skipped_files) == {str(pets.root / "pets" / name) for name in names} and len(data.skipped_files) == 3


def test_a_view_that_replaces_a_corrupt_image_is_augmented_by_its_own_key(pets):
    options = DataOptions(**{**vars(pets), "on_corrupt_image": "skip"})
    break_file(pets.root / "pets" / "train" / "cat" / "000.jpg")
    data = load_data(options, AUGMENTED, seed=0)
    assert data.train[Key(0, 0)][1] == data.train[Key(0, 1)][1] == 0
    assert not torch.equal(data.train[Key(0, 0)][0], data.train[Key(0, 1)][0])


def test_a_missing_dataset_is_named_with_similar_names(pets, tmp_path):
    with pytest.raises(UserError) as caught:
        load_data(DataOptions(name="pet", root=pets.root), seed=0)
    said = str(caught.value)
    assert f"there is no dataset 'pet': {pets.root}/pet is not a folder. Did you mean pets?" in said
    assert f"{pets.root}/pet/{{train,val}}/CLASS/*.jpg" in said and "data/README.md" in said and "--data.root" in said
    with pytest.raises(UserError, match="Did you mean compass"):
        load_data(DataOptions(name="compas", root=tmp_path / "nowhere"), seed=0)
    with pytest.raises(UserError, match="pets has no validation images; expected"):
        shutil.rmtree(pets.root / "pets" / "val")
        load_data(pets, seed=0)
    (tmp_path / "bare" / "train").mkdir(parents=True)
    (tmp_path / "bare" / "val").mkdir()
    with pytest.raises(UserError, match="bare/train has no class folders"):
        load_data(DataOptions(name="bare", root=tmp_path), seed=0)


def test_an_impossible_seed_is_refused(pets):
    with pytest.raises(UserError, match="the seed is -1; expected an integer from 0"):
        load_data(pets, seed=-1)
