"""The lessons on disk: where they are, how a notebook is read and written, and what its title cell says."""

import re
import warnings
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode, v4

from spvit_mini.errors import UserError

from .files import ROOT as ROOT
from .files import lesson_files as lesson_files

TITLE = re.compile(r"# (?P<number>\d\d) · (?P<title>.+)")
COUNTS = re.compile(r"(?P<student>\d+) student minutes? · (?P<run>\d+) run minutes? · (?P<points>\d+) points?", re.IGNORECASE)

CONFLICT = re.compile(r"^(?:<{7}|>{7})(?: |$)", re.MULTILINE)  # git's marks of a conflict


@dataclass(frozen=True)
class Heading:
    """A lesson's title cell: number, title, minutes for the student and for the machine, points."""

    number: str
    title: str
    student_minutes: int
    run_minutes: int
    points: int


def read(path: Path) -> NotebookNode:
    """Read a notebook exactly as its file has it. Raises UserError for a file that is not a notebook of format 4.

    `nbformat.read` would give new names to cells whose ids are not unique, so that the guard would never see them.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        require_merged(path, text)
        notebook = v4.reads(text)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nbformat.validate(deepcopy(notebook))
    except FileNotFoundError:
        raise UserError(f"there is no notebook {path}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except UserError:
        raise
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError, nbformat.ValidationError) as error:
        reason = (str(error).splitlines() or ["empty"])[0]
        raise UserError(f"{path} is no notebook that can be read ({reason:.120})") from None
    return notebook


def require_merged(path: Path, text: str) -> None:
    """Raise UserError if a file has the marks of a conflict that git left in it."""
    if CONFLICT.search(text):
        raise UserError(f"{path} has conflict markers of git; expected a merged file. Use `git checkout HEAD -- {path}`")


def text_of(notebook: NotebookNode) -> str:
    """Return the text of a notebook's file, the same on every machine."""
    return v4.writes(notebook) + "\n"


def heading(notebook: NotebookNode) -> Heading | None:
    """Read a lesson's title cell; None if the first cell is not a title cell."""
    source = notebook.cells[0].source if notebook.cells else ""
    title, counts = TITLE.match(source), COUNTS.search(source)
    if not title or not counts:
        return None
    return Heading(title["number"], title["title"].strip(), *(int(counts[key]) for key in ("student", "run", "points")))


def require_heading(path: Path, notebook: NotebookNode) -> Heading:
    """Read a lesson's title cell. Raises UserError if there is none."""
    if (top := heading(notebook)) is None:
        raise UserError(f"{path.name} has no title cell; `python -m spvit_course execute` shows what it must look like")
    return top


def grading(cell: NotebookNode) -> dict:
    """Return a cell's nbgrader metadata; empty if it has none."""
    return cell.metadata.get("nbgrader", {})
