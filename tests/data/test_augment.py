"""The training transform with the PIL backend: each kind of augmentation, against numpy and torchvision's own steps."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from spvit_mini.data import AugmentOptions, EvalTransform, Preprocessing, TrainTransform

from .conftest import NOT_NORMALISED, noise, to_pixels


def test_training_without_augmentation_is_evaluation_of_the_whole_frame():
    image = noise(40, 60)
    result = TrainTransform(AugmentOptions(), Preprocessing((16, 16), crop=0.5))(image)
    assert torch.equal(result, EvalTransform(Preprocessing((16, 16), crop=1.0))(image))


@pytest.mark.parametrize("seed", [0, 1])
def test_flip_has_probability_one_half(seed):
    torch.manual_seed(seed)
    image = noise(8, 8)
    transform = TrainTransform(AugmentOptions(flip=True), Preprocessing((8, 8), **NOT_NORMALISED))
    mirrored = 0
    for _ in range(400):
        result = to_pixels(transform(image))
        is_mirrored = (result == np.asarray(image)[:, ::-1]).all()
        assert is_mirrored or (result == np.asarray(image)).all()
        mirrored += is_mirrored
    assert 150 < mirrored < 250  # 5 standard deviations


@pytest.mark.parametrize("kind", ["tensor", "pil"])
def test_shift_is_a_window_of_the_image_with_reflection_padding(kind):
    torch.manual_seed(0)
    image = noise(16, 32)
    array = np.asarray(image)
    padded = np.pad(array, ((2, 2), (4, 4), (0, 0)), mode="reflect")
    given = image if kind == "pil" else torch.from_numpy(array.transpose(2, 0, 1).copy())
    transform = TrainTransform(AugmentOptions(crop="shift"), Preprocessing((16, 32), **NOT_NORMALISED))
    seen = set()
    for _ in range(400):
        result = to_pixels(transform(given))
        found = [(r, c) for r in range(5) for c in range(9) if (padded[r : r + 16, c : c + 32] == result).all()]
        assert len(found) == 1
        seen |= set(found)
    assert len(seen) == 45


@pytest.mark.parametrize("scale", [(0.25, 0.25), (0.5, 1.0)])
def test_resized_crops_the_requested_share_of_the_area(scale):
    torch.manual_seed(0)
    # Red tells the row, green the column, so that a cut-out's range of both is its size.
    rows, cols = np.mgrid[:128, :128]
    image = Image.fromarray(np.stack([rows, cols, 0 * rows], axis=-1).astype(np.uint8))
    options = AugmentOptions(crop="resized", crop_scale=scale)
    transform = TrainTransform(options, Preprocessing((32, 32), interpolation="bilinear", **NOT_NORMALISED))
    areas = []
    for _ in range(100):
        result = to_pixels(transform(image)).astype(float)
        height, width = np.ptp(result[..., 0]), np.ptp(result[..., 1])
        areas.append(height * width / (127 * 127) * (32 / 31) ** 2)  # from the outer pixels' centres to their edges
        assert 0.7 < width / height < 1.43
    assert scale[0] - 0.06 < min(areas) and max(areas) < scale[1] + 0.06
    assert max(areas) - min(areas) > 0.7 * (scale[1] - scale[0])


def test_erasing_replaces_one_rectangle_with_noise():
    torch.manual_seed(0)
    image = Image.new("RGB", (32, 32), (124, 116, 104))
    preprocessing = Preprocessing((32, 32))
    plain = EvalTransform(preprocessing)(image)
    for _ in range(20):
        result = TrainTransform(AugmentOptions(random_erasing_prob=1.0), preprocessing)(image)
        changed = (result != plain).any(dim=0)
        rows, cols = changed.any(dim=1).nonzero()[:, 0], changed.any(dim=0).nonzero()[:, 0]
        assert changed.sum() == len(rows) * len(cols) == (rows[-1] - rows[0] + 1) * (cols[-1] - cols[0] + 1)
        assert result[:, changed].std().item() == pytest.approx(1, abs=0.35)


def test_randaugment_and_colour_change_images_and_keep_their_range():
    torch.manual_seed(0)
    image = noise(32, 32)
    for options in (AugmentOptions(randaugment=(2, 9)), AugmentOptions(colour=0.4)):
        results = [TrainTransform(options, Preprocessing((32, 32), **NOT_NORMALISED))(image) for _ in range(20)]
        assert all(result.min() >= 0 and result.max() <= 1 for result in results)
        assert len({result.numpy().tobytes() for result in results}) > 10


def test_transforms_can_be_sent_to_worker_processes():
    everything = AugmentOptions(flip=True, crop="resized", randaugment=(1, 5), random_erasing_prob=0.5, colour=0.1)
    for transform in (
        TrainTransform(everything, Preprocessing((16, 16))),
        TrainTransform(AugmentOptions(crop="shift"), Preprocessing((16, 16))),
        EvalTransform(Preprocessing((16, 16))),
    ):
        again = pickle.loads(pickle.dumps(transform))
        torch.manual_seed(1)
        expected = transform(noise(20, 30))
        torch.manual_seed(1)
        assert torch.equal(again(noise(20, 30)), expected)
