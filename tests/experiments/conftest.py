"""What the tests of studies share: a study so small that its four runs take seconds, and records made by hand."""

import json

import pytest

from spvit_experiments import Arm, Study
from spvit_experiments.records import Record

SMALL = {
    "model.dim": 16,
    "model.depth": 1,
    "model.heads": 2,
    "data.train_images": 200,
    "data.val_images": 100,
    "batch_size": 50,
    "duration": "6 steps",
    "optim.warmup": "2 steps",
    "evaluate_every": "3 steps",
    "save_every": "2 steps",
}


@pytest.fixture(scope="session")
def tiny() -> Study:
    """A study of two arms and two seeds, six steps each."""
    arms = {"plain": Arm("vit_mini_compass6", colour="vit"), "prior": Arm("spvit_mini_compass6", {"optim.lr": 1e-3})}
    return Study("tiny", "Which of two?", arms, (0, 1), SMALL, baseline="plain", level=20)


@pytest.fixture
def made():
    """Make a record of a run by hand: its curve of accuracies at steps 10, 20, …"""

    def make(study: Study, arm: str, seed: int, curve: list[float], **others) -> Record:
        rows = [{"step": 10 * i, "val_top1": value} for i, value in enumerate(curve, start=1)]
        fields = {
            "arm": arm,
            "seed": seed,
            "recipe": json.loads(study.recipe(arm, seed).to_json()),
            "commit": "abc1234",
            "dirty": False,
            "device": "CPU, 1 thread",
            "threads": 1,
            "versions": {"spvit_mini": "0.1.0", "torch": "2.11.0", "python": "3.10.0"},
            "parameters": 1234567,
            "ms_per_step": 12.5,
            "seconds": 60.0,
            "diverged": False,
            "rows": rows,
        }
        return Record(**fields | others)

    return make
