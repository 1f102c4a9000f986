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

from .processes import run_job, run_jobs


@pytest.fixture(scope="session")
def tiny() -> Recipe:
    """Six steps an epoch, twelve in all, a row every five, a state every two; stochastic depth draws random numbers."""
    return get_recipe("spvit_mini_compass6").override(
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
    return tiny.override(
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


# No random draws within a step, and everything else that could differ, in a bit more than an epoch.
EXACT = {
    "model.drop_path": 0.0,
    "optim.clip_grad_norm": 0.5,
    "optim.layer_decay": 0.8,
    "data.val_images": 101,
    "duration": "8 steps",
    "evaluate_every": "4 steps",
    "save_every": "5 steps",
}


@pytest.fixture(scope="session")
def recipes(tiny, tiny_tree) -> dict[str, Recipe]:
    """The same training in the ways that processes can share it; repeated augmentation; a model with batch norms."""
    exact = tiny.override(EXACT)
    stem = {"model.name": "lvvit_s", "model.patch": 8, "model.dim": 16, "model.heads": 2, "model.depth": 2}
    mixed = {"augment.mixup": 0.2, "augment.cutmix": 1.0, "augment.repeats": 2, "ema": 0.9}
    return {
        "whole": exact.override({"ema": 0.9}),
        "accumulated": exact.override({"ema": 0.9, "micro_batch_size": 5}),
        "in parts": exact.override({"sharding": "fsdp"}),
        "in parts, accumulated": exact.override({"sharding": "fsdp", "micro_batch_size": 5}),
        "repeated": tiny_tree.override(EXACT | {"augment.repeats": 2, "batch_size": 4}),
        "batch norms": exact.override({**stem, "ema": 0.9}),
        "mixed": tiny_tree.override({**mixed, "batch_size": 8, "micro_batch_size": 2, "duration": "12 steps"}),
    }


@pytest.fixture(scope="session")
def alone(recipes) -> dict[str, dict]:
    """The results of one process: the reference."""
    return {name: run_job({"recipe": recipes[name], "double": True}) for name in ("whole", "repeated")}


@pytest.fixture(scope="session")
def of_two(recipes, tiny, tmp_path_factory) -> dict[str, list[dict] | Path]:
    """The results of two processes, by name, a list with one of each process; and the folder of their runs.

    One torchrun serves all tests, because starting it costs more than what it runs.
    """
    folder, jobs = tmp_path_factory.mktemp("two"), []

    def job(out, recipe, double=True, **options):
        jobs.append({"out": folder / out, "recipe": recipe, "double": double, **options})

    for name in ("whole", "accumulated", "in parts", "in parts, accumulated", "repeated", "batch norms"):
        job(name, recipes[name])
    run_job({"recipe": recipes["in parts"], "run_dir": folder / "one", "double": True, "max_steps": 5})
    job("half", recipes["in parts"], run_dir=folder / "parts", max_steps=5)
    job("half", recipes["repeated"], run_dir=folder / "repeated", max_steps=5)
    job("half", recipes["batch norms"], run_dir=folder / "norms", max_steps=5)
    job("of one, in parts", recipes["in parts"], run_dir=folder / "one", resume=True)
    job("of parts, whole", recipes["in parts"].override({"sharding": "ddp"}), run_dir=folder / "parts", resume=True)
    job("norms resumed", recipes["batch norms"], run_dir=folder / "norms", resume=True)
    job("norms of one step", recipes["batch norms"], max_steps=1)
    job("odd batch", recipes["whole"].override({"batch_size": 21}), is_refused=True)
    job("large micro-batch", recipes["whole"].override({"micro_batch_size": 20}), is_refused=True)
    job("mixed", recipes["mixed"], double=False, run_dir=folder / "mixed")
    job("tiny", tiny, double=False, run_dir=folder / "tiny")
    run_jobs(jobs, folder)
    results = {job["out"].name: [torch.load(f"{job['out']}.{rank}") for rank in range(2)] for job in jobs}
    return results | {"folder": folder}


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
