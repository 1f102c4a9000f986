"""The students' copies: made from the solved lessons, and never written over a student's work.

A copy is what `nbgrader generate_assignment` makes of the same notebook, checksums aside: solutions replaced by a stub,
hidden tests and marking schemes cut, cells locked, outputs cleared. So students never need nbgrader, and instructors can
use it all the same.

`work/.copies.json` remembers what was handed out, as hashes. A copy that is still as it was handed out is brought up to
date; one that has been touched, be it by a single saved output, stays, and a newer lesson is put beside it, with a word
on each cell that is new, changed or gone.
"""

import dataclasses
import hashlib
import itertools
import json
import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from spvit_mini.errors import UserError

from ..lessons import ROOT, grading, lesson_files, read, text_of, write
from ..progress import MANIFEST
from .variants import VARIANTS, vary

WORK = ROOT / "work"

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


def varied(lessons: dict[str, NotebookNode], variant: str) -> dict[str, NotebookNode]:
    """Change those of the lessons, given by their files' names, that a variant knows. Raises UserError if nobody knows it."""
    changes = {change.lesson for change in VARIANTS[variant].exercises} if variant in VARIANTS else {name[:2] for name in lessons}
    return {name: vary(lesson, variant) if name[:2] in changes else lesson for name, lesson in lessons.items()}


# A folder of copies ---------------------------------------------------------------------------------------------------


@dataclass
class HandedOut:
    """What was put into a folder: the hash of each file as it was written, of each lesson's latest form, of each cell."""

    files: dict[str, str] = field(default_factory=dict)
    latest: dict[str, str] = field(default_factory=dict)
    cells: dict[str, dict[str, str]] = field(default_factory=dict)  # by file, then by the cell's id


@dataclass(frozen=True)
class Copied:
    """What became of one lesson: "new", "updated", "unchanged", "kept" (edited, nothing newer) or "beside"."""

    name: str
    what: str
    beside: str | None = None  # the name of the newer copy
    differences: tuple[str, ...] = ()  # how it differs from the student's, a line each

    def __str__(self) -> str:
        if self.what == "beside":
            first = (
                f"{self.name}: yours was left as it is; the lesson has changed since, its newer form is {self.beside}"
            )
            return "\n".join([first, *(f"    {line}" for line in self.differences)])
        words = {"new": "made", "updated": "brought up to date; you had not begun it", "unchanged": "as it was"}
        return f"{self.name}: {words.get(self.what, 'yours, left as it is')}"


def build(
    work: Path = WORK, lessons: Sequence[Path] | None = None, *, dry: bool = False, variant: str | None = None
) -> list[Copied]:
    """Make or update the students' copies of all lessons in a folder. With `dry`, only say what would be done.

    A `variant` changes those exercises that it knows. Raises UserError if the folder cannot be written.
    """
    files = list(lessons) if lessons is not None else lesson_files()
    solved = {path.name: read(path) for path in files}
    if variant is not None:
        solved = varied(solved, variant)
    texts = {name: text_of(student_copy(lesson)) for name, lesson in solved.items()}
    # Pages that lessons link to, such as the notation, must lie beside them here too: JupyterLab serves this folder alone.
    texts |= {page.name: page.read_text(encoding="utf-8") for page in sorted(files[0].parent.glob("*.md"))}
    report = []
    try:
        if not dry:
            work.mkdir(parents=True, exist_ok=True)
        handed = read_manifest(work)
        for name, text in texts.items():
            report.append(hand_out(work, name, text, handed, dry=dry))
            if not dry:
                # After each lesson: an interruption between two must not make an untouched copy look touched.
                write(work / MANIFEST, json.dumps(dataclasses.asdict(handed), indent=1) + "\n")
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write the copies into {work}: {reason}; choose another folder with --out") from None
    return report


def hand_out(work: Path, name: str, text: str, handed: HandedOut, *, dry: bool = False) -> Copied:
    """Put one copy into the folder without touching a student's work, and remember it in `handed`."""
    digest = digest_of(text.encode())
    begun = []  # the student's own files of this lesson, the newest last

    def put(file: str) -> str | None:
        """Write the copy where that loses nothing: say what was done, or None if the file is the student's own."""
        there = digest_of_file(work / file)
        if there not in (None, digest, handed.files.get(file)):
            begun.append(file)
            return None
        if there != digest and not dry:
            write(work / file, text)
        handed.files[file] = handed.latest[name] = digest
        handed.cells[file] = cell_digests(text)
        return "new" if there is None else "unchanged" if there == digest else "updated"

    offered = handed.latest.get(name)
    if done := put(name):
        return Copied(name, done)
    if offered == digest:
        return Copied(name, "kept")
    # Newer copies may be worked on as well, so they are numbered.
    sibling = next(file for file in (beside(name, count) for count in itertools.count(1)) if put(file))
    return Copied(name, "beside", sibling, tuple(differences(work / begun[-1], handed.cells.get(begun[-1]), text)))


def beside(name: str, count: int) -> str:
    """Name the newer copy that is put beside an edited one: 00_start_here.newer.ipynb, 00_start_here.newer-2.ipynb, …"""
    stem, _, suffix = name.rpartition(".")
    return f"{stem}.newer.{suffix}" if count == 1 else f"{stem}.newer-{count}.{suffix}"


def digest_of(content: bytes) -> str:
    """Hash what a student can write in a notebook: its cells and their outputs, but not what JupyterLab adds by itself.

    JupyterLab writes the kernel's details and the state of its view as soon as it opens a notebook; that is no work.
    """
    try:
        cells = [
            {key: value for key, value in cell.items() if key != "metadata"} | {"metadata": own(cell["metadata"])}
            for cell in json.loads(content)["cells"]
        ]
        content = json.dumps(cells, sort_keys=True).encode()
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        pass  # no notebook at all, so every byte counts
    return hashlib.sha256(content).hexdigest()


def own(metadata: dict) -> dict:
    """Leave out of a cell's metadata what programs put there unasked: times, folded or not, trusted, empty fields."""
    unasked = {"trusted", "execution", "collapsed", "scrolled", "jupyter", "ExecuteTime", "vscode"}
    kept = {key: value for key, value in metadata.items() if key not in unasked and value not in ([], {}, None)}
    for key, usual in (("editable", True), ("deletable", True), ("slideshow", {"slide_type": ""})):
        if kept.get(key) == usual:
            del kept[key]
    return kept


def digest_of_file(path: Path) -> str | None:
    """Hash a notebook's file; None if there is no such file. What cannot be read as a file equals nothing handed out."""
    try:
        return digest_of(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError:
        return "a folder, or closed to us"


def read_manifest(work: Path) -> HandedOut:
    """Read what was handed out. A file that is missing or broken means: any copy in the folder may be the student's own."""
    try:
        handed = HandedOut(**json.loads((work / MANIFEST).read_text(encoding="utf-8")))
        if all(isinstance(value, dict) for value in dataclasses.asdict(handed).values()):
            return handed
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        pass
    return HandedOut()


# What a newer lesson brings -------------------------------------------------------------------------------------------

MOST_TOLD = 12  # lines on one lesson


def cell_digests(text: str) -> dict[str, str]:
    """Hash what each cell of a copy says, by the cell's id; nothing for a page that is no notebook."""
    cells = cells_of(text)
    return {name: hashlib.sha256(said(cell).encode()).hexdigest()[:16] for name, cell in cells.items()}


def cells_of(text: str) -> dict[str, NotebookNode]:
    """Read the cells of a notebook by their ids; none where it cannot be read."""
    try:
        cells = nbformat.v4.reads(text).cells
        return {cell["id"]: cell for cell in cells if isinstance(cell.source, str)}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}


def said(cell: NotebookNode) -> str:
    """Give what a cell says as one text: its kind, its source, its pictures."""
    return json.dumps([cell.cell_type, cell.source, cell.get("attachments", {})], sort_keys=True)


def differences(theirs: Path, base: dict[str, str] | None, text: str) -> list[str]:
    """Tell in plain words how a newer copy differs from the form of the lesson that a student's file began as.

    `base` has the hashes of that form's cells. Where it is not known, the file itself is compared.
    """
    newer = cells_of(text)
    if not newer:
        return ["the text of this page has changed"]
    try:
        their_text = theirs.read_text(encoding="utf-8")
    except (OSError, ValueError):
        their_text = ""
    lines = []
    if not base:
        base = cell_digests(their_text)
        if not base:
            return [f"what has changed cannot be told: {theirs.name} cannot be read as a notebook"]
        lines.append(f"compared with {theirs.name} itself, so that your own changes count too:")
    elif ".newer" in theirs.name:
        lines.append(f"compared with {theirs.name}:")
    digests, older = cell_digests(text), cells_of(their_text)
    told = [f"new: {place(newer, name)}" for name in newer if name not in base]
    told += [f"changed: {place(newer, name)}" for name in newer if name in base and digests[name] != base[name]]
    told += [f"gone: {place(older, name) if name in older else f'the cell {name}'}" for name in base if name not in newer]
    if [name for name in base if name in newer] != [name for name in newer if name in base]:
        told.append("some cells stand in another order")
    if len(told) > MOST_TOLD:
        told[MOST_TOLD - 1 :] = [f"and {len(told) - MOST_TOLD + 1} cells more"]
    same = [
        exercise_name(cell)
        for name, cell in newer.items()
        if grading(cell).get("solution") and base.get(name) == digests[name]
    ]
    if same and told:
        told.append(f"as before, so that your answers can be copied over: {', '.join(same)}")
    return [*lines, *(told or ["no text and no code differ from the form that yours began as"])]


def place(cells: dict[str, NotebookNode], name: str) -> str:
    """Say where a cell stands and how it begins: "the code 'x = 1' in 'By hand'"."""
    kind, section = "text", ""
    for key, cell in cells.items():
        plain = re.sub(r"^```.*?^```", "", cell.source, flags=re.MULTILINE | re.DOTALL)  # comments are no headings
        headings = re.findall(r"^#+ +(.+)$", plain, re.MULTILINE) if cell.cell_type == "markdown" else []
        section = headings[0] if headings else section
        if key == name:
            break
    graded = grading(cell)
    if graded.get("solution"):
        return f"the exercise {exercise_name(cell)} in '{section}'"
    if cell.cell_type == "code":
        kind = "check" if graded.get("grade") else "code"
    first = next((line.strip() for line in cell.source.split("\n") if line.strip()), "")
    first = first if len(first) <= 60 else f"{first[:57]}…"
    return f"the {kind} '{first.lstrip('# ')}'" + (f" in '{section}'" if section not in first else "")


def exercise_name(cell: NotebookNode) -> str:
    """Name an exercise as its cell does: by the function or class that is asked for."""
    found = re.search(r"^(?:def|class) (\w+)", cell.source, re.MULTILINE)
    return found[1] if found else grading(cell).get("grade_id", cell.get("id", "?"))
