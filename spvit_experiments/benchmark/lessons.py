"""The lessons: seconds and memory of each notebook, run from top to bottom in a kernel of its own.

Each notebook runs once. The seconds include the start of the kernel; the memory is the peak of the kernel's process.
Needs the extra `lab`: python -m pip install --editable .[lab]

    python -m spvit_experiments benchmark lessons --lessons 03 08
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from spvit_mini.errors import UserError
from spvit_mini.fields import Count

from ..records import ROOT
from .timing import CommonOptions, Comparison, Side, run_comparisons

# In a process of its own, because a system reports the peak of all children of a process. Unit: bytes on macOS, else KiB.
CHILD = """
import json, resource, sys, tempfile
from pathlib import Path
import nbformat
from nbclient import NotebookClient
with tempfile.TemporaryDirectory() as folder:
    resources = {"metadata": {"path": folder}}
    NotebookClient(nbformat.read(sys.argv[1], 4), timeout=600, kernel_name="python3", resources=resources).execute()
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
Path(sys.argv[2]).write_text(json.dumps(peak * (1 if sys.platform == "darwin" else 1024)), encoding="utf-8")
"""


@dataclass(frozen=True)
class Options(CommonOptions):
    """Time the lessons."""

    lessons: tuple[str, ...] = ()
    """Numbers of the lessons, such as 03. Default: all."""
    profile: Literal["smoke", "quick", "standard", "full"] = "quick"
    """Amount of computation in the lessons."""
    rounds: Count = 1
    """Number of times that each lesson runs."""


class Lesson:
    """A lesson to run; `peak` is the memory of the last run in bytes."""

    def __init__(self, path: Path, profile: str):
        self.path, self.profile, self.peak = path, profile, 0

    def run(self) -> None:
        """Run the notebook in a process of its own. Raises UserError if a cell fails."""
        # The kernel must be this Python, and import these packages.
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment = {"JUPYTER_PREFER_ENV_PATH": "1", "PYTHONPATH": paths, "SPVIT_PROFILE": self.profile}
        with tempfile.TemporaryDirectory() as folder:
            result = Path(folder) / "peak.json"
            command = [sys.executable, "-c", CHILD, str(self.path.resolve()), str(result)]
            child = subprocess.run(command, capture_output=True, encoding="utf-8", env=os.environ | environment)
            if child.returncode:
                lines = re.sub(r"\x1b\[[0-9;]*m", "", child.stderr).strip().splitlines()
                raise UserError(f"{self.path.name} failed: {lines[-1] if lines else f'exit status {child.returncode}'}")
            self.peak = json.loads(result.read_text(encoding="utf-8-sig"))


def list_comparisons(options: Options, folder: Path = ROOT / "notebooks") -> Iterator[Comparison]:
    """List the lessons, a comparison with one side each. Raises UserError for an unknown number."""
    files = {path.name[:2]: path for path in sorted(folder.glob("[0-9][0-9]_*.ipynb"))}
    if not files:
        raise UserError(f"no lessons in {folder}; they are in the project's repository, not in the installed package")
    for number in options.lessons or files:
        if number not in files:
            raise UserError(f"no lesson has the number {number!r}; expected some of {', '.join(files)}")
        lesson = Lesson(files[number], options.profile)
        yield Comparison(
            {"lesson": number, "profile": options.profile},
            lambda lesson=lesson: {lesson.path.stem: Side(lesson.run, peak=lambda: lesson.peak)},
        )


def main(options: Options) -> int:
    """Run this part of the benchmark; returns the exit status."""
    if sys.platform == "win32":
        raise UserError("Windows does not report the peak memory of a process. Run this part of the benchmark under WSL.")
    if options.quick:
        options = replace(options, profile="smoke")
    comparisons = list(list_comparisons(options))
    measurements = run_comparisons("benchmark_lessons", comparisons, options, title="Lessons", warm_up=0, draw=False)
    rows = measurements.select([comparison.case for comparison in comparisons])
    if rows:
        seconds, peak = sum(float(row["ms"]) for row in rows) / 1e3, max(int(row["peak_bytes"]) for row in rows)
        print(f"{len(rows)} lessons: {seconds:.0f} s in sequence, at most {peak / 2**20:.0f} MiB")
    return 0
