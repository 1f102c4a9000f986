"""Validation: a submission is read, normalised and searched for oddities before any of it is run.

A submission is never changed. The copy that is graded holds the notebook alone, without outputs, with every cell of the set
in its place. Each change made for that, and each thing that a person should look at, is reported in one line.
"""

import ast
import json
import re
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_raw_cell

from ..lessons import grading

LARGEST = 500_000_000  # bytes of a file that is read at all
USUAL = 5_000_000  # bytes of a file that is not reported
NEW = {"code": new_code_cell, "markdown": new_markdown_cell, "raw": new_raw_cell}

# Words in a student's own code that a person should look at. Most uses mean no harm, so they cost nothing by themselves.
MENTIONS = {
    "the network": r"\b(?:socket|requests|urllib|httpx?|aiohttp|ftplib|smtplib|torch\.hub|load_state_dict_from_url)\b",
    "other programs": r"\b(?:subprocess|os\.system|os\.popen|os\.exec\w*|os\.fork|pexpect)\b"
    r"|^\s*!\S*|^\s*%{1,2}(?:pip|conda|bash|sh|sx|system|script|run)\b",
    "files of the class": r"gradebook|sqlite3?|\bsubmitted\b|\bautograded\b|nbgrader",
    "the insides of checks": r"\blesson\s*=(?!\s*(?:=|begin\())|\.check\s*=(?!=)|\bsetattr\b|\bsys\.modules\b|__code__"
    r"|__closure__|cell_contents|_getframe|currentframe|\bf_(?:locals|back|globals)\b|\bimport gc\b|\bctypes\b|\bget_ipython\b"
    r"|\bbuiltins\b|\bproctor\w*\b|\bspvit_course\.(?:checks|lesson)\b|\bos\._exit\b",
}


@dataclass
class Submission:
    """A submission that can be graded, and a line for each oddity."""

    notebook: NotebookNode
    odd: list[str] = field(default_factory=list)


class UnreadableError(Exception):
    """The reason why a file is not a notebook."""


def validate_submission(folder: Path, blank: NotebookNode, name: str) -> Submission:
    """Make from a student's folder the notebook that is graded. `blank` is the set as the students got it.

    If there is no readable notebook, the result is the blank set, with nothing solved.
    """
    submission = Submission(deepcopy(blank))
    try:
        path = find_notebook(folder, name, submission.odd)
        cells = read_cells(path)
        if path.stat().st_size > USUAL:
            submission.odd.append(f"the file has {path.stat().st_size / 1e6:.0f} MB; its stored outputs were dropped")
    except UnreadableError as reason:
        submission.odd.append(f"{reason}; graded as if nothing were solved")
        return submission
    submission.odd += normalise_cells(cells, blank.cells)
    submission.odd += find_suspicious_code(cells, blank.cells)
    submission.notebook.cells = cells
    return submission


# The file ---------------------------------------------------------------------------------------------------------------


def find_notebook(folder: Path, name: str, odd: list[str]) -> Path:
    """Find the notebook of a submission, by its name or else as the newest one. Other files are reported in `odd`."""
    files = [path for path in sorted(folder.rglob("*")) if ".ipynb_checkpoints" not in path.parts and not path.is_dir()]
    files = [path for path in files if path.name != "timestamp.txt"]
    notebooks = [path for path in files if path.suffix == ".ipynb" and not path.is_symlink()]
    if not notebooks:
        raise UnreadableError("no notebook was handed in")
    notebook = folder / f"{name}.ipynb"
    if notebook not in notebooks:
        notebook = max(notebooks, key=lambda path: path.stat().st_mtime)
        odd.append(f"handed in as {notebook.name}, not as {name}.ipynb")
    if others := [str(path.relative_to(folder)) for path in files if path != notebook]:
        odd.append(f"left out, since only the notebook is graded: {join_names(others)}")
    return notebook


def read_cells(path: Path) -> list[NotebookNode]:
    """Read the cells of a notebook: kind, id, source, nbgrader's marks and attachments, nothing else."""
    if path.stat().st_size > LARGEST:
        raise UnreadableError(f"the file has {path.stat().st_size / 1e6:.0f} MB, too many to read")
    try:
        cells = []
        for raw in json.loads(path.read_bytes())["cells"]:
            source = raw["source"]
            source = source if isinstance(source, str) else "".join(source)
            marks = raw.get("metadata", {}).get("nbgrader", {})
            cell = NEW[raw["cell_type"]](source, id=str(raw.get("id", "")))
            if isinstance(marks, dict) and isinstance(marks.get("grade_id"), str):
                cell.metadata.nbgrader = NotebookNode(marks)
            if isinstance(raw.get("attachments"), dict) and raw["cell_type"] == "markdown":
                cell.attachments = NotebookNode(raw["attachments"])
            cells.append(cell)
        return cells
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise UnreadableError(f"the file is no notebook that can be read ({type(error).__name__}: {reason:.60})") from None


# The cells --------------------------------------------------------------------------------------------------------------


def normalise_cells(cells: list[NotebookNode], set_cells: Iterable[NotebookNode]) -> list[str]:
    """Restore the marks, the kind and, for locked cells, the text of each cell of the set; insert missing cells.

    Changes `cells` in place and returns a line for each change. Of several cells with one name the last counts, as in nbgrader.
    """
    odd = []
    ours = {grading(cell)["grade_id"]: cell for cell in set_cells if grading(cell)}
    by_id = {cell.id: name for name, cell in ours.items()}
    present = {grading(cell)["grade_id"] for cell in cells if grading(cell)}
    for cell in cells:  # marks that a program has dropped
        if not grading(cell) and by_id.get(cell.id, "") not in {"", *present}:
            cell.metadata.nbgrader = deepcopy(ours[by_id[cell.id]].metadata.nbgrader)
    places: dict[str, int] = {}
    for place in reversed(range(len(cells))):
        name = grading(cells[place]).get("grade_id")
        if name is None:
            continue
        if name in places or name not in ours:
            cells[place].metadata = NotebookNode()
            odd.append(f"the cell {name} is there twice; the last one counts" if name in places else f"a strange cell, {name}")
        else:
            places[name] = place
            cells[place], lines = restore_cell(cells[place], ours[name], name)
            odd += lines
    odd.reverse()
    if [name for name in ours if name in places] != [grading(cell)["grade_id"] for cell in cells if grading(cell)]:
        odd.append("the set's cells stand in another order")
    odd += unique_ids(cells)
    odd += insert_missing(cells, ours, missing=[name for name in ours if name not in places])
    solutions = [name for name, cell in ours.items() if grading(cell)["solution"]]
    sources = {grading(cell)["grade_id"]: cell.source for cell in cells if grading(cell)}
    unsolved = [name for name in solutions if name in sources and sources[name] == ours[name].source]
    if unsolved:
        odd.append("nothing is solved" if unsolved == solutions else f"unsolved: {join_names(unsolved)}")
    return odd


def restore_cell(cell: NotebookNode, ours: NotebookNode, name: str) -> tuple[NotebookNode, list[str]]:
    """Return a cell as it is in the set, with a solution's own text, and a line for each difference."""
    odd = []
    marks, theirs = dict(grading(ours)), dict(grading(cell))
    if any(theirs.get(key) != marks.get(key) for key in ("points", "grade", "solution", "locked")):
        odd.append(f"the marks of the cell {name} were changed; put back")
    if cell.cell_type != ours.cell_type:
        odd.append(f"the cell {name} was made {cell.cell_type}; made {ours.cell_type} again")
    new = deepcopy(ours)
    if marks["solution"]:
        new.source = cell.source
        if "attachments" in cell and new.cell_type == "markdown":
            new.attachments = cell.attachments
    elif cell.source.strip() != ours.source.strip():
        what = "the check" if marks["grade"] else "the locked cell"
        odd.append(f"{what} {name} was overwritten; put back")
    return new, odd


def unique_ids(cells: list[NotebookNode]) -> list[str]:
    """Give a new id to each cell whose id is in use; the set's own cells keep theirs. Return a line for each id."""
    taken, twice = {cell.id for cell in cells if grading(cell)}, []
    for place, cell in enumerate(cells):
        if grading(cell):
            continue
        if cell.id in taken or not re.fullmatch(r"[\w-]{1,64}", cell.id, re.ASCII):
            twice += [cell.id] if cell.id in taken else []
            cell.id = f"student-{place}"
        taken.add(cell.id)
    return [f"the cell id {name} is there twice" for name in dict.fromkeys(twice)]


def insert_missing(cells: list[NotebookNode], ours: dict[str, NotebookNode], missing: list[str]) -> list[str]:
    """Insert missing cells: checks and answers before the set's next cell that is present, others after the previous one.

    A missing solution stays out: its code may be in a different cell, and a stub would overwrite the definition.
    """
    odd, names = [], list(ours)
    for name in missing:
        marks = grading(ours[name])
        if marks["solution"] and ours[name].cell_type == "code":
            odd.append(f"the cell {name} was deleted")
            continue
        places = {grading(cell)["grade_id"]: place for place, cell in enumerate(cells) if grading(cell)}
        before = [places[other] + 1 for other in names[: names.index(name)] if other in places]
        after = [places[other] for other in names[names.index(name) + 1 :] if other in places]
        place = min(after, default=len(cells)) if marks["grade"] else max(before, default=0)
        cells.insert(place, deepcopy(ours[name]))
        odd.append(f"the cell {name} was deleted; put back")
    return odd


# The code ---------------------------------------------------------------------------------------------------------------


def find_suspicious_code(cells: Iterable[NotebookNode], set_cells: Iterable[NotebookNode]) -> list[str]:
    """Find code that does not parse, and words that a person should look at."""
    from IPython.core.inputtransformer2 import TransformerManager

    odd, own = [], {cell.source for cell in set_cells}
    for number, cell in enumerate(cells, start=1):
        if cell.cell_type != "code" or cell.source in own:
            continue
        name = grading(cell).get("grade_id") or f"number {number}"
        try:
            ast.parse(TransformerManager().transform_cell(cell.source))
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            line = getattr(error, "lineno", "?")
            odd.append(f"a syntax error in the cell {name}: {getattr(error, 'msg', error)} (line {line})")
        for what, pattern in MENTIONS.items():
            if match := re.search(pattern, cell.source, re.MULTILINE):
                odd.append(f"the cell {name} mentions {what} ({match[0].strip()})")
    return odd


def join_names(names: list[str], most: int = 5) -> str:
    """Join names by commas, at most `most` of them."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
