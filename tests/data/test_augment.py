"""The transforms of training and evaluation, against Pillow, numpy and torchvision's own steps."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from spvit_mini.data import AugmentOptions, EvalTransform, Preprocessing, TrainTransform
from spvit_mini.data.preprocessing import convert_to_rgb
from spvit_mini.errors import UserError

PLAIN = {"mean": (0, 0, 0), "std": (1, 1, 1)}


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.RandomState(seed).randint(0, 256, size=(height, width, 3), dtype=np.uint8))


def pixels(result: torch.Tensor) -> np.ndarray:
    """Undo the step to 0..1: (height, width, 3), uint8."""
    return (result * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def test_preprocessing_comes_back_from_json():
    one = Preprocessing((24, 32), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), crop=0.875, interpolation="bilinear")
    assert Preprocessing.from_json(one.to_json()) == one
    assert Preprocessing.from_json('{"image_size": [7, 9]}') == Preprocessing((7, 9))
    assert Preprocessing((224, 224)).mean == (0.485, 0.456, 0.406)
    assert Preprocessing((224, 224)).std == (0.229, 0.224, 0.225)


@pytest.mark.parametrize(
    "text", ["", "[]", "3", "{}", '{"size": 3}', '{"image_size": 3}', '{"image_size": ["a", "b"]}']
)
def test_foreign_json_is_refused_in_one_line(text):
    with pytest.raises(UserError, match="expected JSON with image_size"):
        Preprocessing.from_json(text)


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"image_size": (32,)}, r"image_size is \(32,\); expected \(height, width\)"),
        ({"image_size": (0, 32)}, "height, width"),
        ({"std": (1, 0, 1)}, "std is .*; expected three numbers above 0"),
        ({"mean": (1, 1)}, "three numbers"),
        ({"crop": 0}, "crop is 0; expected a number above 0"),
        ({"crop": 1.1}, "crop is 1.1; expected"),
        ({"interpolation": "nearest"}, "interpolation is 'nearest'; expected bicubic or bilinear"),
    ],
)
def test_an_impossible_preprocessing_is_refused(wrong, said):
    with pytest.raises(UserError, match=said):
        Preprocessing(**{"image_size": (32, 32), **wrong})


@pytest.mark.parametrize("kind", ["tensor", "pil"])
def test_evaluation_normalises_as_the_formula_and_torchvision_do(kind):
    image = noise(12, 20)
    preprocessing = Preprocessing((12, 20))
    array = np.asarray(image)
    given = image if kind == "pil" else torch.from_numpy(array.transpose(2, 0, 1).copy())
    result = EvalTransform(preprocessing)(given)
    expected = (array / 255.0 - np.array(preprocessing.mean)) / np.array(preprocessing.std)
    assert result.shape == (3, 12, 20) and result.dtype == torch.float32
    np.testing.assert_allclose(result.permute(1, 2, 0).numpy(), expected, atol=1e-6)
    theirs = v2.Compose(
        [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(preprocessing.mean, preprocessing.std)]
    )
    torch.testing.assert_close(result, torch.Tensor(theirs(given)), atol=1e-6, rtol=0)


def test_evaluation_leaves_its_input_alone_and_takes_floats_as_they_are():
    image = torch.rand(3, 8, 8)
    before = image.clone()
    result = EvalTransform(Preprocessing((8, 8), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)))(image)
    assert torch.equal(image, before)
    torch.testing.assert_close(result, 2 * before - 1)


@pytest.mark.parametrize(
    "height, width, size, crop, resized, corner",
    [
        (40, 60, (16, 16), 0.8, (20, 30), (2, 7)),  # the frame of 20 is covered by 20 × 30
        (60, 40, (16, 16), 0.8, (30, 20), (7, 2)),
        (40, 60, (10, 30), 1.0, (20, 30), (5, 0)),
        (40, 60, (20, 10), 0.5, (40, 60), (10, 25)),
        (8, 10, (16, 16), 1.0, (16, 20), (0, 2)),  # enlarged
    ],
)
def test_evaluation_covers_the_frame_and_cuts_out_its_centre(height, width, size, crop, resized, corner):
    image = noise(height, width)
    small = np.asarray(image.resize(resized[::-1], Image.Resampling.BICUBIC))
    expected = small[corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1]]
    result = EvalTransform(Preprocessing(size, crop=crop, **PLAIN))(image)
    np.testing.assert_array_equal(pixels(result), expected)


def test_any_shape_of_image_fills_the_frame_exactly():
    for height in (1, 3, 7, 223, 225):
        for width in (1, 5, 64, 333):
            assert EvalTransform(Preprocessing((64, 48), crop=0.875))(noise(height, width)).shape == (3, 64, 48)


def test_every_mode_becomes_rgb():
    grey = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    for image in (grey, grey.convert("LA"), grey.convert("RGBA"), grey.convert("P"), grey.convert("YCbCr")):
        rgb = np.asarray(convert_to_rgb(image)).astype(int)
        assert rgb.shape == (16, 16, 3)
        assert abs(rgb - np.asarray(grey)[..., None]).max() <= 1  # YCbCr rounds
    assert np.asarray(convert_to_rgb(Image.new("1", (2, 2), 1))).min() == 255
    # Half ink of cyan and no other takes half of the red away.
    assert np.asarray(convert_to_rgb(Image.new("CMYK", (1, 1), (128, 0, 0, 0)))).tolist() == [[[127, 255, 255]]]
    palette = Image.new("P", (1, 1), 1)
    palette.putpalette([0, 0, 0, 10, 200, 30])
    assert np.asarray(convert_to_rgb(palette)).tolist() == [[[10, 200, 30]]]
    palette.info["transparency"] = b"\xff\x80"
    assert np.asarray(convert_to_rgb(palette)).tolist() == [[[10, 200, 30]]]


def test_sixteen_bits_keep_their_high_half_and_unknown_ranges_are_refused():
    deep = Image.fromarray(np.array([[0, 255, 256, 32_768, 65_535]], dtype=np.uint16))
    assert np.asarray(convert_to_rgb(deep))[0, :, 0].tolist() == [0, 0, 1, 128, 255]
    for mode in ("I", "F"):
        with pytest.raises(UserError, match=f"the image has mode {mode}, whose white value is unknown"):
            convert_to_rgb(Image.new(mode, (2, 2)))


def test_training_without_augmentation_is_evaluation_of_the_whole_frame():
    image = noise(40, 60)
    result = TrainTransform(AugmentOptions(), Preprocessing((16, 16), crop=0.5))(image)
    assert torch.equal(result, EvalTransform(Preprocessing((16, 16), crop=1.0))(image))


@pytest.mark.parametrize("seed", [0, 1])
def test_flip_mirrors_every_second_image(seed):
    torch.manual_seed(seed)
    image = noise(8, 8)
    transform = TrainTransform(AugmentOptions(flip=True), Preprocessing((8, 8), **PLAIN))
    mirrored = 0
    for _ in range(400):
        result = pixels(transform(image))
        is_mirrored = (result == np.asarray(image)[:, ::-1]).all()
        assert is_mirrored or (result == np.asarray(image)).all()
        mirrored += is_mirrored
    assert 150 < mirrored < 250  # 5 standard deviations


@pytest.mark.parametrize("kind", ["tensor", "pil"])
def test_shift_is_a_window_of_the_image_mirrored_at_its_borders(kind):
    torch.manual_seed(0)
    image = noise(16, 32)
    array = np.asarray(image)
    padded = np.pad(array, ((2, 2), (4, 4), (0, 0)), mode="reflect")
    given = image if kind == "pil" else torch.from_numpy(array.transpose(2, 0, 1).copy())
    transform = TrainTransform(AugmentOptions(crop="shift"), Preprocessing((16, 32), **PLAIN))
    seen = set()
    for _ in range(400):
        result = pixels(transform(given))
        found = [(r, c) for r in range(5) for c in range(9) if (padded[r : r + 16, c : c + 32] == result).all()]
        assert len(found) == 1
        seen |= set(found)
    assert len(seen) == 45


@pytest.mark.parametrize("scale", [(0.25, 0.25), (0.5, 1.0)])
def test_resized_cuts_out_the_part_of_the_area_it_says(scale):
    torch.manual_seed(0)
    # Red tells the row, green the column, so that a cut-out's range of both is its size.
    rows, cols = np.mgrid[:128, :128]
    image = Image.fromarray(np.stack([rows, cols, 0 * rows], axis=-1).astype(np.uint8))
    options = AugmentOptions(crop="resized", crop_scale=scale)
    transform = TrainTransform(options, Preprocessing((32, 32), interpolation="bilinear", **PLAIN))
    areas = []
    for _ in range(100):
        result = pixels(transform(image)).astype(float)
        height, width = np.ptp(result[..., 0]), np.ptp(result[..., 1])
        areas.append(height * width / (127 * 127) * (32 / 31) ** 2)  # from the outer pixels' centres to their edges
        assert 0.7 < width / height < 1.43
    assert scale[0] - 0.06 < min(areas) and max(areas) < scale[1] + 0.06
    assert max(areas) - min(areas) > 0.7 * (scale[1] - scale[0])


def test_erasing_replaces_one_rectangle_by_noise():
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
        results = [TrainTransform(options, Preprocessing((32, 32), **PLAIN))(image) for _ in range(20)]
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


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"crop": "middle"}, "augment.crop is 'middle'; expected none, shift or resized"),
        ({"crop_scale": (0.5, 0.4)}, r"augment.crop_scale is \(0.5, 0.4\); expected"),
        ({"crop_scale": (0.0, 1.0)}, r"is \(0.0, 1.0\); expected"),
        ({"randaugment": (2, 31)}, r"augment.randaugment is \(2, 31\); expected"),
        ({"randaugment": (-1, 9)}, r"is \(-1, 9\); expected"),
        ({"randaugment_prob": -0.5}, "augment.randaugment_prob is -0.5; expected a probability"),
        ({"random_erasing_prob": 1.5}, "augment.random_erasing_prob is 1.5; expected a probability"),
        ({"colour": -0.1}, "augment.colour is -0.1; expected a number of at least 0"),
    ],
)
def test_options_out_of_range_are_refused(wrong, said):
    with pytest.raises(UserError, match=said):
        AugmentOptions(**wrong)
