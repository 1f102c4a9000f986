"""Resuming: a run that is killed, wherever, and resumed ends as one that was not; what cannot be resumed is refused."""

import os
import shutil
import signal

import pytest
import torch

from spvit_mini.errors import UserError
from spvit_mini.training import checkpoint, loop, train
from spvit_mini.training.summary import read_history

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
    untouched(two_states, tiny, r"last.pt has the state of another model.*head.bias")


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


def swap(folder):
    """Remove an image and add another, so that the count stays."""
    (folder / "red" / "0.png").rename(folder / "red" / "00.png")


def move(folder):
    """Give an image to another class: the same names and counts, but for two."""
    (folder / "red" / "0.png").rename(folder / "blue" / "99.png")
    (folder / "blue" / "0.png").rename(folder / "red" / "99.png")


@pytest.mark.parametrize("part", ["train", "val"])
@pytest.mark.parametrize("change", [swap, move])
def test_other_files_of_the_same_number_are_refused(tiny_tree, tree, tmp_path, part, change):
    """Restored, they are those of the state again, wherever they are; a state of an earlier version doesn't know them."""
    train(tiny_tree, run_dir=tmp_path / "run", max_steps=2, progress=False)
    shutil.copytree(tree, tmp_path / "data")
    moved = tiny_tree.override({"data.root": tmp_path / "data"})
    assert train(moved, run_dir=tmp_path / "run", resume=True, max_steps=3, progress=False).step == 3
    change(tmp_path / "data" / "tree" / part)
    says = r"was saved with other image files: 3 classes, 33 \+ 12 images, names \w+, but here 3 classes, 33 \+ 12 images, names"
    untouched(tmp_path / "run", moved, says)
    state = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    state["recipe"] = tiny_tree.to_json()
    torch.save(state, tmp_path / "run" / "last.pt")
    assert train(moved, run_dir=tmp_path / "run", resume=True, max_steps=4, progress=False).step == 4


DAMAGES = {
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:60]),
    "empty": lambda path: path.write_bytes(b""),
    "link": lambda path: (path.unlink(), path.symlink_to("nowhere.png")),
}


@pytest.mark.parametrize("part", ["train", "val"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_each_remedy_for_a_damaged_image_works_in_a_resumed_run(tiny_tree, tree, tmp_path, part, damage):
    """Replaced by its former self, the run ends as one that nothing disturbed. Skipped, it ends in the same order of images."""
    shutil.copytree(tree, tmp_path / "data")
    recipe = tiny_tree.override({"data.root": tmp_path / "data", "save_every": "1 step"})
    whole = train(recipe, progress=False).model.state_dict()
    train(recipe, run_dir=tmp_path / "run", max_steps=1, progress=False)
    path = tmp_path / "data" / "tree" / part / "green" / "1.png"
    content = path.read_bytes()
    DAMAGES[damage](path)
    says = "green/1.png is .*; replace it, or skip such files with --data.on-corrupt-image skip$"
    with pytest.raises(UserError, match=says):
        train(recipe, run_dir=tmp_path / "run", resume=True, progress=False)
    shutil.copytree(tmp_path / "run", tmp_path / "skipped")
    skipping = recipe.override({"data.on_corrupt_image": "skip"})
    assert train(skipping, run_dir=tmp_path / "skipped", resume=True, progress=False).step == 12
    assert "1 corrupt images" in (tmp_path / "skipped" / "summary.md").read_text()
    path.unlink()
    path.write_bytes(content)
    resumed = train(recipe, run_dir=tmp_path / "run", resume=True, progress=False).model.state_dict()
    assert all(torch.equal(value, whole[name]) for name, value in resumed.items())


@pytest.mark.parametrize("step", [0, 1])
def test_a_failure_before_the_first_state_blocks_nothing(tiny, tmp_path, monkeypatch, step):
    """In the first step nothing stays but what was there before; in a later step the recipe, which --resume reads."""
    run = tmp_path / "runs" / "run"
    before = []
    if step == 0:
        run.mkdir(parents=True)
        (run / "notes.txt").write_text("mine")
        before = ["notes.txt"]
    with monkeypatch.context() as patch:
        killed_at(patch, "step", step + 1)
        with pytest.raises(Killed):
            train(tiny, run_dir=run, progress=False)
    left = sorted(path.name for path in run.iterdir())
    assert left == (before if step == 0 else [".lock", "history.json", "metrics.csv", "recipe.json"])
    other = tiny.override({"optim.lr": 1e-4, "model.depth": 1})
    for resume in (True, False):
        shutil.copytree(run, tmp_path / f"{resume}")
        train(other, run_dir=tmp_path / f"{resume}", resume=resume, max_steps=2, progress=False)
        assert checkpoint.read_recipe(tmp_path / f"{resume}") == other
        assert len(read_history(tmp_path / f"{resume}")) == 1
    untouched(tmp_path / "True", tiny, "has model.depth = 1, not 2|has optim.lr")


def test_a_folder_that_was_made_for_a_failed_start_is_removed(tiny, tmp_path, monkeypatch):
    killed_at(monkeypatch, "step", 1)
    with pytest.raises(Killed):
        train(tiny, run_dir=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_what_is_wrong_with_model_or_data_leaves_no_run_behind(tiny, tmp_path):
    for change in ({"model.patch": 5}, {"data.name": "compas"}, {"batch_size": 1000}, {"model.name": "vit"}):
        with pytest.raises(UserError):
            train(tiny.override(change), run_dir=tmp_path / "run", progress=False)
        assert not (tmp_path / "run").exists()
