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

from .processes import run_job

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("hosts")]


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
    assert_same(run_job({"recipe": recipes["accumulated"], "double": True}), alone["whole"])


@pytest.mark.parametrize("name", ["of one, in parts", "of parts, whole"])
def test_a_state_is_resumed_by_others_than_saved_it(of_two, alone, name):
    """By two processes, in parts, what one has saved; held whole, what was saved in parts."""
    for result in of_two[name]:
        assert [row["step"] for row in result["rows"]] == [4, 5, 8]
        del result["rows"][1]  # of the stop, which shares the training images between two rows
        assert_same(result, alone["whole"], columns=SCORES)


def test_a_state_of_two_processes_is_resumed_by_one(recipes, of_two, alone):
    result = run_job({"recipe": recipes["repeated"], "run_dir": of_two["folder"] / "repeated", "resume": True, "double": True})
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
    expected = run_job({"recipe": recipes["batch norms"], "double": True, "max_steps": 1})["weights"]
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
