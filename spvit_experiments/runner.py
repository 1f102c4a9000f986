"""The runs of a study: each in a process of its own, one after the other or several side by side on one device.

A run is a run folder. One that was stopped, by a signal, a time limit or a kill, goes on from its last state; it ends
with the same numbers as one that was not. One that fails stops no other.

The processes share nothing but the device. Each lives in a session of its own, so that Ctrl-C reaches this one alone,
which passes it on; and each saves and ends by itself if this one is gone. A cluster signals every process: while a run
saves, it takes no notice of what else it is told.
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
from spvit_mini.training.checkpoint import read_recipe
from spvit_mini.training.devices import name_of
from spvit_mini.training.loop import choose_device, train
from spvit_mini.training.metrics import read_rows
from spvit_mini.training.signals import Stop

from .design import Study
from .records import make_record, write_record

Key = tuple[str, int]  # arm, seed
FINISHED, STOPPED, FAILED = "finished", "stopped", "failed"


@dataclass(frozen=True)
class Place:
    """Where and how runs are computed: what changes no outcome, and so is part of no recipe in the records."""

    threads: int
    root: Path | None = None
    device: str | None = None
    workers: int | None = None

    def changes(self) -> dict[str, Any]:
        """Say it as changes of a recipe."""
        changes = {"data.root": self.root, "device": self.device, "data.workers": self.workers}
        return {name: value for name, value in changes.items() if value is not None}


def run_all(
    study: Study,
    todo: list[Key],
    *,
    folder: Callable[[str, int], Path],
    place: Place,
    parallel: int = 1,
    deadline: float | None = None,
    on_finished: Callable[[Key], None] = lambda key: None,
) -> tuple[dict[Key, str], int | None]:
    """Make runs, up to `parallel` at a time, in the order of `todo`.

    Args:
        folder: names the run folder of an arm and a seed.
        deadline: a time of `time.monotonic` at which what still runs saves and stops, and nothing more is begun.
        on_finished: called for every run that was finished, when it is.

    Returns what went wrong with the runs that failed, and the signal that stopped the others, if one did.
    """
    kind = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(kind)
    context.set_forkserver_preload([__name__])  # torch is loaded once, then each run starts at once
    waiting, running, failures = deque(todo), {}, {}
    with Stop(True) as stop:
        try:
            while True:
                over = stop.signal is not None or (deadline is not None and time.monotonic() >= deadline)
                while waiting and not over and len(running) < parallel:
                    key = waiting.popleft()
                    end, outcome = context.Pipe(duplex=False)
                    process = context.Process(target=_work, args=(study, *key, folder(*key), place, outcome))
                    process.start()
                    outcome.close()
                    running[end] = key, process
                if over:  # said again and again, for a run that still prepares its data hears nothing
                    for _, process in running.values():
                        process.terminate()
                if not running:
                    return failures, stop.signal
                for end in wait(list(running), timeout=0.5):
                    key, process = running.pop(end)
                    state, reason = _outcome(end, process, over)
                    if state == FINISHED:
                        on_finished(key)
                    elif state == FAILED:
                        failures[key] = reason
        finally:
            for _, process in running.values():  # a second signal: at once
                process.kill()


def _outcome(end: Connection, process: Any, over: bool) -> tuple[str, str]:
    """Hear from a process how its run ended, or find out that it died."""
    try:
        said = end.recv()
    except EOFError:
        said = None
    process.join()
    if said is not None:
        return said
    return (STOPPED, "") if over else (FAILED, f"its process ended with status {process.exitcode}")


def _work(study: Study, arm: str, seed: int, run: Path, place: Place, outcome: Connection) -> None:
    """Make one run, in the process that was started for it, and send how it ended."""
    if hasattr(os, "setsid"):
        os.setsid()
    # The loop puts its own handlers in their place until the first signal has come, and then these back.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_stop_without_parent, daemon=True).start()
    torch.set_num_threads(place.threads)
    try:
        outcome.send((make_run(study, arm, seed, run, place), ""))
    except UserError as error:
        outcome.send((FAILED, str(error)))
    except Exception as error:
        print(f"{arm}, seed {seed}:\n{traceback.format_exc()}", file=sys.stderr, end="", flush=True)
        outcome.send((FAILED, " ".join(f"{type(error).__name__}: {error}".split())[:300]))


def _stop_without_parent() -> None:
    """Save and stop when the process that started this one is gone."""
    wait([multiprocessing.parent_process().sentinel])
    while True:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.5)


def make_run(study: Study, arm: str, seed: int, run: Path, place: Place) -> str:
    """Begin a run or go on with it; a finished one has its record in its folder, and no states any more."""
    asked = study.recipe(arm, seed)
    begun = read_recipe(run)
    if begun is not None and begun.difference(asked):
        shutil.rmtree(run)  # the study has changed since
    recipe = asked.but(place.changes())

    def tell(step: int, _model: Any, row: dict[str, Any]) -> None:
        print(f"{arm}, seed {seed}: step {step}, validation accuracy {row['val_top1']:.1f} %", flush=True)

    device = name_of(choose_device(recipe)[0])
    try:
        result = train(recipe, run=run, resume=True, progress=False, on_evaluation=tell)
    except UserError as error:
        # The loop gives up a run whose gradient stays not finite. That is an outcome: it must not vanish.
        if not str(error).startswith("the gradient was not finite"):
            raise
        print(f"{arm}, seed {seed}: diverged ({error})", flush=True)
        rows = read_rows(run / "metrics.csv")
        record = make_record(study, arm, seed, rows, device=device, parameters=None, diverged=True)
    else:
        if result.step < result.steps:
            return STOPPED
        parameters = sum(parameter.numel() for parameter in result.model.parameters())
        record = make_record(study, arm, seed, result.rows, device=device, parameters=parameters, diverged=False)
    write_record(run, record)
    for state in ("last.pt", "previous.pt"):
        (run / state).unlink(missing_ok=True)
    return FINISHED
