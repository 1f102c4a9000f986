"""`python -m spvit_course`: open the course, make copies, keep the stored lessons in order."""

import argparse
import sys
from pathlib import Path

from spvit_mini.cli.program import run_program
from spvit_mini.errors import UserError

EPILOG = (
    "Without make, on any system: python -m spvit_course lab. Ctrl-C ends it; your work stays in the folder work."
)


def arguments() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m spvit_course", description=__doc__.split(": ")[1], epilog=EPILOG
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, what: str, **more) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".", **more)

    lab = command(
        "lab",
        "make or update your copies of the lessons and open them in JupyterLab",
        epilog="All further options go to JupyterLab: --no-browser, --port=9000, …",
    )
    build = command("build", "make or update the students' copies; work that was begun is never written over")
    build.add_argument("--variant", metavar="NAME", help="change the mechanism of some exercises, for graded work")
    for parsed in (lab, build):
        parsed.add_argument("--out", type=Path, metavar="FOLDER", help="where the copies live (default: work)")
    doctor = command("doctor", "look at this machine and your copies: what is here, each problem with its fix, minutes here")
    doctor.add_argument("--out", type=Path, metavar="FOLDER", help="where the copies live (default: work)")
    progress = command("progress", "show the points passed so far in your copies, as a table and a picture")
    progress.add_argument("--figure", type=Path, metavar="FILE", help="the picture to write (default: progress.png there)")
    progress.add_argument("--out", type=Path, metavar="FOLDER", help="where the copies live (default: work)")
    command("list", "list the lessons with their minutes and points")
    release = command("release", "make a problem set from the lessons, and of it what students get, with nbgrader")
    release.add_argument("set", nargs="?", metavar="SET", help="its name; without it the sets and variants are listed")
    release.add_argument("--variant", metavar="NAME", help="change the mechanism of some exercises, for graded work")
    grade = command(
        "grade",
        "grade what students handed in: points, feedback pages, a CSV, and a report on what was odd",
        epilog="Submissions are looked for in FOLDER/submitted/STUDENT/SET/SET.ipynb, and are never changed. Their code is "
        "run: do that in a container without a network (docs/instructors).",
    )
    grade.add_argument("set", metavar="SET", help="its name")
    grade.add_argument("--rerun", action="store_true", help="also run those that have not changed since they were graded")
    grade.add_argument("--cell-seconds", type=int, metavar="N", help="how long a cell may run (default: 60)")
    for parsed in (release, grade):
        parsed.add_argument("--classroom", type=Path, metavar="FOLDER", help="the class's folder (default: classroom)")
    site = command("site", "build the course as web pages, to be read without a server and without the network")
    site.add_argument("--out", type=Path, metavar="FOLDER", help="where the pages go (default: build/site)")
    execute = command("execute", "run lessons again, store their outputs, and say what the guard finds wrong")
    execute.add_argument("notebooks", type=Path, nargs="*", help="default: all lessons")
    links = command("links", "write or refresh the links from each lesson to the one before and the one after")
    links.add_argument("--progress", action="store_true", help="also end each lesson with the cell that shows progress")
    badges = command("badges", "put links to Colab and Binder into the lessons, for a public copy of the repository")
    badges.add_argument("repository", metavar="OWNER/NAME", help="the repository's name on GitHub")
    badges.add_argument("--branch", default="main", help="default: main")
    return parser


def main() -> int:
    parser = arguments()
    options, rest = parser.parse_known_args()
    if rest and options.command != "lab":
        parser.error(f"unknown option {rest[0]}")
    try:
        return COMMANDS[options.command](options, rest)
    except ModuleNotFoundError as error:
        if error.name not in ("nbformat", "nbclient", "jupyterlab"):
            raise
        raise UserError(f"{error.name} is not installed; `python -m pip install --editable .[lab]` brings it") from None


def run_lab(options: argparse.Namespace, rest: list[str]) -> int:
    from .classroom.copies import WORK
    from .classroom.lab import open_lab

    open_lab(rest, work=(options.out or WORK).resolve())
    return 0


def run_build(options: argparse.Namespace, rest: list[str]) -> int:
    from .classroom.copies import WORK, build_copies

    out = options.out or (WORK if options.variant is None else WORK / options.variant)
    for copy in build_copies(out, variant=options.variant):
        print(copy)
    return 0


def run_list(options: argparse.Namespace, rest: list[str]) -> int:
    from .lessons import lesson_files, read, require_heading

    files = lesson_files()
    print(f"{'lesson':<8}{'your minutes':>12}{'run minutes':>13}{'points':>8}   title")
    for path in files:
        top = require_heading(path, read(path))
        print(f"{top.number:<8}{top.student_minutes:>12}{top.run_minutes:>13}{top.points:>8}   {top.title}")
    return 0


def run_doctor(options: argparse.Namespace, rest: list[str]) -> int:
    from .classroom.copies import WORK
    from .classroom.doctor import print_report

    return print_report(options.out or WORK)


def run_progress(options: argparse.Namespace, rest: list[str]) -> int:
    from .classroom.copies import WORK
    from .lessons import lesson_files
    from .progress import show_progress

    show_progress(options.out or WORK, lesson_files(), options.figure)
    return 0


def run_release(options: argparse.Namespace, rest: list[str]) -> int:
    from .classroom.grading import CLASSROOM, release
    from .classroom.problem_sets import SETS
    from .classroom.variants import VARIANTS

    if options.set is None:
        for name, problem_set in SETS.items():
            print(f"{name:<10}{problem_set.minutes:>4} minutes  {problem_set.after}: {problem_set.title}")
        for name, variant in VARIANTS.items():
            print(f"--variant {name}: {variant.about}")
        return 0
    out = release(options.set, variant=options.variant, classroom=options.classroom or CLASSROOM)
    print(f"for students: {out}")
    return 0


def run_grade(options: argparse.Namespace, rest: list[str]) -> int:
    from .classroom.grading import CLASSROOM, grade

    results = grade(
        options.set,
        classroom=options.classroom or CLASSROOM,
        rerun=options.rerun,
        cell_seconds=options.cell_seconds,
    )
    return 1 if any(result.failure for result in results) else 0


def run_site(options: argparse.Namespace, rest: list[str]) -> int:
    from .classroom.site import build_site

    print(f"open {build_site(options.out)}")
    return 0


def run_execute(options: argparse.Namespace, rest: list[str]) -> int:
    from .classroom.execution import execute_lesson
    from .lessons import lesson_files

    wrong = 0
    for path in options.notebooks or lesson_files():
        print(f"{path}: running", flush=True)
        for problem in execute_lesson(path):
            wrong += 1
            print(f"{path}: {problem}")
    return 1 if wrong else 0


def run_badges(options: argparse.Namespace, rest: list[str]) -> int:
    from .classroom.badges import set_badges
    from .classroom.links import has_links, set_links

    for path in set_badges(options.repository, branch=options.branch):
        print(path)
    if has_links():  # those that lead to Colab name the repository, too
        set_links()
    return 0


def run_links(options: argparse.Namespace, rest: list[str]) -> int:
    from .classroom.links import set_links

    changed = set_links(progress=options.progress)
    for path in changed:
        print(path)
    if not changed:
        print("all links are as they should be")
    return 0


COMMANDS = {
    "lab": run_lab,
    "build": run_build,
    "doctor": run_doctor,
    "progress": run_progress,
    "list": run_list,
    "execute": run_execute,
    "links": run_links,
    "release": run_release,
    "grade": run_grade,
    "site": run_site,
    "badges": run_badges,
}

if __name__ == "__main__":
    sys.exit(run_program(main))
