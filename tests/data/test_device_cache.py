"""Small datasets that are cached on the device: their draws, and their pixels against torchvision's, image by image."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from spvit_mini.data import AugmentOptions, Compass, DataOptions, Key, Preprocessing, TrainBatches, load_data
from spvit_mini.data.device_cache import OPERATIONS, SIGNED, CachedImages, apply_operation
from spvit_mini.data.images import InMemoryImages
from spvit_mini.errors import UserError

from .conftest import make_image

CPU = torch.device("cpu")
CIFAR = AugmentOptions(flip=True, crop="shift", randaugment=(2, 9))
PREPROCESSING = Preprocessing((16, 24), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


def pixels(count: int) -> InMemoryImages:
    images = torch.stack([torch.from_numpy(np.array(make_image(i))).permute(2, 0, 1) for i in range(count)])
    return InMemoryImages(images, torch.arange(count) % 3, ["a", "b", "c"])


def oracle(image: torch.Tensor, operation: str, sign: int, magnitude: int, fill: list[int]) -> torch.Tensor:
    """Do an operation by torchvision's RandAugment, which offers no choice to users."""
    one = v2.RandAugment(1, magnitude, fill=fill)
    levels, signed = one._AUGMENTATION_SPACE[operation]
    level = levels(31, *image.shape[-2:])
    level = 0.0 if level is None else float(level[magnitude]) * (sign if signed else 1)
    return one._apply_image_or_video_transform(image, operation, level, interpolation=one.interpolation, fill=one._fill)


@pytest.mark.parametrize("magnitude", [0, 5, 9, 20, 27, 30])
def test_operations_are_those_of_torchvision_for_each_image(magnitude):
    images, fill = pixels(6).images, [120, 110, 100]
    assert set(v2.RandAugment._AUGMENTATION_SPACE) == set(OPERATIONS)
    for operation in OPERATIONS:
        assert v2.RandAugment._AUGMENTATION_SPACE[operation][1] == (operation in SIGNED)
        for sign in (-1, 1) if operation in SIGNED else (1,):
            expected = torch.stack([oracle(image, operation, sign, magnitude, fill) for image in images])
            assert torch.equal(apply_operation(images, operation, sign, magnitude, fill=fill), expected), (operation, sign)


@pytest.mark.parametrize("augment", [AugmentOptions(), AugmentOptions(flip=True), AugmentOptions(crop="shift"), CIFAR])
def test_a_batch_is_what_torchvision_makes_of_its_parameters(augment):
    source = pixels(30)
    cached = CachedImages(source, augment, PREPROCESSING, seed=1)
    keys = [Key(2, index, index % 2) for index in (3, 17, 3, *range(29))]
    drawn = cached.draw_params(keys)
    batch = cached.to_device(drawn, CPU)
    mean, std = (torch.tensor(three)[:, None, None] for three in (PREPROCESSING.mean, PREPROCESSING.std))
    for place, key in enumerate(keys):
        image = source.images[key.index]
        if augment.crop == "shift":
            top, left = drawn.corner[place].tolist()
            image = functional.pad(image, [3, 2], padding_mode="reflect")[:, top : top + 16, left : left + 24]
        if drawn.flip[place]:
            image = image.flip(-1)
        for groups in drawn.rounds:
            (group,) = (group for group in groups if place in group.rows.tolist())
            image = oracle(image, group.operation, group.sign, 9, [round(255 * value) for value in PREPROCESSING.mean])
        assert torch.equal(batch[place], (image / 255).sub(mean).div(std))


def test_draws_are_a_function_of_seed_epoch_image_and_copy_alone():
    cached, again = (CachedImages(pixels(20), CIFAR, PREPROCESSING, seed=4) for _ in range(2))
    keys = [Key(epoch, index, copy) for epoch in (0, 1) for index in range(20) for copy in (0, 1)]
    whole = cached.to_device(cached.draw_params(keys), CPU)
    for place in (41, 3, 79, 0, 40):  # back and forth between epochs
        assert torch.equal(again.to_device(again.draw_params([keys[place]]), CPU)[0], whole[place])
    first, other = whole[:40:2], CachedImages(pixels(20), CIFAR, PREPROCESSING, seed=5)
    for images in (whole[1:40:2], whole[40::2], other.to_device(other.draw_params(keys[:40:2]), CPU)):
        same = sum(torch.equal(a, b) for a, b in zip(first, images, strict=True))
        assert same < 5  # of 20 images varied in so many ways


@pytest.mark.parametrize("chance", [1.0, 0.5])
def test_each_draw_has_its_frequency(chance):
    count = 4000
    source = InMemoryImages(torch.zeros(count, 3, 16, 24, dtype=torch.uint8), torch.zeros(count, dtype=torch.int64), ["a"])
    augment = AugmentOptions(flip=True, crop="shift", randaugment=(2, 9), randaugment_prob=chance)
    drawn = CachedImages(source, augment, PREPROCESSING, seed=0).draw_params([Key(0, index) for index in range(count)])
    assert abs(drawn.flip.float().mean() - 0.5) < 0.04  # five standard deviations
    corners = drawn.corner[:, 0] * 7 + drawn.corner[:, 1]  # margins of 2 and 3: 5 × 7 corners
    assert corners.bincount(minlength=35).min() > 60 and len(corners.bincount()) == 35
    for groups in drawn.rounds:
        sizes = {(group.operation, group.sign): len(group.rows) for group in groups}
        assert sum(sizes.values()) == count
        for (operation, _), size in sizes.items():
            expected = chance * count / 14 / (2 if operation in SIGNED else 1)
            if operation == "Identity":
                expected += (1 - chance) * count
            assert abs(size - expected) < 5 * expected**0.5, operation
        assert len(sizes) == 14 + 9
    assert [len(groups) for groups in drawn.rounds] == [23, 23]


def test_synthetic_images_are_those_of_the_pil_backend():
    data = [load_data(DataOptions(train_images=50, val_images=10, backend=p), seed=0).train for p in ("pil", "tensor")]
    order = TrainBatches(50, 8, 0)
    for (images, labels), (cached, kept_labels), _ in zip(*(train.load_batches(order) for train in data), range(8), strict=False):
        assert torch.equal(data[0].to_device(images, CPU), data[1].to_device(cached, CPU)) and torch.equal(labels, kept_labels)
    assert isinstance(data[1], CachedImages) and isinstance(data[1].source, Compass)


def test_cifar_is_cached_and_a_fraction_of_it_too(tmp_path):
    for part, count in (("train", 6), ("test", 2)):
        for name in ("cat", "dog"):
            (tmp_path / "cifar10" / part / name).mkdir(parents=True)
            for number in range(count):
                image = Image.fromarray(np.random.RandomState(number).randint(0, 256, (32, 32, 3), dtype=np.uint8))
                image.save(tmp_path / "cifar10" / part / name / f"{number}.png")
    data = load_data(DataOptions("cifar10", tmp_path, fraction=0.5, backend="tensor"), CIFAR, seed=0)
    assert isinstance(data.train, CachedImages) and len(data.train) == 6 and len(data.val) == 4 and data.skipped_files == []
    drawn, labels = next(data.train.load_batches(TrainBatches(6, 6, 0)))
    assert data.train.to_device(drawn, CPU).shape == (6, 3, 32, 32)
    assert torch.equal(labels, data.train.labels[drawn.indices])


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"random_erasing_prob": 0.1}, "augment.random_erasing_prob is 0.1; expected 0"),
        ({"colour": 0.1}, "augment.colour is 0.1; expected 0"),
        ({"crop": "resized"}, "augment.crop is resized; expected none or shift"),
    ],
)
def test_augmentation_that_the_cache_lacks_is_refused(changes, said):
    with pytest.raises(UserError, match=f"{said} .*; use --data.backend pil"):
        CachedImages(pixels(3), AugmentOptions(**changes), PREPROCESSING, seed=0)


def test_another_size_is_refused():
    with pytest.raises(UserError, match="the image size is 32 × 32; expected 16 × 24 pixels"):
        CachedImages(pixels(3), CIFAR, Preprocessing((32, 32)), seed=0)
