"""Damaged files of every kind, mutated from good ones at random: each is used with a good result, or refused in one clear line.

`pytest tests/test_damaged_files.py --mutations 300 --seed 7` tries 300 of each kind, from another seed.
"""

import io
import shutil
import warnings
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from spvit_mini.data.images import CorruptImageError, read_image, read_image_tensor
from spvit_mini.errors import UserError
from spvit_mini.recipes import Recipe, get_recipe
from spvit_mini.training import train
from spvit_mini.training.checkpoint import find_state, load_trained
from spvit_mini.weights import init_from_weights
from spvit_mini.zoo import model_from_weights

from .mutation import mutate_bytes, mutate_json, mutate_value

FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "gif": "GIF", "bmp": "BMP", "ppm": "PPM", "tif": "TIFF"}


def pytest_generate_tests(metafunc):
    if "mutation" in metafunc.fixturenames:
        count, seed = metafunc.config.getoption("--mutations"), metafunc.config.getoption("--seed")
        metafunc.parametrize("mutation", range(1000 * seed, 1000 * seed + count))


@pytest.fixture
def random(mutation) -> Random:
    return Random(mutation)


def check_line(error: Exception) -> None:
    """Check that an error is one line that a user can read."""
    text = str(error)
    assert text.strip() and "\n" not in text and len(text) < 1500, text


def try_to(use, *args, also=(), **options):
    """Use something damaged: return the result, or None if it is refused in one clear line. Anything else fails the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return use(*args, **options)
        except (UserError, *also) as error:
            check_line(error)
            print(error)
            return None


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    """A run of four steps."""
    changes = {
        "model.depth": 1,
        "model.dim": 8,
        "model.heads": 2,
        "ema": 0.9,
        "duration": "4 steps",
        "evaluate_every": "2 steps",
    }
    data = {
        "data.train_images": 40,
        "data.val_images": 10,
        "batch_size": 10,
        "save_every": "2 steps",
        "optim.warmup": "0 steps",
    }
    return get_recipe("spvit_mini_compass6").override(changes | data)


@pytest.fixture(scope="module")
def run_dir(recipe, tmp_path_factory):
    """The run folder after three of the four steps."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(recipe, run_dir=folder, max_steps=3, progress=False)
    return folder


@pytest.fixture
def copied(run_dir, tmp_path):
    return shutil.copytree(run_dir, tmp_path / "run")


@pytest.mark.parametrize("suffix", FORMATS)
def test_images(suffix, random, tmp_path):
    pixels = np.random.RandomState(0).randint(0, 255, (24, 31, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, FORMATS[suffix])
    path = tmp_path / f"image.{suffix}"
    path.write_bytes(mutate_bytes(stream.getvalue(), random))
    image = try_to(read_image, path, also=[CorruptImageError])
    tensor = try_to(read_image_tensor, path, also=[CorruptImageError])
    assert (image is None) == (tensor is None)
    if image is not None:
        assert image.mode == "RGB" and tensor.dtype == torch.uint8 and tensor.shape == (3, image.height, image.width)


def use_weights(path):
    """Rebuild the model of a weights file and apply it; also initialise another model from it."""
    model = try_to(model_from_weights, path)
    if model is not None:
        logits = model.eval()(torch.zeros(2, 3, *model.config.image_size))
        assert logits.shape == (2, model.config.num_classes)
    try_to(load_trained, path)
    other = model_from_weights(path.parent / "good.safetensors")
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    if try_to(init_from_weights, other, path, classes=["a", "b"]) is None:
        after = other.state_dict()
        assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_bytes_of_weights(run_dir, tmp_path, random):
    shutil.copy(run_dir / "best.safetensors", tmp_path / "good.safetensors")
    path = tmp_path / "bad.safetensors"
    path.write_bytes(mutate_bytes((run_dir / "best.safetensors").read_bytes(), random))
    use_weights(path)


@pytest.mark.parametrize("part", ["tensors", "metadata", "texts"])
def test_content_of_weights(part, run_dir, tmp_path, random):
    good = run_dir / "best.safetensors"
    shutil.copy(good, tmp_path / "good.safetensors")
    with safe_open(str(good), framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if part == "tensors":
        changed = mutate_value(tensors, random)
        tensors = {str(name): value.contiguous() for name, value in changed.items() if isinstance(value, torch.Tensor)}
    elif part == "metadata":
        key = random.choice([key for key, text in metadata.items() if text[:1] in "{["])
        metadata[key] = mutate_json(metadata[key], random)
    else:
        changed = mutate_value(metadata, random)
        metadata = {str(key): str(value).encode(errors="replace").decode() for key, value in changed.items()}
    path = tmp_path / "bad.safetensors"
    save_file(tensors, path, metadata)
    use_weights(path)


def resume(recipe, run_dir):
    """Resume a run, and check that it either reaches its end, or changes no file."""
    before = {path.name: path.read_bytes() for path in run_dir.iterdir() if path.name != ".lock"}
    if try_to(train, recipe, run_dir=run_dir, resume=True, progress=False) is None:
        after = {path.name: path.read_bytes() for path in run_dir.iterdir() if path.name != ".lock"}
        assert [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)] == []
    else:
        assert find_state(run_dir)[0]["position"]["step"] >= 3  # no state is saved after a skipped step
        load_trained(run_dir, weights="ema")


@pytest.mark.parametrize("name", ["last.pt", "recipe.json", "metrics.csv", "history.json"])
def test_bytes_of_a_run(name, recipe, copied, random):
    path = copied / name
    path.write_bytes(mutate_bytes(path.read_bytes(), random))
    resume(recipe, copied)


def test_content_of_a_state(recipe, copied, random):
    state = torch.load(copied / "last.pt", weights_only=True)
    part = random.choice([*state])
    changed = mutate_value({part: state[part]}, random)
    torch.save({name: value for name, value in state.items() if name != part} | changed, copied / "last.pt")
    try_to(load_trained, copied, weights="last")
    try_to(load_trained, copied, weights="ema")
    resume(recipe, copied)


@pytest.mark.parametrize("name", ["recipe.json", "history.json"])
def test_content_of_a_json_file(name, recipe, copied, random):
    path = copied / name
    path.write_text(mutate_json(path.read_text(encoding="utf-8"), random), encoding="utf-8")
    resume(recipe, copied)


def test_recipes(random, recipe):
    text = mutate_json(
        random.choice([recipe, get_recipe("spvit_m_imagenet"), get_recipe("vit_mini_cifar10")]).to_json(), random
    )
    changed = try_to(Recipe.from_json, text, source="recipe.json")
    if changed is not None:
        assert Recipe.from_json(changed.to_json()) == changed or "NaN" in text
