"""Vetting: a submission is read, put in order and looked over before any of it is run.

What is handed in is never changed. The copy that is graded holds the notebook alone, without outputs, with every cell of
the set in its place; what had to be done for that, and what a person should look at, is told in a line each.
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
USUAL = 5_000_000  # bytes of a file that nobody wonders about
NEW = {"code": new_code_cell, "markdown": new_markdown_cell, "raw": new_raw_cell}

# Words in a student's own code that a person should look at. Most uses mean no harm, so they cost nothing by themselves.
MENTIONS = {
    "the network": r"\b(?:socket|requests|urllib|httpx?|aiohttp|ftplib|smtplib|torch\.hub|load_state_dict_from_url)\b",
    "other programs": r"\b(?:subprocess|os\.system|os\.popen|os\.exec\w*|os\.fork|pexpect)\b"
    r"|^\s*!\S*|^\s*%{1,2}(?:pip|conda|bash|sh|sx|system|script|run)\b",
    "files of the class": r"gradebook|sqlite3?|\bsubmitted\b|\bautograded\b|nbgrader",
    "the insides of checks": r"\blesson\s*=(?!\s*(?:=|begin\())|\.check\s*=(?!=)|\bsetattr\b|\bsys\.modules\b|__code__"
    r"|__closure__|cell_contents|_getframe|currentframe|\bf_(?:locals|back|globals)\b|\bimport gc\b|\bctypes\b|\bget_ipython\b"
    r"|\bbuiltins\b|\bproctor\w*\b|\bcourse\.(?:checks|lesson)\b|\bos\._exit\b",
}


@dataclass
class Vetted:
    """A submission that can be graded, and what was odd about it."""

    notebook: NotebookNode
    odd: list[str] = field(default_factory=list)


class Unreadable(Exception):
    """Say why a file is no notebook."""


def vet(folder: Path, handed_out: NotebookNode, name: str) -> Vetted:
    """Make of a student's folder what is graded. `handed_out` is the set as the students got it.

    Where there is no notebook that can be read, that is the set as it was handed out, with nothing solved.
    """
    vetted = Vetted(deepcopy(handed_out))
    try:
        path = choose(folder, name, vetted.odd)
        cells = load(path)
        if path.stat().st_size > USUAL:
            vetted.odd.append(f"the file has {path.stat().st_size / 1e6:.0f} MB; its stored outputs were dropped")
    except Unreadable as reason:
        vetted.odd.append(f"{reason}; graded as if nothing were solved")
        return vetted
    vetted.odd += put_in_order(cells, handed_out.cells)
    vetted.odd += mentions(cells, handed_out.cells)
    vetted.notebook.cells = cells
    return vetted


# The file ---------------------------------------------------------------------------------------------------------------


def choose(folder: Path, name: str, odd: list[str]) -> Path:
    """Find the notebook among what was handed in, by its name or else as the newest one."""
    files = [path for path in sorted(folder.rglob("*")) if ".ipynb_checkpoints" not in path.parts and not path.is_dir()]
    files = [path for path in files if path.name != "timestamp.txt"]
    links = [path for path in files if path.is_symlink()]
    notebooks = [path for path in files if path.suffix == ".ipynb" and path not in links]
    if not notebooks:
        raise Unreadable("no notebook was handed in")
    chosen = folder / f"{name}.ipynb"
    if chosen not in notebooks:
        chosen = max(notebooks, key=lambda path: path.stat().st_mtime)
        odd.append(f"handed in as {chosen.name}, not as {name}.ipynb")
    if others := [str(path.relative_to(folder)) for path in files if path != chosen]:
        odd.append(f"left out, since only the notebook is graded: {listed(others)}")
    return chosen


def load(path: Path) -> list[NotebookNode]:
    """Read the cells of a notebook: kind, id, source, nbgrader's marks and attachments, nothing else."""
    if path.stat().st_size > LARGEST:
        raise Unreadable(f"the file has {path.stat().st_size / 1e6:.0f} MB, too many to read")
    try:
        cells = []
        for raw in json.loads(path.read_bytes())["cells"]:
            source = raw["source"]
            source = source if isinstance(source, str) else "".join(source)
            graded = raw.get("metadata", {}).get("nbgrader", {})
            cell = NEW[raw["cell_type"]](source, id=str(raw.get("id", "")))
            if isinstance(graded, dict) and isinstance(graded.get("grade_id"), str):
                cell.metadata.nbgrader = NotebookNode(graded)
            if isinstance(raw.get("attachments"), dict) and raw["cell_type"] == "markdown":
                cell.attachments = NotebookNode(raw["attachments"])
            cells.append(cell)
        return cells
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise Unreadable(f"the file is no notebook that can be read ({type(error).__name__}: {reason:.60})") from None


# The cells --------------------------------------------------------------------------------------------------------------


def put_in_order(cells: list[NotebookNode], set_cells: Iterable[NotebookNode]) -> list[str]:
    """Give each cell of the set its marks, its kind and, where it is locked, its text; put back what is missing.

    Changes `cells`, and says what was done. Of several cells with one name the last counts, as for nbgrader.
    """
    odd = []
    ours = {grading(cell)["grade_id"]: cell for cell in set_cells if grading(cell)}
    by_id = {cell.id: name for name, cell in ours.items()}
    named = {grading(cell)["grade_id"] for cell in cells if grading(cell)}
    for cell in cells:  # marks that a program has dropped
        if not grading(cell) and by_id.get(cell.id, "") not in {"", *named}:
            cell.metadata.nbgrader = deepcopy(ours[by_id[cell.id]].metadata.nbgrader)
    found: dict[str, int] = {}
    for place in reversed(range(len(cells))):
        name = grading(cells[place]).get("grade_id")
        if name is None:
            continue
        if name in found or name not in ours:
            cells[place].metadata = NotebookNode()
            odd.append(f"the cell {name} is there twice; the last one counts" if name in found else f"a strange cell, {name}")
        else:
            found[name] = place
            cells[place], told = restored(cells[place], ours[name], name)
            odd += told
    odd.reverse()
    if [name for name in ours if name in found] != [grading(cell)["grade_id"] for cell in cells if grading(cell)]:
        odd.append("the set's cells stand in another order")
    odd += unique_ids(cells)
    odd += put_back(cells, ours, missing=[name for name in ours if name not in found])
    solutions = [name for name, cell in ours.items() if grading(cell)["solution"]]
    there = cells_of(cells)
    unsolved = [name for name in solutions if name in there and there[name].source == ours[name].source]
    if unsolved:
        odd.append("nothing is solved" if unsolved == solutions else f"unsolved: {listed(unsolved)}")
    return odd


def cells_of(cells: Iterable[NotebookNode]) -> dict[str, NotebookNode]:
    return {grading(cell)["grade_id"]: cell for cell in cells if grading(cell)}


def restored(cell: NotebookNode, ours: NotebookNode, name: str) -> tuple[NotebookNode, list[str]]:
    """Make a cell what it is in the set, but for a solution's text."""
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
    """Give a new id to each cell whose id is another's, the set's own cells first; say which."""
    taken, twice = {cell.id for cell in cells if grading(cell)}, []
    for place, cell in enumerate(cells):
        if grading(cell):
            continue
        if cell.id in taken or not re.fullmatch(r"[\w-]{1,64}", cell.id, re.ASCII):
            twice += [cell.id] if cell.id in taken else []
            cell.id = f"student-{place}"
        taken.add(cell.id)
    return [f"the cell id {name} is there twice" for name in dict.fromkeys(twice)]


def put_back(cells: list[NotebookNode], ours: dict[str, NotebookNode], missing: list[str]) -> list[str]:
    """Put missing cells back: checks and answers before the set's next cell that is there, others behind the one before.

    A missing solution stays out: its code may stand in another cell, and a stub would undo that.
    """
    odd, names = [], list(ours)
    for name in missing:
        graded = grading(ours[name])
        if graded["solution"] and ours[name].cell_type == "code":
            odd.append(f"the cell {name} was deleted")
            continue
        places = {grading(cell)["grade_id"]: place for place, cell in enumerate(cells) if grading(cell)}
        before = [places[other] + 1 for other in names[: names.index(name)] if other in places]
        after = [places[other] for other in names[names.index(name) + 1 :] if other in places]
        place = min(after, default=len(cells)) if graded["grade"] else max(before, default=0)
        cells.insert(place, deepcopy(ours[name]))
        odd.append(f"the cell {name} was deleted; put back")
    return odd


# The code ---------------------------------------------------------------------------------------------------------------


def mentions(cells: Iterable[NotebookNode], set_cells: Iterable[NotebookNode]) -> list[str]:
    """Find code that does not parse, and words that a person should look at."""
    from IPython.core.inputtransformer2 import TransformerManager

    odd, given = [], {cell.source for cell in set_cells}
    for number, cell in enumerate(cells, start=1):
        if cell.cell_type != "code" or cell.source in given:
            continue
        name = grading(cell).get("grade_id") or f"number {number}"
        try:
            ast.parse(TransformerManager().transform_cell(cell.source))
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            line = getattr(error, "lineno", "?")
            odd.append(f"a syntax error in the cell {name}: {getattr(error, 'msg', error)} (line {line})")
        for what, pattern in MENTIONS.items():
            if found := re.search(pattern, cell.source, re.MULTILINE):
                odd.append(f"the cell {name} mentions {what} ({found[0].strip()})")
    return odd


def listed(names: list[str], most: int = 5) -> str:
    """List names, not too many."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
