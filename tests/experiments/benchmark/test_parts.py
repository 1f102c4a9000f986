"""Models, growth, promises, lessons, and all of them: the sides compute the same, and the rows say what they should."""

import csv
import sys
from types import SimpleNamespace

import nbformat
import pytest
import torch
from nbformat import v4

from spvit_experiments.benchmark import all as everything
from spvit_experiments.benchmark import command, lessons, model, scaling, targets
from spvit_experiments.benchmark.timing import Side
from spvit_mini.errors import UserError
from spvit_mini.flops import multiply_adds
from spvit_mini.zoo import create_model


def rows_of(path):
    return list(csv.DictReader(path.open()))


# --- Models ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["spvit_s", "spvit_mini", "deit_small", "convit_small"])
def test_models_that_stand_beside_each_other_have_the_same_logits_and_gradients(name):
    if name in model.TIMM_NAMES:
        pytest.importorskip("timm")
    size = 32 if name == "spvit_mini" else 48
    models = model.build_models(name, size, depth=3)
    first, ours = models.values()
    assert list(models)[1] == name and first is not ours
    images = torch.randn(2, 3, size, size, requires_grad=True)
    results = []
    for one in models.values():
        one.train()  # nothing drops in training either
        torch.manual_seed(0)
        logits = one(images)
        results.append((logits, *torch.autograd.grad(logits.square().sum(), images)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * b.abs().max().item())


def test_spvit_s_stands_beside_its_skeleton_with_plain_attention_everywhere():
    models = model.build_models("spvit_s", 48, depth=4)
    plain, ours = models.values()
    assert [type(layer).__name__ for layer in ours.attentions()] == ["SPSA", "SPSA", "MHSA", "MHSA"]
    assert {type(layer).__name__ for layer in plain.attentions()} == {"MHSA"}
    assert plain.config.class_token_block == ours.config.class_token_block == 2 and plain.config.peg


def test_a_training_step_trains_and_leaves_the_weights_where_they_are():
    one = create_model("vit_mini", depth=1, dim=16, num_classes=10)
    before = {key: value.clone() for key, value in one.state_dict().items()}
    step = model.make_training_step(one, torch.randn(2, 3, 32, 32), torch.tensor([1, 2]), dtype=torch.float32)
    step(), step()
    assert all(parameter.grad is not None for parameter in one.parameters())
    for key, value in one.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=1e-6, atol=1e-7)


@pytest.mark.slow
def test_the_program_times_models(tmp_path, capsys):
    pytest.importorskip("timm")
    more = ["--images", "48", "--batch-size", "1", "--depth", "3", "--rounds", "1", "--device", "cpu"]
    assert command.main(["model", "--out", str(tmp_path), "--models", "deit_small", "spvit_mini", *more]) == 0
    rows = rows_of(tmp_path / "benchmark_model.csv")
    assert {(row["model"], row["pass"], row["side"]) for row in rows} == {
        (name, pass_, side)
        for name, first, image in (("deit_small", "timm deit_small", 48), ("spvit_mini", "MHSA, same skeleton", 32))
        for pass_ in ("training", "inference")
        for side in (first, name)
    }
    counted = multiply_adds(create_model("deit_small", image_size=48, depth=3))["total"]
    assert {int(row["multiply_adds"]) for row in rows if row["model"] == "deit_small"} == {counted}
    assert "images/s" in capsys.readouterr().out


def test_a_model_without_a_counterpart_is_named(monkeypatch):
    with pytest.raises(UserError, match="model vit_mini has no counterpart"):
        model.build_models("vit_mini", 32)
    monkeypatch.setattr(model, "has_timm", lambda: False)
    with pytest.raises(UserError, match="pip install timm"):
        model.build_models("deit_small", 224)


# --- Growth ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("heads", "blocks"), [(2, 1), (4, 3)])
def test_growing_stacks_start_as_the_same(heads, blocks):
    stacks = scaling.build_stacks(heads, blocks, dim=24, hidden=4)
    plain, written, ours, recomputed = stacks.values()
    ours.load_state_dict({**ours.state_dict(), **plain.state_dict()})
    recomputed.load_state_dict(ours.state_dict())
    x = torch.randn(2, 12, 24)
    for other in (written, ours, recomputed):  # a prior starts as 1
        torch.testing.assert_close(other(x, (3, 4)), plain(x, (3, 4)), rtol=1e-4, atol=1e-5)
    assert {layer.backend for layer in recomputed.layers} == {"recompute"} != {layer.backend for layer in ours.layers}
    assert len(ours.layers) == blocks and ours.layers[0].heads == heads


def test_the_program_times_growth(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "VALUES", {"patches": (4, 9), "heads": (1, 24), "images": (1, 3), "blocks": (1, 2)})
    monkeypatch.setattr(scaling, "FIXED", {"patches": 9, "heads": 2, "images": 1, "blocks": 1})
    assert command.main(["scaling", "--quick", "--rounds", "1", "--out", str(tmp_path), "--device", "cpu"]) == 0
    rows = rows_of(tmp_path / "growth.csv")
    sizes = {(row["grows"], row[row["grows"]]) for row in rows}
    assert len(sizes) == 8 and len(rows) == 32
    blocks = {row["blocks"]: int(row["multiply_adds"]) for row in rows if row["grows"] == "blocks" and row["side"] == "SPSA"}
    assert blocks["2"] == 2 * blocks["1"]


# --- What is promised ------------------------------------------------------------------------------------------------------


def test_a_promise_is_held_to_what_was_measured():
    rows = [{"side": "a", "ratio": "1.0", "peak_bytes": "10"}, {"side": "b", "ratio": "3.4", "peak_bytes": "55"}]
    time, memory = targets.Target("x", "", "b", least=3.5), targets.Target("x", "", "b", "peak_bytes", least=5)
    assert (time.measured(rows), memory.measured(rows)) == (3.4, 5.5)
    assert not time.holds(3.4) and time.holds(3.5) and memory.holds(5.5)
    most = targets.Target("x", "", "b", most=1.15)
    assert most.holds(1.15) and not most.holds(1.16)


def test_every_promise_has_its_comparison_and_looks_at_one_of_its_sides(monkeypatch):
    pytest.importorskip("timm")
    assert {target.name for target in targets.TARGETS} == set(targets.BUILD)
    monkeypatch.setattr(targets, "build_models", lambda name, *_, **__: {"MHSA, same skeleton": 0, f"timm {name}": 0, name: 0})
    for target in targets.TARGETS:
        if "-" in target.name and target.name.endswith(("14", "24")):
            name, _, side = target.name.partition("-")
            monkeypatch.setattr(targets.torch, "randn", torch.randn)
            sides = targets.build_layers(name, 4, 1, 4, target.side)
            assert list(sides) == [name, target.side], side
        else:
            assert target.side in targets.BUILD[target.name]()


@pytest.mark.parametrize(("factor", "status", "word"), [(1, 1, "DOES NOT HOLD"), (30, 0, "holds")])
def test_the_program_says_which_promises_hold(tmp_path, capsys, monkeypatch, factor, status, word):
    a = torch.randn(40, 40)

    def work(times):
        return lambda: [a @ a for _ in range(times)]

    sides = {"spsa": Side(work(1)), targets.RELEASED: Side(work(factor))}
    monkeypatch.setattr(targets, "BUILD", {"spsa-14": lambda: sides})
    monkeypatch.setattr(targets, "TARGETS", targets.TARGETS[:1])
    assert command.main(["targets", "--out", str(tmp_path), "--rounds", "9"]) == status
    assert f"\n{word} " in capsys.readouterr().out


def test_a_promise_that_there_is_not_is_named():
    with pytest.raises(UserError, match="no target is called 'spsa'"):
        command.main(["targets", "--only", "spsa"])
    with pytest.raises(UserError, match="promised on a CPU"):
        command.main(["targets", "--device", "cuda"])


# --- Lessons ---------------------------------------------------------------------------------------------------------------


def test_a_lesson_s_seconds_and_memory_are_its_own(tmp_path, monkeypatch, capsys):
    """A stand-in for the child: it says a peak of as many bytes as the lesson's number, and takes a moment."""
    child = "import os, sys, time; from pathlib import Path\nassert os.environ['SPVIT_PROFILE'] == 'smoke'\ntime.sleep(0.1)\n"
    monkeypatch.setattr(lessons, "CHILD", child + "Path(sys.argv[2]).write_text(Path(sys.argv[1]).name[:2].lstrip('0'))")
    arguments = ["lessons", "--profile", "smoke", "--out", str(tmp_path), "--lessons", "03", "08", "--device", "cpu"]
    assert command.main(arguments) == 0
    rows = rows_of(tmp_path / "benchmark_lessons.csv")
    assert [(row["lesson"], row["profile"], row["rounds"]) for row in rows] == [("03", "smoke", "1"), ("08", "smoke", "1")]
    assert [row["peak_bytes"] for row in rows] == ["3", "8"] and all(100 < float(row["ms"]) < 60_000 for row in rows)
    assert "2 lessons: " in capsys.readouterr().out


def test_a_lesson_that_fails_is_left_out_with_its_last_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lessons, "CHILD", "raise SystemExit('a cell failed')")
    assert command.main(["lessons", "--lessons", "03", "--out", str(tmp_path), "--device", "cpu"]) == 0
    assert "03_ruler.ipynb failed: a cell failed" in capsys.readouterr().out
    with pytest.raises(UserError, match="no lesson has the number '99'"):
        command.main(["lessons", "--lessons", "99"])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no resource")
def test_a_lesson_runs_in_a_kernel_whose_peak_of_memory_is_measured(tmp_path):
    """A small notebook in place of a lesson; that lessons run is tested in tests/notebooks."""
    cells = ["import os, spvit_mini", "assert os.environ['SPVIT_PROFILE'] == 'smoke', 'full'", "held = b'x' * 3 * 10**8"]
    nbformat.write(v4.new_notebook(cells=[v4.new_code_cell(cell) for cell in cells]), tmp_path / "01_small.ipynb")
    (comparison,) = lessons.list_comparisons(lessons.Options(lessons=("01",), profile="smoke"), tmp_path)
    (side,) = comparison.build().values()
    side.step()
    assert 3e8 < side.peak() < 8e8
    (other,) = lessons.list_comparisons(lessons.Options(profile="full"), tmp_path)
    with pytest.raises(UserError, match="01_small.ipynb failed: AssertionError: full"):
        other.build()["01_small"].step()
    with pytest.raises(UserError, match="no lessons in .*empty"):
        next(lessons.list_comparisons(lessons.Options(), tmp_path / "empty"))


# --- All of it -------------------------------------------------------------------------------------------------------------


def test_all_parts_are_run_in_turn_with_the_time_that_is_left(tmp_path, capsys, monkeypatch):
    given, clock = {}, iter([0, 0, 600, 900, 1200, 1500, 1500, 1500])
    monkeypatch.setattr(everything.time, "monotonic", lambda: next(clock))

    def part(name):
        if name == ".data":
            return SimpleNamespace(Options=dict, main=refuse)
        return SimpleNamespace(Options=dict, main=lambda options: given.__setitem__(name, options["minutes"]))

    def refuse(options):
        raise UserError("no images here")

    monkeypatch.setattr(everything.importlib, "import_module", lambda name, package: part(name))
    assert everything.main(everything.Options(out=tmp_path, quick=True, device="cpu")) == 0
    shown = capsys.readouterr().out
    assert given == {".model": 25, ".attention": 15, ".scaling": 10}
    assert "skipped: data: no images here" in shown and "out of time: lessons is not begun" in shown
