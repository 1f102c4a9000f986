"""What a run says of itself: the lines at its beginning, the bar, and the two things that are said aloud."""

import math
import re
import sys
from functools import partial
from itertools import count
from types import SimpleNamespace

import pytest
import torch
import tqdm

from spvit_mini import create_model
from spvit_mini.data import load_data
from spvit_mini.flops import multiply_adds
from spvit_mini.training import loop, progress, train
from spvit_mini.training.metrics import COLUMNS, ClassificationMetrics
from spvit_mini.training.progress import ProgressDisplay, describe_run

ROW = dict.fromkeys(COLUMNS, 0.0) | {"ema_loss": None, "ema_top1": None, "mfu": None, "skipped_steps": 0}


def counts(loss: float) -> ClassificationMetrics:
    return ClassificationMetrics(torch.tensor(20), torch.tensor(20 * loss, dtype=torch.float64), torch.tensor(5), torch.tensor(9))


def said(recipe, *, device="cpu", precision=torch.float32, processes=1) -> list[str]:
    data = load_data(recipe.data, recipe.augment, seed=0)
    model = create_model("vit_mini", num_classes=8, image_size=data.preprocessing.image_size, depth=1, dim=16, heads=2)
    where = {"device": torch.device(device), "precision": precision, "run_dir": "runs/x", "processes": processes}
    return describe_run(model, recipe, data, steps=12, **where).splitlines()


def test_a_plain_run_needs_five_lines(tiny):
    lines = said(tiny)
    assert [line.split()[0] for line in lines] == ["model", "data", "steps", "device", "run"]
    assert lines[2] == "steps   12 of 20 images, 6 per epoch; learning rate 0.002, seed 0"
    assert "MFU" not in lines[3]


def test_it_says_how_the_batch_and_the_learning_rate_come_about(tiny):
    lines = said(tiny.override({"batch_size": 120, "micro_batch_size": 10, "optim.lr_base_batch_size": 480}), processes=4)
    assert lines[2] == (
        "steps   12 of 120 images (4 processes × 3 micro-batches of 10), 1 per epoch; "
        "learning rate 0.002 × 120 / 480 = 0.0005, seed 0"
    )
    assert "(4 processes × 5)" in said(tiny, processes=4)[2]
    assert "(1 process × 2 micro-batches of 10)" in said(tiny.override({"micro_batch_size": 10}))[2]


def test_it_says_what_is_done_beside_the_plain_thing(tiny, tmp_path):
    assert said(tiny.override({"ema": 0.9999, "token_labels.folder": tmp_path}))[3] == (
        f"also    EMA weights (decay 0.9999), token labels from {tmp_path} (weight 1)"
    )
    changes = {"compile": True, "activation_checkpointing": True, "sharding": "fsdp"}
    lines = said(tiny.override(changes), processes=2)
    assert lines[3] == "also    compiled, activation checkpointing, sharded weights (FSDP)"


def test_of_an_accelerator_it_says_the_peak_or_that_there_is_no_mfu(tiny, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    for precision, peak in ((torch.bfloat16, 989.4), (torch.float32, 67)):
        (line,) = (line for line in said(tiny, device="cuda:0", precision=precision) if line.startswith("device"))
        assert line.startswith("device  cuda:0, NVIDIA H200, ") and line.endswith(f"; MFU is of {peak} TFLOP/s")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Abacus 9")
    assert "no MFU, since the peak of this device is not known" in "".join(said(tiny, device="cuda:0"))


@pytest.fixture
def shown(tiny, capsys):
    """Make a display of lines, and give what it has printed since."""
    made = []

    def make(recipe=tiny, **options) -> tuple[ProgressDisplay, callable]:
        made.append(ProgressDisplay(recipe, **{"enabled": True, "start": 0, "last": 12, "classes": 8} | options))
        return made[-1], lambda: capsys.readouterr().out.splitlines()

    yield make
    for one in made:
        one.bar.close()


@pytest.mark.parametrize(("loss", "odd"), [(math.log(8), False), (3.0, False), (3.2, True), (math.nan, True), (0.1, False)])
def test_a_first_loss_far_above_guessing_is_said(shown, loss, odd):
    screen, lines = shown()
    screen.update(counts(loss), seconds=0.1, waited=0.0)
    warning = f"the first loss is {loss:.2f}, but uniform probabilities over 8 classes give ln 8 = 2.08"
    assert any(warning in line for line in lines()) == odd
    screen.update(counts(9.0), seconds=0.1, waited=0.0)
    assert lines() == []  # later steps are no first ones


def test_a_resumed_run_and_token_labels_have_other_first_losses(shown, tiny, tmp_path):
    for screen, lines in (shown(start=3), shown(tiny.override({"token_labels.folder": tmp_path})), shown(enabled=False)):
        screen.update(counts(9.0), seconds=0.1, waited=0.0)
        assert lines() == []


def test_input_bound_is_said_once_and_shown_in_every_line(shown, tiny):
    screen, lines = shown(tiny.override({"data.workers": 3}))
    for waited, text in ((0.9, None), (2.3, "23% waiting"), (5.0, "50% waiting")):
        for _ in range(10):
            screen.update(counts(2.0), seconds=1.0, waited=waited / 10)
        screen.show_row(ROW)
        row, *more = lines()
        assert ("waiting" in row) == (text is not None) and (text or "") in row
        if waited == 2.3:
            assert more[0].startswith("input-bound: 23% of the training time") and "(3 now, " in more[0]
        else:
            assert not more


def test_a_moment_of_waiting_in_a_short_run_is_not_worth_a_word(shown):
    screen, lines = shown()
    screen.update(counts(2.0), seconds=1.0, waited=0.9)
    screen.show_row(ROW)
    assert len(lines()) == 1


def test_a_line_says_the_average_the_utilisation_and_skipped_steps(shown):
    screen, lines = shown()
    screen.show_row(ROW | {"ema_loss": 1.5, "ema_top1": 61.25, "mfu": 31.26, "skipped_steps": 2, "seconds": 61})
    (line,) = lines()
    assert "EMA loss 1.5000 top-1 61.25 %  " in line and "MFU 31.3 %  " in line and "2 skipped  1:01" in line


def test_on_a_terminal_the_bar_has_the_average_too(tiny, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(progress, "REFRESH_SECONDS", 0.0)
    monkeypatch.setattr(progress, "tqdm", partial(progress.tqdm, mininterval=0, ncols=150))
    progress.tqdm.write = tqdm.tqdm.write
    result = train(tiny.override({"ema": 0.9}))
    bars = [bar for bar in capsys.readouterr().err.split("\r") if "12/12 [" in bar]
    seen = re.search(r"val ([\d.]+) %, EMA ([\d.]+) %, [\d,]+ images/s, \d+% waiting", bars[-1])
    row = result.rows[1]  # the one before the last
    assert (float(seen[1]), float(seen[2])) == pytest.approx((row["val_top1"], row["ema_top1"]), abs=0.06)


def test_what_the_loop_measures_by_a_clock_that_counts_its_readings(tiny, monkeypatch):
    """A step of two micro-batches reads the clock at its start and end and around each wait: 5 ticks, 2 of them waiting."""
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=map(float, count()).__next__))
    monkeypatch.setattr(loop, "peak_flops", lambda name, precision: 1e9)
    result = train(tiny.override({"micro_batch_size": 10}), progress=False, max_steps=5)
    (row,) = result.rows
    assert (row["images_per_second"], row["data_seconds"]) == (5 * 20 / (5 * 5), 5 * 2)
    assert row["mfu"] == pytest.approx(100 * 4 * 6 * multiply_adds(result.model)["total"] / 1e9)
    monkeypatch.undo()
    assert [row["mfu"] for row in train(tiny, progress=False, max_steps=5).rows] == [None]  # a CPU's peak is not known
