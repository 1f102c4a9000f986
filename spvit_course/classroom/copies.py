"""Student copies of the lessons: made from the solved lessons, and never written over a student's work.

A copy equals what `nbgrader generate_assignment` makes of the same notebook, checksums aside: solutions are replaced by a
stub, hidden tests and marking schemes are cut, cells are locked, outputs are cleared. Students therefore never need nbgrader.

`work/.copies.json` holds hashes of what was handed out, and the variant, which stays with the folder. An unchanged copy is
updated. A changed copy stays as it is, even if only an output was saved in it; the newer lesson is put beside it, with a line
on each cell that is new, changed or gone.
"""

import dataclasses
import hashlib
import itertools
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from spvit_mini.errors import UserError

from ..files import write_text
from ..lessons import ROOT, grading, lesson_files, read, require_merged, text_of
from ..progress import MANIFEST
from .variants import VARIANTS, find_variant, vary

WORK = ROOT / "work"

CODE_STUB = "# YOUR CODE HERE\nraise NotImplementedError()"
TEXT_STUB = "YOUR ANSWER HERE"


# A copy ---------------------------------------------------------------------------------------------------------------


def student_copy(lesson: NotebookNode) -> NotebookNode:
    """Make a student's copy of a solved lesson. Raises UserError where the markers of a cell are not in order."""
    copy = deepcopy(lesson)
    copy.metadata.pop("celltoolbar", None)
    for cell in copy.cells:
        marks = grading(cell)
        solution, grade, locked = (marks.get(key, False) for key in ("solution", "grade", "locked"))
        stub = CODE_STUB if cell.cell_type == "code" else TEXT_STUB
        source = replace_region(cell.source, "SOLUTION", stub)
        if source != cell.source and not solution:
            raise UserError(f"cell {cell.id} has a solution region but is no solution cell in nbgrader's metadata")
        cell.source = stub if solution and source == cell.source else source
        cell.source = replace_region(cell.source, "HIDDEN TESTS", None)
        cell.source = replace_region(cell.source, "MARK SCHEME", None)
        if solution or grade or locked:
            marks["cell_type"] = cell.cell_type
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


def apply_variant(lessons: dict[str, NotebookNode], variant: str) -> dict[str, NotebookNode]:
    """Change the lessons, by file name, that have exercises in a variant. Raises UserError for an unknown variant."""
    numbers = {exercise.lesson for exercise in find_variant(variant).exercises}
    return {name: vary(lesson, variant) if name[:2] in numbers else lesson for name, lesson in lessons.items()}


# A folder of copies ---------------------------------------------------------------------------------------------------


@dataclass
class Manifest:
    """Hashes of what was handed out: of each file as it was written, of each lesson's latest form, of each cell; the variant."""

    files: dict[str, str] = field(default_factory=dict)
    latest: dict[str, str] = field(default_factory=dict)
    cells: dict[str, dict[str, str]] = field(default_factory=dict)  # by file, then by the cell's id
    variant: str | None = None


@dataclass(frozen=True)
class CopyReport:
    """What happened to one copy: "new", "updated", "unchanged", "edited" (nothing newer), "newer" (a copy beside it), "unread".

    `differences` has lines on how a newer copy differs, or why the lesson could not be read.
    """

    name: str
    status: str
    newer: str | None = None  # the name of the newer copy
    differences: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.status == "newer":
            first = f"{self.name}: yours was left as it is; the lesson has changed since, its newer form is {self.newer}"
            return "\n".join([first, *(f"    {line}" for line in self.differences)])
        if self.status == "unread":
            return f"{self.name}: no copy was made or updated: {self.differences[0]}"
        words = {"new": "made", "updated": "brought up to date; you had not begun it", "unchanged": "as it was"}
        return f"{self.name}: {words.get(self.status, 'yours, left as it is')}"


def build_copies(
    work: Path = WORK, lessons: Sequence[Path] | None = None, *, dry: bool = False, variant: str | None = None
) -> list[CopyReport]:
    """Make or update the student copies of all lessons in a folder. With `dry`, only report what would happen.

    A `variant` changes the exercises that it lists; it stays with the folder. A lesson that cannot be read is reported, and
    the others are copied. Raises UserError if none can be read, if the folder cannot be written or has a different variant.
    """
    files = list(lessons) if lessons is not None else lesson_files()
    manifest = read_manifest(work)
    present = manifest.variant or find_variant_of_copies(work, files)
    if variant is not None and present not in (None, variant):
        raise UserError(f"{work} has the copies of the variant {present!r}. Use a different folder: --out FOLDER")
    manifest.variant = variant or present
    texts, report = copy_texts(files, manifest.variant)
    try:
        if not dry:
            work.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            report.append(hand_out(work, name, text, manifest, dry=dry))
            if not dry:
                # After each lesson: an interruption between two must not make an unchanged copy look edited.
                write_text(work / MANIFEST, json.dumps(dataclasses.asdict(manifest), indent=1) + "\n")
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write the copies into {work}: {reason}. Use a different folder: --out FOLDER") from None
    names = [path.name for path in files]
    return sorted(report, key=lambda copy: names.index(copy.name) if copy.name in names else len(names))


def find_variant_of_copies(work: Path, lessons: Sequence[Path]) -> str | None:
    """Find which variant the checks in a folder's copies ask for, where the manifest is older or lost; None if none does."""
    for path in lessons:
        with suppress(OSError):
            text = (work / path.name).read_bytes().decode("utf-8", "replace")
            if (found := re.search(r'\.check\(\w+, variant=\\"(\w+)\\"', text)) and found[1] in VARIANTS:
                return found[1]
    return None


def copy_texts(files: Sequence[Path], variant: str | None) -> tuple[dict[str, str], list[CopyReport]]:
    """Return the texts of all copies by their names, and reports on lessons that cannot be read. UserError if none can."""
    solved, unread = {}, []
    pages = sorted(files[0].parent.glob("*.md"))
    for path in (*files, *pages):
        try:
            if path in pages:
                # Pages that lessons link to must lie beside them here too: JupyterLab serves this folder alone.
                page = path.read_bytes().decode("utf-8", "replace").replace("\r\n", "\n")
                require_merged(path, page)
                solved[path.name] = page
            else:
                solved[path.name] = read(path)
        except UserError as error:
            unread.append(CopyReport(path.name, "unread", differences=(str(error),)))
    lessons = {name: lesson for name, lesson in solved.items() if not isinstance(lesson, str)}
    if not lessons:
        raise UserError(unread[0].differences[0])
    if variant is not None:
        lessons = apply_variant(lessons, variant)
    texts = {name: text_of(student_copy(lesson)) for name, lesson in lessons.items()}
    return texts | {name: page for name, page in solved.items() if isinstance(page, str)}, unread


def hand_out(work: Path, name: str, text: str, manifest: Manifest, *, dry: bool = False) -> CopyReport:
    """Write one copy into the folder without changing a student's work, and record it in `manifest`."""
    digest = content_digest(text.encode())
    edited = []  # the student's own files of this lesson, the newest last

    def write_if_unedited(file: str) -> str | None:
        """Write the copy unless the file has a student's work. Return the status, or None if nothing was written."""
        present = file_digest(work / file)
        if present not in (None, digest, manifest.files.get(file)):
            edited.append(file)
            return None
        if present != digest and not dry:
            write_text(work / file, text)
        manifest.files[file] = manifest.latest[name] = digest
        manifest.cells[file] = cell_digests(text)
        return "new" if present is None else "unchanged" if present == digest else "updated"

    latest = manifest.latest.get(name)
    if status := write_if_unedited(name):
        return CopyReport(name, status)
    if latest == digest:
        return CopyReport(name, "edited")
    # A student may have edited newer copies as well, so they are numbered.
    newer = next(file for file in (newer_name(name, count) for count in itertools.count(1)) if write_if_unedited(file))
    lines = describe_differences(work / edited[-1], manifest.cells.get(edited[-1]), text)
    return CopyReport(name, "newer", newer, tuple(lines))


def newer_name(name: str, count: int) -> str:
    """Name the newer copy beside an edited one: 00_start_here.newer.ipynb, 00_start_here.newer-2.ipynb, …"""
    stem, _, suffix = name.rpartition(".")
    return f"{stem}.newer.{suffix}" if count == 1 else f"{stem}.newer-{count}.{suffix}"


def content_digest(content: bytes) -> str:
    """Hash what a student can write in a notebook: cells and their outputs, without what JupyterLab adds by itself.

    JupyterLab writes the kernel's details and the state of its view as soon as it opens a notebook; that is no work.
    """
    try:
        cells = [
            cell | {"source": source_lines(cell["source"]), "metadata": student_metadata(cell["metadata"])}
            for cell in json.loads(content)["cells"]
        ]
        content = json.dumps(cells, sort_keys=True).encode()
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        pass  # not a notebook, so every byte counts
    return hashlib.sha256(content).hexdigest()


def source_lines(source: str | list[str]) -> list[str]:
    """Return a cell's source as nbformat writes it: a list of lines that end in a newline, whatever program wrote it."""
    return "".join(source).replace("\r\n", "\n").splitlines(keepends=True)


def student_metadata(metadata: dict) -> dict:
    """Drop from a cell's metadata what programs write there by themselves: times, view state, trust, empty fields."""
    automatic = {"trusted", "execution", "collapsed", "scrolled", "jupyter", "ExecuteTime", "vscode"}
    defaults = {"editable": True, "deletable": True, "slideshow": {"slide_type": ""}}
    return {
        key: value
        for key, value in metadata.items()
        if key not in automatic and value not in ([], {}, None) and (key not in defaults or value != defaults[key])
    }


def file_digest(path: Path) -> str | None:
    """Hash a notebook's file; None if there is no such file. A path that is not a readable file equals no copy."""
    try:
        return content_digest(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError:
        return "unreadable"


def read_manifest(work: Path) -> Manifest:
    """Read a folder's manifest. If it is missing or broken it is empty, so that every copy counts as edited."""
    try:
        manifest = Manifest(**json.loads((work / MANIFEST).read_text(encoding="utf-8-sig")))
        if all(isinstance(value, dict) for value in (manifest.files, manifest.latest, manifest.cells)):
            return manifest
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        pass
    return Manifest()


# What a newer lesson brings -------------------------------------------------------------------------------------------

MAX_LINES = 12  # on one lesson


def cell_digests(text: str) -> dict[str, str]:
    """Hash the content of each cell of a copy, by the cell's id; empty for a page that is not a notebook."""
    cells = cells_by_id(text)
    return {name: hashlib.sha256(cell_content(cell).encode()).hexdigest()[:16] for name, cell in cells.items()}


def cells_by_id(text: str) -> dict[str, NotebookNode]:
    """Read the cells of a notebook by their ids; empty if it cannot be read."""
    try:
        cells = nbformat.v4.reads(text).cells
        return {cell["id"]: cell for cell in cells if isinstance(cell.source, str)}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}


def cell_content(cell: NotebookNode) -> str:
    """Return a cell's kind, source and attachments as one text."""
    return json.dumps([cell.cell_type, cell.source, cell.get("attachments", {})], sort_keys=True)


def describe_differences(edited: Path, base: dict[str, str] | None, text: str) -> list[str]:
    """Describe how a newer copy differs from the form of the lesson that a student's file began as, a line each.

    `base` has the hashes of that form's cells. If it is unknown, the file itself is compared.
    """
    newer = cells_by_id(text)
    if not newer:
        return ["the text of this page has changed"]
    try:
        older_text = edited.read_text(encoding="utf-8-sig")
    except (OSError, ValueError):
        older_text = ""
    header = []
    if not base:
        base = cell_digests(older_text)
        if not base:
            return [f"what has changed cannot be told: {edited.name} cannot be read as a notebook"]
        header = [f"compared with {edited.name} itself, so that your own changes count too:"]
    elif ".newer" in edited.name:
        header = [f"compared with {edited.name}:"]
    digests, older = cell_digests(text), cells_by_id(older_text)
    lines = [f"new: {describe_cell(newer, name)}" for name in newer if name not in base]
    lines += [f"changed: {describe_cell(newer, name)}" for name in newer if name in base and digests[name] != base[name]]
    gone = [name for name in base if name not in newer]
    lines += [f"gone: {describe_cell(older, name) if name in older else f'the cell {name}'}" for name in gone]
    if [name for name in base if name in newer] != [name for name in newer if name in base]:
        lines.append("some cells stand in another order")
    if len(lines) > MAX_LINES:
        lines[MAX_LINES - 1 :] = [f"and {len(lines) - MAX_LINES + 1} cells more"]
    solutions = {name: cell for name, cell in newer.items() if grading(cell).get("solution")}
    same = [exercise_name(cell) for name, cell in solutions.items() if base.get(name) == digests[name]]
    if same and lines:
        lines.append(f"as before, so that your answers can be copied over: {', '.join(same)}")
    return header + (lines or ["no text and no code differ from the form that yours began as"])


def describe_cell(cells: dict[str, NotebookNode], name: str) -> str:
    """Name a cell by its kind, its first line and its section: "the code 'x = 1' in 'By hand'"."""
    kind, section = "text", ""
    for key, cell in cells.items():
        plain = re.sub(r"^```.*?^```", "", cell.source, flags=re.MULTILINE | re.DOTALL)  # comments are no headings
        headings = re.findall(r"^#+ +(.+)$", plain, re.MULTILINE) if cell.cell_type == "markdown" else []
        section = headings[0] if headings else section
        if key == name:
            break
    marks = grading(cell)
    if marks.get("solution"):
        return f"the exercise {exercise_name(cell)} in '{section}'"
    if cell.cell_type == "code":
        kind = "check" if marks.get("grade") else "code"
    first = next((line.strip() for line in cell.source.split("\n") if line.strip()), "")
    first = first if len(first) <= 60 else f"{first[:57]}…"
    return f"the {kind} '{first.lstrip('# ')}'" + (f" in '{section}'" if section not in first else "")


def exercise_name(cell: NotebookNode) -> str:
    """Return the name of an exercise: its cell's function or class, else the cell's grade_id."""
    definition = re.search(r"^(?:def|class) (\w+)", cell.source, re.MULTILINE)
    return definition[1] if definition else grading(cell).get("grade_id", cell.get("id", "?"))
