"""Progress: which exercises have passed their checks in a student's copies, as a line, a table and a figure.

The result of each check that runs in a folder of copies (the folder has a `.copies.json`) is saved there in `.progress.json`.
Solved lessons, tests and graders run elsewhere and save nothing. A passed exercise stays passed, also when its cell is run
again in a newer, unsolved copy.
"""

import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from spvit_mini.errors import UserError

from .checks.settings import current_folder
from .files import write_text

MANIFEST = ".copies.json"  # `build` writes it; a folder that has it is a folder of copies
RECORD = ".progress.json"
SOLVED = Path(__file__).resolve().parents[1] / "notebooks"
TITLE = "Progress in the course spvit_mini"
FIRST_FOLDER = current_folder() or Path.home()  # of the kernel, before a cell changes it
STATES = {"PASS": "passed", "NOT YET": "not yet", "not done yet": "not done"}  # from a check's status to a state
PASSED, NOT_YET, NOT_DONE, WRITTEN = "passed", "not yet", "not done", "written"


# The record -----------------------------------------------------------------------------------------------------------


def save_result(lesson: str, exercise: str, status: str, folder: Path | None = None) -> bool:
    """Save a check's status if `folder` (default: `find_folder()`) holds copies. Return whether it was saved.

    Several kernels may do so at once. No failure, such as a read-only folder, stops a lesson.
    """
    try:
        folder = folder or find_folder()
        if not (folder / MANIFEST).is_file() or not os.access(folder, os.W_OK):
            return False
        from filelock import FileLock

        with ExitStack() as locks:
            with suppress(OSError, NotImplementedError):  # some file systems have no locks
                locks.enter_context(FileLock(folder / f"{RECORD}.lock", timeout=3))
            record = read_record(folder)
            if not record and (folder / RECORD).is_file():  # damaged, as by a conflict of git: a person may repair it
                os.replace(folder / RECORD, folder / f"{RECORD}.damaged")
            states = record.setdefault(lesson, {})
            states[exercise] = merge_states(states.get(exercise), STATES[status])
            write_text(folder / RECORD, json.dumps(record, indent=1, sort_keys=True) + "\n")
        return True
    except Exception:  # a lesson matters more than its record
        return False


def find_folder() -> Path:
    """Find the folder of copies that this kernel's notebook lies in; else return the working directory.

    A kernel may run elsewhere: cells can change the folder, and VS Code can start all kernels in the workspace's.
    """
    folders = [current_folder() or FIRST_FOLDER, FIRST_FOLDER, *(file.parent for file in notebook_files())]
    return next((folder for folder in folders if (folder / MANIFEST).is_file()), folders[0])


def notebook_files() -> list[Path]:
    """List the file of this kernel's notebook, as Jupyter gives it in the environment and VS Code in a name; or nothing."""
    files = os.environ.get("JPY_SESSION_NAME"), vars(sys.modules["__main__"]).get("__vsc_ipynb_file__")
    return [Path(file) for file in files if file and Path(file).is_absolute()]


def merge_states(before: str | None, now: str) -> str:
    """Return the state of an exercise after a new check: a passed exercise stays passed."""
    return PASSED if PASSED in (before, now) else now


def read_record(folder: Path) -> dict[str, dict[str, str]]:
    """Read a folder's record: states by lesson and exercise. Empty if the file is missing or broken."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8-sig"))
        return {
            str(lesson): {str(name): state for name, state in states.items() if state in STATES.values()}
            for lesson, states in record.items()
        }
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


# What there is to pass ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A graded cell: its lesson, the exercises that it checks, its points, and the state of these exercises."""

    lesson: str
    title: str
    exercise: str
    points: int
    state: str


def list_rows(notebooks: Iterable[Path], record: dict[str, dict[str, str]]) -> list[Row]:
    """List the graded cells of lessons or copies, in order. A file that cannot be read has none."""
    rows = []
    for path in notebooks:
        try:
            cells = json.loads(path.read_text(encoding="utf-8-sig"))["cells"]
            number, title = re.match(r"# (\d\d) · (.+)", "".join(cells[0]["source"])).groups()
            for cell in cells:
                marks = cell["metadata"].get("nbgrader", {})
                if marks.get("grade") or marks.get("task"):
                    name, state = name_and_state(cell, marks, record.get(number, {}))
                    rows.append(Row(number, title.strip(), name, int(marks.get("points", 0)), state))
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            continue
    return rows


def name_and_state(cell: dict, marks: dict, states: dict[str, str]) -> tuple[str, str]:
    """Return the names of the exercises that a graded cell checks, and their state: "written" if no check reads the cell."""
    names = list(dict.fromkeys(re.findall(r"lesson\.check\((\w+)", "".join(cell["source"]))))
    if cell["cell_type"] != "code" or not names:
        return str(marks.get("grade_id", "?")), WRITTEN
    distinct = {states.get(name, NOT_DONE) for name in names}
    return ", ".join(names), distinct.pop() if len(distinct) == 1 else NOT_YET


def sum_points(rows: Iterable[Row], *states: str) -> int:
    """Add up the points of rows in some states; without states, of all rows."""
    return sum(row.points for row in rows if not states or row.state in states)


# In words and as a figure ---------------------------------------------------------------------------------------------


def describe_lesson(number: str, states: dict[str, str], exercises: Iterable[str], *, folder: Path | None = None) -> str:
    """Describe the progress in a lesson and, in a folder of copies, in all lessons.

    `states` come from this kernel's checks; `exercises` are the lesson's, in case its points cannot be read.
    """
    folder = folder or find_folder()
    has_copies = (folder / MANIFEST).is_file()
    record = read_record(folder) if has_copies else {}
    merged = record.setdefault(number, {})
    for name, state in states.items():
        merged[name] = merge_states(merged.get(name), state)
    notebooks = sorted(SOLVED.glob("[0-9][0-9]_*.ipynb"))
    notebooks = notebooks or sorted(set(folder.glob("[0-9][0-9]_*.ipynb")) - set(folder.glob("*.newer*")))
    rows = list_rows(notebooks, record)
    here, unit = [row for row in rows if row.lesson == number], "points"
    if not here:
        here, unit = [Row(number, "", name, 1, merged.get(name, NOT_DONE)) for name in exercises], "exercises"
    parts = [f"Lesson {number}: {sum_points(here, PASSED)} of {sum_points(here)} {unit}."]
    for state in (PASSED, NOT_YET, NOT_DONE):
        names = [row.exercise for row in here if row.state == state]
        parts += [f"{state.capitalize()}: {', '.join(names)}."] if names else []
    written = [f"{row.exercise} ({row.points} points)" for row in here if row.state == WRITTEN]
    parts += [f"Written, read by people: {', '.join(written)}."] if written else []
    lines = [" ".join(parts)]
    if has_copies and rows:
        lines.append(
            f"All lessons: {sum_points(rows, PASSED)} of {sum_points(rows)} points. "
            "A table and a picture: python -m spvit_course progress"
        )
    elif not has_copies and any(file.parent.resolve() != SOLVED for file in notebook_files()):
        lines.append(f"Not saved: {folder} holds no copies. Work in the folder that `python -m spvit_course lab` opens.")
    return "\n".join(lines)


def format_table(rows: Sequence[Row]) -> str:
    """Lay out all rows and their sums as text."""
    wide = max(len("exercise"), *(len(row.exercise) for row in rows))
    lines = [f"{'lesson':<8}{'exercise':<{wide}}{'points':>8}  state"]
    lines += [f"{row.lesson:<8}{row.exercise:<{wide}}{row.points:>8}  {row.state}" for row in rows]
    counts = {state: sum(row.state == state for row in rows) for state in STATES.values()}
    lines.append(
        f"{sum_points(rows, PASSED)} of {sum_points(rows)} points; exercises passed: {counts[PASSED]}, "
        f"not yet: {counts[NOT_YET]}, not done: {counts[NOT_DONE]}"
    )
    if written := sum_points(rows, WRITTEN):
        lines.append(f"{written} of these points are for written answers, which people read")
    return "\n".join(lines)


def draw_progress(rows: Sequence[Row]):
    """Draw a bar for each lesson with a box for each exercise, as wide as its points. Return the figure."""
    from matplotlib.figure import Figure

    from spvit_mini import plots

    plots.style()
    looks = {
        PASSED: {"facecolor": "#0072B2", "edgecolor": "white"},
        NOT_YET: {"facecolor": "#F6C66A", "edgecolor": "white", "hatch": "//"},
        NOT_DONE: {"facecolor": "#EEEEEE", "edgecolor": "white"},
        WRITTEN: {"facecolor": "white", "edgecolor": "#BBBBBB"},
    }
    lessons = {row.lesson: row.title for row in rows}
    figure = Figure(figsize=(7, 0.9 + 0.34 * len(lessons)))
    axes = figure.subplots()
    for place, lesson in enumerate(lessons):
        left = 0
        for row in rows:
            if row.lesson == lesson:
                axes.barh(place, row.points, left=left, height=0.8, linewidth=1.5, **looks[row.state])
                colour = "white" if row.state == PASSED else "black"
                text = row.exercise if len(row.exercise) <= 7 * row.points else f"{row.exercise[: 7 * row.points - 1]}…"
                axes.text(left + row.points / 2, place, text, ha="center", va="center", size=7, color=colour)
                left += row.points
    axes.set_yticks(range(len(lessons)), [f"{number} {title}" for number, title in lessons.items()], size=8)
    axes.invert_yaxis()
    axes.set_axisbelow(True)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("points")
    axes.set_title(f"{sum_points(rows, PASSED)} of {sum_points(rows)} points passed", loc="left")
    for state, look in looks.items():
        axes.barh(0, 0, label=state, **look)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8)
    return figure


def save_figure(rows: Sequence[Row], file: Path, *, replace_any: bool) -> None:
    """Save the figure of all rows. Unless `replace_any`, never replace a file that this program has not written."""
    try:
        if not replace_any and file.exists() and TITLE.encode() not in file.read_bytes():
            raise UserError(f"{file} exists and is not a figure of this program. Use a different file: --figure FILE")
        draw_progress(rows).savefig(file, dpi=160, metadata={"Title": TITLE})
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"no picture can be written as {file.name}: {error}") from None
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write the picture {file}: {reason}. Use a different file: --figure FILE") from None


def show_progress(folder: Path, notebooks: Iterable[Path], figure: Path | None = None) -> None:
    """Print the table of a folder of copies, and save the figure in it or as `figure`.

    Raises UserError if there are no copies, or if the figure cannot be written.
    """
    if not (folder / MANIFEST).is_file():
        raise UserError(f"there are no copies in {folder} yet; `python -m spvit_course lab` makes and opens them")
    rows = list_rows(notebooks, read_record(folder))
    if not rows:
        raise UserError("the lessons have no graded cells, so there is nothing to pass")
    print(format_table(rows))
    file = figure or folder / "progress.png"
    save_figure(rows, file, replace_any=figure is not None)
    print(f"picture: {file}")
