"""Preprocessing and the transform of evaluation, against Pillow, numpy and torchvision's own steps."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional

from spvit_mini.data import EvalTransform, Preprocessing
from spvit_mini.data.preprocessing import convert_to_rgb, resize
from spvit_mini.errors import UserError

from .conftest import NOT_NORMALISED, noise, to_pixels


def test_preprocessing_survives_json():
    one = Preprocessing((24, 32), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), crop=0.875, interpolation="bilinear")
    assert Preprocessing.from_json(one.to_json()) == one
    assert Preprocessing.from_json('{"image_size": [7, 9]}') == Preprocessing((7, 9))
    assert Preprocessing((224, 224)).mean == (0.485, 0.456, 0.406)
    assert Preprocessing((224, 224)).std == (0.229, 0.224, 0.225)


@pytest.mark.parametrize(
    "text", ["", "[]", "3", "{}", '{"size": 3}', '{"image_size": 3}', '{"image_size": ["a", "b"]}']
)
def test_foreign_json_is_refused_in_one_line(text):
    with pytest.raises(UserError, match="preprocessing( is|[. ])"):
        Preprocessing.from_json(text)


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"image_size": (32,)}, r"image_size is \(32,\); expected 2 values: an integer from 1"),
        ({"image_size": (0, 32)}, r"image_size is \(0, 32\)"),
        ({"std": (1, 0, 1)}, "std is .*; expected 3 values: a number above 0"),
        ({"mean": (1, 1)}, "expected 3 values"),
        ({"crop": 0}, "crop is 0; expected a number from 0.1 to 1"),
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


def test_evaluation_does_not_change_its_input_nor_rescale_floats():
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
def test_evaluation_resizes_to_cover_the_size_and_crops_the_centre(height, width, size, crop, resized, corner):
    image = noise(height, width)
    small = np.asarray(image.resize(resized[::-1], Image.Resampling.BICUBIC))
    expected = small[corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1]]
    result = EvalTransform(Preprocessing(size, crop=crop, **NOT_NORMALISED))(image)
    np.testing.assert_array_equal(to_pixels(result), expected)


def test_an_image_of_any_shape_fills_the_size_exactly():
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


def test_sixteen_bits_keep_their_high_byte_and_unknown_ranges_are_refused():
    deep = Image.fromarray(np.array([[0, 255, 256, 32_768, 65_535]], dtype=np.uint16))
    assert np.asarray(convert_to_rgb(deep))[0, :, 0].tolist() == [0, 0, 1, 128, 255]
    for mode in ("I", "F"):
        with pytest.raises(UserError, match=f"the image has mode {mode}, whose white value is unknown"):
            convert_to_rgb(Image.new(mode, (2, 2)))


def oracle(image: Image.Image | torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """Apply the steps of torchvision's own transforms to an RGB image or a tensor."""
    old = functional.get_size(image)
    scale = max(side / preprocessing.crop / before for side, before in zip(preprocessing.image_size, old, strict=True))
    new = [max(side, round(scale * before)) for side, before in zip(preprocessing.image_size, old, strict=True)]
    if preprocessing.crop < 1 or tuple(old) != preprocessing.image_size:
        interpolation = InterpolationMode(preprocessing.interpolation)
        image = functional.center_crop(functional.resize(image, new, interpolation, antialias=True), preprocessing.image_size)
    image = image if isinstance(image, torch.Tensor) else functional.pil_to_tensor(image)
    mean, std = (torch.tensor(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    return (image / (255 if image.dtype == torch.uint8 else 1) - mean) / std


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size, crop", [((32, 32), 1.0), ((33, 47), 0.875), ((64, 21), 0.5), ((96, 96), 0.9)])
def test_evaluation_is_torchvision_s_to_the_last_bit(size, crop, interpolation):
    preprocessing = Preprocessing(size, crop=crop, interpolation=interpolation)
    transform = EvalTransform(preprocessing)
    for height, width in ((32, 32), (2, 7), (33, 47), (51, 42), (129, 200), (7, 300)):
        image = noise(height, width)
        for mode in ("RGB", "L", "RGBA", "CMYK", "P", "LA", "YCbCr"):
            converted = image.convert(mode)
            assert torch.equal(transform(converted), oracle(converted.convert("RGB"), preprocessing)), mode
        deep = np.random.RandomState(0).randint(0, 65_536, size=(height, width)).astype(np.uint16)
        high = Image.fromarray((deep >> 8).astype(np.uint8)).convert("RGB")
        assert torch.equal(transform(Image.fromarray(deep)), oracle(high, preprocessing))
        channels_last = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        for tensor in (channels_last, channels_last.contiguous(), channels_last / 255):
            assert torch.equal(transform(tensor), oracle(tensor, preprocessing))
        squeezed = functional.resize(image, list(size), InterpolationMode(interpolation), antialias=True)
        assert resize(image, size, interpolation).tobytes() == squeezed.tobytes()
