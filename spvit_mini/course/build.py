"""The students' copies: made from the solved lessons, and never written over a student's work.

A copy is what `nbgrader generate_assignment` makes of the same notebook, checksums aside: solutions replaced by a stub,
hidden tests and marking schemes cut, cells locked, outputs cleared. So students never need nbgrader, and instructors can
use it all the same.

`work/.copies.json` remembers what was handed out, as hashes. A copy that is still as it was handed out is brought up to
date; one that has been touched, be it by a single saved output, stays, and a newer lesson is put beside it.
"""

import dataclasses
import hashlib
import itertools
import json
import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode

from ..errors import UserError
from .lessons import ROOT, grading, lesson_files, read, text_of, write

WORK = ROOT / "work"
MANIFEST = ".copies.json"

CODE_STUB = "# YOUR CODE HERE\nraise NotImplementedError()"
TEXT_STUB = "YOUR ANSWER HERE"


# A copy ---------------------------------------------------------------------------------------------------------------


def student_copy(lesson: NotebookNode) -> NotebookNode:
    """Make a student's copy of a solved lesson. Raises UserError where the markers of a cell are not in order."""
    copy = deepcopy(lesson)
    copy.metadata.pop("celltoolbar", None)
    for cell in copy.cells:
        graded = grading(cell)
        solution, grade, locked = (graded.get(key, False) for key in ("solution", "grade", "locked"))
        stub = CODE_STUB if cell.cell_type == "code" else TEXT_STUB
        source = replace_region(cell.source, "SOLUTION", stub)
        if source != cell.source and not solution:
            raise UserError(f"cell {cell.id} has a solution region but is no solution cell in nbgrader's metadata")
        cell.source = stub if solution and source == cell.source else source
        cell.source = replace_region(cell.source, "HIDDEN TESTS", None)
        cell.source = replace_region(cell.source, "MARK SCHEME", None)
        if solution or grade or locked:
            graded["cell_type"] = cell.cell_type
            cell.metadata["deletable"] = False
        if (locked or grade) and not solution:
            cell.metadata["editable"] = False
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            for key in ("collapsed", "scrolled"):
                cell.metadata.pop(key, None)
    return copy


def replace_region(source: str, name: str, stub: str | None) -> str:
    """Replace each region between lines with BEGIN `name` and END `name` by a stub of the same indent, or by nothing."""
    lines, inside = [], False
    for line in source.split("\n"):
        if f"BEGIN {name}" in line:
            if inside:
                raise UserError(f"a {name} region begins inside another: {line.strip()!r}")
            inside = True
            indent = re.match(r"\s*", line).group()
            lines += [indent + part for part in stub.split("\n")] if stub is not None else []
        elif f"END {name}" in line:
            inside = False
        elif not inside:
            lines.append(line)
    if inside:
        raise UserError(f"a {name} region has no end")
    return "\n".join(lines)


# A folder of copies ---------------------------------------------------------------------------------------------------


@dataclass
class HandedOut:
    """What was put into a folder: the hash of each file as it was written, and of each lesson's latest form."""

    files: dict[str, str]
    latest: dict[str, str]


@dataclass(frozen=True)
class Copied:
    """What became of one lesson: "new", "updated", "unchanged", "kept" (edited, nothing newer) or "beside"."""

    name: str
    what: str
    beside: str | None = None  # the name of the newer copy

    def __str__(self) -> str:
        if self.what == "beside":
            return (
                f"{self.name}: yours was left as it is; the lesson has changed since, its newer form is {self.beside}"
            )
        words = {"new": "made", "updated": "brought up to date; you had not begun it", "unchanged": "as it was"}
        return f"{self.name}: {words.get(self.what, 'yours, left as it is')}"


def build(work: Path = WORK, lessons: Sequence[Path] | None = None) -> list[Copied]:
    """Make or update the students' copies of all lessons in a folder. Raises UserError if it cannot be written."""
    files = list(lessons) if lessons is not None else lesson_files()
    texts = {path.name: text_of(student_copy(read(path))) for path in files}
    # Pages that lessons link to, such as the notation, must lie beside them here too: JupyterLab serves this folder alone.
    texts |= {page.name: page.read_text(encoding="utf-8") for page in sorted(files[0].parent.glob("*.md"))}
    report = []
    try:
        work.mkdir(parents=True, exist_ok=True)
        handed = read_manifest(work)
        for name, text in texts.items():
            report.append(hand_out(work, name, text, handed))
            # After each lesson: an interruption between two must not make an untouched copy look touched.
            write(work / MANIFEST, json.dumps(dataclasses.asdict(handed), indent=1) + "\n")
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write the copies into {work}: {reason}; choose another folder with --out") from None
    return report


def hand_out(work: Path, name: str, text: str, handed: HandedOut) -> Copied:
    """Put one copy into the folder without touching a student's work, and remember it in `handed`."""
    digest = digest_of(text.encode())

    def put(file: str) -> str | None:
        """Write the copy where that loses nothing: say what was done, or None if the file is the student's own."""
        there = digest_of_file(work / file)
        if there not in (None, digest, handed.files.get(file)):
            return None
        if there != digest:
            write(work / file, text)
        handed.files[file] = handed.latest[name] = digest
        return "new" if there is None else "unchanged" if there == digest else "updated"

    offered = handed.latest.get(name)
    if done := put(name):
        return Copied(name, done)
    if offered == digest:
        return Copied(name, "kept")
    # Newer copies may be worked on as well, so they are numbered.
    sibling = next(file for file in (beside(name, count) for count in itertools.count(1)) if put(file))
    return Copied(name, "beside", sibling)


def beside(name: str, count: int) -> str:
    """Name the newer copy that is put beside an edited one: 00_start_here.newer.ipynb, 00_start_here.newer-2.ipynb, …"""
    stem, _, suffix = name.rpartition(".")
    return f"{stem}.newer.{suffix}" if count == 1 else f"{stem}.newer-{count}.{suffix}"


def digest_of(content: bytes) -> str:
    """Hash what a student can see and change in a notebook: its cells and their outputs, not their metadata.

    JupyterLab writes metadata of its own as soon as it opens a notebook; that alone is no work.
    """
    try:
        cells = [
            {key: value for key, value in cell.items() if key != "metadata"} for cell in json.loads(content)["cells"]
        ]
        content = json.dumps(cells, sort_keys=True).encode()
    except (ValueError, LookupError, TypeError, AttributeError):
        pass  # no notebook at all, so every byte counts
    return hashlib.sha256(content).hexdigest()


def digest_of_file(path: Path) -> str | None:
    """Hash a notebook's file; None if there is no such file."""
    try:
        return digest_of(path.read_bytes())
    except FileNotFoundError:
        return None


def read_manifest(work: Path) -> HandedOut:
    """Read what was handed out. A file that is missing or broken means: any copy in the folder may be the student's own."""
    try:
        return HandedOut(**json.loads((work / MANIFEST).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return HandedOut({}, {})
