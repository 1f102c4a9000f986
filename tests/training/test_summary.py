"""A run's page: its facts against the run itself, its command against the program that reads it."""

import dataclasses
import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from torch.distributed.run import parse_args

from spvit_mini.cli.arguments import parse
from spvit_mini.cli.program import run_program
from spvit_mini.cli.summary import main
from spvit_mini.cli.train import Arguments
from spvit_mini.errors import UserError
from spvit_mini.flops import multiply_adds
from spvit_mini.recipes import Recipe, get_recipe
from spvit_mini.training import train
from spvit_mini.training.metrics import COLUMNS, read_rows, write_rows
from spvit_mini.training.summary import Session, read_history, write_command, write_history, write_summary


def facts(text: str) -> dict[str, str]:
    """Read the page's first table."""
    return dict(re.findall(r"^\| ([a-z ]+) \| (.*) \|$", text, re.MULTILINE))


@pytest.fixture(scope="module")
def resumed(tiny, tmp_path_factory) -> Path:
    """The folder of a run that was stopped at step 7 and resumed, and then resumed again when it had ended."""
    run = tmp_path_factory.mktemp("runs") / "resumed"
    recipe = tiny.override({"ema": 0.9, "optim.betas": (0.9, 0.95)})
    train(recipe, run_dir=run, max_steps=7, progress=False)
    train(recipe, run_dir=run, resume=True, progress=False)
    train(recipe, run_dir=run, resume=True, progress=False)
    return run


def test_its_facts_are_the_run_s(resumed, tiny):
    text = (resumed / "summary.md").read_text(encoding="utf-8")
    assert text == write_summary(resumed)
    rows, page = read_rows(resumed / "metrics.csv"), facts(text)
    best = max(max(row["val_top1"], row["ema_top1"]) for row in rows)
    at = next(row for row in rows if best in (row["val_top1"], row["ema_top1"]))
    assert text.startswith(f"# resumed: {best:.2f} % top-1\n")
    assert page["best"].startswith(f"**{best:.2f} %** at step {at['step']:.0f}, ")
    assert ("last" in page["best"]) == (at["val_top1"] == best)
    last = rows[-1]
    assert page["last"] == (
        f"step 12 of 12: {last['val_top1']:.2f} % top-1, loss {last['val_loss']:.4f}; "
        f"EMA {last['ema_top1']:.2f} %, loss {last['ema_loss']:.4f}"
    )
    model = train(tiny, max_steps=1, progress=False).model
    parameters, cost = sum(p.numel() for p in model.parameters()), multiply_adds(model)["total"] / 1e6
    assert page["model"] == f"spvit_mini, {parameters:,} parameters, {cost:,.1f} M multiply-adds per image"
    assert page["data"].startswith("compass6, 123 training and 41 validation images of 24×24 px, 8 classes; chance is 12.5 %")
    assert page["seed"] == "0" and page["skipped"] == "nothing"
    assert page["resumed"] == "once, at step 7"
    assert "optim.betas 0.9 0.95 (not 0.9 0.999)" in page["recipe"] and "ema 0.9 (not None)" in page["recipe"]
    assert page["software"].startswith("spvit_mini ") and torch.__version__ in page["software"]


def test_the_history_has_an_entry_for_each_part_in_which_something_was_done(resumed):
    parts = read_history(resumed)
    assert [(part.begun_at, part.ended_at, part.steps) for part in parts] == [(0, 7, 12), (7, 12, 12)]


def test_the_command_makes_the_same_recipe_again(resumed):
    """As the program reads it, with options of every kind."""
    named = get_recipe("spvit_mini_flowers17")
    changes = {
        "augment.flip": False,
        "augment.randaugment": (2, 9),
        "augment.random_erasing_prob": 0.25,
        "compile": True,
        "data.root": Path("some where/else"),
        "ema": 0.99,
        "duration": "3 epochs",
        "model.attention_options": {"hidden": 64.0, "weight_std": 0.02},
        "model.positions": False,
        "optim.clip_grad_norm": None,
        "optim.lr_base_batch_size": 512,
        "token_labels.class_target": "label",
        "seed": 7,
    }
    recipe = named.override(changes)
    assert set(changes) == {name for name in named.flatten() if named.flatten()[name] != recipe.flatten()[name]}
    line = write_command(recipe, Path("runs/a b"))
    *words, name = shlex.split(line)[:5]
    assert (*words, name) == ("python", "-m", "spvit_mini", "train", "spvit_mini_flowers17")
    options = shlex.split(line)[5:]
    read = parse(options, default=Arguments(run_dir=Path("runs/x"), recipe=named), prog="", description="")
    assert read.recipe == recipe and read.run_dir == Path("runs/a b")


def test_torchrun_reads_the_command_of_several_processes(tiny):
    recipe = tiny.override({"seed": 3})
    torchrun, *words = shlex.split(write_command(recipe, Path("runs/x"), processes=8))
    alone = shlex.split(write_command(recipe, Path("runs/x")))
    read = parse_args(words)
    assert torchrun == "torchrun" and read.nproc_per_node == "8" and read.module
    assert [read.training_script, *read.training_script_args] == alone[2:]


ROW = dict.fromkeys(COLUMNS, 1.0) | {"ema_loss": None, "ema_top1": None, "mfu": None, "skipped_steps": 0}
PART = Session(
    begun_at=0, steps=300, model="spvit_s", parameters=26_000_000, multiply_adds=5_000_000_000, image_size=(224, 192),
    data="imagenet", classes=1000, train_images=1_281_167, val_images=50_000, device="NVIDIA H200", processes=8,
    precision="bfloat16", torch="2.15.0", python="3.12.1", spvit_mini="0.1.0",
)  # fmt: skip


def made_up(run: Path, rows: list[dict], parts: list[Session], recipe: Recipe) -> Path:
    run.mkdir()
    (run / "recipe.json").write_text(recipe.to_json())
    write_rows(run / "metrics.csv", rows)
    if parts:
        write_history(run, parts)
    return run


def test_speed_is_that_of_the_whole_run_and_what_was_skipped_is_said(tmp_path):
    """1,000 images at 100 a second and 3,000 at 1,000 a second are 4,000 in 13 seconds; MFU is 10 · 10 + 3 · 49 over 13."""
    rows = [
        ROW | {"images": 1000, "images_per_second": 100.0, "data_seconds": 2.0, "mfu": 10.0, "seconds": 7322.0},
        ROW | {"images": 4000, "images_per_second": 1000.0, "data_seconds": 0.6, "mfu": 49.0, "seconds": 7399.6},
    ]
    rows[1]["skipped_steps"] = 3
    parts = [PART, dataclasses.replace(PART, begun_at=100), dataclasses.replace(PART, begun_at=250, bad_images=12)]
    page = facts(write_summary(made_up(tmp_path / "run", rows, parts, get_recipe("vit_mini_compass"))))
    assert page["speed"] == "308 images/s, MFU 19.0 %, 20.0% of the training time waiting for images"
    assert page["skipped"] == "3 steps (gradient not finite) and 12 corrupt images"
    assert page["resumed"] == "2 times, at step 100, 250" and page["device"] == "8 × NVIDIA H200, bfloat16"
    assert page["time"].startswith("2:03:20 ") and "5,000.0 M multiply-adds" in page["model"] and "224×192 px" in page["data"]


@pytest.mark.parametrize(("count", "best"), [(1, 0), (5, 3), (12, 11), (100, 57), (300, 0)])
def test_a_long_run_shows_a_few_rows_the_best_among_them(tmp_path, count, best):
    rows = [ROW | {"step": i, "images": i + 1, "val_top1": 90.0 if i == best else i / 100} for i in range(count)]
    text = write_summary(made_up(tmp_path / "run", rows, [], get_recipe("vit_mini_compass")))
    shown = [int(step) for step in re.findall(r"^\| (\d+) \| \d", text, re.MULTILINE)]
    assert len(shown) == min(count, len(shown)) <= 12 and shown == sorted(set(shown))
    assert {0, best, count - 1} <= set(shown)
    assert count > 11 or len(shown) == count


def test_a_recipe_of_one_s_own_and_a_run_without_history(tmp_path):
    text = write_summary(made_up(tmp_path / "run", [ROW | {"images": 10}], [], Recipe()))
    assert "which is not registered here" in text and "Command:" not in text and "| model |" not in text


def test_the_program_prints_the_pages(resumed, whole, capsys):
    assert main([str(resumed), str(whole)]) == 0
    assert capsys.readouterr().out == write_summary(resumed) + "\n" + write_summary(whole)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda run: (run / "metrics.csv").unlink(), "has no metrics.csv"),
        (lambda run: (run / "metrics.csv").write_text("step,loss\n1,2\n"), "is not a metrics.csv of this version"),
        (lambda run: (run / "metrics.csv").write_text(",".join(COLUMNS) + "\n1,2\n"), "is not a metrics.csv of this version"),
        (lambda run: (run / "metrics.csv").write_bytes(b"\xff\xfe\x00"), "is not a metrics.csv of this version"),
        (lambda run: write_rows(run / "metrics.csv", []), "has no row of metrics.csv yet"),
        (lambda run: (run / "recipe.json").unlink(), "has no recipe.json"),
        (lambda run: (run / "history.json").write_text("[1]"), "is not the history of a run"),
        (lambda run: (run / "history.json").write_text(json.dumps([{"step": 1}])), "is not the history of a run"),
    ],
)
def test_what_is_no_run_is_one_line(tmp_path, capsys, damage, says):
    run = made_up(tmp_path / "run", [ROW], [PART], get_recipe("vit_mini_compass"))
    damage(run)
    with pytest.raises(UserError, match=says):
        write_summary(run)
    with pytest.raises(SystemExit) as end:
        run_program(lambda: main([str(run)]))
    assert end.value.code == 2 and capsys.readouterr().err.count("\n") == 1
