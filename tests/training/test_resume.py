"""Resuming: a run that is killed, wherever, and resumed ends as one that was not; what cannot be resumed is refused."""

import os
import shutil
import signal

import pytest
import torch

from spvit_mini.errors import UserError
from spvit_mini.training import checkpoint, loop, train

from .conftest import assert_same_run, metrics


class Killed(BaseException):
    """Stands for a kill: nothing in the package catches it."""


def killed_at(monkeypatch, where: str, count: int):
    """Arrange that the `count`-th call of a function ends the process, as far as the package can tell."""
    module, name = {
        "step": (loop, "lr_at"),
        "evaluation": (loop, "evaluate"),
        "no row": (loop, "write_rows"),
        "row": (checkpoint, "write_rows"),
        "best": (checkpoint, "save_weights"),
        "state": (torch, "save"),
        "rename": (os, "replace"),
    }[where]
    real, calls = getattr(module, name), 0

    def counting(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == count:
            raise Killed
        return real(*args, **kwargs)

    monkeypatch.setattr(module, name, counting)


KILLS = (
    [("step", n) for n in (1, 2, 3, 6, 12)] + [("evaluation", n) for n in (1, 2, 3)] + [("no row", 1), ("row", 1), ("row", 3)]
)
KILLS += [("best", 1), ("state", 1), ("state", 3), ("state", 6), *(("rename", n) for n in range(1, 18, 2))]


@pytest.mark.parametrize(("where", "count"), KILLS)
def test_killed_anywhere_and_resumed_the_run_ends_the_same(tiny, whole, tmp_path, monkeypatch, where, count):
    with monkeypatch.context() as patch:
        killed_at(patch, where, count)
        with pytest.raises(Killed):
            train(tiny, run_dir=tmp_path / "killed", progress=False)
    train(tiny, run_dir=tmp_path / "killed", resume=True, progress=False)
    assert_same_run(whole, tmp_path / "killed")
    leftover = [p.name for p in (tmp_path / "killed").iterdir() if p.suffix == ".tmp"]
    assert leftover == []


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_at_every_step_with_augmented_images(tiny_tree, tmp_path, monkeypatch, workers):
    """A state a step, so that each attempt gets one step further."""
    recipe = tiny_tree.override(
        {"data.workers": workers, "save_every": "1 step", "duration": "7 steps", "evaluate_every": "3 steps"}
    )
    train(recipe, run_dir=tmp_path / "whole", progress=False)
    for _ in range(7):
        with monkeypatch.context() as patch:
            killed_at(patch, "step", 2)
            try:
                train(recipe, run_dir=tmp_path / "killed", resume=True, progress=False)
            except Killed:
                continue
        break
    train(recipe, run_dir=tmp_path / "killed", resume=True, progress=False)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_ends_after_the_step_at_hand(tiny, whole, tmp_path, monkeypatch, number, capfd):
    before = signal.getsignal(number)
    real, calls = loop.lr_at, 0

    def signalling(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == 7:
            os.kill(os.getpid(), number)
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "lr_at", signalling)
        result = train(tiny, run_dir=tmp_path / "run", progress=False)
    assert (result.step, result.steps, result.stopped_by) == (7, 12, number)
    assert signal.getsignal(number) is before
    assert "saving and stopping" in capfd.readouterr().err
    assert checkpoint.read_state(tmp_path / "run" / "last.pt")["position"]["step"] == 7
    assert train(tiny, run_dir=tmp_path / "run", resume=True, progress=False).stopped_by is None
    assert_same_run(whole, tmp_path / "run")


@pytest.mark.parametrize("count", [1, 3])
def test_a_signal_in_an_evaluation_does_not_wait_for_its_end(tiny, whole, tmp_path, monkeypatch, count):
    """The state is saved at once; the resumed run makes the evaluation first, and its row."""
    real, calls = loop.evaluate, 0

    def interrupted(model, batches, **options):
        nonlocal calls
        calls += 1
        if calls == count:
            batches = iter(batches)
            first = next(batches)
            os.kill(os.getpid(), signal.SIGTERM)
            return real(model, [first, *batches], **options)
        return real(model, batches, **options)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "evaluate", interrupted)
        result = train(tiny, run_dir=tmp_path / "run", progress=False)
    at = [5, 10, 12][count - 1]
    assert (result.step, len(result.rows), result.stopped_by) == (at, count - 1, signal.SIGTERM)
    assert checkpoint.read_state(tmp_path / "run" / "last.pt")["position"]["step"] == at
    assert [row["step"] for row in train(tiny, run_dir=tmp_path / "run", resume=True, progress=False).rows] == [5, 10, 12]
    assert_same_run(whole, tmp_path / "run")


def test_rows_after_the_state_are_cut_and_made_again(tiny, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        killed_at(patch, "step", 6)  # after the row of step 5; the last state is that of step 4
        with pytest.raises(Killed):
            train(tiny, run_dir=tmp_path / "run", progress=False)
    assert [row[0] for row in metrics(tmp_path / "run")] == ["step", "5"]
    with monkeypatch.context() as patch:
        killed_at(patch, "step", 1)
        with pytest.raises(Killed):
            train(tiny, run_dir=tmp_path / "run", resume=True, progress=False)
    assert [row[0] for row in metrics(tmp_path / "run")] == ["step"]


def test_resuming_a_finished_run_changes_nothing(tiny, tmp_path):
    first = train(tiny, run_dir=tmp_path / "run", progress=False)
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}
    again = train(tiny, run_dir=tmp_path / "run", resume=True, progress=False)
    assert {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()} == before
    assert again.rows == first.rows and (again.step, again.steps) == (12, 12)


def test_resuming_where_nothing_is_begins_and_says_so(tiny, tmp_path, capsys):
    train(tiny, run_dir=tmp_path / "run", resume=True, max_steps=2)
    assert "no state to resume from yet: starting at step 0" in capsys.readouterr().out
    train(tiny, run_dir=tmp_path / "run", resume=True)
    assert f"resumed from {tmp_path / 'run' / 'last.pt'} at step 2" in capsys.readouterr().out


def test_stopped_by_max_steps_the_weights_still_end_the_same(tiny, tmp_path):
    whole = train(tiny, progress=False).model.state_dict()
    train(tiny, run_dir=tmp_path / "run", max_steps=7, progress=False)
    resumed = train(tiny, run_dir=tmp_path / "run", resume=True, progress=False)
    assert all(torch.equal(value, whole[name]) for name, value in resumed.model.state_dict().items())
    assert [row["step"] for row in resumed.rows] == [5, 7, 10, 12]  # that of the stop stays


def untouched(run, recipe, says):
    """Check that resuming is refused with these words and that no file in the run folder changes."""
    before = {p.name: p.read_bytes() for p in run.iterdir()}
    with pytest.raises(UserError, match=says) as caught:
        train(recipe, run_dir=run, resume=True, progress=False)
    assert "\n" not in str(caught.value)
    assert {p.name: p.read_bytes() for p in run.iterdir()} == before


@pytest.fixture
def two_states(tiny, tmp_path):
    train(tiny, run_dir=tmp_path / "run", max_steps=4, progress=False)
    return tmp_path / "run"


def test_a_state_that_is_cut_off(tiny, two_states):
    whole = (two_states / "last.pt").read_bytes()
    (two_states / "last.pt").write_bytes(whole[: len(whole) // 2])
    untouched(two_states, tiny, r"last.pt is cut off.*previous.pt \(step 2\), is complete: move last.pt away")
    (two_states / "last.pt").unlink()
    assert train(tiny, run_dir=two_states, resume=True, progress=False).step == 12


def test_a_state_of_another_model(tiny, two_states, tmp_path):
    train(tiny.override({"model.name": "vit_mini"}), run_dir=tmp_path / "vit", max_steps=2, progress=False)
    shutil.copy(tmp_path / "vit" / "last.pt", two_states / "last.pt")
    untouched(two_states, tiny, r"last.pt has model.name = vit_mini, not spvit_mini")


def test_a_state_whose_weights_do_not_fit(tiny, two_states):
    state = checkpoint.read_state(two_states / "last.pt")
    state["model"]["head.bias"] = torch.zeros(3)
    torch.save(state, two_states / "last.pt")
    untouched(two_states, tiny, r"last.pt has the weights of another model.*head.bias")


def test_a_state_that_lacks_a_part(tiny, two_states):
    torch.save({"format": checkpoint.FORMAT, "step": 3}, two_states / "last.pt")
    untouched(two_states, tiny, "last.pt is not a training state")


def test_a_state_of_another_class_count(tiny_tree, tree, tmp_path):
    train(tiny_tree, run_dir=tmp_path / "run", max_steps=2, progress=False)
    other = tmp_path / "data"
    shutil.copytree(tree, other)
    for part in ("train", "val"):
        shutil.copytree(other / "tree" / part / "red", other / "tree" / part / "ultraviolet")
    says = "saved with 3 classes and 33 training images, but the data here have 4 classes"
    untouched(tmp_path / "run", tiny_tree.override({"data.root": other}), says)


def test_images_that_have_come_or_gone(tiny_tree, tree, tmp_path):
    train(tiny_tree, run_dir=tmp_path / "run", max_steps=2, progress=False)
    other = tmp_path / "data"
    shutil.copytree(tree, other)
    (other / "tree" / "train" / "red" / "3.png").unlink()
    untouched(
        tmp_path / "run",
        tiny_tree.override({"data.root": other}),
        "and 33 training images, but .* 32 training images",
    )
    assert train(tiny_tree.override({"data.root": tree}), run_dir=tmp_path / "run", resume=True, progress=False).step == 12


def test_what_is_wrong_with_model_or_data_leaves_no_run_behind(tiny, tmp_path):
    for change in ({"model.patch": 5}, {"data.name": "compas"}, {"batch_size": 1000}, {"model.name": "vit"}):
        with pytest.raises(UserError):
            train(tiny.override(change), run_dir=tmp_path / "run", progress=False)
        assert not (tmp_path / "run").exists()
