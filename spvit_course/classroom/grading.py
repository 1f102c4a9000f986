"""Handing out and grading, with nbgrader: `python -m spvit_course release SET` and `… grade SET`.

    classroom/source/SET/              the solved set, as it was released: keep it to yourself
    classroom/release/SET/             what students get
    classroom/submitted/STUDENT/SET/   what they hand in: put it there; it is never changed
    classroom/vetted/STUDENT/SET/      the same, normalised and without outputs: what is graded
    classroom/autograded/STUDENT/SET/  the same, run and scored
    classroom/feedback/STUDENT/SET/    a page for each student
    classroom/reports/SET.csv, SET.md  points, and what was odd

A run may be killed at any moment: a submission counts as graded when all of its points are in the gradebook, and not before.
A lock keeps a second run out. It ends with its process.

nbgrader's own commands know the same folders, by nbgrader_config.py; written answers are graded in its formgrader.
"""

import hashlib
import logging
import os
import re
import shlex
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout
from nbformat import NotebookNode

from spvit_mini.errors import UserError

from ..files import require_writable, write_text
from ..lessons import ROOT, lesson_files, read, require_merged, text_of
from . import gradebook
from .gradebook import SubmissionResult, one_line

CLASSROOM = ROOT / "classroom"
NAME = re.compile(r"[\w.@-]+", re.ASCII)  # of a student's folder: nbgrader looks for it with wildcards


class NbgraderError(Exception):
    """The last words of nbgrader when it failed."""


class Classroom:
    """A class's folder, and nbgrader at work in it. Raises UserError if nbgrader is not installed."""

    def __init__(self, folder: Path = CLASSROOM, *, cell_seconds: int | None = None):
        try:
            import nbgrader  # noqa: F401
        except ModuleNotFoundError:
            raise UserError("nbgrader is not installed; `python -m pip install --editable .[lab,grade]` brings it") from None
        self.folder = folder.resolve()
        config, self.environment = load_config(self.folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = f"cannot make the class's folder {folder}: {error.strerror}"
            raise UserError(f"{reason}. Use a different folder: --classroom FOLDER") from None
        require_writable(self.folder)
        if cell_seconds is not None:
            config.ProctoredExecute.timeout = cell_seconds
        with quiet_logs():
            from nbgrader.apps import NbGraderAPI

            self.api = NbGraderAPI(config=config)

    def path(self, step: str, assignment: str, student: str = ".") -> Path:
        """Return the folder of an assignment, or of a student's, in one of nbgrader's steps."""
        return self.folder / step / student / assignment

    def notebook(self, step: str, assignment: str, student: str = ".") -> Path:
        """Return the notebook of an assignment, or of a student's, in one of nbgrader's steps."""
        return self.path(step, assignment, student) / f"{assignment}.ipynb"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other runs out of the class's folder. Raises UserError if there is one."""
        try:
            with FileLock(self.folder / ".lock", timeout=0):
                yield
        except Timeout:
            raise UserError(f"{self.folder} is in use by another `release` or `grade`. Wait until that has ended") from None

    def run(self, call: Callable, *arguments, **options) -> None:
        """Call a function of nbgrader. Raises NbgraderError with its last words if it fails."""
        with quiet_logs(), environment_variables(self.environment):
            outcome = call(*arguments, **options)
        if not outcome["success"]:
            if end := re.search(r"^(KeyboardInterrupt|SystemExit: (\d+))$", outcome.get("error", ""), re.MULTILINE):
                raise SystemExit(int(end[2])) if end[2] else KeyboardInterrupt  # nbgrader catches these, too
            errors = re.findall(r"^\s*(?:\w+\.)*(\w*(?:Error|Exception): .+)$", outcome.get("log", ""), re.MULTILINE)
            raise NbgraderError(one_line((errors or outcome["error"].strip().splitlines()[-1:] or ["no reason"])[0]))

    def require_gradebook(self, name: str) -> None:
        """Raise UserError, with what to do, if the gradebook does not have a problem set."""
        file, reason = self.folder / "gradebook.db", "there is none"
        try:
            if file.is_file() and file.stat().st_size:
                with quiet_logs(), self.api.gradebook as book:
                    book.find_notebook(name, name)
                return
        except Exception as error:  # of nbgrader, or of any layer of the database
            reason = one_line(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")
        if form := released_form(self, name):
            again = f"Without a copy, move what is left of it away and run `python -m spvit_course release {form}`"
            again += "; points given by hand are then lost"
        else:
            again = "Without a copy, use a different folder: --classroom FOLDER. The lessons have changed since the release"
        raise UserError(f"the gradebook {file} does not have {name} ({reason}). Restore it from a copy. {again}")


def load_config(folder: Path) -> tuple:
    """Read nbgrader_config.py for the class in `folder`: the configuration, and the variables that it sets.

    nbgrader grades the validated submissions. Raises UserError outside a checkout.
    """
    from traitlets.config import PyFileConfigLoader

    lesson_files()
    before = dict(os.environ)
    with environment_variables({}):
        require_merged(ROOT / "nbgrader_config.py", (ROOT / "nbgrader_config.py").read_text(encoding="utf-8-sig"))
        config = PyFileConfigLoader("nbgrader_config.py", path=str(ROOT)).load_config()
        environment = {name: value for name, value in os.environ.items() if before.get(name) != value}
    config.CourseDirectory.root = str(folder)
    config.CourseDirectory.db_url = f"sqlite:///{folder / 'gradebook.db'}"
    config.CourseDirectory.submitted_directory = "vetted"
    config.ProctoredExecute.closed = str(folder)
    config.Exchange.root = str(folder / "exchange")  # none is used, and nbgrader must not look for one on the machine
    return config, environment


@contextmanager
def environment_variables(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables for a while, and restore the whole environment afterwards."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def quiet_logs() -> Iterator[None]:
    """Silence nbgrader's log, whose content the report has, and SQLAlchemy's warnings about nbgrader."""
    with ExitStack() as restored, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("traitlets", "nbgrader", "alembic"):
            logger = logging.getLogger(name)
            restored.callback(vars(logger).update, handlers=logger.handlers, propagate=logger.propagate)
            logger.handlers, logger.propagate = [logging.NullHandler()], False
        yield


# Handing out ------------------------------------------------------------------------------------------------------------


def release(name: str, *, variant: str | None = None, classroom: Path = CLASSROOM) -> Path:
    """Write a problem set into the class's folder, let nbgrader make what students get, and return its path.

    Raises UserError for an unknown set or variant, and if submissions to a different form of it have been graded.
    """
    text = assemble_text(name, variant)
    room = Classroom(classroom)
    with room.lock():
        source = room.notebook("source", name)
        graded = len(list(room.folder.glob(f"autograded/*/{name}/{name}.ipynb")))
        if graded and source.is_file() and source.read_text(encoding="utf-8-sig") != text:
            raise UserError(
                f"{graded} submissions to a different form of {name} are graded in {room.folder}, and their points would lose "
                "their meaning. Use a different folder: --classroom FOLDER"
            )
        source.parent.mkdir(parents=True, exist_ok=True)
        write_text(source, text)
        try:
            room.run(room.api.generate_assignment, name)
        except NbgraderError as error:
            raise UserError(f"nbgrader could not make {name} in {room.folder}: {error}") from None
        return room.notebook("release", name)


def assemble_text(name: str, variant: str | None) -> str:
    """Assemble a problem set, or a variant of it, as the text of a solved notebook."""
    from .assignments import assemble, find_problem_set
    from .variants import vary

    return text_of(assemble(find_problem_set(name), vary=partial(vary, variant=variant) if variant else None))


def released_form(room: Classroom, name: str) -> str | None:
    """Return the arguments of `release` that make a set in the form that a class has; None if there are none any more."""
    from .variants import VARIANTS

    for variant in (None, *VARIANTS):
        with suppress(UserError, OSError):  # variants that change nothing in this set
            if assemble_text(name, variant) == room.notebook("source", name).read_text(encoding="utf-8-sig"):
                arguments = [name] + ["--variant", variant] * (variant is not None)
                return shlex.join(arguments + ["--classroom", str(room.folder)] * (room.folder != CLASSROOM))
    return None


# Grading ----------------------------------------------------------------------------------------------------------------


def grade(
    name: str, *, classroom: Path = CLASSROOM, rerun: bool = False, cell_seconds: int | None = None
) -> list[SubmissionResult]:
    """Grade all submissions to a set, write feedback, CSV and report, and return the results.

    A submission that has not changed since it was graded is not run again unless `rerun`, so that grades given by hand
    stay. A bad submission never stops the others. Raises UserError if nothing was released or handed in, if the gradebook
    does not have the set, and if another run is at work.
    """
    room = Classroom(classroom, cell_seconds=cell_seconds)
    if not room.notebook("release", name).is_file():
        raise UserError(f"{name} is not released in {room.folder}; first `python -m spvit_course release {name}`")
    with room.lock():
        room.require_gradebook(name)
        handed_in = {path.parent.name for path in room.folder.glob(f"submitted/*/{name}") if path.is_dir()}
        misplaced = find_misplaced(room.folder / "submitted", name, handed_in)
        students = sorted(handed_in | misplaced.keys())
        if not students:
            raise UserError(f"no submissions; put them into {room.folder}/submitted/STUDENT/{name}/{name}.ipynb")
        results = []
        for count, student in enumerate(students, start=1):
            print(f"[{count}/{len(students)}] {one_line(student)}: ", end="", flush=True)
            odd, stray = [], misplaced.get(student)
            if student in handed_in:
                odd += [one_line(f"also handed in, and not graded: {stray}")] if stray else []
                failure = grade_submission(room, name, student, odd, rerun=rerun)
            else:
                failure = f"misplaced: {stray}; move it to submitted/{student}/{name}/{name}.ipynb"
            results.append(gradebook.collect_result(room, name, student, failure and one_line(failure)))
            results[-1].odd += odd
            print(results[-1], flush=True)
        print("\n".join(gradebook.save_reports(room, name, results)))
        return results


def find_misplaced(submitted: Path, name: str, handed_in: set[str]) -> dict[str, str]:
    """Find what was handed in to a place where nobody looks for it: the path of such a file, by the student's name.

    These are files with the set's name, in any spelling, in their path, and notebooks in the folder of a student who has
    handed in nothing. What lies in the folder of a different set is left to that set.
    """
    from .problem_sets import SETS
    from .validation import NOTEBOOK, is_hidden

    def spelling(one: str) -> str:
        return r"[\W_]*".join(re.findall(r"[a-z]+|\d+", one.casefold()))

    own = re.compile(rf"(?<![a-z]){spelling(name)}(?!\d)")
    others = {*SETS, *(path.name for path in submitted.parent.glob("release/*"))} - {name}
    other = re.compile(rf"(?<![a-z])(?:{'|'.join(map(spelling, others))})(?!\d)")
    found = {}
    for path in sorted(submitted.rglob("*"), key=lambda path: (not re.search(NOTEBOOK, path.name), path)):
        parts = path.relative_to(submitted).parts
        if path.is_dir() or is_hidden(Path(*parts)) or (len(parts) > 2 and parts[1] in others | {name}):
            continue
        is_named = any(own.search(part.casefold()) for part in parts)
        owner = next((part for part in parts[:-1] if not own.fullmatch(part.casefold().strip())), Path(parts[-1]).stem)
        is_stray = owner not in handed_in and re.search(NOTEBOOK, path.name) and not other.search("/".join(parts).casefold())
        if is_named or is_stray:
            found.setdefault(owner, "/".join(("submitted", *parts)))
    return found


def grade_submission(room: Classroom, name: str, student: str, odd: list[str], *, rerun: bool) -> str | None:
    """Validate, run and score one submission, and write its feedback. Return the reason if it could not be graded.

    What goes wrong once it is scored is added to `odd`.
    """
    if not NAME.fullmatch(student):
        return f"the folder's name {student!r} has characters that nbgrader can't look for; rename it"
    folder = room.path("submitted", name, student)
    try:
        digest = submission_digest(folder, room.notebook("source", name))
        if rerun or not (graded_digest(room, name, student) == digest and gradebook.is_scored(room, name, student)):
            score_submission(room, name, student, digest)
    except NbgraderError as error:
        return f"nbgrader failed: {error}; look at {folder}"
    except Exception as error:  # any error: the other submissions must still be graded
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        return f"could not be graded: {kind}{error}; look at {folder}"
    try:
        room.run(room.api.generate_feedback, name, student, force=True)
    except NbgraderError as error:
        odd.append(f"there is no page of feedback, since nbgrader failed: {error}")
    return None


def score_submission(room: Classroom, name: str, student: str, digest: str) -> None:
    """Validate, run and score one submission. Its notebook gets the `digest` when all points are in the gradebook.

    What graders have seen of it, to compare with, is kept in the vetted notebook until then: nbgrader removes the old
    graded notebook first.
    """
    from .validation import digest_answers, validate_submission

    blank, folder = read(room.notebook("release", name)), room.path("submitted", name, student)
    submission = validate_submission(folder, blank, name)
    target, graded = room.notebook("vetted", name, student), room.notebook("autograded", name, student)
    before, last = read_or_none(graded), own_metadata(read_or_none(target))
    if before is not None and ("digest" in own_metadata(before) or "seen" not in last):
        seen, again = digest_answers(before.cells, blank.cells), gradebook.list_to_read_again(room, name, student)
    else:  # nothing is graded, or the last run ended early
        seen, again = last.get("seen", {}), last.get("again", [])
    now = digest_answers(submission.notebook.cells, blank.cells)
    again = [key for key, text in now.items() if key in again or seen.get(key) != text]
    odd = [*map(one_line, submission.odd)]
    target.parent.mkdir(parents=True, exist_ok=True)
    odd += copy_timestamp(folder, target.parent)
    submission.notebook.metadata.spvit_mini = NotebookNode(odd=odd, seen=seen, again=again)
    write_text(target, text_of(submission.notebook))
    room.run(room.api.autograde, name, student, force=True)
    gradebook.set_to_read(room, name, student, elsewhere=submission.elsewhere, again=again)
    scored = read(graded)
    scored.metadata.spvit_mini.digest = digest
    write_text(graded, text_of(scored))


def copy_timestamp(folder: Path, target: Path) -> list[str]:
    """Copy the time at which a submission was handed in, if there is one. Return a line if it cannot be read."""
    from nbgrader.utils import parse_utc

    (target / "timestamp.txt").unlink(missing_ok=True)
    file = folder / "timestamp.txt"
    if not file.is_file():
        return []
    text = file.read_bytes().decode("utf-8-sig", "replace").strip()
    try:
        time = parse_utc(re.sub(r"\s+(?=[+-]\d)", "", text))  # nbgrader takes "12:00:00 +0100" for 100 seconds
    except Exception:  # of dateutil, of many kinds
        return [one_line(f"timestamp.txt is {text[:60]!r}; expected a time such as 2026-11-21 18:00:00 UTC")]
    write_text(target / "timestamp.txt", f"{time:%Y-%m-%d %H:%M:%S} UTC")
    return []


def submission_digest(folder: Path, source: Path) -> str:
    """Hash what a grade depends on: all files of a submission, and the solved set."""
    total = hashlib.sha256(source.read_bytes())
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            total.update(os.fsencode(path.relative_to(folder)))
            with path.open("rb") as file:
                while part := file.read(1 << 20):
                    total.update(part)
    return total.hexdigest()


def graded_digest(room: Classroom, name: str, student: str) -> str | None:
    """Read from a graded notebook the digest of its submission; None if there is none."""
    return own_metadata(read_or_none(room.notebook("autograded", name, student))).get("digest")


def read_or_none(notebook: Path) -> NotebookNode | None:
    """Read a notebook; None if it is missing or damaged."""
    try:
        return read(notebook)
    except UserError:
        return None


def own_metadata(notebook: NotebookNode | None) -> dict:
    """Return what grading has noted in a notebook's metadata."""
    return notebook.metadata.get("spvit_mini", {}) if notebook is not None else {}
