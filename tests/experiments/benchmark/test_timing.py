"""The clockwork of the benchmark: turns, ratios, memory, and the record that is gone on with."""

import csv

import pytest
import torch

from spvit_experiments.benchmark import timing
from spvit_experiments.benchmark.measurements import MACHINE, MEASURED, Measurements
from spvit_experiments.benchmark.timing import CommonOptions, Comparison, Side
from spvit_mini.errors import UserError

CPU = torch.device("cpu")
HERE = {"device": "a", "threads": 1, "torch": "2", "timm": ""}


def test_every_side_is_timed_every_round():
    calls = []
    steps = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    seconds = timing.time_in_turns(steps, rounds=4, warm_up=2)
    assert calls == ["a", "b"] * 6
    assert all(len(times) == 4 and min(times) >= 0 for times in seconds.values())


def test_a_short_step_is_repeated_within_its_turn(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))  # every turn takes a second
    calls = []
    seconds = timing.time_in_turns({"a": lambda: calls.append("a")}, rounds=2, warm_up=1, min_seconds=4.0)
    assert len(calls) == 1 + 4 + 4 and seconds == {"a": [0.25, 0.25]}


def test_ratios_are_taken_within_rounds(monkeypatch):
    """On a machine that grows slower, the ratio of medians would be right too; here the first side alone is disturbed."""
    rounds = {"a": [1.0, 2.0, 4.0, 1.0, 1.0], "b": [3.0, 6.0, 12.0, 3.0, 3.0]}
    monkeypatch.setattr(timing, "time_in_turns", lambda *_, **__: rounds)
    sides = {"a": Side(lambda: None, memory=False), "b": Side(lambda: None, images=6, multiply_adds=7, memory=False)}
    a, b = timing.measure(sides, device=CPU, rounds=5)
    assert (a["ratio"], a["ms"], a["images_per_second"], a["mfu"]) == (1.0, 1000.0, "", "")
    assert (b["ratio"], b["ratio_low"], b["ratio_high"], b["ms"]) == (3.0, 3.0, 3.0, 3000.0)
    assert (b["images_per_second"], b["multiply_adds"], b["rounds"]) == (2.0, 7, 5)


@pytest.mark.parametrize("passes", [1, 3])
def test_mfu_is_arithmetic_over_the_peak(monkeypatch, passes):
    monkeypatch.setattr(timing, "time_in_turns", lambda *_, **__: {"a": [0.5, 0.5]})
    monkeypatch.setattr(timing, "peak_flops", lambda name, dtype: 1000.0 if dtype == torch.bfloat16 else None)
    side = {"a": Side(lambda: None, images=5, multiply_adds=4, passes=passes, memory=False)}
    (row,) = timing.measure(side, device=CPU, dtype=torch.bfloat16, rounds=2)
    assert row["mfu"] == pytest.approx(100 * 2 * 4 * passes * 5 / 0.5 / 1000)
    (row,) = timing.measure(side, device=CPU, rounds=2)
    assert row["mfu"] == ""


@pytest.mark.parametrize("size", [100, 1000])
def test_peak_memory_is_what_lies_there_at_one_time(size):
    x, one = torch.randn(size, size), torch.ones(1)
    assert timing.peak_memory(lambda: x + one) == 4 * size**2
    assert timing.peak_memory(lambda: (x + one) + (x - one)) == 3 * 4 * size**2
    assert timing.peak_memory(lambda: [(x + one).sum() for _ in range(3)]) < 4.1 * size**2  # one after the other
    w = torch.randn(size, size, requires_grad=True)
    # relu's result is kept; the gradient of a sum is a view; relu's own gradient is the second.
    assert 2 * 4 * size**2 <= timing.peak_memory(lambda: w.relu().sum().backward()) < 2.1 * 4 * size**2


def test_peak_memory_is_the_same_in_each_run_whatever_is_freed_that_was_there_before():
    layer = torch.nn.Linear(64, 64)
    x = torch.randn(50, 64)

    def step():
        layer.zero_grad()  # frees the last gradients
        layer(x).square().sum().backward()

    step()
    assert len({timing.peak_memory(step) for _ in range(4)}) == 1


def test_sides_that_differ_are_named():
    timing.check_equal({"a": torch.ones(2), "b": torch.ones(2) + 1e-6})
    with pytest.raises(AssertionError, match="theirs is not ours"):
        timing.check_equal({"ours": torch.ones(2), "theirs": torch.tensor([1.0, 1.1])})


def comparison(name, steps, **more):
    return Comparison({"what": name, "dtype": "float32"}, lambda: {s: Side(f, **more) for s, f in steps.items()})


def test_what_is_measured_is_not_measured_again(tmp_path, capsys):
    calls = []
    asked = [comparison(name, {"a": lambda: calls.append(1), "b": lambda: None}) for name in ("one", "two")]
    options = CommonOptions(out=tmp_path, rounds=2, device="cpu")
    timing.run_comparisons("some", asked[:1], options, title="Some")
    first, made = (tmp_path / "some.csv").read_text(), len(calls)
    assert len(timing.run_comparisons("some", asked, options, title="Some").rows) == 4
    text = (tmp_path / "some.csv").read_text()
    assert text.startswith(first) and len(calls) == 2 * made
    rows = list(csv.DictReader(text.splitlines()))
    assert [(row["what"], row["side"]) for row in rows] == [("one", "a"), ("one", "b"), ("two", "a"), ("two", "b")]
    assert tuple(rows[0]) == ("what", "dtype", *MEASURED, *MACHINE)
    assert (tmp_path / "some.png").is_file()
    shown = capsys.readouterr().out
    assert "what one, dtype float32" in shown and "what two" in shown and "some.png" in shown


def test_want_of_time_and_what_cannot_be_had_are_told(tmp_path, capsys, monkeypatch):
    def refuse():
        raise UserError("it wants a square grid")

    refused = Comparison({"what": "no", "dtype": "float32"}, refuse)
    timing.run_comparisons("some", [refused], CommonOptions(out=tmp_path, rounds=1, device="cpu"), title="Some")
    assert "skipped: no, float32: it wants a square grid" in capsys.readouterr().out
    clock = iter(range(0, 1000, 90))
    monkeypatch.setattr(timing.time, "monotonic", lambda: next(clock))
    late = [comparison(name, {"a": lambda: None}) for name in ("one", "two", "three")]
    timing.run_comparisons("some", late, CommonOptions(out=tmp_path, rounds=1, device="cpu", minutes=2), title="Some")
    assert "out of time: 2 of 3 comparisons" in capsys.readouterr().out


def test_rows_of_another_machine_are_kept_and_not_mixed_in(tmp_path):
    case, path = {"what": "one"}, tmp_path / "r.csv"
    row = dict.fromkeys(MEASURED, "1")
    Measurements(path, case=["what"], machine=HERE).add(case, [row])
    other = Measurements(path, case=["what"], machine=HERE | {"device": "b"})
    assert not other.has(case)
    other.add(case, [row])
    assert len(Measurements(path, case=["what"], machine=HERE).rows) == 2
    assert len(Measurements(path, case=["what"], machine=HERE).select([case])) == 1


def test_mistakes_are_one_line_each(tmp_path):
    (tmp_path / "r.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="other columns"):
        Measurements(tmp_path / "r.csv", case=["what"], machine=HERE)
    for wrong in ({"threads": -1}, {"rounds": 0}, {"minutes": -1.0}):
        with pytest.raises(UserError, match="expected an? (integer|number) from"):
            timing.choose_device(CommonOptions(**wrong))
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="no CUDA device"):
            timing.choose_device(CommonOptions(device="cuda"))
