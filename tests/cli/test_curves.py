"""Curves of several runs: who belongs together, what is averaged, what is drawn, and one line for every mistake."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from spvit_mini import list_models, plots
from spvit_mini.cli.curves import (
    SPARE,
    choose_colours,
    draw,
    final_accuracy,
    group_runs,
    main,
    mean_curve,
    read_runs,
)  # fmt: skip
from spvit_mini.cli.program import run_program
from spvit_mini.errors import UserError
from spvit_mini.recipes import get_recipe
from spvit_mini.training.metrics import COLUMNS, write_rows
from spvit_mini.training.summary import Session, write_history

SESSION = Session(0, 20, "vit_mini", 1, 1, (32, 32), "compass", 8, 100, 100, "CPU", 1, "float32", "2.11.0", "3.11.0", "0.1.0")


@pytest.fixture
def run(tmp_path):
    """Make a run folder up: its recipe, and validation accuracies at steps 10, 20, … or at those that are named."""

    def make(name, top1, *, recipe="vit_mini_compass", averaged=None, history=True, **changes):
        folder = tmp_path / name
        folder.mkdir()
        dotted = {option.replace("__", "."): value for option, value in changes.items()}
        (folder / "recipe.json").write_text(get_recipe(recipe).override(dotted).to_json())
        at = top1 if isinstance(top1, dict) else {10 * (i + 1): value for i, value in enumerate(top1)}
        seed = changes.get("seed", 0)
        rows = [
            dict.fromkeys(COLUMNS, 1.0)
            | {"step": step, "epoch": step / 20, "images": 100 * step, "seconds": step * (1 + seed), "val_top1": value}
            | {"val_loss": 2 - value / 100, "ema_loss": averaged and 0.5, "ema_top1": averaged and averaged[i], "mfu": None}
            for i, (step, value) in enumerate(at.items())
        ]
        write_rows(folder / "metrics.csv", rows)
        if history:
            write_history(folder, [SESSION])
        return folder

    return make


def test_runs_that_differ_in_seed_and_place_alone_are_of_one_kind(run):
    folders = (
        run("a", [1.0]),
        run("b", [1.0], seed=1, data__workers=4, evaluate_every="10 steps"),
        run("c", [1.0], optim__lr=0.5),
        run("d", [1.0], optim__lr=0.5, seed=1),
        run("e", [1.0], recipe="spvit_mini_compass"),
    )
    groups = group_runs(read_runs(folders))
    assert {label: [one.folder.name for one in kind] for label, kind in groups.items()} == {
        "vit_mini_compass, optim.lr 0.002": ["a", "b"],
        "vit_mini_compass, optim.lr 0.5": ["c", "d"],
        "spvit_mini_compass": ["e"],
    }
    colours = choose_colours(groups)
    assert colours["vit_mini_compass, optim.lr 0.002"] == plots.COLOURS["vit"]
    assert colours["spvit_mini_compass"] == plots.COLOURS["spsa"] and len(set(colours.values())) == 3


def test_every_model_has_the_colour_of_a_method(run):
    for name in list_models():
        runs = run(f"{name}1", [1.0], model__name=name), run(f"{name}2", [1.0], model__name=name, batch_size=7)
        first, second = choose_colours(group_runs(read_runs(runs))).values()
        assert first != second and {first, second} <= set(plots.COLOURS.values()), name
    assert sorted(SPARE) == sorted(plots.COLOURS)


def test_a_mean_is_that_of_the_steps_that_all_have(run):
    runs = read_runs((run("a", {10: 50.0, 20: 60.0, 30: 70.0}), run("b", {10: 54.0, 25: 1.0, 30: 80.0, 40: 90.0}, seed=1)))
    assert mean_curve(runs, "val_top1", "step") == ([10, 30], [52, 75])
    assert mean_curve(runs, "val_top1", "seconds") == ([15, 45], [52, 75])
    assert final_accuracy(runs) == "75.00 ± 7.07 % at step 30 (n = 2)"  # √((5² + 5²) / 1)


def test_the_end_of_a_kind_by_hand(run):
    runs = read_runs(tuple(run(f"{seed}", [0.0, 90.0 + 2 * seed], averaged=[1.0, 95.0], seed=seed) for seed in range(3)))
    assert final_accuracy(runs) == "92.00 ± 2.00 %, EMA 95.00 ± 0.00 % at step 20 (n = 3)"
    assert final_accuracy(runs[:1]) == "90.00 %, EMA 95.00 % at step 20"
    apart = read_runs((run("x", {10: 1.0}), run("y", {20: 1.0}, seed=1)))
    assert final_accuracy(apart) == "2 runs without a common step"


@pytest.fixture
def drawn():
    with plt.rc_context():
        plots.style()
        yield lambda *folders, x="steps": draw(group_runs(read_runs(folders)), x=x)


def test_what_is_drawn(run, drawn):
    a, b = (run(f"{seed}", [20.0, 40.0 + 20 * seed], averaged=[30.0, 50.0], seed=seed) for seed in (0, 1))
    figure = drawn(a, b, run("c", [10.0, 12.0], recipe="spvit_mini_compass"))
    accuracy, loss, training = figure.axes
    blue, black = plots.COLOURS["spsa"], plots.COLOURS["vit"]
    lines = [(line.get_color(), line.get_linestyle(), list(line.get_ydata())) for line in accuracy.lines]
    assert lines == [
        (black, "-", [20, 40]),
        (black, "-", [20, 60]),
        (black, "-", [20, 50]),  # their mean
        (black, "--", [30, 50]),
        (black, "--", [30, 50]),
        (black, "--", [30, 50]),
        (blue, "-", [10, 12]),
        ("#7f7f7f", "--", [12.5, 12.5]),  # guessing among eight classes
    ]
    assert [line.get_linewidth() for line in accuracy.lines[:3]] == [0.8, 0.8, 1.8]
    assert list(accuracy.lines[0].get_xdata()) == [10, 20]
    assert list(loss.lines[-1].get_ydata()) == pytest.approx([1.9, 1.88]) and len(training.lines) == 4
    assert [axes.get_ylabel() for axes in figure.axes] == ["top-1 accuracy (%)", "cross-entropy (nats)", "loss (nats)"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "vit_mini_compass: 50.00 ± 14.14 %, EMA 50.00 ± 0.00 % at step 20 (n = 2)",
        "spvit_mini_compass: 12.00 % at step 20",
        "EMA weights",
        "one seed (thick: mean of the seeds)",
    ]


@pytest.mark.parametrize(
    ("x", "ends", "label"),
    [("epochs", 1.0, "epochs of training"), ("images", 2000, "images of training"), ("seconds", 40, "seconds since the start")],
)
def test_what_it_is_drawn_over(run, drawn, x, ends, label):
    figure = drawn(run("a", [1.0, 2.0], seed=1, history=False), x=x)
    (line,) = figure.axes[0].lines  # without a history nobody knows what guessing is worth
    assert line.get_xdata()[-1] == ends and figure.axes[0].get_xlabel() == label


@pytest.mark.parametrize(("ending", "begins"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")])
def test_the_program_writes_a_picture_and_a_table(run, tmp_path, capsys, ending, begins):
    picture = tmp_path / "new" / f"curves{ending}"
    folders = [run("a", [12.0, 99.5]), run("b", [13.0, 98.5], seed=1)]
    assert main([*map(str, folders), "--out", str(picture)]) == 0
    assert picture.read_bytes().startswith(begins)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "vit_mini_compass: 99.00 ± 0.71 % at step 20 (n = 2)"
    assert lines[2].split()[1:] == ["0", "20", "1.00", "99.50", "-", "99.50", "0:00:20"]
    assert lines[3].split()[1:] == ["1", "20", "1.00", "98.50", "-", "98.50", "0:00:40"]


def test_without_arguments_it_prints_the_help(capsys):
    with pytest.raises(SystemExit) as end:
        main([])
    out = capsys.readouterr().out
    assert not end.value.code and "python -m spvit_mini curves runs/a runs/b" in out and "--x {epochs,steps," in out


def test_more_groups_than_colours(run):
    with pytest.raises(UserError, match="the runs form 10 groups; expected at most 9"):
        group_runs(read_runs(tuple(run(f"{i}", [1.0], batch_size=10 + i) for i in range(10))))


def fails(arguments, capsys) -> str:
    with pytest.raises(SystemExit) as end:
        run_program(lambda: main([str(argument) for argument in arguments]))
    err = capsys.readouterr().err
    assert end.value.code == 2 and err.startswith("error: ") and err.count("\n") == 1
    return err


def test_mistakes_are_one_line(run, tmp_path, capsys):
    whole, unread, empty, alone = (run(name, [1.0]) for name in ("whole", "unread", "empty", "alone"))
    out = ("--out", tmp_path / "c.png")
    (unread / "metrics.csv").write_text("step,val_top1\n10,many\n")
    write_rows(empty / "metrics.csv", [])
    (alone / "recipe.json").unlink()
    assert "no run is named; expected run folders" in fails(out, capsys)
    assert "nowhere has no metrics.csv" in fails([whole, tmp_path / "nowhere", *out], capsys)
    assert "is not a metrics.csv of this version" in fails([whole, unread, *out], capsys)
    assert "holds no row in its metrics.csv yet" in fails([empty, *out], capsys)
    assert "holds no recipe.json" in fails([alone, *out], capsys)
    assert "is given twice" in fails([whole, whole / ".." / "whole", *out], capsys)
    assert "expected a file that ends with .png, .pdf, .svg" in fails([whole, "--out", tmp_path / "c.gif"], capsys)
    assert "cannot write" in fails([whole, "--out", whole / "recipe.json" / "c.png"], capsys)
    assert "no option --xx" in fails([whole, "--xx", "steps"], capsys)
    (whole / "history.json").write_text(json.dumps({"begun_at": 1}))
    assert "is not the history of a run" in fails([whole, *out], capsys)
    assert not (tmp_path / "c.png").exists()


def learned_from(folder, **sources):
    """Write fingerprints into the recipe of a run; names have __ for dots."""
    plain = json.loads((folder / "recipe.json").read_text())
    plain["sources"] = {name.replace("__", "."): text for name, text in sources.items()}
    (folder / "recipe.json").write_text(json.dumps(plain))
    return folder


@pytest.mark.parametrize(
    ("one", "other", "labels"),
    [
        ({}, {"init_from": "x"}, "init_from None; init_from x"),
        ({}, {"token_labels__folder": "x"}, "token_labels.folder None; token_labels.folder x"),
        ({"init_from": "weights 1"}, {"init_from": "weights 2"}, "init_from x (weights 1); init_from x (weights 2)"),
        ({"data__root": "files 1"}, {"data__root": "files 2"}, "data.root data (files 1); data.root data (files 2)"),
        ({"data__name": "2 kinds"}, {"data__name": "3 kinds"}, "data.name compass (2 kinds); data.name compass (3 kinds)"),
        ({"imports": "code 1"}, {"imports": "code 2"}, "imports nothing (code 1); imports nothing (code 2)"),
    ],
)
def test_runs_that_learned_from_other_files_are_no_seeds_of_one_recipe(run, one, other, labels):
    def make(name, seed, sources):
        options = {option: Path(text) for option, text in sources.items() if text == "x"}  # named, but with unknown content
        options |= {"init_from": Path("x")} if "init_from" in sources else {}
        folder = run(name, [50.0 + seed], seed=seed, **options)
        return learned_from(folder, **{option: text for option, text in sources.items() if text != "x"})

    groups = group_runs(read_runs((make("a", 0, one), make("b", 1, other), make("c", 1, one))))
    assert {label: [member.folder.name for member in group] for label, group in groups.items()} == {
        f"vit_mini_compass, {label}": names for label, names in zip(labels.split("; "), (["a", "c"], ["b"]), strict=True)
    }


def test_runs_of_the_same_files_in_other_places_are_pooled_and_equal_seeds_are_said(run):
    same = {"init_from": "weights 1", "data__name": "2 classes", "data__root": "files 1"}
    a = learned_from(run("a", [50.0], init_from="x", data__name="folder", data__root="/a/flowers"), **same)
    b = learned_from(run("b", [51.0], init_from="y", data__name="flowers", data__root="/b", seed=1), **same)
    old, again = (run(name, [52.0], init_from="z", data__name="folder", seed=2) for name in ("old", "again"))
    (group,) = group_runs(read_runs((a, b))).values()
    assert final_accuracy(group) == "50.50 ± 0.71 % at step 10 (n = 2)"
    assert len(group_runs(read_runs((a, old)))) == 1  # an older version wrote no fingerprints
    (group,) = group_runs(read_runs((old, again))).values()
    assert final_accuracy(group) == "52.00 ± 0.00 % at step 10 (n = 2, but the same seeds)"
