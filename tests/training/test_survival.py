"""Killed twelve times, for real, with all on that could be lost: a run still ends as one that nothing disturbed.

Averaged weights, MixUp and CutMix, repeated augmentation, accumulation, stochastic depth, workers. The killed processes are
forked from one that has torch loaded, so that a kill costs a fraction of a second.
"""

import random
import subprocess
import sys

import pytest
import torch

from spvit_mini.training import train
from spvit_mini.training.checkpoint import read_state

from .conftest import assert_same_run

KILLER = """
import os, random, signal, sys, time, traceback
from pathlib import Path
import torch
from spvit_mini.recipes import Recipe
from spvit_mini.training import checkpoint, loop, train

folder, how, seed, kills = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
torch.set_num_threads(1)
recipe = Recipe.from_json((folder / "recipe.json").read_text())
draw, save = random.Random(seed), torch.save

class Dying:
    "A file that takes so many bytes, and then kills the process."
    def __init__(self, path, allowed):
        self.file, self.left = open(path, "wb"), allowed
    def write(self, data):
        self.file.write(bytes(data)[: self.left])
        self.file.flush()
        self.left -= len(data)
        if self.left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return len(data)
    def flush(self):
        self.file.flush()

def tell_of_each_save():
    "The process outside then kills this one, a moment after the first."
    def telling(state, path):
        save(state, path)
        os.write(told, b".")
    torch.save = telling

def die_in_a_save(at):
    "The first save of this process is whole, and the second stops at a byte."
    saves = []
    def dying(state, path):
        saves.append(path)
        save(state, path if len(saves) < 2 else Dying(path, at))
    torch.save = dying

train(recipe, max_steps=1, progress=False)  # imports what a first step needs, once for all forks
deaths = 0
while deaths < kills:
    listen, told = os.pipe()
    wait, at = draw.uniform(0, 0.04), draw.randrange(1, int(sys.argv[5]))
    if (child := os.fork()) == 0:
        die_in_a_save(at) if how == "bytes" else tell_of_each_save()
        try:
            train(recipe, run_dir=folder / "killed", resume=True, progress=False)
        except BaseException:
            traceback.print_exc()
        os._exit(0)
    os.close(told)
    if how == "moments":
        os.read(listen, 1)  # one state further than the last time, so that the run gets on
        time.sleep(wait)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    os.close(listen)
    if status != signal.SIGKILL:
        break
    deaths += 1
print(deaths)
"""


@pytest.fixture
def everything(tiny_tree):
    """A recipe with all on that a resumed run could get wrong: 33 images, 8 steps an epoch."""
    return tiny_tree.override(
        {
            "batch_size": 4,
            "micro_batch_size": 2,
            "ema": 0.99,
            "augment.mixup": 0.8,
            "augment.cutmix": 1.0,
            "augment.mix_prob": 0.8,
            "augment.repeats": 2,
            "augment.random_erasing_prob": 0.25,
            "augment.randaugment": (2, 9),
            "duration": "120 steps",
            "evaluate_every": "11 steps",
            "save_every": "3 steps",
        }
    )


@pytest.mark.slow
@pytest.mark.xdist_group("signals")
@pytest.mark.parametrize(("how", "workers"), [("moments", 0), ("moments", 2), ("bytes", 0), ("bytes", 2)])
def test_killed_twelve_times_it_ends_the_same(everything, tmp_path, how, workers, request):
    recipe = everything.override({"data.workers": workers})
    train(recipe, run_dir=tmp_path / "whole", progress=False)
    (tmp_path / "recipe.json").write_text(recipe.to_json())
    size = (tmp_path / "whole" / "last.pt").stat().st_size
    seed = request.config.getoption("--seed")
    command = [sys.executable, "-c", KILLER, str(tmp_path), how, str(seed), "12", str(size)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["12"], f"done before it was killed twelve times: {done.stdout}{done.stderr}"
    if how == "bytes":
        assert (tmp_path / "killed" / "last.pt.tmp").exists()  # cut off in the last save
    train(recipe, run_dir=tmp_path / "killed", resume=True, progress=False)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.slow
def test_everything_that_is_on_has_its_effect(everything):
    """Else surviving it would prove nothing."""
    first = train(everything.override({"duration": "6 steps"}), progress=False)
    assert first.ema is not None
    for name, off in (
        ("augment.mixup", 0.0), ("augment.cutmix", 0.0), ("augment.mix_prob", 1.0), ("augment.repeats", 1),
        ("augment.random_erasing_prob", 0.0), ("augment.randaugment", (0, 0)), ("micro_batch_size", 4), ("model.drop_path", 0.0),
    ):  # fmt: skip
        other = train(everything.override({"duration": "6 steps", name: off}), progress=False)
        pairs = zip(first.model.parameters(), other.model.parameters(), strict=True)
        assert not all(torch.equal(a, b) for a, b in pairs), name


@pytest.mark.parametrize("seed", range(3))
def test_the_state_is_one_of_the_two_last_saved(everything, tmp_path, seed):
    """However long it ran, at most the steps since the last save are lost."""
    steps = random.Random(seed).randrange(4, 12)
    train(everything, run_dir=tmp_path / "run", max_steps=steps, progress=False)
    assert read_state(tmp_path / "run" / "last.pt")["position"]["step"] == steps
    assert read_state(tmp_path / "run" / "previous.pt")["position"]["step"] == (steps - 1) // 3 * 3
