"""Several processes train the model that one would, score it to the integer, and part in good order."""

import os
import signal
import sys

import pytest
import torch
from torch.utils.data import TensorDataset

from spvit_mini import load_weights
from spvit_mini.training.distributed import ProcessGroup, ValidationShard
from spvit_mini.training.signals import StopSignal

from .teams import do, together

pytestmark = pytest.mark.slow


# Nothing that draws random numbers in a step, and all else that could differ, in a bit more than an epoch.
EXACT = {
    "model.drop_path": 0.0,
    "optim.clip_grad_norm": 0.5,
    "optim.layer_decay": 0.8,
    "data.val_images": 101,
    "duration": "8 steps",
    "evaluate_every": "4 steps",
    "save_every": "5 steps",
}


@pytest.fixture(scope="module")
def recipes(tiny, tiny_tree):
    """The same training, in the ways that processes can share it; augmented copies; and a model with batch norms."""
    exact = tiny.but(EXACT)
    stem = {"model.name": "lvvit_s", "model.patch": 8, "model.dim": 16, "model.heads": 2, "model.depth": 2}
    return {
        "whole": exact.but({"ema": 0.9}),
        "accumulated": exact.but({"ema": 0.9, "micro_batch_size": 5}),
        "in parts": exact.but({"sharding": "fsdp"}),
        "in parts, accumulated": exact.but({"sharding": "fsdp", "micro_batch_size": 5}),
        "repeated": tiny_tree.but(EXACT | {"augment.repeats": 2, "batch_size": 4}),
        "batch norms": exact.but({**stem, "ema": 0.9}),
    }


@pytest.fixture(scope="module")
def alone(recipes):
    """What one process makes of them: the reference."""
    return {name: do({"recipe": recipes[name], "double": True}) for name in ("whole", "repeated")}


@pytest.fixture(scope="module")
def of_two(recipes, tmp_path_factory):
    """What two processes make of them: results by name, a list of the processes'."""
    folder, jobs = tmp_path_factory.mktemp("two"), []

    def job(out, recipe, **options):
        jobs.append({"out": folder / out, "recipe": recipe, "double": True, **options})

    for name, recipe in recipes.items():
        job(name, recipe)
    do({"recipe": recipes["in parts"], "run_dir": folder / "one", "double": True, "max_steps": 5})
    job("half", recipes["in parts"], run_dir=folder / "parts", max_steps=5)
    job("half", recipes["repeated"], run_dir=folder / "repeated", max_steps=5)
    job("half", recipes["batch norms"], run_dir=folder / "norms", max_steps=5)
    job("of one, in parts", recipes["in parts"], run_dir=folder / "one", resume=True)
    job("of parts, whole", recipes["in parts"].but({"sharding": "ddp"}), run_dir=folder / "parts", resume=True)
    job("norms resumed", recipes["batch norms"], run_dir=folder / "norms", resume=True)
    job("norms of one step", recipes["batch norms"], max_steps=1)
    job("odd batch", recipes["whole"].but({"batch_size": 21}), refused=True)
    job("large micro-batch", recipes["whole"].but({"micro_batch_size": 20}), refused=True)
    together(jobs, folder)
    results = {job["out"].name: [torch.load(f"{job['out']}.{rank}") for rank in range(2)] for job in jobs}
    return results | {"folder": folder}


TRAINING = ("train_loss", "train_top1")
SCORES = ("step", "images", "lr", "val_loss", "val_top1", "val_top5")


def assert_same(result, reference, columns=TRAINING + SCORES, weights="weights"):
    """Check losses and weights to 1e-10, and with it that as many images were counted right."""
    assert result[weights].keys() == reference[weights].keys()
    for name, value in reference[weights].items():
        torch.testing.assert_close(result[weights][name], value, rtol=1e-10, atol=1e-10)
    for row, expected in zip(result["rows"], reference["rows"], strict=True):
        for column in columns:
            assert row[column] == pytest.approx(expected[column], rel=1e-10), column


@pytest.mark.parametrize("name", ["whole", "accumulated", "in parts", "in parts, accumulated", "repeated"])
def test_two_processes_train_as_one(of_two, alone, name):
    for result in of_two[name]:
        assert_same(result, alone["repeated" if name == "repeated" else "whole"])


@pytest.mark.parametrize("name", ["whole", "accumulated"])
def test_the_average_of_the_weights_is_the_same(of_two, alone, name):
    for result in of_two[name]:
        assert_same(result, alone["whole"], columns=("ema_loss", "ema_top1"), weights="ema")


def test_accumulation_equals_the_large_batch(recipes, alone):
    assert_same(do({"recipe": recipes["accumulated"], "double": True}), alone["whole"])


@pytest.mark.parametrize("name", ["of one, in parts", "of parts, whole"])
def test_a_state_is_resumed_by_others_than_saved_it(of_two, alone, name):
    """By two processes, in parts, what one has saved; held whole, what was saved in parts."""
    for result in of_two[name]:
        assert [row["step"] for row in result["rows"]] == [4, 5, 8]
        del result["rows"][1]  # of the stop, which shares the training images between two rows
        assert_same(result, alone["whole"], columns=SCORES)


def test_a_state_of_two_processes_is_resumed_by_one(recipes, of_two, alone):
    result = do({"recipe": recipes["repeated"], "run_dir": of_two["folder"] / "repeated", "resume": True, "double": True})
    del result["rows"][1]
    assert_same(result, alone["repeated"], columns=SCORES)


def test_weights_in_parts_leave_whole_files_behind(of_two, alone):
    weights, _ = load_weights(of_two["folder"] / "parts" / "best.safetensors")
    assert weights.keys() == alone["whole"]["weights"].keys()
    assert {name: value.shape for name, value in weights.items()} == {
        name: value.shape for name, value in alone["whole"]["weights"].items()
    }


def test_batch_norms_remember_alike_in_all_processes(recipes, of_two):
    """The mean over the batch is the mean over its parts' means: after one step, the first norm's is a single process's."""
    first, second = of_two["norms of one step"]
    expected = do({"recipe": recipes["batch norms"], "double": True, "max_steps": 1})["weights"]
    name = next(name for name in expected if name.endswith("running_mean"))
    torch.testing.assert_close(first["weights"][name], expected[name], rtol=1e-10, atol=1e-10)
    assert expected[name].abs().max() > 1e-3
    for one, two in ((first, second), of_two["batch norms"]):
        for kind in ("weights", "ema"):
            assert all(torch.equal(value, two[kind][name]) for name, value in one[kind].items())


def test_with_batch_norms_a_resumed_run_ends_the_same(of_two):
    for resumed, undisturbed in zip(of_two["norms resumed"], of_two["batch norms"], strict=True):
        del resumed["rows"][1]
        for kind in ("weights", "ema"):
            assert all(torch.equal(value, undisturbed[kind][name]) for name, value in resumed[kind].items())
        for row, expected in zip(resumed["rows"], undisturbed["rows"], strict=True):
            assert {c: row[c] for c in (*SCORES, "ema_loss", "ema_top1")} == {
                c: expected[c] for c in (*SCORES, "ema_loss", "ema_top1")
            }


def test_a_batch_that_the_processes_cannot_share_is_refused(of_two):
    for result in of_two["odd batch"]:
        assert "batch_size is 21, which 2 processes with micro-batches of 10 cannot share evenly" in result["error"]
    for result in of_two["large micro-batch"]:
        assert "2 processes with micro-batches of 20 cannot share evenly" in result["error"]


def test_three_processes_train_and_score_as_one(tiny, tmp_path):
    """Of 101 validation images, 3 processes score 34, 34 and 33."""
    recipe = tiny.but(EXACT | {"batch_size": 21})
    together([{"recipe": recipe, "double": True, "out": tmp_path / "three"}], tmp_path, processes=3)
    expected = do({"recipe": recipe, "double": True})
    for rank in range(3):
        assert_same(torch.load(tmp_path / f"three.{rank}"), expected)


@pytest.mark.parametrize("images", [1, 2, 3, 101])
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_shares_hold_each_image_once_and_are_of_one_length(images, world):
    numbers = TensorDataset(torch.arange(images), torch.arange(images) + 7)
    shares = [ValidationShard(numbers, ProcessGroup(rank, world, rank)) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1
    pairs = [share[i] for share in shares for i in range(len(share))]
    assert sorted((int(image), int(label)) for image, label in pairs if label >= 0) == [
        (i, i + 7) for i in range(images)
    ]


def test_what_all_do_alike_is_silence_others(capsys):
    for rank in range(3):
        with ProcessGroup(rank, 3, rank).silence_others():
            print("a warning", file=sys.stderr)
    assert capsys.readouterr().err == "a warning\n"


@pytest.mark.parametrize("launched", [True, False])
def test_a_second_signal_ends_a_run_at_once_but_not_under_torchrun(monkeypatch, capfd, launched):
    if launched:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with StopSignal(True) as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            assert (signal.getsignal(signal.SIGTERM) == stop._handle) is launched
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.signal == signal.SIGTERM
        assert capfd.readouterr().err.count("saving and stopping") == 1
    finally:
        signal.signal(signal.SIGTERM, before)
