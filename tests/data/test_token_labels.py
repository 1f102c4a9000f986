"""Token labels on disk: found by path, shared, never half; and views that say which part of an image a crop shows."""

import json
import os
import pickle
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from spvit_mini.data import (
    AugmentOptions,
    DataOptions,
    Key,
    Preprocessing,
    TrainBatches,
    TrainTransform,
    load_data,
)
from spvit_mini.data.image_folders import scan_class_folders
from spvit_mini.data.token_labels import TokenLabelInfo, TokenLabels, TokenLabelWriter, read_info
from spvit_mini.errors import UserError

PETS = {"cat": 5, "dog": 3, "eel": 2}
INFO = TokenLabelInfo("nobody in particular", list(PETS), (4, 6), 2)


@pytest.fixture
def pets(make_image_folder):
    """Make a directory of 10 training images."""
    return make_image_folder("pets", PETS, val=dict.fromkeys(PETS, 1))


@pytest.fixture
def labels(pets, tmp_path):
    """Make labels of it: the scores of image i are i, i + 0.5, …; and of "bad" images none."""

    def make(name: str = "labels", *, bad: tuple = (), done: range = range(10), info: TokenLabelInfo = INFO):
        listing = scan_class_folders(pets / "train", on_corrupt_image="error")
        writer = TokenLabelWriter(tmp_path / name, info, listing.paths)
        for place in done:
            scores = np.full((*info.grid, info.top), place) + np.arange(info.top) / 2
            writer.write(place, scores, np.broadcast_to(np.arange(info.top) + place % 2, scores.shape))
        writer.commit(done=[place for place in done if place not in bad], unreadable=list(bad))
        writer.close()
        return tmp_path / name

    return make


def test_a_map_is_found_by_its_images_path(pets, labels):
    listing = scan_class_folders(pets / "train", on_corrupt_image="error")
    order = torch.tensor([7, 2, 9, 0])
    maps = TokenLabels(labels(), listing.select(order))
    for index, place in enumerate(order.tolist()):
        scores, classes = maps[index]
        assert (scores.dtype, classes.dtype) == (torch.float16, torch.int16)
        assert scores.shape == classes.shape == (4, 6, 2)
        assert (scores == torch.tensor([place, place + 0.5])).all()
        assert (classes == torch.tensor([place % 2, place % 2 + 1])).all()
    assert read_info(maps.folder) == maps.info == INFO and len(maps.unreadable) == 0


def test_a_map_is_found_in_composed_and_in_decomposed_characters(pets, tmp_path):
    """Labels made on one system, images on another: the order of the paths differs too."""
    (pets / "train" / "dog").rename(pets / "train" / "e\u0301toile")
    (pets / "train" / "eel").rename(pets / "train" / "fox")
    listing = scan_class_folders(pets / "train", on_corrupt_image="error")
    info = TokenLabelInfo("nobody", listing.classes, (1, 1), 1)
    order = np.argsort(listing.paths)
    assert listing.classes == ["cat", "fox", "étoile"] and os.fsdecode(listing.paths[order[-1]]).startswith("fox")
    writer = TokenLabelWriter(tmp_path / "labels", info, listing.paths[order])
    for row, index in enumerate(order):
        writer.write(row, np.full((1, 1, 1), index), np.zeros((1, 1, 1)))
    writer.commit(done=list(range(10)))
    writer.close()
    (pets / "train" / "e\u0301toile").rename(pets / "train" / "étoile")
    composed = scan_class_folders(pets / "train", on_corrupt_image="error")
    assert (composed.paths != listing.paths).sum() == 3
    read = TokenLabels(tmp_path / "labels", composed)
    assert [int(read[index][0]) for index in range(10)] == list(range(10))


def test_a_folder_is_as_small_as_it_says(labels):
    folder = labels()
    assert sorted(path.name for path in folder.iterdir()) == ["images.npy", "labels.json", "maps.npy", "status.npy"]
    assert 10 * 4 * 6 * 2 * 4 < (folder / "maps.npy").stat().st_size < 10 * 4 * 6 * 2 * 4 + 500
    said = json.loads((folder / "labels.json").read_text())
    assert (said["classes"], said["grid"], said["top"], said["images"]) == (list(PETS), [4, 6], 2, 10)


def test_many_classes_need_wider_numbers():
    assert TokenLabelInfo("", ["x"] * 32_767, (1, 1), 1).record_dtype["classes"].base == np.int16
    assert TokenLabelInfo("", ["x"] * 32_769, (1, 1), 1).record_dtype["classes"].base == np.int32


def test_another_process_opens_the_file_itself(pets, labels):
    maps = TokenLabels(labels(), scan_class_folders(pets / "train", on_corrupt_image="error"))
    sent = pickle.dumps(maps)
    assert b"\x00" * 500 not in sent and len(sent) < 3000  # none of the 960 values
    there = pickle.loads(sent)
    assert all(torch.equal(a, b) for i in range(10) for a, b in zip(maps[i], there[i], strict=True))


# --- what is refused


def test_what_is_refused_when_reading(pets, labels, tmp_path):
    listing = scan_class_folders(pets / "train", on_corrupt_image="error")

    def said(folder, listing=listing):
        with pytest.raises(UserError) as error:
            TokenLabels(folder, listing)
        return str(error.value)

    assert "holds no token labels (labels.json: No such file" in said(tmp_path / "nowhere")
    folder = labels()
    assert "labels of 3 classes, but the data have 2" in said(folder, replace(listing, classes=["cat", "dog"]))
    renamed = said(folder, replace(listing, classes=["cat", "dogs", "eel"]))
    assert f"class 1 is 'dog' in {folder}, but 'dogs' in the data. Did you mean dog?" in renamed
    unknown = replace(listing, paths=np.array([*listing.paths[:-1], b"eel/zzz.jpg"]))
    assert f"{folder} has no map of eel/zzz.jpg; label these images" in said(folder, unknown)
    unfinished = said(labels("unfinished", done=range(4)))
    assert "unfinished is not finished: it lacks cat/004.jpg (6 of 10 images); continue with the command" in unfinished

    text = (folder / "labels.json").read_text()
    for content, words in (
        (text[: len(text) // 2], "does not describe token labels"),
        (text.replace('"teacher"', '"taught"'), "does not describe token labels"),
        (text.replace("labels 1", "labels 9"), "is 'spvit_mini token labels 9'; expected 'spvit_mini token labels 1'"),
        (text.replace('"top": 2', '"top": 3'), "don't belong together"),
    ):
        (folder / "labels.json").write_text(content)
        assert words in said(folder)


@pytest.mark.parametrize("name", ["images", "status", "maps"])
def test_a_truncated_file_is_refused(pets, labels, name):
    path, files = labels() / f"{name}.npy", scan_class_folders(pets / "train", on_corrupt_image="error")
    content = path.read_bytes()
    for part in (0.0, 0.02, 0.5, 0.999):
        path.write_bytes(content[: int(part * len(content))])
        with pytest.raises(UserError, match=f"{name}.npy is truncated or damaged .*; copy the folder again"):
            TokenLabels(path.parent, files)
    path.unlink()
    with pytest.raises(UserError, match=f"cannot read .*{name}.npy: No such file"):
        TokenLabels(path.parent, files)


@pytest.mark.parametrize("field, value", [("classes", 3), ("classes", -1), ("scores", np.nan), ("scores", np.inf)])
def test_a_damaged_map_is_refused(pets, labels, field, value):
    folder = labels()
    maps = np.load(folder / "maps.npy", mmap_mode="r+")
    maps[field][6, 3, 5, 1] = value
    maps.flush()
    read = TokenLabels(folder, scan_class_folders(pets / "train", on_corrupt_image="error"))
    assert read[5][0].shape == (4, 6, 2)
    with pytest.raises(UserError, match="map 6 in .*maps.npy is damaged"):
        read[6]


@pytest.mark.parametrize(
    "change, said",
    [
        ({"teacher": "somebody"}, "teacher: nobody in particular, not somebody"),
        ({"classes": ["cat", "dog", "elk"]}, "classes: 3 classes, not 3, or others"),
        ({"grid": (4, 5)}, r"grid: \(4, 6\), not \(4, 5\)"),
        ({"top": 1}, "top: 2, not 1"),
    ],
)
def test_labels_of_another_kind_are_not_mixed_in(labels, pets, change, said):
    folder = labels(done=range(3))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UserError, match=f"holds labels of another kind .{said}.; choose a new folder"):
        TokenLabelWriter(folder, replace(INFO, **change), scan_class_folders(pets / "train", on_corrupt_image="error").paths)
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_folder_of_other_things_or_images_is_refused(labels, pets, tmp_path):
    paths = scan_class_folders(pets / "train", on_corrupt_image="error").paths
    with pytest.raises(UserError, match="holds the labels of other images"):
        TokenLabelWriter(labels(), INFO, paths[1:])
    with pytest.raises(UserError, match=r"pets contains other files \(train\); choose a new folder"):
        TokenLabelWriter(pets, INFO, paths)
    with pytest.raises(UserError, match="cannot write labels to"):
        TokenLabelWriter(pets / "train" / "cat" / "000.jpg" / "below", INFO, paths)


# --- views


def test_images_come_with_their_maps_and_are_the_same_without(pets, labels):
    options = DataOptions(name="pets", root=pets.parent, image_size=32)
    plain = load_data(options, AugmentOptions(flip=True, crop="resized"), seed=3).train
    data = load_data(options, AugmentOptions(flip=True, crop="resized"), seed=3, token_labels=labels()).train
    for key in (4, Key(2, 7, 1)):
        image, label = plain[key]
        again, same, view = data[key]
        assert torch.equal(image, again) and label == same
        index = key if isinstance(key, int) else key.index
        assert (view.scores[..., 0] == index).all() and view.box.dtype == torch.float32
    with pytest.raises(UserError, match="but the data have 3"):
        load_data(options, seed=0, token_labels=labels("other", info=replace(INFO, classes=["cat", "dog"])))


def test_two_workers_give_what_none_gives(pets, labels):
    options = DataOptions(name="pets", root=pets.parent, image_size=32)
    augment = AugmentOptions(flip=True, crop="resized", random_erasing_prob=0.5)
    data = load_data(options, augment, seed=0, token_labels=labels()).train
    batches = []
    for workers in (0, 2):
        loader = DataLoader(data, batch_sampler=TrainBatches(10, 4, 0), num_workers=workers)
        batches.append(list(islice(loader, 5)))
    for (images, numbers, view), (images2, numbers2, view2) in zip(*batches, strict=True):
        assert torch.equal(images, images2) and torch.equal(numbers, numbers2)
        assert view._fields == ("scores", "classes", "box", "is_flipped")
        assert [tuple(part.shape) for part in view] == [(4, 4, 6, 2), (4, 4, 6, 2), (4, 4), (4,)]
        assert view.is_flipped.dtype == torch.bool
        assert all(torch.equal(part, part2) for part, part2 in zip(view, view2, strict=True))


def test_the_map_is_of_the_image_that_replaces_a_corrupt_one(pets, labels, caplog):
    (pets / "train" / "dog" / "001.jpg").write_bytes(b"no image")  # number 6; unknown until it is read
    options = DataOptions(name="pets", root=pets.parent, image_size=32, on_corrupt_image="skip")
    data = load_data(options, seed=0, token_labels=labels(bad=(2,)))  # number 2: known from the labels
    assert data.skipped_files == [str(pets / "train" / "cat" / "002.jpg")] and caplog.text.count("cat/002.jpg") == 1
    assert [int(data.train[i][2].scores[0, 0, 0]) for i in (1, 2, 5, 6)] == [1, 3, 5, 7]
    assert [data.train[i][1] for i in (2, 6)] == [0, 1] and len(data.skipped_files) == 2
    fatal = replace(options, on_corrupt_image="error")
    with pytest.raises(UserError, match="cat/002.jpg has no token labels in .*: it was unreadable"):
        load_data(fatal, seed=0, token_labels=labels(bad=(2,)))


@pytest.mark.parametrize("name, said", [("compass", "files, but compass has none"), ("cifar10", "--data.root ROOT/cifar10")])
def test_datasets_without_files_have_no_token_labels(name, said, tmp_path):
    with pytest.raises(UserError, match=said):
        load_data(DataOptions(name=name, root=tmp_path), seed=0, token_labels=tmp_path)


def test_shifted_crops_have_no_token_labels(pets, labels):
    options = DataOptions(name="pets", root=pets.parent, image_size=32)
    with pytest.raises(UserError, match="augment.crop is shift; expected resized or none: token labels"):
        load_data(options, AugmentOptions(crop="shift"), seed=0, token_labels=labels())


@pytest.mark.parametrize("size", [(96, 64), (64, 96), (64, 64)], ids=str)
@pytest.mark.parametrize("crop", ["none", "resized"])
def test_the_box_is_where_the_pixels_come_from(size, crop):
    """Red tells the row and green the column, from 0 to 1 over the image: so each pixel of a crop says where it was."""
    rows, cols = ((torch.arange(side) + 0.5) / side for side in size)
    image = torch.stack(torch.broadcast_tensors(rows[:, None], cols[None], torch.zeros(1, 1)))
    options = AugmentOptions(flip=True, crop=crop, crop_scale=(0.2, 0.9))
    preprocessing = Preprocessing((32, 48), mean=(0, 0, 0), std=(1, 1, 1), interpolation="bilinear")
    torch.manual_seed(0)
    transform, mirrors = TrainTransform(options, preprocessing), 0
    for _ in range(20):
        pixels, (top, left, bottom, right), mirrored = transform.transform_with_box(image)
        mirrors += mirrored
        assert -1e-9 < top < bottom < 1 + 1e-9 and -1e-9 < left < right < 1 + 1e-9
        down = (top + (bottom - top) * (torch.arange(32) + 0.5) / 32)[:, None].expand(32, 48)
        across = (left + (right - left) * (torch.arange(48) + 0.5) / 48).expand(32, 48)
        expected = torch.stack([down, across.flip(-1) if mirrored else across])
        # Bilinear interpolation nearly keeps a slope, but for the outermost pixels. A pixel of the image is 0.0104 and more.
        torch.testing.assert_close(pixels[:2, 2:-2, 2:-2], expected[:, 2:-2, 2:-2], atol=0.002, rtol=0)
    assert 0 < mirrors < 20
