"""The tensor backend of natural images against the PIL backend: files, draws, pixels, and the effect of resizing."""

import io
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import default_collate

from spvit_mini.data import (
    AugmentOptions,
    DataOptions,
    Key,
    Preprocessing,
    TrainBatches,
    TrainTransform,
    load_data,
)
from spvit_mini.data.augment import TensorTrainTransform
from spvit_mini.data.device_transform import DeviceTransform, collate
from spvit_mini.data.images import CorruptImageError, read_image, read_image_tensor
from spvit_mini.data.seeding import fork_torch_rng

from .conftest import encode, make_image, noise

CPU = torch.device("cpu")
PUBLISHED = AugmentOptions(flip=True, crop="resized", randaugment=(2, 27), randaugment_prob=0.5, random_erasing_prob=0.25)


def as_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def both(options, preprocessing, images, *, seed):
    """Augment images with both backends and the same draws: two batches (B, 3, height, width)."""
    pil = TrainTransform(options, preprocessing)
    tensor = pickle.loads(pickle.dumps(TensorTrainTransform(options, preprocessing)))  # as for worker processes
    pil_images, items = [], []
    for index, image in enumerate(images):
        with fork_torch_rng(seed, index):
            pil_images.append(pil(image))
        with fork_torch_rng(seed, index):
            items.append((tensor(as_tensor(image)), index))
    batch, labels = collate(items)
    assert labels.tolist() == list(range(len(images)))
    return torch.stack(pil_images), DeviceTransform(preprocessing)(batch, CPU)


# ImageFiles


@pytest.mark.parametrize(
    "kind, mode, options",
    [
        ("JPEG", "RGB", {"quality": 90}),
        ("JPEG", "RGB", {"quality": 75, "subsampling": 0}),
        ("JPEG", "RGB", {"quality": 95, "subsampling": 1, "progressive": True}),
        ("JPEG", "L", {}),
        ("JPEG", "CMYK", {}),
        ("PNG", "RGB", {}),
        ("PNG", "RGBA", {}),
        ("GIF", "P", {}),
        ("PPM", "RGB", {}),
        ("PPM", "L", {}),
        ("PNG", "I;16", {}),
    ],
)
def test_a_file_has_the_same_pixels_with_both_backends(kind, mode, options, tmp_path):
    image = make_image(3, width=61, height=45)
    image = Image.fromarray(np.arange(61 * 45, dtype=np.uint16).reshape(45, 61) * 20) if mode == "I;16" else image.convert(mode)
    path = tmp_path / "image"
    path.write_bytes(encode(image, kind, **options))
    pixels = read_image_tensor(path)
    assert pixels.dtype == torch.uint8 and torch.equal(pixels, as_tensor(read_image(path)))


def test_without_torchvision_s_decoder_pillow_reads_the_same(tmp_path, monkeypatch):
    path = tmp_path / "image.jpg"
    path.write_bytes(encode(make_image(3)))
    pixels = read_image_tensor(path)
    monkeypatch.setattr("spvit_mini.data.images._jpeg_decoder", lambda: None)
    assert torch.equal(read_image_tensor(path), pixels)


def test_a_corrupt_file_is_named_as_with_the_pil_backend(corrupt_file):
    path, reason = corrupt_file
    with pytest.raises(CorruptImageError) as pil:
        read_image(path)
    with pytest.raises(CorruptImageError) as tensor:
        read_image_tensor(path)
    assert reason in str(tensor.value) and str(tensor.value) == str(pil.value)


@pytest.mark.parametrize("kind", ["JPEG", "PPM"])
def test_a_truncated_file_is_corrupt_with_both_backends_or_equal(kind, tmp_path):
    whole = encode(make_image(1, width=40, height=30), kind)
    path = tmp_path / "cut"
    for length in range(1, len(whole) + 1, 97 if kind == "PPM" else 13):
        path.write_bytes(whole[:length])
        try:
            expected = as_tensor(read_image(path))
        except CorruptImageError:
            with pytest.raises(CorruptImageError):
                read_image_tensor(path)
        else:
            assert torch.equal(read_image_tensor(path), expected)


def test_bytes_after_the_pixels_of_an_uncompressed_file_are_ignored(tmp_path):
    image = make_image(2)
    (tmp_path / "image.ppm").write_bytes(b"P6\n# made by hand\n24 16\n255\n" + image.tobytes() + b"more")
    assert torch.equal(read_image_tensor(tmp_path / "image.ppm"), as_tensor(image))


# InMemoryImages


@pytest.mark.parametrize(
    "options",
    [
        AugmentOptions(),
        AugmentOptions(flip=True),
        AugmentOptions(flip=True, crop="shift", random_erasing_prob=0.5),
        AugmentOptions(flip=True, crop="shift", colour=0.4),
        AugmentOptions(flip=True, randaugment=(2, 27), randaugment_prob=0.5, random_erasing_prob=0.25, colour=0.2),
        AugmentOptions(flip=True, randaugment=(3, 9)),
    ],
)
def test_without_resizing_both_backends_agree_to_the_last_bit(options):
    images = [make_image(i, width=32, height=24) for i in range(20)] + [noise(24, 32, i) for i in range(20)]
    pil, tensor = both(options, Preprocessing((24, 32)), images, seed=1)
    assert torch.equal(pil, tensor)
    assert tensor.is_contiguous()


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("crop", ["none", "resized"])
def test_a_resized_image_differs_by_the_rounding_of_the_filter(crop, interpolation):
    """Smooth images resemble natural ones; noise is the worst case, because its neighbours differ by the full range.

    If one side grows and the other shrinks, Pillow and torch also resize the sides in different order, and clip to black and
    white in between.
    """
    options = AugmentOptions(flip=True, crop=crop, random_erasing_prob=0.25)
    preprocessing = Preprocessing((48, 64), mean=(0, 0, 0), std=(1, 1, 1), interpolation=interpolation)
    for images, most, differ in (
        ([make_image(i, width=110, height=75) for i in range(20)], 2, 0.02),
        ([noise(90, 110, i) for i in range(20)], 25, 0.15),
    ):
        pil, tensor = both(options, preprocessing, images, seed=0)
        levels = (255 * (pil - tensor)).abs().round()
        assert levels.max() <= most and (levels > 1).float().mean() < 0.01
        assert 0 < (levels > 0).float().mean() < differ


def test_the_published_augmentation_crops_flips_and_erases_equally_with_both_backends():
    images = [make_image(i, width=96, height=80) for i in range(40)]
    pil, tensor = both(PUBLISHED, Preprocessing((64, 64)), images, seed=3)
    # Equalising and posterising make of a level of difference many; hence most pixels, and not each.
    near = ((pil - tensor).abs() < 2.5 / 255 / 0.224).float().mean(dim=(1, 2, 3))
    assert (near > 0.97).float().mean() > 0.85 and near.mean() > 0.97


def test_box_and_flip_are_equal_with_both_backends():
    pil, tensor = (kind(PUBLISHED, Preprocessing((16, 16))) for kind in (TrainTransform, TensorTrainTransform))
    for index in range(20):
        image = make_image(index)
        told = []
        for transform, given in ((pil, image), (tensor, as_tensor(image)), (tensor, image)):
            with fork_torch_rng(7, index):
                told.append(transform.transform_with_box(given)[1:])
        assert told[0] == told[1] == told[2]


# Batches


def test_only_partial_batches_are_collated_differently():
    items = [(torch.full((3, 2, 2), float(i)), i) for i in range(3)]
    assert all(torch.equal(a, b) for a, b in zip(collate(items), default_collate(items), strict=True))


@pytest.fixture
def folder(make_image_folder):
    return make_image_folder("pets", {"cat": 7, "dog": 6}, val={"cat": 2, "dog": 2}, width=40, height=30)


def load_train(folder, **options):
    name = {"name": folder.name, "root": folder.parent, "image_size": 24}
    return load_data(DataOptions(**name, **options), PUBLISHED, seed=5).train


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_loader_gives_the_batches_that_items_make(folder, workers):
    train = load_train(folder, backend="tensor")
    order = TrainBatches(len(train), 4, 5, repeats=2)
    batches = train.load_batches(order, num_workers=workers)
    for keys, (images, labels) in zip(order, (next(batches) for _ in range(7)), strict=False):
        expected, expected_labels = collate([train[key] for key in keys])
        assert all(torch.equal(a, b) for a, b in zip(images, expected, strict=True))
        assert torch.equal(labels, expected_labels)
        finished = train.to_device(images, CPU)
        assert finished.shape == (4, 3, 24, 24) and finished.dtype == torch.float32
        # One by one it is the same: nothing is drawn for a batch.
        alone = [train.to_device(collate([train[key]])[0], CPU) for key in keys]
        assert torch.equal(finished, torch.cat(alone))


def test_validation_is_that_of_the_pil_backend(folder):
    data = [load_data(DataOptions(name="pets", root=folder.parent, image_size=24, backend=backend, holdout=0.3), seed=0)
            for backend in ("pil", "tensor")]  # fmt: skip
    for (image, label), (other, other_label) in zip(*(part.val for part in data), strict=True):
        assert torch.equal(image, other) and label == other_label


def test_a_corrupt_file_is_skipped_or_an_error_as_with_the_pil_backend(folder, error_of):
    corrupt = folder / "train" / "cat" / "002.jpg"
    corrupt.write_bytes(corrupt.read_bytes()[:300])
    strict = load_train(folder, backend="tensor")
    assert "002.jpg is truncated or damaged" in error_of(strict.load_batches(TrainBatches(len(strict), 2, 0)))
    skipping = load_train(folder, backend="tensor", on_corrupt_image="skip")
    assert skipping[Key(0, 2)][1] == 0 and torch.equal(
        skipping.source[2][0], as_tensor(Image.open(io.BytesIO((folder / "train" / "cat" / "003.jpg").read_bytes())))
    )
    assert skipping.source.skipped_files == [str(corrupt)]
