"""The lessons on disk: where they are, how a notebook is read and written, and what its title cell says."""

import os
import re
import tempfile
import warnings
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode, v4

from spvit_mini.errors import UserError

ROOT = Path(__file__).resolve().parents[1]  # the repository, where the package runs from a checkout

TITLE = re.compile(r"# (?P<number>\d\d) · (?P<title>.+)")
COUNTS = re.compile(
    r"(?P<student>\d+) student minutes? · (?P<run>\d+) run minutes? · (?P<points>\d+) points?", re.IGNORECASE
)


@dataclass(frozen=True)
class Heading:
    """What a lesson's first cell says: number, title, minutes for the student and for the machine, points."""

    number: str
    title: str
    student_minutes: int
    run_minutes: int
    points: int


def lesson_files(folder: Path | None = None) -> list[Path]:
    """List the lessons' notebooks in order. Raises UserError where there are none: a wheel does not bring them."""
    folder = folder or ROOT / "notebooks"
    files = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not files:
        raise UserError(
            f"no lessons in {folder}; they come with the project's repository, not with the installed package: "
            "get the repository and run this in it"
        )
    return files


def read(path: Path) -> NotebookNode:
    """Read a notebook as it stands in its file. Raises UserError if the file is none of format 4.

    `nbformat.read` would give new names to cells whose ids are not unique, and the guard would never see them.
    """
    try:
        notebook = v4.reads(path.read_text(encoding="utf-8"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nbformat.validate(deepcopy(notebook))
    except FileNotFoundError:
        raise UserError(f"there is no notebook {path}") from None
    except (ValueError, AttributeError, KeyError, TypeError, nbformat.ValidationError) as error:
        reason = (str(error).splitlines() or ["empty"])[0]
        raise UserError(f"{path} is no notebook that can be read ({reason:.120})") from None
    return notebook


def text_of(notebook: NotebookNode) -> str:
    """Give the text of a notebook's file, the same on every machine."""
    return v4.writes(notebook) + "\n"


def write(path: Path, text: str) -> None:
    """Write a text file in one go: whoever looks sees the old or the new one, never half of it."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def heading(notebook: NotebookNode) -> Heading | None:
    """Read a lesson's title cell; None if it is not as a title cell should be."""
    source = notebook.cells[0].source if notebook.cells else ""
    title, counts = TITLE.match(source), COUNTS.search(source)
    if not title or not counts:
        return None
    return Heading(title["number"], title["title"].strip(), *(int(counts[key]) for key in ("student", "run", "points")))


def grading(cell: NotebookNode) -> dict:
    """Return a cell's nbgrader metadata; empty where it has none."""
    return cell.metadata.get("nbgrader", {})
