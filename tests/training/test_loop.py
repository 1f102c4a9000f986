"""The loop: its numbers against a plain one, the same numbers for the same seed, and what it refuses."""

import math
import os
import re
import sys
from functools import partial

import pytest
import torch
import torch.nn.functional as F
import tqdm

from spvit_mini import create_model, load_weights
from spvit_mini.data import TrainBatches, load_data
from spvit_mini.errors import UserError
from spvit_mini.training import progress, train
from spvit_mini.training.devices import choose_device
from spvit_mini.training.metrics import COLUMNS, TIME_COLUMNS, read_rows
from spvit_mini.zoo import model_from_weights


def without_time(rows):
    return [{k: v for k, v in row.items() if k not in TIME_COLUMNS} for row in rows]


def same_weights(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("seed", [0, 1])
def test_losses_and_rates_are_those_of_a_loop_written_out(tiny, seed):
    recipe = tiny.override({"seed": seed, "model.drop_path": 0.0, "optim.clip_grad_norm": 0.5})
    data = load_data(recipe.data, recipe.augment, seed=seed)
    torch.manual_seed(seed)
    model = create_model("spvit_mini", num_classes=8, image_size=24, depth=2, dim=16, heads=2)
    spared = model.no_decay()
    named = dict(model.named_parameters())
    optimiser = torch.optim.AdamW(
        [
            {"params": [p for n, p in named.items() if n not in spared], "weight_decay": recipe.optim.weight_decay},
            {"params": [p for n, p in named.items() if n in spared], "weight_decay": 0.0},
        ],
        foreach=False,
    )
    losses, rates, right = [], [], []
    for step, keys in zip(range(12), TrainBatches(123, 20, seed), strict=False):
        peak, final = recipe.optim.lr, recipe.optim.final_lr
        rate = peak * (step + 1) / 4
        if step >= 3:
            rate = final + (peak - final) * (1 + math.cos(math.pi * (step - 3) / 9)) / 2
        for group in optimiser.param_groups:
            group["lr"] = rate
        images = torch.stack([data.train.source.images[key.index] for key in keys])
        labels = torch.tensor([int(data.train.source.labels[key.index]) for key in keys])
        logits = model(images)
        target = 0.9 * F.one_hot(labels, 8) + 0.1 / 8
        loss = -(target * logits.log_softmax(-1)).sum(-1).mean()
        optimiser.zero_grad()
        loss.backward()
        norm = torch.cat([p.grad.flatten() for p in named.values()]).norm()
        for p in named.values():
            p.grad *= min(1.0, 0.5 / norm.item())
        optimiser.step()
        losses.append(loss.item())
        rates.append(rate)
        right.append((logits.argmax(-1) == labels).sum().item())
    result = train(recipe, progress=False)
    assert [row["step"] for row in result.rows] == [5, 10, 12]
    for row, steps in zip(result.rows, (range(5), range(5, 10), range(10, 12)), strict=True):
        assert row["lr"] == pytest.approx(rates[steps[-1]])
        assert row["train_loss"] == pytest.approx(sum(losses[i] for i in steps) / len(steps), rel=1e-4)
        assert row["train_top1"] == pytest.approx(100 * sum(right[i] for i in steps) / (20 * len(steps)))
        assert row["images"] == 20 * row["step"] and row["epoch"] == row["step"] / 6
    for mine, plain in zip(result.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-3, atol=1e-5)


def test_the_last_row_scores_the_model_that_comes_back(tiny):
    result = train(tiny, progress=False)
    data = load_data(tiny.data, seed=0)
    images = torch.stack([data.val[i][0] for i in range(len(data.val))])
    labels = torch.tensor([data.val[i][1] for i in range(len(data.val))])
    logits = result.model.eval()(images)
    assert result.rows[-1]["val_top1"] == 100 * (logits.argmax(-1) == labels).sum().item() / 41
    assert result.rows[-1]["val_loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert (result.step, result.steps, result.stopped_by) == (12, 12, None)
    assert result.best["val_top1"] == max(row["val_top1"] for row in result.rows)
    assert tuple(result.rows[0]) == COLUMNS


@pytest.mark.parametrize("which", ["tiny", "tiny_tree"])
def test_the_same_seed_gives_the_same_numbers_twice_and_another_seed_others(which, request):
    recipe = request.getfixturevalue(which)
    first = train(recipe, progress=False)
    torch.rand(17)  # whatever happened in between
    again = train(recipe, progress=False)
    assert without_time(first.rows) == without_time(again.rows)
    assert same_weights(first.model, again.model)
    other = train(recipe.override({"seed": 1}), progress=False)
    assert without_time(first.rows) != without_time(other.rows)


def test_loader_workers_change_nothing(tiny_tree):
    first = train(tiny_tree, progress=False)
    again = train(tiny_tree.override({"data.workers": 2}), progress=False)
    assert without_time(first.rows) == without_time(again.rows)
    assert same_weights(first.model, again.model)


def test_one_who_looks_on_changes_nothing(tiny):
    seen = []

    def look(step, model, row):
        assert not model.training
        torch.rand(100)
        seen.append((step, row["step"], [m.shape for m in model.spatial_maps()]))

    first = train(tiny, progress=False)
    watched = train(tiny, progress=False, on_evaluation=look)
    assert [(step, row) for step, row, _ in seen] == [(5, 5), (10, 10), (12, 12)]
    assert seen[0][2] == [(2, 36, 36)] * 2
    assert same_weights(first.model, watched.model)


def test_without_a_run_folder_nothing_is_written(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    train(tiny, progress=False)
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


def test_max_steps_makes_the_first_steps_of_the_whole_run(tiny):
    whole = train(tiny.override({"evaluate_every": "1 step"}), progress=False)
    part = train(tiny.override({"evaluate_every": "1 step"}), max_steps=7, progress=False)
    assert without_time(part.rows) == without_time(whole.rows[:7])
    assert (part.step, part.steps) == (7, 12)
    assert train(tiny, max_steps=100, progress=False).step == 12
    with pytest.raises(UserError, match="expected at least 1"):
        train(tiny, max_steps=0)


def test_a_run_folder_holds_what_it_should(tiny, tmp_path):
    run = tmp_path / "deep" / "run"
    result = train(tiny, run_dir=run, progress=False)
    assert sorted(p.name for p in run.iterdir()) == [
        ".lock", "best.safetensors", "history.json", "last.pt", "metrics.csv", "previous.pt", "recipe.json", "summary.md",
    ]  # fmt: skip
    rows = read_rows(run / "metrics.csv")
    assert [row["val_top1"] for row in rows] == pytest.approx([row["val_top1"] for row in result.rows], rel=1e-5)
    state, metadata = load_weights(run / "best.safetensors")
    assert metadata["weights"] == "last" and metadata["step"] == str(result.best["step"])
    assert '"NE"' in metadata["classes"]
    model = model_from_weights(run / "best.safetensors")
    assert model.preprocessing == load_data(tiny.data, seed=0).preprocessing
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert os.stat(run / "best.safetensors").st_mode == os.stat(run / "metrics.csv").st_mode


def test_the_best_weights_are_those_of_the_best_row(tiny, tmp_path):
    kept = {}

    def keep(step, model, row):
        kept[step] = {name: value.clone() for name, value in model.state_dict().items()}

    result = train(tiny.override({"evaluate_every": "1 step"}), run_dir=tmp_path / "run", progress=False, on_evaluation=keep)
    state, _ = load_weights(tmp_path / "run" / "best.safetensors")
    assert all(torch.equal(value, state[name]) for name, value in kept[result.best["step"]].items())


def test_a_loss_that_is_not_finite_stops_the_run_and_overwrites_nothing(tiny, tmp_path):
    run = tmp_path / "run"
    train(tiny, run_dir=run, max_steps=4, progress=False)
    before = {p.name: p.read_bytes() for p in run.iterdir()}
    broken = torch.nn.Linear.forward
    try:
        torch.nn.Linear.forward = lambda self, x: broken(self, x) * float("nan")
        with pytest.raises(UserError, match=r"not finite in 5 steps in a row, up to step 8.*Use a lower optim.lr"):
            train(tiny, run_dir=run, resume=True, progress=False)
    finally:
        torch.nn.Linear.forward = broken
    after = {p.name: p.read_bytes() for p in run.iterdir()}
    written = ("metrics.csv", "history.json")  # a row at step 5 told of it, and that the run was resumed
    assert all(after[name] == before[name] for name in before if name not in written)


def test_bfloat16_is_near_float32(tiny):
    exact = train(tiny, max_steps=5, progress=False)
    rough = train(tiny.override({"precision": "bfloat16"}), max_steps=5, progress=False)
    assert rough.rows[0]["train_loss"] != exact.rows[0]["train_loss"]
    assert rough.rows[0]["train_loss"] == pytest.approx(exact.rows[0]["train_loss"], rel=0.02)
    assert next(rough.model.parameters()).dtype == torch.float32


def test_auto_finds_a_device_and_a_missing_one_is_said(tiny):
    device, precision = choose_device(tiny)
    assert precision == (torch.bfloat16 if device.type == "cuda" else torch.float32)
    assert choose_device(tiny.override({"device": "cpu"})) == (torch.device("cpu"), torch.float32)
    with pytest.raises(UserError, match="Use auto or cpu"):
        choose_device(tiny.override({"device": "cuda:99"}))


def test_it_says_first_what_it_does_and_then_a_line_per_row(tiny, tmp_path, capsys):
    result = train(tiny, run_dir=tmp_path / "run")
    lines = capsys.readouterr().out.splitlines()
    parameters = sum(p.numel() for p in result.model.parameters())
    prior = "priors of width 32, initialised with σ 0.5 (bias 0.5)"
    assert lines[0] == f"model   spvit_mini, {parameters:,} parameters, 6×6 patches of 4 px, {prior}"
    assert lines[1] == "data    compass6, 123 training and 41 validation images of 24×24 px, 8 classes"
    assert lines[2] == "steps   12 of 20 images, 6 per epoch; learning rate 0.002, seed 0"
    assert lines[3].startswith("device  ") and lines[4] == f"run     {tmp_path / 'run'}"
    assert [line.split()[:2] for line in lines[5:]] == [["step", "5/12"], ["step", "10/12"], ["step", "12/12"]]
    assert f"val loss {result.rows[-1]['val_loss']:.4f}" in lines[-1]


def test_on_a_terminal_a_bar_shows_loss_accuracy_speed_and_time_left(tiny, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(progress, "REFRESH_SECONDS", 0.0)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(progress, "tqdm", partial(progress.tqdm, mininterval=0, ncols=120))
    progress.tqdm.write = tqdm.tqdm.write
    result = train(tiny)
    out, err = capsys.readouterr()
    bars = [bar for bar in err.split("\r") if "/12 [" in bar]
    seen = re.search(r"loss (\d\.\d{3}), acc (\d+\.\d) %, val (\d+\.\d) %, [\d,]+ images/s", bars[-1])
    assert re.search(r"(\d+)% .*12/12 \[\d\d:\d\d<\d\d:\d\d", bars[-1])
    assert float(seen[1]) == pytest.approx(result.rows[-1]["train_loss"], abs=6e-4)
    assert float(seen[3]) == pytest.approx(result.rows[1]["val_top1"], abs=0.06)  # the row before the last
    assert out.count("step ") == 3
