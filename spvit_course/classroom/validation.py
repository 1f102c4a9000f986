"""Validation: a submission is read, normalised and searched for oddities before any of it is run.

A submission is never changed. The copy that is graded holds the notebook alone, without outputs, with every cell of the set
in its place. Each change made for that, and each thing that a person should look at, is reported in one line.
"""

import ast
import hashlib
import itertools
import json
import re
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_raw_cell

from ..lessons import CONFLICT, grading
from .assignments import HELP

LARGEST = 500_000_000  # bytes of a file that is read at all
USUAL = 5_000_000  # bytes of a file that is not reported
NOTEBOOK = r"(?i)\.(?:ipynb|json)\b"  # in the name of a file; browsers add to it: "set_1.ipynb.txt", "set_1 (1).ipynb"
DEFINITION = r"(?m)^(?:async )?(?:def|class) (\w+)"
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
    """A submission that can be graded, a line for each oddity, and the questions that an additional cell may answer."""

    notebook: NotebookNode
    odd: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)


class UnreadableError(Exception):
    """The reason why a file is not a notebook of the set."""


def validate_submission(folder: Path, blank: NotebookNode, name: str) -> Submission:
    """Make from a student's folder the notebook that is graded. `blank` is the set as the students got it.

    If there is no readable notebook of the set, the result is the blank set, with nothing solved.
    """
    submission = Submission(deepcopy(blank))
    try:
        path = find_notebook(folder, name, submission.odd)
        cells = read_cells(path, submission.odd)
        if path.stat().st_size > USUAL:
            submission.odd.append(f"the file has {path.stat().st_size / 1e6:.0f} MB; its stored outputs were dropped")
        ours, texts = cells_by_name(blank.cells), [cell for cell in cells if cell.cell_type != "code"]
        titles = [line for cell in texts if (line := first_line(cell.source)).startswith("# ")]
        begins = f"it begins {(titles or [first_line(cells[0].source)])[0]!r}"
        if all(grading(ours[found])["locked"] and not grading(ours[found])["grade"] for found in find_cells(cells, blank.cells)):
            raise UnreadableError(f"the notebook is not {name}: {begins}")
    except UnreadableError as reason:
        submission.odd.append(f"{reason}; ask for {name}.ipynb again. It is graded as if nothing were solved")
        return submission
    if titles and first_line(blank.cells[0].source) not in titles:
        submission.odd.append(f"the notebook may not be {name}: {begins}")
    submission.odd += normalise_cells(cells, blank.cells)
    other = find_other_answers(cells, blank.cells)
    submission.elsewhere = list(other)
    submission.odd += [f"the answer {key} is as handed out, but {what} may answer it: to read" for key, what in other.items()]
    submission.odd += list_unsolved(cells, blank.cells, other)
    submission.odd += find_suspicious_code(cells, blank.cells)
    for cell in cells:
        settle_attachments(cell)
    submission.notebook.cells = cells
    return submission


# The file ---------------------------------------------------------------------------------------------------------------


def find_notebook(folder: Path, name: str, odd: list[str]) -> Path:
    """Find the notebook of a submission, by its name or else as the newest one. Other files are reported in `odd`."""
    files = [path for path in sorted(folder.rglob("*")) if not is_hidden(path.relative_to(folder)) and not path.is_dir()]
    files = [path for path in files if path.name != "timestamp.txt"]
    notebooks = [path for path in files if path.is_file() and not path.is_symlink() and re.search(NOTEBOOK, path.name)]
    if not notebooks:
        raise UnreadableError("no notebook was handed in")
    notebook = folder / f"{name}.ipynb"
    if notebook not in notebooks:
        notebook = max(notebooks, key=lambda path: path.stat().st_mtime)
        odd.append(f"handed in as {notebook.relative_to(folder)}, not as {name}.ipynb")
    if others := [str(path.relative_to(folder)) for path in files if path != notebook]:
        odd.append(f"left out, since only the notebook is graded: {join_names(others)}")
    return notebook


def is_hidden(path: Path) -> bool:
    """Return whether a program made a file for itself: checkpoints, and what begins with a dot or lies in __MACOSX."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def read_cells(path: Path, odd: list[str]) -> list[NotebookNode]:
    """Read the cells of a notebook: kind, id, source, nbgrader's marks and attachments, nothing else.

    Cells that cannot be read are left out, and reported in `odd`. Raises UnreadableError if no cell can be read.
    """
    if path.stat().st_size > LARGEST:
        raise UnreadableError(f"the file has {path.stat().st_size / 1e6:.0f} MB, too many to read")
    content, reason = path.read_bytes(), "it has no cells"
    text = content.decode(json.detect_encoding(content), "replace").strip("\ufeff\0 \r\n\t")
    if not text:
        reason = "it is empty"
    elif CONFLICT.search(text):
        reason = "it has conflict markers of git"
    else:
        try:
            found = [read_cell(raw) for raw in json.loads(text, strict=False)["cells"]]
            bad = [str(number) for number, cell in enumerate(found, start=1) if cell is None]
            if cells := [cell for cell in found if cell is not None]:
                if bad:
                    odd.append(f"left out, since they cannot be read: the cells number {join_names(bad)}")
                return cells
            reason = "no cell can be read" if bad else reason
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            reason = f"{type(error).__name__}: {first_line(str(error)):.60}"
    raise UnreadableError(f"the file is no notebook that can be read ({reason})")


def read_cell(raw: Any) -> NotebookNode | None:
    """Read a cell of any minor version of the format, with or without id and metadata; None if it has no text."""
    raw = raw if isinstance(raw, dict) else {}
    source, kind = raw.get("source"), str(raw.get("cell_type"))
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        source = "".join(source)
    if not isinstance(source, str) or (kind not in NEW and not source):
        return None
    cell = NEW.get(kind, new_raw_cell)(clean_text(source))
    cell.id = clean_text(raw["id"]) if isinstance(raw.get("id"), str) else ""
    marks = metadata.get("nbgrader") if isinstance(metadata := raw.get("metadata"), dict) else None
    if isinstance(marks, dict) and isinstance(marks.get("grade_id"), str):
        cell.metadata.nbgrader = NotebookNode(marks, grade_id=clean_text(marks["grade_id"]))
    if isinstance(files := raw.get("attachments"), dict) and kind == "markdown":
        files = {clean_text(name): kinds for name, kinds in files.items() if isinstance(kinds, dict) and kinds}
        kept = {name: kinds for name, kinds in files.items() if all(isinstance(data, str) for data in kinds.values())}
        cell.attachments = NotebookNode(json.loads(clean_text(json.dumps(kept, ensure_ascii=False))))
    return cell


def clean_text(text: str) -> str:
    """Return a text that any file can hold, with lines that end in a newline, and without byte order marks and NULs.

    Halves of surrogate pairs, from a program that cut a character in two, are joined or replaced.
    """
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return re.sub(r"\r\n?", "\n", text).replace("\0", "").removeprefix("\ufeff")


def settle_attachments(cell: NotebookNode) -> None:
    """Name attachments so that nbconvert finds them, and let links to missing ones be plain links: it refuses such a page."""
    files: dict[str, NotebookNode] = {}
    for number, (name, data) in enumerate(cell.get("attachments", {}).items()):
        safe = name if re.fullmatch(r"[\w.-]+", name, re.ASCII) else f"attachment-{number}"
        for form in (name, quote(name)):
            cell.source = cell.source.replace(f"attachment:{form}", f"attachment:{safe}")
        files[safe] = data
    if cell.cell_type == "markdown":
        known = "".join(rf"(?!{re.escape(name)}(?![\w.-]))" for name in files)
        cell.source = re.sub(f"attachment:{known}", "attachment-missing:", cell.source)
    if files:
        cell.attachments = NotebookNode(files)


def first_line(text: str) -> str:
    """Return the first line of a text that is not blank, at most 40 characters of it."""
    return next((line.strip() for line in text.split("\n") if line.strip()), "")[:40]


# The cells --------------------------------------------------------------------------------------------------------------


def cells_by_name(set_cells: Iterable[NotebookNode]) -> dict[str, NotebookNode]:
    """Return the cells of a set that nbgrader knows, by their grade_id."""
    return {grading(cell)["grade_id"]: cell for cell in set_cells if grading(cell)}


def plain(cell: NotebookNode) -> str:
    """Return a cell's text without the white space at the ends of it and of its lines."""
    return re.sub(r"[ \t]+$", "", cell.source, flags=re.MULTILINE).strip()


def find_cells(cells: list[NotebookNode], set_cells: Iterable[NotebookNode]) -> dict[str, int]:
    """Find the set's cells in a notebook, by their grade_id, else by their id, else by their text; return their positions.

    Programs drop marks and ids, and students paste cells. A solution's text is what it defines; a written answer is the
    first text of the student's below the question. Of several cells the last counts that is not as it was handed out.
    """
    set_cells = list(set_cells)
    ours, handed_out, found = cells_by_name(set_cells), {plain(cell) for cell in set_cells}, {}
    free = [place for place, cell in enumerate(cells) if not grading(cell)]  # not of a different set

    def claim(name: str, candidates: Iterable[int]) -> None:
        if name not in found and (candidates := list(candidates)):
            changed = [place for place in candidates if plain(cells[place]) != plain(ours[name])]
            found[name] = (changed * grading(ours[name])["solution"] or candidates)[-1]
            free[:] = [place for place in free if place != found[name]]

    def between(name: str) -> list[int]:
        names = list(ours)
        before = [found[other] for other in names[: names.index(name)] if other in found]
        after = [found[other] for other in names[names.index(name) + 1 :] if other in found]
        return [place for place in free if max(before, default=-1) < place < min(after, default=len(cells))]

    for name in ours:
        claim(name, (place for place, cell in enumerate(cells) if grading(cell).get("grade_id") == name))
    for name in ours:
        claim(name, [place for place in free if cells[place].id == ours[name].id])
    for is_solution in (False, True):  # what is locked frames what is not
        for name in (name for name in ours if name not in found and bool(grading(ours[name])["solution"]) == is_solution):
            if is_solution and ours[name].cell_type != "code":
                question = list(ours)[: list(ours).index(name)][-1:]
                texts = [place for place in between(name) if cells[place].cell_type != "code"]
                theirs = [place for place in texts if plain(cells[place]) not in handed_out | {""}]
                claim(name, theirs[:1] if set(question) <= found.keys() else [])
                claim(name, [place for place in texts if plain(cells[place]) == plain(ours[name])])
                continue
            defined = set(re.findall(DEFINITION, ours[name].source)) if is_solution else set()
            same = [
                place
                for place in free
                if plain(cells[place]) == plain(ours[name]) or defined & set(re.findall(DEFINITION, cells[place].source))
            ]
            claim(name, sorted(set(between(name)) & set(same)) or same)
    return found


def normalise_cells(cells: list[NotebookNode], set_cells: Iterable[NotebookNode]) -> list[str]:
    """Restore the order, marks, kind and, for locked cells, the text of each cell of the set; insert missing cells.

    Changes `cells` in place and returns a line for each change. What was written over a locked cell, such as a solution that
    was merged with it, is kept in a cell of its own: above a check, below other cells.
    """
    odd, strange, new = [], [], []
    ours, found = cells_by_name(set_cells), find_cells(cells, set_cells)
    names = {place: name for name, place in found.items()}
    for place, cell in enumerate(cells):
        claimed, name = grading(cell).get("grade_id"), names.get(place)
        if name is not None:
            restored, lines = restore_cell(cell, ours[name], name)
            odd += lines
            kept = []
            if not grading(restored)["solution"] and plain(cell) not in (plain(restored), ""):
                kept = [NEW[restored.cell_type](cell.source)]
                kept[0].id = f"kept-{place}"
            new += [*kept, restored] if grading(restored)["grade"] else [restored, *kept]
            continue
        cell.metadata = NotebookNode()
        if claimed in found:
            is_last = place < found[claimed]
            odd.append(f"the cell {claimed} is there twice; the {'last one' if is_last else 'one that is solved'} counts")
            if grading(ours[claimed])["solution"] and plain(cell) == plain(ours[claimed]):
                continue  # it would undo the definition of the other
        elif claimed is not None:
            strange.append(claimed)
        new.append(cell)
    cells[:] = new
    if strange:
        odd.append(f"a strange cell, {strange[0]}" if len(strange) == 1 else f"strange cells: {join_names(strange)}")
    if sorted(found, key=found.get) != [name for name in ours if name in found]:
        odd.append("the set's cells stood in a different order; put back")
        order = {name: number for number, name in enumerate(ours)}
        parts: list[list[NotebookNode]] = [[]]  # each of the set's cells with the student's own below it
        for cell in cells:
            parts += [[]] if grading(cell) else []
            parts[-1].append(cell)
        parts[1:] = sorted(parts[1:], key=lambda part: order[grading(part[0])["grade_id"]])
        cells[:] = itertools.chain(*parts)
    odd += unique_ids(cells)
    odd += insert_missing(cells, ours, missing=[name for name in ours if name not in found])
    return odd


def restore_cell(cell: NotebookNode, ours: NotebookNode, name: str) -> tuple[NotebookNode, list[str]]:
    """Return a cell as it is in the set, with a solution's own text, and a line for each difference."""
    odd = []
    marks, theirs = dict(grading(ours)), dict(grading(cell))
    if theirs and any(theirs.get(key) != marks.get(key) for key in ("points", "grade", "solution", "locked")):
        odd.append(f"the marks of the cell {name} were changed; put back")
    if cell.cell_type != ours.cell_type:
        odd.append(f"the cell {name} was made {cell.cell_type}; made {ours.cell_type} again")
    new = deepcopy(ours)
    if marks["solution"]:
        new.source = cell.source
        if "attachments" in cell and new.cell_type == "markdown":
            new.attachments = cell.attachments
    elif plain(cell) != plain(ours):
        what = "the check" if marks["grade"] else "the locked cell"
        odd.append(f"{what} {name} was overwritten; put back")
    return new, odd


def unique_ids(cells: list[NotebookNode]) -> list[str]:
    """Give a new id to each cell whose id is in use or not valid; the set's own cells keep theirs. Report ids in use."""
    every, taken, twice = {cell.id for cell in cells}, {cell.id for cell in cells if grading(cell)}, []
    unused = (name for number in itertools.count() if (name := f"student-{number}") not in every)
    for cell in cells:
        if grading(cell):
            continue
        if cell.id in taken or not re.fullmatch(r"[\w-]{1,64}", cell.id, re.ASCII):
            twice += [cell.id] if cell.id in taken else []
            cell.id = next(unused)
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


# The answers ------------------------------------------------------------------------------------------------------------


def find_other_answers(cells: list[NotebookNode], set_cells: Iterable[NotebookNode]) -> dict[str, str]:
    """Find the student's own cells that may answer a question whose cell is as handed out; describe one for each question.

    A text belongs to the nearest such question above it, or else below. Code belongs to a question that it stands beside.
    """
    set_cells = list(set_cells)
    ours, handed_out = cells_by_name(set_cells), {plain(cell) for cell in set_cells} | {""}
    names = [grading(cell).get("grade_id") for cell in cells]
    help_title = first_line(HELP)  # of the last cell of a set, which students fill in
    own = [not grading(cell) and plain(cell) not in handed_out and first_line(cell.source) != help_title for cell in cells]
    questions = [
        place
        for place, name in enumerate(names)
        if name and ours[name].cell_type != "code" and grading(ours[name])["grade"] and plain(cells[place]) == plain(ours[name])
    ]
    order, found = list(ours), {}
    for place in (place for place, is_own in enumerate(own) if is_own):
        above, below = [at for at in questions if at < place][-1:], [at for at in questions if at > place][:1]
        if cells[place].cell_type == "code":
            between = {at: range(min(at, place) + 1, max(at, place)) for at in above + below}
            asks = {at: order[order.index(names[at]) - 1] for at in between}  # the question's text stands before its answer
            near = [at for at in between if all(own[other] or names[other] == asks[at] for other in between[at])]
        else:
            near = above or below
        for at in near[:1]:
            found.setdefault(names[at], describe_cell(cells[place]))
    return found


def list_unsolved(cells: Iterable[NotebookNode], set_cells: Iterable[NotebookNode], other: Iterable[str]) -> list[str]:
    """List the solutions that are as they were handed out, in a line, without those that an `other` cell may answer."""
    solutions = {name: cell for name, cell in cells_by_name(set_cells).items() if grading(cell)["solution"]}
    sources = {name: plain(cell) for name, cell in cells_by_name(cells).items()}
    unsolved = [name for name, cell in solutions.items() if sources.get(name) == plain(cell) and name not in other]
    return [] if not unsolved else ["nothing is solved" if unsolved == list(solutions) else f"unsolved: {join_names(unsolved)}"]


def digest_answers(cells: list[NotebookNode], set_cells: Iterable[NotebookNode]) -> dict[str, str]:
    """Hash, for each graded cell, what a person reads to grade it by hand.

    This is the student's code since the last check, the text of an answer, or, if that is as handed out, their own cells too.
    """
    ours, digests, code = cells_by_name(set_cells), {}, []
    others = [cell.source for cell in cells if not grading(cell)]
    for cell in cells:
        marks = grading(cell)
        code += [cell.source] * (cell.cell_type == "code" and marks.get("solution", True))
        if marks.get("grade"):
            name, read = marks["grade_id"], [cell.source, cell.get("attachments")]
            if marks["solution"]:
                read += others if name in ours and plain(cell) == plain(ours[name]) else []
            else:
                read, code = code, []
            digests[name] = hashlib.sha256(json.dumps(read).encode()).hexdigest()[:16]
    return digests


def describe_cell(cell: NotebookNode | None) -> str:
    """Name a cell in a report: by its grade_id, or by its first line."""
    if cell is None:
        return "the start"
    name = grading(cell).get("grade_id")
    return f"the cell {name}" if name else f"the cell that begins {first_line(cell.source)!r}"


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
