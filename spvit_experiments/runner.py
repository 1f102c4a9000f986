"""The runs of a study, each in a process of its own, one at a time or several in parallel on one device.

A run that was stopped by a signal, a time limit or a kill resumes from its last state, and ends with the same numbers as an
uninterrupted run. A run that fails does not stop the others.

The processes share only the device. Each has a session of its own, so that Ctrl-C reaches only the parent, which passes it
on. A child saves and stops if its parent is gone. A cluster signals every process, so a run ignores further signals while it
saves.
"""

import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from spvit_mini.errors import UserError
from spvit_mini.extensions import import_extensions
from spvit_mini.training.checkpoint import read_recipe
from spvit_mini.training.devices import choose_device, device_name
from spvit_mini.training.loop import train
from spvit_mini.training.metrics import read_rows
from spvit_mini.training.signals import StopSignal

from .records import add_sources, make_record, write_record
from .study import Study

Key = tuple[str, int]  # arm, seed
FINISHED, STOPPED, FAILED = "finished", "stopped", "failed"


@dataclass(frozen=True)
class Resources:
    """Threads, data folder, device and workers of a run: they change no result, so records don't contain them."""

    threads: int
    root: Path | None = None
    device: str | None = None
    workers: int | None = None

    def changes(self) -> dict[str, Any]:
        """List the resources as changes of a recipe."""
        changes = {"data.root": self.root, "device": self.device, "data.workers": self.workers}
        return {name: value for name, value in changes.items() if value is not None}


def run_all(
    study: Study,
    due: list[Key],
    *,
    folder: Callable[[str, int], Path],
    resources: Resources,
    parallel: int = 1,
    deadline: float | None = None,
    on_finished: Callable[[Key], None] = lambda key: None,
) -> tuple[dict[Key, str], int | None]:
    """Make runs in the order of `due`, up to `parallel` at a time.

    Args:
        folder: gives the run folder of an arm and a seed.
        deadline: time of `time.monotonic` at which runs save and stop, and no further run begins.
        on_finished: called with each run that finishes.

    Returns the reasons of failed runs, and the number of the signal that stopped the runs, or None.
    """
    kind = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(kind)
    context.set_forkserver_preload([__name__])  # torch is imported once for all runs
    waiting, running, failures = deque(due), {}, {}
    with StopSignal(True) as stop:
        try:
            while True:
                is_over = stop.signal is not None or (deadline is not None and time.monotonic() >= deadline)
                while waiting and not is_over and len(running) < parallel:
                    key = waiting.popleft()
                    end, outcome = context.Pipe(duplex=False)
                    process = context.Process(target=_run_child, args=(study, *key, folder(*key), resources, outcome))
                    process.start()
                    outcome.close()
                    running[end] = key, process
                if is_over:  # repeated, because a run that still prepares its data ignores signals
                    for _, process in running.values():
                        process.terminate()
                if not running:
                    return failures, stop.signal
                for end in wait(list(running), timeout=0.5):
                    key, process = running.pop(end)
                    state, reason = _receive_outcome(end, process, is_over)
                    if state == FINISHED:
                        on_finished(key)
                    elif state == FAILED:
                        failures[key] = reason
        finally:
            for _, process in running.values():  # a second signal: at once
                process.kill()


def _receive_outcome(end: Connection, process: Any, is_over: bool) -> tuple[str, str]:
    """Receive the state and the reason with which a run ended; a process that sent none has died."""
    try:
        outcome = end.recv()
    except EOFError:
        outcome = None
    process.join()
    if outcome is not None:
        return outcome
    return (STOPPED, "") if is_over else (FAILED, f"its process ended with status {process.exitcode}")


def _run_child(study: Study, arm: str, seed: int, run: Path, resources: Resources, outcome: Connection) -> None:
    """Make one run in its own process, and send the outcome."""
    if hasattr(os, "setsid"):
        os.setsid()
    # The training loop replaces these handlers until the first signal, and then restores them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_stop_without_parent, daemon=True).start()
    torch.set_num_threads(resources.threads)
    try:
        import_extensions(study.imports)
        outcome.send((make_run(study, arm, seed, run, resources), ""))
    except UserError as error:
        outcome.send((FAILED, str(error)))
    except Exception as error:
        print(f"{arm}, seed {seed}:\n{traceback.format_exc()}", file=sys.stderr, end="", flush=True)
        outcome.send((FAILED, " ".join(f"{type(error).__name__}: {error}".split())[:300]))


def _stop_without_parent() -> None:
    """Save and stop when the parent process is gone."""
    wait([multiprocessing.parent_process().sentinel])
    while True:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.5)


def make_run(study: Study, arm: str, seed: int, run: Path, resources: Resources) -> str:
    """Begin or resume a run; at its end its record is in its run folder, and its training states are removed."""
    recipe = study.recipe(arm, seed).override(resources.changes())
    earlier = read_recipe(run)
    if earlier is not None and earlier.find_difference(add_sources(recipe, {})):
        shutil.rmtree(run)  # the study has changed since, or what it learns from

    def report_progress(step: int, _model: Any, row: dict[str, Any]) -> None:
        print(f"{arm}, seed {seed}: step {step}, validation accuracy {row['val_top1']:.1f} %", flush=True)

    device = device_name(choose_device(recipe)[0])
    try:
        result = train(recipe, run_dir=run, resume=True, progress=False, on_evaluation=report_progress)
    except UserError as error:
        # The training loop stops a run whose gradient stays non-finite. That is an outcome, and must be recorded.
        if not str(error).startswith("the gradient was not finite"):
            raise
        print(f"{arm}, seed {seed}: diverged ({error})", flush=True)
        rows = read_rows(run / "metrics.csv")
        outcome = {"parameters": None, "diverged": True}
    else:
        if result.step < result.steps:
            return STOPPED
        rows = result.rows
        outcome = {"parameters": sum(parameter.numel() for parameter in result.model.parameters()), "diverged": False}
    begun = read_recipe(run)
    sources = begun.sources if begun is not None else {}
    write_record(run, make_record(study, arm, seed, rows, sources=sources, device=device, **outcome))
    for state in ("last.pt", "previous.pt"):
        (run / state).unlink(missing_ok=True)
    return FINISHED
