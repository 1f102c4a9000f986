"""Handing out and grading, with nbgrader: `python -m spvit_course release SET` and `… grade SET`.

    classroom/source/SET/              the solved set, as it was released: keep it to yourself
    classroom/release/SET/             what students get
    classroom/submitted/STUDENT/SET/   what they hand in: put it there; it is never changed
    classroom/vetted/STUDENT/SET/      the same, in order and without outputs: what is graded
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
from pathlib import Path

from nbformat import NotebookNode

from spvit_mini.errors import UserError

from ..lessons import ROOT, read, text_of, write
from .gradebook import Graded, collect, save

CLASSROOM = ROOT / "classroom"
NAME = re.compile(r"[\w.@-]+", re.ASCII)  # of a student's folder: nbgrader looks for it with wildcards
INSTALL = "python -m pip install --editable .[lab,grade]"


class Failed(Exception):
    """Carry what nbgrader said when it failed."""


class Classroom:
    """A class's folder, and nbgrader at work in it. Raises UserError where nbgrader is not installed."""

    def __init__(self, folder: Path = CLASSROOM, *, cell_seconds: int | None = None):
        try:
            import nbgrader  # noqa: F401
        except ModuleNotFoundError:
            raise UserError(f"nbgrader is not installed; `{INSTALL}` brings it") from None
        self.folder = folder.resolve()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the class's folder {folder}: {error.strerror}") from None
        config, self.environment = settings(self.folder)
        if cell_seconds is not None:
            config.ProctoredExecute.timeout = cell_seconds
        with quiet():
            from nbgrader.apps import NbGraderAPI

            self.api = NbGraderAPI(config=config)

    def path(self, step: str, assignment: str, student: str = ".") -> Path:
        """Give the folder of an assignment, or of a student's, in one of nbgrader's steps."""
        return self.folder / step / student / assignment

    def notebook(self, step: str, assignment: str, student: str = ".") -> Path:
        return self.path(step, assignment, student) / f"{assignment}.ipynb"

    def run(self, call: Callable, *arguments, **options) -> None:
        """Let nbgrader do something. Raises Failed with its last words where it fails."""
        with quiet(), variables(self.environment):
            done = call(*arguments, **options)
        if not done["success"]:
            if "KeyboardInterrupt" in done.get("error", ""):
                raise KeyboardInterrupt  # nbgrader catches that, too
            said = re.findall(r"^\s*(?:\w+\.)*(\w+(?:Error|Exception): .+)$", done.get("log", ""), re.MULTILINE)
            raise Failed((said or done["error"].strip().splitlines()[-1:])[0])

    def gradebook(self):
        """Open the gradebook, to be closed by `with`."""
        return self.api.gradebook


def settings(folder: Path) -> tuple:
    """Read nbgrader_config.py for a class that lives in `folder`: the configuration, and the variables that it sets.

    What is graded are the vetted submissions.
    """
    from traitlets.config import PyFileConfigLoader

    if not (ROOT / "nbgrader_config.py").is_file():
        raise UserError(f"no nbgrader_config.py in {ROOT}; get the project's repository and run this in it")
    before = dict(os.environ)
    with variables({}):
        config = PyFileConfigLoader("nbgrader_config.py", path=str(ROOT)).load_config()
        environment = {name: value for name, value in os.environ.items() if before.get(name) != value}
    config.CourseDirectory.root = str(folder)
    config.CourseDirectory.db_url = f"sqlite:///{folder / 'gradebook.db'}"
    config.CourseDirectory.submitted_directory = "vetted"
    config.ProctoredExecute.closed = str(folder)
    config.Exchange.root = str(folder / "exchange")  # none is used, and nbgrader must not look for one on the machine
    return config, environment


@contextmanager
def variables(values: dict[str, str]) -> Iterator[None]:
    """Set variables of the environment for a while, and leave it as it was, whatever was set in the meantime."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep nbgrader's log, which the report says better, and SQLAlchemy's warnings about nbgrader from the terminal."""
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

    Raises UserError for an unknown set or variant, and where submissions to another form of it have been graded.
    """
    from .assignments import assemble, named

    vary = None
    if variant is not None:
        from .variants import vary as changed

        def vary(notebook: NotebookNode) -> NotebookNode:
            return changed(notebook, variant)

    text = text_of(assemble(named(name), vary=vary))
    room = Classroom(classroom)
    source = room.notebook("source", name)
    graded = len(list(room.folder.glob(f"autograded/*/{name}/{name}.ipynb")))
    if graded and source.is_file() and source.read_text(encoding="utf-8") != text:
        raise UserError(
            f"{graded} submissions to another form of {name} are graded in {room.folder}, and their points would lose their "
            "meaning; take another folder: --classroom FOLDER"
        )
    source.parent.mkdir(parents=True, exist_ok=True)
    write(source, text)
    try:
        room.run(room.api.generate_assignment, name)
    except Failed as error:
        raise RuntimeError(f"nbgrader could not make {name}: {error}") from None
    return room.notebook("release", name)


# Grading ----------------------------------------------------------------------------------------------------------------


def grade(
    name: str, *, classroom: Path = CLASSROOM, again: bool = False, cell_seconds: int | None = None
) -> list[Graded]:
    """Grade all submissions to a set, write feedback, CSV and report, and return what came of each.

    What has not changed since it was graded is not run again, unless `again`; so grades given by hand stay. One bad
    submission never stops the others. Raises UserError where nothing was released or handed in.
    """
    room = Classroom(classroom, cell_seconds=cell_seconds)
    released = room.notebook("release", name)
    if not released.is_file():
        raise UserError(f"{name} is not released in {room.folder}; first `python -m spvit_course release {name}`")
    students = sorted(path.parent.name for path in room.folder.glob(f"submitted/*/{name}") if path.is_dir())
    if not students:
        raise UserError(f"no submissions; put them into {room.folder}/submitted/STUDENT/{name}/{name}.ipynb")
    results = []
    for count, student in enumerate(students, start=1):
        print(f"[{count}/{len(students)}] {student}: ", end="", flush=True)
        failure = grade_one(room, name, student, again=again)
        results.append(collect(room, name, student, failure))
        print(results[-1], flush=True)
    for line in save(room, name, results):
        print(line)
    return results


def grade_one(room: Classroom, name: str, student: str, *, again: bool) -> str | None:
    """Vet, run and score one submission and write its feedback. Returns what kept it from being graded, if anything."""
    from .validation import vet

    if not NAME.fullmatch(student):
        return f"the folder's name {student!r} has characters that nbgrader can't look for; rename it"
    try:
        submitted = room.path("submitted", name, student)
        handed_out = read(room.notebook("release", name))
        digest = digest_of(submitted, room.notebook("source", name))
        if again or graded_as(room.notebook("autograded", name, student)) != digest:
            vetted = vet(submitted, handed_out, name)
            vetted.notebook.metadata.spvit_mini = NotebookNode(odd=vetted.odd, digest=digest)
            place = room.notebook("vetted", name, student)
            shutil.rmtree(place.parent, ignore_errors=True)
            place.parent.mkdir(parents=True)
            write(place, text_of(vetted.notebook))
            if (submitted / "timestamp.txt").is_file():
                shutil.copy(submitted / "timestamp.txt", place.parent)
            room.run(room.api.autograde, name, student, force=True)
        room.run(room.api.generate_feedback, name, student, force=True)
    except Failed as error:
        return f"nbgrader failed: {error}"
    except Exception as error:  # whatever it is, the others are to be graded
        return f"could not be graded: {type(error).__name__}: {error}"
    return None


def digest_of(submitted: Path, source: Path) -> str:
    """Hash what a grade rests on: all files of a submission, and the set."""
    total = hashlib.sha256(source.read_bytes())
    for path in sorted(submitted.rglob("*")):
        if path.is_file() and not path.is_symlink():
            total.update(os.fsencode(path.relative_to(submitted)))
            with path.open("rb") as file:
                while part := file.read(1 << 20):
                    total.update(part)
    return total.hexdigest()


def graded_as(notebook: Path) -> str | None:
    """Read from a graded notebook what it was made of; None where there is none."""
    try:
        return read(notebook).metadata.get("spvit_mini", {}).get("digest")
    except UserError:
        return None
