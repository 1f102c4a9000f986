"""The lessons: seconds and memory of each, run from top to bottom in a kernel of its own.

Each runs once. The seconds have the kernel's start in them; the memory is the most that its process held at one time.
Needs JupyterLab's parts: python -m pip install --editable .[lab]

    python -m spvit_experiments benchmark course --lessons 03 08
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from spvit_course.lessons import lesson_files
from spvit_mini.errors import UserError

from .timing import Comparison, Side, run
from .timing import Options as Common

# In a process of its own, since a system tells the peak of all children of a process, not of each. bytes: macOS, else KiB.
CHILD = """
import json, resource, sys, tempfile
from pathlib import Path
from spvit_course.classroom.execution import run_notebook
from spvit_course.lessons import read
with tempfile.TemporaryDirectory() as folder:
    run_notebook(read(Path(sys.argv[1])), Path(folder), profile=sys.argv[2])
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
Path(sys.argv[3]).write_text(json.dumps(peak * (1 if sys.platform == "darwin" else 1024)))
"""


@dataclass(frozen=True)
class Options(Common):
    """Time the lessons."""

    lessons: tuple[str, ...] = ()
    """Their numbers, as 03; default: all."""
    profile: Literal["smoke", "quick", "standard", "full"] = "quick"
    """How much the lessons compute."""
    rounds: int = 1
    """How often each lesson runs."""


class Lesson:
    """A lesson to be run; `peak` is the memory of the last run, in bytes."""

    def __init__(self, path: Path, profile: str):
        self.path, self.profile, self.peak = path, profile, 0

    def run(self) -> None:
        """Run it in a process of its own. Raises UserError where a cell fails."""
        with tempfile.TemporaryDirectory() as folder:
            told = Path(folder) / "peak.json"
            command = [sys.executable, "-c", CHILD, str(self.path.resolve()), self.profile, str(told)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                reason = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
                raise UserError(f"{self.path.name} did not run to its end: {reason}")
            self.peak = json.loads(told.read_text())


def comparisons(options: Options) -> Iterator[Comparison]:
    """List the lessons, each by itself. Raises UserError for a number that no lesson has."""
    files = lesson_files()
    for number in options.lessons:
        if not any(path.name.startswith(f"{number}_") for path in files):
            raise UserError(f"no lesson has the number {number!r}; there are {', '.join(path.name[:2] for path in files)}")
    for path in files:
        if not options.lessons or path.name[:2] in options.lessons:
            lesson = Lesson(path, options.profile)
            yield Comparison(
                {"lesson": path.name[:2], "profile": options.profile},
                lambda lesson=lesson: {lesson.path.stem: Side(lesson.run, peak=lambda: lesson.peak)},
            )


def main(options: Options) -> int:
    """Run this part of the benchmark; returns the exit status."""
    if sys.platform == "win32":
        raise UserError("Windows does not tell a process's peak of memory as this program asks for it; run it under WSL")
    if options.quick:
        options = type(options)(**{**vars(options), "profile": "smoke"})
    record = run("benchmark_course", comparisons(options), options, title="Lessons", warm_up=0, draw=False)
    rows = record.of([comparison.case for comparison in comparisons(options)])
    if rows:
        seconds, most = sum(float(row["ms"]) for row in rows) / 1e3, max(int(row["peak_bytes"]) for row in rows)
        print(f"{len(rows)} lessons: {seconds:.0f} s one after the other, at most {most / 2**20:.0f} MiB")
    return 0
