"""Options of data and augmentation: how they are read, which values are refused, and what importing them costs."""

import subprocess
import sys

import pytest
import tyro

from spvit_mini.data import AugmentOptions, DataOptions
from spvit_mini.errors import UserError


def test_options_are_read_from_words():
    read = tyro.cli(DataOptions, args=["--name", "flowers17", "--image-size", "64", "--on-corrupt-image", "skip"])
    assert read == DataOptions(name="flowers17", image_size=64, on_corrupt_image="skip")
    read = tyro.cli(
        AugmentOptions, args=["--flip", "--crop", "resized", "--crop-scale", "0.3", "1", "--randaugment", "2", "9"]
    )
    assert read == AugmentOptions(flip=True, crop="resized", crop_scale=(0.3, 1.0), randaugment=(2, 9))


@pytest.mark.parametrize(
    "options, name, value, expected",
    [
        (DataOptions, "image_size", 0, "an integer from 1 to 4,096, or None"),
        (DataOptions, "fraction", 0.0, "a number above 0 and at most 1"),
        (DataOptions, "fraction", 1.5, "a number above 0 and at most 1"),
        (DataOptions, "holdout", -0.1, "a number of at least 0 and below 1"),
        (DataOptions, "holdout", 1.0, "a number of at least 0 and below 1"),
        (DataOptions, "on_corrupt_image", "ignore", "error or skip"),
        (DataOptions, "workers", -1, "an integer from 0 to 256"),
        (DataOptions, "eval_crop", 0.0001, "a number from 0.1 to 1, or None"),
        (DataOptions, "backend", "dali", "pil or tensor"),
        (AugmentOptions, "crop", "middle", "none, shift or resized"),
        (AugmentOptions, "crop_scale", (0.5, 0.4), "the smaller area first"),
        (AugmentOptions, "crop_scale", (0.0, 1.0), "2 values: a number above 0 and at most 1"),
        (AugmentOptions, "randaugment", (2, 31), "2 values: an integer from 0 to 100, an integer from 0 to 30"),
        (AugmentOptions, "randaugment", (-1, 9), "2 values: an integer from 0 to 100, an integer from 0 to 30"),
        (AugmentOptions, "randaugment_prob", -0.5, "a number from 0 to 1"),
        (AugmentOptions, "random_erasing_prob", 1.5, "a number from 0 to 1"),
        (AugmentOptions, "mix_prob", float("nan"), "a number from 0 to 1"),
        (AugmentOptions, "colour", -0.1, "a number from 0 to 10"),
        (AugmentOptions, "mixup", -1.0, "a number from 0 to 1e+30"),
        (AugmentOptions, "cutmix", float("inf"), "a number from 0 to 1e+30"),
        (AugmentOptions, "repeats", 0, "an integer from 1 to 1,000,000"),
    ],
)
def test_values_out_of_range_are_refused(options, name, value, expected):
    section = {DataOptions: "data", AugmentOptions: "augment"}[options]
    with pytest.raises(UserError) as error:
        options(**{name: value})
    assert str(error.value) == f"{section}.{name} is {value!r}; expected {expected}"


def modules_after(code: str, tmp_path) -> set[str]:
    """Run Python code in a process of its own, and return the modules that it has imported."""
    code += "\nimport sys; print('modules', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_options_need_no_torch(tmp_path):
    modules = modules_after("import spvit_mini.data.options", tmp_path)
    assert "spvit_mini.data.options" in modules and not {"torch", "torchvision", "numpy", "PIL"} & modules


@pytest.mark.slow
def test_synthetic_datasets_training_and_evaluation_need_no_torchvision(tmp_path):
    """torchvision needs about as long to import as torch, and most lessons and the first runs can do without it."""
    code = """
from PIL import Image
from spvit_mini import create_model, get_recipe, train, transforms_for
from spvit_mini.data import DataOptions, load_data
recipe = get_recipe("vit_mini_compass6").override({"data.train_images": 40, "data.val_images": 20, "batch_size": 20})
assert train(recipe, max_steps=2, progress=False).step == 2
for name in ("textures6", "rings6"):
    assert load_data(DataOptions(name, backend="tensor"), seed=0).train is not None
image = transforms_for(create_model("vit_mini", image_size=32))(Image.new("L", (50, 40)))
assert image.shape == (3, 32, 32)
"""
    modules = modules_after(code, tmp_path)
    assert "spvit_mini.training.loop" in modules and "torchvision" not in modules
