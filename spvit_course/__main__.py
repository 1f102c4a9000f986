"""`python -m spvit_course COMMAND`, installed as `spvit-course COMMAND`."""

import argparse
import sys
from pathlib import Path

from spvit_mini.cli.program import refuse_empty, run_program
from spvit_mini.errors import UserError
from spvit_mini.fields import Range

ABOUT = "Open the lessons, make copies for students, grade problem sets, and keep the stored lessons in order."
EPILOG = "Without make, on any system: python -m spvit_course lab. Ctrl-C ends it; your work stays in the folder work."


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> None:
        raise UserError(f"{message}; {self.prog} --help lists the options")


def seconds(text: str) -> int:
    """Read a number of seconds from the command line."""
    if not (text.isdecimal() and int(text) in Range(1, 86_400)):
        raise argparse.ArgumentTypeError(f"{text!r} given; expected an integer {Range(1, 86_400)}")
    return int(text)


def build_parser() -> Parser:
    """Build the parser of the command line; `run` of the parsed options is the function of the command."""
    parser = Parser(prog="python -m spvit_course", description=ABOUT, epilog=EPILOG)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run, what: str, **more) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".", **more)
        added.set_defaults(run=run)
        return added

    lab = command(
        "lab",
        run_lab,
        "make or update your copies of the lessons and open them in JupyterLab",
        epilog="All further options go to JupyterLab: --no-browser, --port=9000, …",
    )
    build = command("build", run_build, "make or update the students' copies; their work is never overwritten")
    build.add_argument("--variant", metavar="NAME", help="change the mechanism of some exercises, for graded work")
    doctor = command("doctor", run_doctor, "check this machine and your copies: versions, problems with their fixes, run times")
    progress = command("progress", run_progress, "show the points passed so far in your copies, as a table and a figure")
    progress.add_argument("--figure", type=Path, metavar="FILE", help="figure to write (default: progress.png beside the copies)")
    for parsed in (lab, build, doctor, progress):
        parsed.add_argument("--out", type=Path, metavar="FOLDER", help="folder of the copies (default: work)")
    command("list", run_list, "list the lessons with their minutes and points")
    release = command("release", run_release, "make a problem set from the lessons and the students' version of it (nbgrader)")
    release.add_argument("set", nargs="?", metavar="SET", help="name of the set; without it the sets and variants are listed")
    release.add_argument("--variant", metavar="NAME", help="change the mechanism of some exercises, for graded work")
    grade = command(
        "grade",
        run_grade,
        "grade the submissions: points, feedback pages, a CSV file, and a report of irregularities",
        epilog="Submissions are read from FOLDER/submitted/STUDENT/SET/SET.ipynb and never changed. Their code is executed: "
        "use a container without a network (docs/instructors).",
    )
    grade.add_argument("set", metavar="SET", help="name of the set")
    grade.add_argument("--rerun", action="store_true", help="also grade submissions that have not changed since the last time")
    grade.add_argument("--cell-seconds", type=seconds, metavar="N", help="time limit of a cell in seconds (default: 60)")
    for parsed in (release, grade):
        parsed.add_argument("--classroom", type=Path, metavar="FOLDER", help="folder of the class (default: classroom)")
    site = command("site", run_site, "build the course as web pages, to be read without a server and without the network")
    site.add_argument("--out", type=Path, metavar="FOLDER", help="folder of the pages (default: build/site)")
    execute = command("execute", run_execute, "run lessons again, store their outputs, and report what breaks a lesson's form")
    execute.add_argument("notebooks", type=Path, nargs="*", help="default: all lessons")
    links = command("links", run_links, "write or update the links from each lesson to the previous and the next one")
    links.add_argument("--progress", action="store_true", help="also end each lesson with a cell that shows the progress")
    badges = command("badges", run_badges, "add links to Colab and Binder to the lessons, for a public copy of the repository")
    badges.add_argument("repository", metavar="OWNER/NAME", help="name of the repository on GitHub")
    badges.add_argument("--branch", default="main", help="branch (default: main)")
    return parser


def run(argv: list[str]) -> int:
    """Run the command that the arguments name; returns the exit status."""
    refuse_empty("python -m spvit_course", argv)
    parser = build_parser()
    options, rest = parser.parse_known_args(argv)
    if rest and options.command != "lab":
        parser.error(f"there is no option {rest[0]}")
    if options.command != "doctor":  # it reports what is missing
        from .files import lesson_files

        lesson_files()  # raises UserError outside a checkout
    return options.run(options, rest)


def run_lab(options: argparse.Namespace, rest: list[str]) -> int:
    from .classroom.copies import WORK
    from .classroom.lab import open_lab

    open_lab(rest, work=(options.out or WORK).resolve())
    return 0


def run_build(options: argparse.Namespace, rest: list[str]) -> int:
    from .classroom.copies import WORK, build_copies

    out = options.out or (WORK if options.variant is None else WORK / options.variant)
    report = build_copies(out, variant=options.variant)
    for copy in report:
        print(copy)
    return 1 if any(copy.status == "unread" for copy in report) else 0


def run_list(options: argparse.Namespace, rest: list[str]) -> int:
    from .lessons import lesson_files, read, require_heading

    files, failed = lesson_files(), 0
    print(f"{'lesson':<8}{'your minutes':>12}{'run minutes':>13}{'points':>8}   title")
    for path in files:
        try:
            top = require_heading(path, read(path))
        except UserError as error:
            failed += 1
            print(error)
            continue
        print(f"{top.number:<8}{top.student_minutes:>12}{top.run_minutes:>13}{top.points:>8}   {top.title}")
    return 1 if failed else 0


def run_doctor(options: argparse.Namespace, rest: list[str]) -> int:
    from .classroom.copies import WORK
    from .classroom.doctor import print_report

    return print_report(options.out or WORK)


def run_progress(options: argparse.Namespace, rest: list[str]) -> int:
    from .classroom.copies import WORK
    from .lessons import lesson_files, read
    from .progress import show_progress

    failed = 0
    show_progress(options.out or WORK, lesson_files(), options.figure)
    for path in lesson_files():
        try:
            read(path)
        except UserError as error:  # its points are not in the table
            failed += 1
            print(f"left out: {error}")
    return 1 if failed else 0


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

    wrong, errors = 0, []
    for path in options.notebooks or lesson_files():
        print(f"{path}: running", flush=True)
        try:
            for problem in execute_lesson(path):
                wrong += 1
                print(f"{path}: {problem}", flush=True)
        except UserError as error:  # the other lessons still run
            errors.append(str(error))
    if errors:
        raise UserError("; ".join(errors))
    return 1 if wrong else 0


def run_badges(options: argparse.Namespace, rest: list[str]) -> int:
    from .classroom.badges import set_badges
    from .classroom.links import has_links, set_links

    for path in set_badges(options.repository, branch=options.branch):
        print(path)
    if has_links():  # links to Colab contain the repository's name
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


def main() -> None:
    """Run the command line of this process."""
    run_program(lambda: run(sys.argv[1:]))


if __name__ == "__main__":
    main()
