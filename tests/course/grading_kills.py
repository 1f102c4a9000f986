"""Kill `grade` at random moments and compare with a class that was never killed; too slow for the suite, which has a small form.

    python -m tests.course.grading_kills FOLDER --students 15 --kills 10 --seed 0

Each kill, by SIGKILL and SIGTERM in turn, comes at a random moment while a random submission is graded, with real kernels.
Started again on the same folder it goes on where it was. Prints how many kills there were, and whether all points agree.
"""

import argparse
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from spvit_course import __main__ as program
from spvit_course.classroom import problem_sets
from spvit_course.lessons import ROOT, read

from .submissions import CLASS, SMALL
from .test_grading_class import hand_in

STUDENTS = ["right", "wrong", "wrong-package", "unsolved", "right-accidents", "no-json", "dies", "deleted"]


def start(room, command="grade"):
    """Start a command of the course, which knows the small set."""
    arguments = [sys.executable, "-m", "tests.course.grading_kills", command, "small", "--classroom", str(room)]
    return subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def kill_once(room, number, students, source):
    """Start `grade` and kill it at a random moment of a random submission. Returns what it said, None if it ended first."""
    process, said = start(room), []
    wanted = source.randrange(1, students)
    for sign in iter(lambda: process.stdout.read(1), ""):
        said.append(sign)
        if sign == ":" and len(re.findall(r"^\[\d+/\d+\] ", "".join(said), re.MULTILINE)) >= wanted:
            break
    time.sleep(source.uniform(0, 12))
    if process.poll() is not None:
        return None
    process.send_signal(signal.SIGTERM if number % 2 else signal.SIGKILL)
    rest, _ = process.communicate(timeout=60)
    return "".join(said) + rest


def run(folder, students, kills, seed):
    source, plain, killed = random.Random(seed), folder / "plain", folder / "killed"
    if not killed.exists():
        folder.mkdir(parents=True, exist_ok=True)
        assert start(plain, "release").wait() == 0
        for number in range(students):
            name = STUDENTS[number % len(STUDENTS)]
            hand_in(plain, f"{number:02}-{name}", CLASS[name], read(plain / "release" / "small" / "small.ipynb"))
        shutil.copytree(plain, killed)
    log = folder / "kills.json"
    done = json.loads(log.read_text()) if log.is_file() else []
    while len(done) < kills:
        # Early kills come early in the class, so that there is something left to kill later.
        said = kill_once(killed, len(done), 2 + len(done) * students // kills, source)
        if said is None:
            break
        assert "Traceback" not in said, said
        done.append(said.splitlines()[-1])
        log.write_text(json.dumps(done))
        print(f"kill {len(done)}: {done[-1]}", flush=True)
    tables = []
    for room in (killed, plain):
        said, _ = (process := start(room)).communicate()
        assert process.returncode == 0 and "Traceback" not in said, said
        tables.append((room / "reports" / "small.csv").read_bytes())
    is_same = tables[0] == tables[1]
    print(f"{students} students, {len(done)} kills, seed {seed}: the tables are {'the same' if is_same else 'DIFFERENT'}")
    return 0 if is_same else 1


if __name__ == "__main__":
    problem_sets.SETS["small"] = SMALL
    if sys.argv[1] in ("grade", "release"):
        program.main()
    else:
        parser = argparse.ArgumentParser(description=__doc__)
        parser.add_argument("folder", type=Path)
        for option, default in (("students", 15), ("kills", 10), ("seed", 0)):
            parser.add_argument(f"--{option}", type=int, default=default)
        sys.exit(run(**vars(parser.parse_args())))
