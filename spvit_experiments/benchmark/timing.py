"""Timing in turns: the time of a step as a ratio to another step of the same rounds, and its memory.

Sides take turns, so that other work on the machine slows all of them alike. Ratios are computed within each round; results are
their median and quartiles, with milliseconds beside them. All sides of a comparison do the same work unless their names say
otherwise; the code that builds them checks that with `check_equal` before anything is timed.

    Side              a step, and what is known about it
    Comparison        the columns that identify a comparison, and how to build its sides
    measure           sides in, rows out: dictionaries with the columns MEASURED
    run_comparisons   all comparisons of a part of the benchmark, into its CSV (measurements.py)
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
from spvit_mini.fields import Count, Natural, NonNegative, check_fields
from spvit_mini.training.devices import device_name, peak_flops

from ..records import RESULTS, six_digits
from .measurements import Measurements

WARM_UP = 3
MIN_SECONDS = 0.01  # of a timing on an accelerator, where the launch dominates a short step


@dataclass(frozen=True)
class CommonOptions:
    """The options of all parts of the benchmark."""

    out: Path | None = None
    """Folder of the CSV and the figure. Comparisons that the CSV contains are not measured again. None: data/results, or
    runs/benchmark with --quick."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device; auto: CUDA if available, else the CPU."""
    threads: Natural = 0
    """CPU threads. 0: torch's default."""
    rounds: Count = 11
    """Timed rounds, after 3 rounds of warm-up. In each round every side has one turn."""
    minutes: NonNegative = 0
    """Begin no further comparison after so many minutes; the same command continues. 0: no limit."""
    quick: bool = False
    """Small sizes, for a minute on a laptop: a test of the program, not results."""

    def __post_init__(self):
        check_fields(self, "--")

    @property
    def destination(self) -> Path:
        """The folder of the CSV and the figure."""
        return self.out or (Path("runs/benchmark") if self.quick else RESULTS)


@dataclass(frozen=True)
class Side:
    """A step to time.

    Attributes:
        step: function to time; its result is ignored.
        images: number of images per step, for images/s.
        multiply_adds: of one image's forward pass, by the rule of flops.py.
        passes: 3 for a training step, whose backward pass counts as two forward passes; 1 for inference.
        memory: whether to measure the peak memory, with one more step.
        peak: returns the peak memory of the last step in bytes, if the step measures it itself.
    """

    step: Callable[[], object]
    images: int = 0
    multiply_adds: int = 0
    passes: int = 1
    memory: bool = True
    peak: Callable[[], int] | None = None


@dataclass(frozen=True)
class Comparison:
    """A comparison: `case` has the columns that identify it, `build` builds its sides, the reference first.

    `build` may raise UserError if the comparison is not possible here; the reason is printed at the end.
    """

    case: dict[str, Any]
    build: Callable[[], dict[str, Side]]


def time_in_turns(
    steps: dict[str, Callable[[], object]],
    *,
    rounds: int,
    warm_up: int = WARM_UP,
    device: torch.device | None = None,
    min_seconds: float = 0.0,
) -> dict[str, list[float]]:
    """Time each of `steps` once per round, in seconds, after `warm_up` rounds.

    A step that took less than `min_seconds` in the last round of the warm-up is repeated within its turn.
    """
    wait = torch.cuda.synchronize if device is not None and device.type == "cuda" else lambda: None
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    repeats = dict.fromkeys(steps, 1)
    for i in tqdm(range(warm_up + rounds), desc="timing", unit="round", disable=None, leave=False):
        for name, step in steps.items():
            wait()
            start = time.perf_counter()
            for _ in range(repeats[name]):
                step()
            wait()
            duration = (time.perf_counter() - start) / repeats[name]
            if i >= warm_up:
                seconds[name].append(duration)
            elif i == warm_up - 1 and duration < min_seconds:
                repeats[name] = math.ceil(min_seconds / duration)
    return seconds


def peak_memory(step: Callable[[], object], device: torch.device | None = None) -> int:
    """Measure the peak memory of a step in bytes, beyond the memory that was allocated before it.

    On a CPU from the profiler's list of torch's allocations: exact, and the same in each run, without memory that libraries
    allocate themselves.
    """
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # otherwise it reports its start, its stop and missing GPUs
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    allocations, events = [], list(profile.profiler.kineto_results.experimental_event_tree())
    while events:
        event = events.pop()
        events += event.children
        if event.tag == _EventType.Allocation:
            allocations.append((event.start_time_ns, event.extra_fields.ptr, event.extra_fields.alloc_size))
    total, peak, sizes = 0, 0, {}
    for _, address, size in sorted(allocations, key=lambda allocation: allocation[0]):
        if size > 0:
            sizes[address] = size
        total += size if size > 0 else -sizes.pop(address, 0)  # earlier memory may be freed too, such as old gradients
        peak = max(peak, total)
    return peak


def compute_quartiles(values: list[float]) -> tuple[float, float, float]:
    """Compute the median and the two quartiles; for a single value, that value three times."""
    if len(values) == 1:
        return (values[0],) * 3
    low, middle, high = statistics.quantiles(values, n=4)
    return middle, low, high


def measure(
    sides: dict[str, Side], *, device: torch.device, dtype: torch.dtype = torch.float32, rounds: int, warm_up: int = WARM_UP
) -> list[dict[str, Any]]:
    """Time sides in turns: a row each, with the columns `MEASURED`. Ratios are to the first side, within each round."""
    min_seconds = MIN_SECONDS if device.type == "cuda" else 0.0
    steps = {name: side.step for name, side in sides.items()}
    seconds = time_in_turns(steps, rounds=rounds, warm_up=warm_up, device=device, min_seconds=min_seconds)
    first, peak = next(iter(seconds.values())), peak_flops(device_name(device), dtype)
    rows = []
    for name, times in seconds.items():
        side, median = sides[name], statistics.median(times)
        arithmetic = 2 * side.multiply_adds * side.passes * side.images / median
        ratios = compute_quartiles([own / reference for own, reference in zip(times, first, strict=True)])
        row = dict(zip(("ratio", "ratio_low", "ratio_high"), ratios, strict=True))
        row |= dict(zip(("ms", "ms_low", "ms_high"), (1e3 * value for value in compute_quartiles(times)), strict=True))
        row["images_per_second"] = side.images / median if side.images else ""
        row = {column: value if value == "" else six_digits(value) for column, value in row.items()}
        row["peak_bytes"] = side.peak() if side.peak else peak_memory(side.step, device) if side.memory else ""
        row["multiply_adds"] = side.multiply_adds or ""
        row["mfu"] = six_digits(100 * arithmetic / peak) if peak and arithmetic else ""
        rows.append({"side": name, **row, "rounds": len(times)})
    return rows


def check_equal(results: dict[str, Tensor | list[Tensor]], *, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    """Check that the results of all sides equal the first. Raises an AssertionError that names the side that differs.

    Call it with float32 or float64 results, before any side is converted to a lower precision.
    """
    first, expected = next(iter(results.items()), (None, None))
    for name, result in results.items():
        torch.testing.assert_close(
            result, expected, rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name} is not {first}: {text}"
        )


def choose_device(options: CommonOptions) -> torch.device:
    """Choose the device, and set the number of threads. Raises UserError if the device is not available."""
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("device is cuda, but no CUDA device is available. Use --device cpu or auto.")
    return torch.device("cuda" if options.device != "cpu" and torch.cuda.is_available() else "cpu")


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Describe the device and the versions: the columns `MACHINE`."""
    return {
        "device": device_name(device) if device.type == "cuda" else f"CPU, {platform.machine()}",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "timm": version("timm") if has_timm() else "",
    }


def has_timm() -> bool:
    """Test that timm is installed: the package never needs it, the benchmark compares with it."""
    return importlib.util.find_spec("timm") is not None


def run_comparisons(
    name: str, comparisons: Iterable[Comparison], options: CommonOptions, *, title: str, warm_up: int = WARM_UP, draw: bool = True
) -> Measurements:
    """Measure all comparisons that the CSV does not contain, print the table and draw the figure; returns the measurements.

    Args:
        name: of the CSV, NAME.csv in the folder `options.destination`, and of the figure, NAME.png.
        comparisons: with the same columns in `case`; the column "dtype" decides the peak for MFU.
        title: of table and figure.
        warm_up: rounds before the timed ones.
        draw: whether to draw the figure.
    """
    device, comparisons, start = choose_device(options), list(comparisons), time.monotonic()
    path, columns = options.destination / f"{name}.csv", list(comparisons[0].case)
    measurements = Measurements(path, case=columns, machine=describe_machine(device))
    due = [comparison for comparison in comparisons if not measurements.has(comparison.case)]
    skipped, late = [], 0
    for comparison in tqdm(due, desc=name, unit="comparison", disable=None):
        if options.minutes and time.monotonic() - start > 60 * options.minutes:
            late += 1
            continue
        try:
            sides = comparison.build()
            dtype = getattr(torch, comparison.case.get("dtype", "float32"))
            rows = measure(sides, device=device, dtype=dtype, rounds=options.rounds, warm_up=warm_up)
            measurements.add(comparison.case, rows)
        except (UserError, torch.OutOfMemoryError) as error:
            skipped.append(f"{', '.join(map(str, comparison.case.values()))}: {str(error).splitlines()[0]}")
    cases = [comparison.case for comparison in comparisons]
    print(measurements.make_table(cases, title=title))
    for line in skipped:
        print(f"skipped: {line}")
    if late:
        print(f"out of time: {late} of {len(comparisons)} comparisons are not measured; the same command continues")
    if measurements.select(cases):
        print(path, *([measurements.draw_figure(cases, title=title)] if draw else []))
    return measurements
