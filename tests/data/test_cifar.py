"""CIFAR: torchvision's files (small stand-ins with checksums of their own), image trees, and a wanted download."""

import hashlib
import pickle
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision import datasets

from spvit_mini.data import AugmentOptions, DataOptions, Key, load_data
from spvit_mini.errors import UserError

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture
def archive(monkeypatch):
    """Make a writer of torchvision's files, six training and two test images; it gives back their pixels."""
    pixels = np.random.RandomState(0).randint(0, 256, size=(8, 3 * 32 * 32), dtype=np.uint8)
    labels = [0, 1, 2, 3, 4, 5, 8, 9]
    contents = {
        "data_batch_1": pickle.dumps({"data": pixels[:3], "labels": labels[:3]}),
        "data_batch_2": pickle.dumps({"data": pixels[3:6], "labels": labels[3:6]}),
        "test_batch": pickle.dumps({"data": pixels[6:], "labels": labels[6:]}),
        "batches.meta": pickle.dumps({"label_names": CLASSES}),
    }
    sums = {name: hashlib.md5(content).hexdigest() for name, content in contents.items()}
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [[n, sums[n]] for n in ("data_batch_1", "data_batch_2")])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": sums["batches.meta"]}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)

    def write(place) -> np.ndarray:
        (place / "cifar-10-batches-py").mkdir(parents=True)
        for name, content in contents.items():
            (place / "cifar-10-batches-py" / name).write_bytes(content)
        return pixels.reshape(8, 3, 32, 32)

    return write


@pytest.mark.parametrize("inside", ["", "cifar10"])
def test_torchvisions_files_are_read(archive, tmp_path, inside):
    pixels = archive(tmp_path / inside)
    data = load_data(DataOptions(name="cifar10", root=tmp_path), seed=0)
    assert data.classes == CLASSES and data.preprocessing.image_size == (32, 32)
    assert data.train.labels.tolist() == [0, 1, 2, 3, 4, 5] and data.val.labels.tolist() == [8, 9]
    mean, std = np.array([0.4914, 0.4822, 0.4465]), np.array([0.2470, 0.2435, 0.2616])
    for part, index, original in ((data.train, 4, 4), (data.val, 1, 7)):
        expected = (pixels[original] / 255 - mean[:, None, None]) / std[:, None, None]
        np.testing.assert_allclose(part[index][0].numpy(), expected, atol=1e-5)


def test_damaged_files_are_refused_before_anything_is_unpickled(archive, tmp_path):
    archive(tmp_path)
    file = tmp_path / "cifar-10-batches-py" / "data_batch_2"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(UserError, match="cifar10 in .*cifar-10-batches-py is damaged or incomplete .*get the dataset again"):
        load_data(DataOptions(name="cifar10", root=tmp_path), seed=0)


@pytest.mark.parametrize("part", ["test", "val"])
def test_an_image_folder_is_held_in_memory(make_image_folder, part):
    tree = make_image_folder("cifar10", {"cat": 3, "dog": 2}, val={"cat": 1, "dog": 1}, part=part, width=32, height=32)
    data = load_data(DataOptions(name="cifar10", root=tree.parent), AugmentOptions(flip=True, crop="shift"), seed=0)
    assert data.classes == ["cat", "dog"] and (len(data.train), len(data.val)) == (5, 2)
    assert data.train.source.images.dtype == torch.uint8
    before = data.train[Key(1, 2)][0]
    for path in tree.glob("*/*/*.jpg"):
        path.unlink()
    assert torch.equal(data.train[Key(1, 2)][0], before)
    larger = DataOptions(name="cifar10", root=tree.parent, image_size=64)
    with pytest.raises(UserError, match="class folder .* holds no images"):
        load_data(larger, seed=0)


def test_another_image_size_is_resized(make_image_folder):
    tree = make_image_folder("cifar10", {"cat": 1}, val={"cat": 1}, width=32, height=32)
    data = load_data(DataOptions(name="cifar10", root=tree.parent, image_size=48), seed=0)
    assert data.val[0][0].shape == data.train[0][0].shape == (3, 48, 48)


def test_evaluation_reads_no_training_images(make_image_folder):
    tree = make_image_folder("cifar10", {"cat": 1}, val={"cat": 1}, width=32, height=32)
    (tree / "train" / "cat" / "000.jpg").write_bytes(b"no image")
    data = load_data(DataOptions(name="cifar10", root=tree.parent), seed=0, train=False)
    assert data.train is None and len(data.val) == 1


def test_splits_with_different_classes_are_refused(make_image_folder):
    tree = make_image_folder("cifar10", {"cat": 1}, val={"dog": 1}, width=32, height=32)
    with pytest.raises(UserError, match="different classes for training and validation"):
        load_data(DataOptions(name="cifar10", root=tree.parent), seed=0)


@pytest.mark.parametrize("name, folder", [("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python")])
def test_missing_files_are_not_downloaded_unasked(tmp_path, monkeypatch, name, folder):
    monkeypatch.setattr(datasets.CIFAR10, "download", lambda self: pytest.fail("downloaded"))
    with pytest.raises(UserError) as caught:
        load_data(DataOptions(name=name, root=tmp_path), seed=0)
    said = str(caught.value)
    assert (
        f"{name} is missing: neither torchvision's files {tmp_path / folder} nor" in said
        and str(tmp_path / name / "train") in said
    )
    assert "data/README.md" in said and "--data.root" in said and "--data.download" in said


def test_a_requested_download(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.CIFAR10, "download", lambda self: archive(tmp_path))
    data = load_data(DataOptions(name="cifar10", root=tmp_path, download=True), seed=0, train=False)
    assert data.val.labels.tolist() == [8, 9]


def test_a_download_without_a_network_is_one_line(tmp_path, monkeypatch):
    def fail(self):
        raise URLError("no route to host")

    monkeypatch.setattr(datasets.CIFAR10, "download", fail)
    with pytest.raises(UserError, match="cifar10 in .* could not be downloaded .*no route to host"):
        load_data(DataOptions(name="cifar10", root=tmp_path, download=True), seed=0)
