"""Progress: which exercises have passed their checks in a student's copies, as a line, a table and a picture.

Each check that runs in a folder of copies (`.copies.json` lies there) is remembered beside them, in `.progress.json`. The
solved lessons, tests and graders run elsewhere and leave nothing. What has passed once stays passed, also when its cell
is run again in a newer, unsolved copy.
"""

import json
import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from spvit_mini.errors import UserError

MANIFEST = ".copies.json"  # `build` writes it; where it lies, a folder is one of copies
RECORD = ".progress.json"
TITLE = "Progress in the course spvit_mini"
STATES = {"PASS": "passed", "NOT YET": "not yet", "not done yet": "not done"}  # from a check's word to ours
PASSED, NOT_YET, NOT_DONE, WRITTEN = "passed", "not yet", "not done", "written"


# The record -----------------------------------------------------------------------------------------------------------


def record(lesson: str, exercise: str, status: str, folder: Path | None = None) -> bool:
    """Remember what a check found, if `folder` (default: where the kernel runs) is one of copies. Tells if it did.

    Several kernels may do so at once. A folder that cannot be written, or anything else, never stops a lesson.
    """
    try:
        folder = folder or Path.cwd()
        if not (folder / MANIFEST).is_file() or not os.access(folder, os.W_OK):
            return False
        from filelock import FileLock

        with ExitStack() as held:
            with suppress(OSError, NotImplementedError):  # where files cannot be locked, go on without
                held.enter_context(FileLock(folder / f"{RECORD}.lock", timeout=3))
            known = read_record(folder)
            found = known.setdefault(lesson, {})
            found[exercise] = better(found.get(exercise), STATES[status])
            replace(folder / RECORD, json.dumps(known, indent=1, sort_keys=True) + "\n")
        return True
    except Exception:  # no record is worth a lesson
        return False


def better(before: str | None, now: str) -> str:
    """Choose between two states of an exercise, the newer one last: what has passed stays passed."""
    return PASSED if PASSED in (before, now) else now


def read_record(folder: Path) -> dict[str, dict[str, str]]:
    """Read what is known: states by lesson and exercise. A file that is missing or broken knows nothing."""
    try:
        known = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return {
            str(lesson): {str(name): state for name, state in found.items() if state in STATES.values()}
            for lesson, found in known.items()
        }
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def replace(path: Path, text: str) -> None:
    """Write a file in one go: whoever looks sees the old or the new one."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


# What there is to pass ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One graded cell: its lesson, the exercises that it checks, its points, and how far the student is."""

    lesson: str
    title: str
    exercise: str
    points: int
    state: str


def rows(notebooks: Iterable[Path], known: dict[str, dict[str, str]]) -> list[Row]:
    """List the graded cells of lessons, solved ones or copies, in order. A file that cannot be read has none."""
    listed = []
    for path in notebooks:
        try:
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            number, title = re.match(r"# (\d\d) · (.+)", "".join(cells[0]["source"])).groups()
            for cell in cells:
                graded = cell["metadata"].get("nbgrader", {})
                if graded.get("grade") or graded.get("task"):
                    name, state = asked(cell, graded, known.get(number, {}))
                    listed.append(Row(number, title.strip(), name, int(graded.get("points", 0)), state))
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            continue
    return listed


def asked(cell: dict, graded: dict, found: dict[str, str]) -> tuple[str, str]:
    """Name what a graded cell asks for, and say how far the student is. What no check reads counts as written."""
    names = list(dict.fromkeys(re.findall(r"lesson\.check\((\w+)", "".join(cell["source"]))))
    if cell["cell_type"] != "code" or not names:
        return str(graded.get("grade_id", "?")), WRITTEN
    states = {found.get(name, NOT_DONE) for name in names}
    return ", ".join(names), states.pop() if len(states) == 1 else NOT_YET


def points(listed: Iterable[Row], *states: str) -> int:
    """Add up the points of rows in some states; without states, of all that a check reads."""
    return sum(row.points for row in listed if row.state in (states or STATES.values()))


# In words and as a picture --------------------------------------------------------------------------------------------


def in_lesson(number: str, found: dict[str, str], exercises: Iterable[str], *, folder: Path | None = None) -> str:
    """Say at the end of a lesson what has passed in it and, in a folder of copies, in all of them.

    `found` is what this kernel's checks found; `exercises` are the lesson's, for where its points cannot be read.
    """
    folder = folder or Path.cwd()
    home = (folder / MANIFEST).is_file()
    known = read_record(folder) if home else {}
    mine = known.setdefault(number, {})
    for name, state in found.items():
        mine[name] = better(mine.get(name), state)
    notebooks = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    notebooks = notebooks or sorted(set(folder.glob("[0-9][0-9]_*.ipynb")) - set(folder.glob("*.newer*")))
    listed = rows(notebooks, known)
    here = [row for row in listed if row.lesson == number]
    unit = "points"
    if not here:
        here = [Row(number, "", name, 1, mine.get(name, NOT_DONE)) for name in exercises]
        unit = "exercises"
    parts = [f"Lesson {number}: {points(here, PASSED)} of {points(here)} {unit}."]
    for state in (PASSED, NOT_YET, NOT_DONE):
        names = [row.exercise for row in here if row.state == state]
        parts += [f"{state.capitalize()}: {', '.join(names)}."] if names else []
    lines = [" ".join(parts)]
    if home and listed:
        lines.append(
            f"All lessons: {points(listed, PASSED)} of {points(listed)} points. "
            "A table and a picture: python -m spvit_course progress"
        )
    return "\n".join(lines)


def table(listed: Sequence[Row]) -> str:
    """Lay out all rows, and their sums."""
    wide = max(len("exercise"), *(len(row.exercise) for row in listed))
    lines = [f"{'lesson':<8}{'exercise':<{wide}}{'points':>8}  state"]
    lines += [f"{row.lesson:<8}{row.exercise:<{wide}}{row.points:>8}  {row.state}" for row in listed]
    counts = {state: sum(row.state == state for row in listed) for state in STATES.values()}
    lines.append(
        f"{points(listed, PASSED)} of {points(listed)} points; exercises passed: {counts[PASSED]}, "
        f"not yet: {counts[NOT_YET]}, not done: {counts[NOT_DONE]}"
    )
    if more := points(listed, WRITTEN):
        lines.append(f"{more} points more are for written answers, which people read")
    return "\n".join(lines)


def picture(listed: Sequence[Row]):
    """Draw a bar for each lesson, a box for each exercise, as wide as its points. Returns the figure."""
    from matplotlib.figure import Figure

    from spvit_mini import plots

    plots.style()
    looks = {
        PASSED: {"facecolor": "#0072B2", "edgecolor": "white"},
        NOT_YET: {"facecolor": "#F6C66A", "edgecolor": "white", "hatch": "//"},
        NOT_DONE: {"facecolor": "#EEEEEE", "edgecolor": "white"},
    }
    lessons = {row.lesson: row.title for row in listed}
    figure = Figure(figsize=(7, 0.9 + 0.34 * len(lessons)))
    axes = figure.subplots()
    for place, lesson in enumerate(lessons):
        left = 0
        for row in listed:
            if row.lesson == lesson and row.state != WRITTEN:
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
    axes.set_title(f"{points(listed, PASSED)} of {points(listed)} points passed", loc="left")
    for state, look in looks.items():
        axes.barh(0, 0, label=state, **look)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    return figure


def save_picture(listed: Sequence[Row], file: Path, *, asked_for: bool) -> None:
    """Write the picture. One that was not asked for by name never takes the place of a file that is not its own."""
    try:
        if not asked_for and file.exists() and TITLE.encode() not in file.read_bytes():
            raise UserError(f"{file} is there and is none of this program's; name another one: --figure FILE")
        picture(listed).savefig(file, dpi=160, metadata={"Title": TITLE})
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"no picture can be written as {file.name}: {error}") from None
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write the picture {file}: {reason}; name another file with --figure") from None


def progress(folder: Path, notebooks: Iterable[Path], figure: Path | None = None) -> None:
    """Print the table of a folder of copies, and write the picture into it or as `figure`.

    Raises UserError where there are no copies, or where the picture cannot be written.
    """
    if not (folder / MANIFEST).is_file():
        raise UserError(f"there are no copies in {folder} yet; `python -m spvit_course lab` makes and opens them")
    listed = rows(notebooks, read_record(folder))
    if not listed:
        raise UserError("the lessons have no graded cells, so there is nothing to pass")
    print(table(listed))
    file = figure or folder / "progress.png"
    save_picture(listed, file, asked_for=figure is not None)
    print(f"picture: {file}")
