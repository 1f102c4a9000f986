"""Rows for TensorBoard, read back with TensorBoard's own reader."""

import sys

import pytest

from spvit_mini.cli.train import main
from spvit_mini.errors import UserError
from spvit_mini.training import train
from spvit_mini.training.metrics import COLUMNS, read_rows
from spvit_mini.training.tensorboard import TensorBoardWriter, make_tag

TAGS = {
    "epoch": "run/epoch",
    "lr": "run/lr",
    "train_loss": "loss/train",
    "val_loss": "loss/val",
    "ema_loss": "loss/ema",
    "train_top1": "top-1/train",
    "val_top5": "top-5/val",
    "ema_top1": "top-1/ema",
    "mfu": "speed/mfu",
    "images_per_second": "speed/images_per_second",
}


@pytest.fixture
def curves():
    """Read a run's curves: {tag: [(step, value), …]}, as TensorBoard shows them."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator").EventAccumulator

    def read(run):
        events = accumulator(str(run / "tensorboard"), size_guidance={"scalars": 0}).Reload()
        return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}

    return read


def test_curves_that_belong_together_stand_together():
    assert {column: make_tag(column) for column in TAGS} == TAGS
    assert len({make_tag(column) for column in COLUMNS}) == len(COLUMNS)


def test_a_resumed_run_has_every_row_once_and_none_that_was_undone(tiny, tmp_path, curves):
    run = tmp_path / "run"
    recipe = tiny.override({"ema": 0.9, "evaluate_every": "1 step", "save_every": "5 steps"})

    class Killed(Exception):
        pass

    def kill(step, model, row):
        if step == 8:  # the last state is that of step 5: rows 6 to 8 are made anew
            raise Killed

    with pytest.raises(Killed):
        train(recipe, run_dir=run, progress=False, tensorboard=True, on_evaluation=kill)
    assert [step for step, _ in curves(run)["loss/val"]] == list(range(1, 9))
    train(recipe, run_dir=run, resume=True, progress=False, tensorboard=True, max_steps=11)
    train(recipe, run_dir=run, resume=True, progress=False, tensorboard=True)
    rows, shown = read_rows(run / "metrics.csv"), curves(run)
    assert [row["step"] for row in rows] == list(range(1, 13))
    for column in set(COLUMNS) - {"step", "mfu"}:  # there is no MFU on a CPU
        assert shown[make_tag(column)] == [(row["step"], pytest.approx(row[column], rel=1e-5)) for row in rows], column
    assert set(shown) == {make_tag(column) for column in COLUMNS} - {"run/step", "speed/mfu"}


def test_without_the_package_one_line_says_what_to_do_and_nothing_is_written(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match="tensorboard is missing. Use pip install tensorboard"):
        train(tiny, run_dir=tmp_path / "run", progress=False, tensorboard=True)
    assert list(tmp_path.iterdir()) == []


def test_without_a_run_folder_there_is_no_place_for_it(tiny):
    with pytest.raises(UserError, match="need a run folder"):
        TensorBoardWriter(None)


def test_the_program_has_the_option(tmp_path, curves):
    run = tmp_path / "run"
    options = "--model.depth 1 --model.dim 16 --model.heads 2 --batch-size 10 --max-steps 2 --device cpu --data.train-images 60"
    main(["vit_mini_compass6", *options.split(), "--data.val-images", "20", "--run-dir", str(run), "--tensorboard"])
    assert [step for step, _ in curves(run)["top-1/val"]] == [2]
