"""Training on the fast way of data: made sets give the plain way's run, and a killed run ends as one that was not."""

import numpy as np
import pytest
from PIL import Image

from spvit_mini.training import train

from .conftest import assert_same_run, metrics
from .test_resume import Killed, killed_at


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    """A folder with a small CIFAR-10 as an image tree."""
    root = tmp_path_factory.mktemp("data")
    random = np.random.RandomState(0)
    for part, count in (("train", 11), ("test", 4)):
        for colour, name in enumerate(("blue", "green", "red")):
            (root / "cifar10" / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = random.randint(0, 120, (32, 32, 3), dtype=np.uint8)
                pixels[..., 2 - colour] += 100
                Image.fromarray(pixels).save(root / "cifar10" / part / name / f"{i}.png")
    return root


def test_a_made_set_gives_the_same_run_on_both_ways(tiny, whole, tmp_path):
    train(tiny.override({"data.backend": "tensor"}), run_dir=tmp_path / "fast", progress=False)
    assert metrics(tmp_path / "fast") == metrics(whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, changes",
    [
        ("tree", {"augment.crop": "resized", "augment.random_erasing_prob": 0.5, "augment.mixup": 0.8}),
        ("cifar10", {"augment.crop": "shift", "augment.colour": 0.0, "augment.cutmix": 1.0}),
    ],
)
def test_killed_and_resumed_on_the_fast_way_the_run_ends_the_same(
    tiny_tree, tree, cifar, tmp_path, monkeypatch, name, changes
):
    recipe = tiny_tree.override(
        {
            "data.name": name,
            "data.root": tree if name == "tree" else cifar,
            "data.image_size": 16 if name == "tree" else None,
            "data.backend": "tensor",
            "augment.repeats": 2,
            "augment.randaugment": (2, 9),
            "save_every": "1 step",
            "duration": "9 steps",
            "evaluate_every": "4 steps",
            **changes,
        }
    )
    train(recipe, run_dir=tmp_path / "whole", progress=False)
    for step in (3, 2, 4):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            killed_at(patch, "step", step)
            train(recipe, run_dir=tmp_path / "killed", resume=True, progress=False)
    train(recipe, run_dir=tmp_path / "killed", resume=True, progress=False)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    # And it is another run than the plain way's: pixels of resized photographs, draws of CIFAR.
    train(recipe.override({"data.backend": "pil"}), run_dir=tmp_path / "plain", progress=False)
    assert metrics(tmp_path / "plain") != metrics(tmp_path / "whole")
