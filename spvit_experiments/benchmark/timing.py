"""Timing side by side: what a step takes, as a ratio to another step of the same rounds, and what memory it needs.

Sides take turns, so that whatever else a machine does slows all of them alike. A ratio is taken within each round; its
median and quartiles are told. Milliseconds stand beside it, for those who have the same machine. Sides of a comparison do
the same work unless their names say otherwise: who builds them checks that, by `same`, before anything is timed.

    Side         a step, and what is known of it
    Comparison   what is compared, in columns, and how its sides are built
    measure      sides in, rows out: dictionaries with the columns MEASURED
    run          all comparisons of a part of the benchmark, into its record (record.py)
"""

import importlib.util
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch._C._profiler import _EventType
from tqdm import tqdm

from spvit_mini.errors import UserError
from spvit_mini.training.devices import name_of, peak_flops

from ..records import RESULTS, six_digits
from .record import Record

WARM_UP = 3
LEAST = 0.01  # seconds that a timing lasts at least on an accelerator, where a short step is a matter of its launch


@dataclass(frozen=True)
class Options:
    """What all parts of the benchmark ask."""

    out: Path = RESULTS
    """The folder for the table (CSV) and the figure. What is measured already stays, and is not measured again."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: CUDA where there is one, else the CPU."""
    threads: int = 0
    """Threads on a CPU; 0: as many as torch takes by itself."""
    rounds: int = 11
    """Timed rounds, in which each side has its turn, after 3 that warm up."""
    minutes: float = 0
    """Begin no further comparison after so many minutes; the same command goes on. 0: no limit."""
    quick: bool = False
    """Sizes that a laptop does in a minute: to see that it works, not to be quoted."""


@dataclass(frozen=True)
class Side:
    """A step to be timed.

    Attributes:
        step: what is done; its result is thrown away.
        images: how many images it handles, for images a second.
        multiply_adds: of one image's forward pass, by the rule of cost.py.
        passes: 3 for a training step, whose backward pass counts as two more forward ones; 1 for inference.
        memory: whether to measure what it needs at most, by one more step.
        peak: tells the bytes that the last step needed at most, where the step knows it better.
    """

    step: Callable[[], object]
    images: int = 0
    multiply_adds: int = 0
    passes: int = 1
    memory: bool = True
    peak: Callable[[], int] | None = None


@dataclass(frozen=True)
class Comparison:
    """What is compared: `case` fills the columns that tell it from the others, `build` makes the sides, the first the base.

    `build` may raise UserError where a comparison cannot be had here; the reason is told at the end.
    """

    case: dict[str, Any]
    build: Callable[[], dict[str, Side]]


def interleaved(
    steps: dict[str, Callable[[], object]],
    *,
    rounds: int,
    warm_up: int = WARM_UP,
    device: torch.device | None = None,
    least: float = 0.0,
) -> dict[str, list[float]]:
    """Time each of `steps` once a round, in seconds; the first `warm_up` rounds are not counted.

    A step that takes less than `least` seconds, by the last round of the warm-up, is repeated within its turn.
    """
    wait = torch.cuda.synchronize if device is not None and device.type == "cuda" else lambda: None
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    repeats = dict.fromkeys(steps, 1)
    for done in tqdm(range(warm_up + rounds), desc="timing", unit="round", disable=None, leave=False):
        for name, step in steps.items():
            wait()
            start = time.perf_counter()
            for _ in range(repeats[name]):
                step()
            wait()
            taken = (time.perf_counter() - start) / repeats[name]
            if done >= warm_up:
                seconds[name].append(taken)
            elif done == warm_up - 1 and taken < least:
                repeats[name] = math.ceil(least / taken)
    return seconds


def peak_memory(step: Callable[[], object], device: torch.device | None = None) -> int:
    """Count the bytes that tensors of a step take at most at one time, beyond those that were there before it.

    On a CPU by the profiler's list of what torch allocates and frees, exactly and the same in each run; what a library
    takes for itself is not in it.
    """
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it would tell of its start and stop, and of missing GPUs
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    allocations, events = [], list(profile.profiler.kineto_results.experimental_event_tree())
    while events:
        event = events.pop()
        events += event.children
        if event.tag == _EventType.Allocation:
            allocations.append((event.start_time_ns, event.extra_fields.ptr, event.extra_fields.alloc_size))
    now, most, taken = 0, 0, {}
    for _, place, size in sorted(allocations, key=lambda allocation: allocation[0]):
        if size > 0:
            taken[place] = size
        now += size if size > 0 else -taken.pop(place, 0)  # what was there before may be freed too, such as old gradients
        most = max(most, now)
    return most


def spread_of(values: list[float]) -> tuple[float, float, float]:
    """Give the median and the two quartiles; a single value three times."""
    if len(values) == 1:
        return (values[0],) * 3
    low, middle, high = statistics.quantiles(values, n=4)
    return middle, low, high


def measure(
    sides: dict[str, Side], *, device: torch.device, dtype: torch.dtype = torch.float32, rounds: int, warm_up: int = WARM_UP
) -> list[dict[str, Any]]:
    """Time sides in turns: a row each, with the columns `record.MEASURED`. Ratios are to the first, round by round."""
    least = LEAST if device.type == "cuda" else 0.0
    steps = {name: side.step for name, side in sides.items()}
    seconds = interleaved(steps, rounds=rounds, warm_up=warm_up, device=device, least=least)
    base, peak = next(iter(seconds.values())), peak_flops(name_of(device), dtype)
    rows = []
    for name, times in seconds.items():
        side, middle = sides[name], statistics.median(times)
        arithmetic = 2 * side.multiply_adds * side.passes * side.images / middle
        both = spread_of([mine / first for mine, first in zip(times, base, strict=True)])
        row = dict(zip(("ratio", "ratio_low", "ratio_high"), both, strict=True))
        row |= dict(zip(("ms", "ms_low", "ms_high"), (1e3 * value for value in spread_of(times)), strict=True))
        row["images_per_second"] = side.images / middle if side.images else ""
        row = {column: value if value == "" else six_digits(value) for column, value in row.items()}
        row["peak_bytes"] = side.peak() if side.peak else peak_memory(side.step, device) if side.memory else ""
        row["multiply_adds"] = side.multiply_adds or ""
        row["mfu"] = six_digits(100 * arithmetic / peak) if peak and arithmetic else ""
        rows.append({"side": name, **row, "rounds": len(times)})
    return rows


def same(results: dict[str, Tensor | list[Tensor]], *, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    """Check that all sides give what the first gives. Raises an AssertionError that names the side that does not.

    Call it on float32 or float64 results, before any side is put into a lower precision.
    """
    first, expected = next(iter(results.items()), (None, None))
    for name, found in results.items():
        torch.testing.assert_close(
            found, expected, rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name} is not {first}: {text}"
        )


def choose_device(options: Options) -> torch.device:
    """Find the device that is asked for, and set the threads. Raises UserError where it is not there."""
    if options.threads < 0 or options.rounds < 1 or options.minutes < 0:
        raise UserError("--threads and --minutes must not be negative, and --rounds must be at least 1")
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("no CUDA device is on this machine; take --device cpu, or auto")
    return torch.device("cuda" if options.device != "cpu" and torch.cuda.is_available() else "cpu")


def here(device: torch.device) -> dict[str, Any]:
    """Say what a row was measured on: the columns `record.WHERE`."""
    return {
        "device": name_of(device) if device.type == "cuda" else f"CPU, {platform.machine()}",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "timm": version("timm") if has_timm() else "",
    }


def has_timm() -> bool:
    """Tell whether timm is installed. The package never needs it; a benchmark sets itself beside it."""
    return importlib.util.find_spec("timm") is not None


def run(
    name: str, comparisons: Iterable[Comparison], options: Options, *, title: str, warm_up: int = WARM_UP, draw: bool = True
) -> Record:
    """Measure all comparisons that are not in the record yet, print the table, draw the figure; returns the record.

    Args:
        name: of the record, NAME.csv in the folder `options.out`, and the figure beside it, NAME.png.
        comparisons: all with the same columns in `case`; "dtype" among them is the precision whose peak counts for MFU.
        title: of table and figure.
        warm_up: rounds that are not counted.
        draw: whether to draw the figure.
    """
    device, comparisons, start = choose_device(options), list(comparisons), time.monotonic()
    record = Record(options.out / f"{name}.csv", case=list(comparisons[0].case), where=here(device))
    due = [comparison for comparison in comparisons if not record.has(comparison.case)]
    left_out, late = [], 0
    for comparison in tqdm(due, desc=name, unit="comparison", disable=None):
        if options.minutes and time.monotonic() - start > 60 * options.minutes:
            late += 1
            continue
        try:
            sides = comparison.build()
            dtype = getattr(torch, comparison.case.get("dtype", "float32"))
            rows = measure(sides, device=device, dtype=dtype, rounds=options.rounds, warm_up=warm_up)
            record.add(comparison.case, rows)
        except (UserError, torch.OutOfMemoryError) as error:
            left_out.append(f"{', '.join(map(str, comparison.case.values()))}: {str(error).splitlines()[0]}")
    asked = [comparison.case for comparison in comparisons]
    print(record.table(asked, title=title))
    for line in left_out:
        print(f"left out: {line}")
    if late:
        print(f"not measured, for want of time: {late} of {len(comparisons)}; the same command goes on with them")
    if record.of(asked):
        print(record.path, *([record.draw(asked, title=title)] if draw else []))
    return record
