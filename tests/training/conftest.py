"""For the tests of training: recipes that run in a fraction of a second, and what "the same run" means."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spvit_mini import load_weights
from spvit_mini.recipes import Recipe, get_recipe
from spvit_mini.training import train
from spvit_mini.training.checkpoint import read_state
from spvit_mini.training.metrics import TIME_COLUMNS


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Tensors this small gain nothing from a second thread, and lose much where another process wants the core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny() -> Recipe:
    """Six steps an epoch, twelve in all, a row every five, a state every two; stochastic depth draws random numbers."""
    return get_recipe("spvit_mini_compass6").but(
        {
            "model.depth": 2,
            "model.dim": 16,
            "model.heads": 2,
            "model.drop_path": 0.5,
            "data.train_images": 123,
            "data.val_images": 41,
            "batch_size": 20,
            "duration": "2 epochs",
            "optim.warmup": "3 steps",
            "evaluate_every": "5 steps",
            "save_every": "2 steps",
            "label_smoothing": 0.1,
        }
    )


@pytest.fixture(scope="session")
def tree(tmp_path_factory) -> Path:
    """A folder that holds an image tree, `tree`: three classes of small images of noise, each in its own colour."""
    root = tmp_path_factory.mktemp("data")
    random = np.random.RandomState(0)
    for part, count in (("train", 11), ("val", 4)):
        for colour, name in enumerate(("blue", "green", "red")):
            folder = root / "tree" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = random.randint(0, 120, (20 + i, 24, 3), dtype=np.uint8)
                pixels[..., 2 - colour] += 100
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


@pytest.fixture(scope="session")
def whole(tiny, tmp_path_factory) -> Path:
    """The folder of a run of `tiny` that nothing disturbed."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(tiny, run_dir=folder, progress=False)
    return folder


@pytest.fixture(scope="session")
def tiny_tree(tiny, tree) -> Recipe:
    """The same on the image tree, with flips, shifts and colours: every image is augmented."""
    return tiny.but(
        {
            "data.name": "tree",
            "data.root": tree,
            "data.image_size": 16,
            "augment.flip": True,
            "augment.crop": "shift",
            "augment.colour": 0.3,
            "batch_size": 5,
        }
    )


def metrics(run: Path) -> list[list[str]]:
    """Read metrics.csv as text, its columns of time left out."""
    with open(run / "metrics.csv", newline="") as file:
        rows = list(csv.reader(file))
    kept = [i for i, column in enumerate(rows[0]) if column not in TIME_COLUMNS]
    return [[row[i] for i in kept] for row in rows]


def assert_same_run(run: Path, other: Path) -> None:
    """Check that two run folders hold the same run: weights, optimiser, random numbers and rows, to the last bit."""
    assert metrics(run) == metrics(other)
    states = [read_state(folder / "last.pt") for folder in (run, other)]
    for state in states:
        at = state["position"]
        at["rows"] = [{k: v for k, v in row.items() if k not in TIME_COLUMNS} for row in at["rows"]]
        for name in ("seconds", "training_seconds", "data_seconds"):
            del at[name]
    _assert_equal(*states, "state")
    best, best_too = (load_weights(folder / "best.safetensors") for folder in (run, other))
    _assert_equal(best, best_too, "best")


def _assert_equal(a, b, where):
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            _assert_equal(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (one, other) in enumerate(zip(a, b, strict=True)):
            _assert_equal(one, other, f"{where}[{i}]")
    else:
        assert a == b, where
