"""Handing out and grading, with nbgrader: `python -m spvit_course release SET` and `… grade SET`.

    classroom/source/SET/              the solved set, as it was released: keep it to yourself
    classroom/release/SET/             what students get
    classroom/submitted/STUDENT/SET/   what they hand in: put it there; it is never changed
    classroom/vetted/STUDENT/SET/      the same, normalised and without outputs: what is graded
    classroom/autograded/STUDENT/SET/  the same, run and scored
    classroom/feedback/STUDENT/SET/    a page for each student
    classroom/reports/SET.csv, SET.md  points, and what was odd

nbgrader's own commands know the same folders, by nbgrader_config.py; written answers are graded in its formgrader.
"""

import hashlib
import logging
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from nbformat import NotebookNode

from spvit_mini.errors import UserError

from ..files import write_text
from ..lessons import ROOT, lesson_files, read, text_of
from .gradebook import SubmissionResult, collect_result, save_reports

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
            raise UserError(f"cannot make the class's folder {folder}: {error.strerror}") from None
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

    def run(self, call: Callable, *arguments, **options) -> None:
        """Call a function of nbgrader. Raises NbgraderError with its last words if it fails."""
        with quiet_logs(), environment_variables(self.environment):
            outcome = call(*arguments, **options)
        if not outcome["success"]:
            if "KeyboardInterrupt" in outcome.get("error", ""):
                raise KeyboardInterrupt  # nbgrader catches that, too
            errors = re.findall(r"^\s*(?:\w+\.)*(\w+(?:Error|Exception): .+)$", outcome.get("log", ""), re.MULTILINE)
            raise NbgraderError((errors or outcome["error"].strip().splitlines()[-1:])[0])


def load_config(folder: Path) -> tuple:
    """Read nbgrader_config.py for the class in `folder`: the configuration, and the variables that it sets.

    nbgrader grades the validated submissions. Raises UserError outside a checkout.
    """
    from traitlets.config import PyFileConfigLoader

    lesson_files()
    before = dict(os.environ)
    with environment_variables({}):
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
    from .assignments import assemble, find_problem_set
    from .variants import vary

    text = text_of(assemble(find_problem_set(name), vary=partial(vary, variant=variant) if variant else None))
    room = Classroom(classroom)
    source = room.notebook("source", name)
    graded = len(list(room.folder.glob(f"autograded/*/{name}/{name}.ipynb")))
    if graded and source.is_file() and source.read_text(encoding="utf-8-sig") != text:
        raise UserError(
            f"{graded} submissions to a different form of {name} are graded in {room.folder}, and their points would lose their "
            "meaning. Use a different folder: --classroom FOLDER"
        )
    source.parent.mkdir(parents=True, exist_ok=True)
    write_text(source, text)
    try:
        room.run(room.api.generate_assignment, name)
    except NbgraderError as error:
        raise RuntimeError(f"nbgrader could not make {name}: {error}") from None
    return room.notebook("release", name)


# Grading ----------------------------------------------------------------------------------------------------------------


def grade(
    name: str, *, classroom: Path = CLASSROOM, rerun: bool = False, cell_seconds: int | None = None
) -> list[SubmissionResult]:
    """Grade all submissions to a set, write feedback, CSV and report, and return the results.

    A submission that has not changed since it was graded is not run again unless `rerun`, so that grades given by hand
    stay. A bad submission never stops the others. Raises UserError if nothing was released or handed in.
    """
    room = Classroom(classroom, cell_seconds=cell_seconds)
    if not room.notebook("release", name).is_file():
        raise UserError(f"{name} is not released in {room.folder}; first `python -m spvit_course release {name}`")
    students = sorted(path.parent.name for path in room.folder.glob(f"submitted/*/{name}") if path.is_dir())
    if not students:
        raise UserError(f"no submissions; put them into {room.folder}/submitted/STUDENT/{name}/{name}.ipynb")
    results = []
    for count, student in enumerate(students, start=1):
        print(f"[{count}/{len(students)}] {student}: ", end="", flush=True)
        failure = grade_submission(room, name, student, rerun=rerun)
        results.append(collect_result(room, name, student, failure))
        print(results[-1], flush=True)
    print("\n".join(save_reports(room, name, results)))
    return results


def grade_submission(room: Classroom, name: str, student: str, *, rerun: bool) -> str | None:
    """Validate, run and score one submission, and write its feedback. Return the reason if it could not be graded."""
    from .validation import validate_submission

    if not NAME.fullmatch(student):
        return f"the folder's name {student!r} has characters that nbgrader can't look for; rename it"
    try:
        folder = room.path("submitted", name, student)
        digest = submission_digest(folder, room.notebook("source", name))
        if rerun or graded_digest(room.notebook("autograded", name, student)) != digest:
            submission = validate_submission(folder, read(room.notebook("release", name)), name)
            submission.notebook.metadata.spvit_mini = NotebookNode(odd=submission.odd, digest=digest)
            target = room.notebook("vetted", name, student)
            shutil.rmtree(target.parent, ignore_errors=True)
            target.parent.mkdir(parents=True)
            write_text(target, text_of(submission.notebook))
            if (folder / "timestamp.txt").is_file():
                shutil.copy(folder / "timestamp.txt", target.parent)
            room.run(room.api.autograde, name, student, force=True)
        room.run(room.api.generate_feedback, name, student, force=True)
    except NbgraderError as error:
        return f"nbgrader failed: {error}"
    except Exception as error:  # any error: the other submissions must still be graded
        return f"could not be graded: {type(error).__name__}: {error}"
    return None


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


def graded_digest(notebook: Path) -> str | None:
    """Read from a graded notebook the digest of its submission; None if there is none."""
    try:
        return read(notebook).metadata.get("spvit_mini", {}).get("digest")
    except UserError:
        return None
