"""Processes that die or meet an error: torchrun starts them again, or all end and the user hears it once."""

import shutil
from itertools import islice
from pathlib import Path

import pytest

from spvit_mini.data import TrainBatches, load_data
from spvit_mini.recipes import get_recipe

from .conftest import assert_same_run
from .processes import run_jobs, start_torchrun

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("hosts")]


def test_processes_that_are_killed_start_again_and_end_as_if_nothing_had_been(recipes, of_two, tmp_path):
    """With all that a state must hold: averaged weights, mixing, copies, accumulation. Two die, one after the other."""
    deaths = [(0, 1, 5), (1, 0, 8)]  # (attempt, rank, step)
    job = {"recipe": recipes["mixed"], "out": tmp_path / "out", "run_dir": tmp_path / "killed", "dies": deaths}
    run_jobs([job], tmp_path, options=("--standalone", "--max-restarts", "2"))
    assert_same_run(of_two["folder"] / "mixed", tmp_path / "killed")


def command(run, *options, recipe="vit_mini_compass6"):
    return ["-m", "spvit_mini", "train", recipe, "--run-dir", str(run), "--model.dim", "16", *options]


def fails(*arguments, **options):
    """Run torchrun to its end, which must be an error of the user's: the lines that begin with `error:`."""
    process = start_torchrun(*arguments, **options)
    out, err = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "[rank" not in err and err.count("Traceback") == 1, err  # torchrun's own is the only one
    return [line for line in err.splitlines() if line.startswith("error:")]


def test_an_error_that_all_meet_is_told_once(tmp_path):
    [line] = fails(*command(tmp_path / "run", "--data.name", "compas"))
    assert line.startswith("error: there is no dataset 'compas'")


def test_an_error_that_one_meets_is_told_with_its_process(tree, tmp_path):
    """The file that the second process reads first in the third step is cut off; the first one waits for it meanwhile."""
    shutil.copytree(tree, tmp_path / "data")
    places = {"data.name": "tree", "data.root": tmp_path / "data", "data.image_size": 16, "batch_size": 4}
    recipe = get_recipe("vit_mini_flowers17").override({**places, "data.on_corrupt_image": "error"})
    data = load_data(recipe.data, recipe.augment, seed=recipe.seed)
    third = next(islice(TrainBatches(len(data.train), 4, recipe.seed, rank=1, world_size=2), 2, None))
    broken = Path(data.train.source.files.path(third[0].index))
    broken.write_bytes(broken.read_bytes()[:200])
    options = [f"--{name.replace('_', '-')}={value}" for name, value in places.items()]
    [line] = fails(*command(tmp_path / "run", *options, "--device", "cpu", recipe="vit_mini_flowers17"))
    assert line.startswith("error: process 1 of 2, on ") and f"{broken} is truncated" in line
