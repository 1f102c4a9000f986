"""A class's submissions to a small set: right answers and wrong ones, accidents, endless code, tricks."""

import json
from collections.abc import Callable
from dataclasses import dataclass

from nbformat.v4 import new_code_cell

from spvit_course.classroom.problem_sets import Part, ProblemSet, Question
from spvit_course.lessons import grading

WHY = Question("why", 3, "Why is 1 neutral where a map multiplies?", "- **3 points**: 1 · s = s", "Because 1 · s = s.")
SMALL = ProblemSet("small", "A small set", 20, "after lesson 03", "Two.", (Part("03", "offsets"), Part("03", "pad_prefix"), WHY))

OFFSETS = """def offsets(rows, columns):
    down = torch.arange(-(rows - 1), rows)
    right = torch.arange(-(columns - 1), columns)
    return torch.stack(torch.meshgrid(down, right, indexing="ij"), dim=-1)"""
PAD = """def pad_prefix(spatial, prefix, neutral):
    return torch.nn.functional.pad(spatial, (prefix, 0, prefix, 0), value=neutral) if prefix else spatial"""
PRODUCT = """def offsets(rows, columns):
    places = torch.cartesian_prod(axis(rows), axis(columns))
    return places.reshape(2 * rows - 1, 2 * columns - 1, 2)"""
WARNS = """def pad_prefix(spatial, prefix, neutral):
    warnings.warn("this goes to stderr")
    print("and this to stdout")
    n = spatial.shape[-1]
    framed = spatial.new_full((*spatial.shape[:-2], n + prefix, n + prefix), neutral)
    framed[..., prefix:, prefix:] = spatial
    return framed"""
AXIS = "import warnings\n\ndef axis(length):\n    return torch.arange(1 - length, length)"
SWAPPED = OFFSETS.replace("torch.stack(", "torch.stack(tuple(reversed(").replace('"ij")', '"ij")))')
ROWS_ONLY = PAD.replace("(prefix, 0, prefix, 0)", "(0, 0, prefix, 0)")
ZERO = PAD.replace("value=neutral", "value=0")
PACKAGE = """def offsets(rows, columns):
    from spvit_mini.geometry import offsets as theirs
    return theirs(rows, columns)"""
WRONG = "def {0}(*arguments):\n    return torch.zeros(3)"
ENDLESS = "def pad_prefix(spatial, prefix, neutral):\n    while True:\n        pass"


@dataclass
class Student:
    """What somebody handed in, and what it deserves: points for each exercise (None: to be read), what must be odd."""

    offsets: str | None = OFFSETS
    pad: str | None = PAD
    why: str | None = "Because it changes nothing."
    change: Callable | None = None  # what else was done to the notebook
    place: Callable | None = None  # how the folder was filled, in place of writing the notebook
    first: str = ""  # code in a cell of the student's own, before the first exercise
    points: tuple = (2, 2, None)
    odd: tuple[str, ...] = ()


def cell(notebook, name):
    return next(cell for cell in notebook.cells if grading(cell).get("grade_id") == name)


def accidents(notebook):
    """Paste a cell above itself, marks and all, with a first try; use an id twice; delete and overwrite cells."""
    offsets, check = cell(notebook, "offsets"), cell(notebook, "check-offsets")
    notebook.cells.insert(0, new_code_cell("mine = 1", id="front-page"))
    place = notebook.cells.index(offsets)
    notebook.cells.insert(place, new_code_cell(SWAPPED, id="solution-offsets", metadata=offsets.metadata))
    check.source = 'print("PASS", flush=True)'
    check.metadata.nbgrader["points"] = 100
    deleted("setup", "begin-1", "check-pad_prefix")(notebook)


def deleted(*names):
    def change(notebook):
        notebook.cells = [cell for cell in notebook.cells if grading(cell).get("grade_id") not in names]

    return change


def with_others(folder, text):
    """Save under another name, with much stored output, a folder in the package's place, and a link to the gradebook."""
    notebook = json.loads(text)
    output = {"output_type": "stream", "name": "stdout", "text": "x" * 6_000_000}
    next(each for each in notebook["cells"] if each["cell_type"] == "code")["outputs"] = [output]
    (folder / "small (1)-Copy1.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    (folder / "spvit_mini").mkdir()
    (folder / "spvit_mini" / "__init__.py").write_text("raise SystemExit('shadowed')")
    (folder / "mine.ipynb").symlink_to(folder.parents[2] / "gradebook.db")


CURIOUS = """import os, socket, sqlite3
for ask in (
    lambda: socket.create_connection(("127.0.0.1", 9)),
    lambda: os.system("touch ran"),
    lambda: sqlite3.connect("../../../gradebook.db"),
    lambda: print(open("../../../submitted/right/small/small.ipynb").read()),
):
    try:
        ask()
    except PermissionError:
        pass"""
REFUSED = (
    "asked for the network: 127.0.0.1",
    "tried to start a program: .*touch ran",
    "reached for the class's files: .*/gradebook.db",
    "reached for the class's files: .*/submitted/right/small/small.ipynb",
)
FAKE = """class Fake:
    def __getattr__(self, name):
        return lambda *arguments, **options: print("PASS", name)

lesson = Fake()
begin = lambda number: lesson"""
OUTPUT = 'print("x" * 3_000_000)\nfor _ in range(10_000):\n    print("y" * 100)'
WRONG_BOTH = {"offsets": WRONG.format("offsets"), "pad": WRONG.format("pad_prefix"), "points": (0, 0, None)}

# What a kernel, nbgrader and a folder are needed for; all else is tested on the functions, in test_grading_validation.py and
# test_proctor.py.
CLASS = {
    "right": Student(PRODUCT, WARNS, first=AXIS),
    "right-accidents": Student(
        change=accidents,
        place=with_others,
        odd=(
            "handed in as small .1.-Copy1.ipynb, not as small.ipynb",
            "left out, since only the notebook is graded: mine.ipynb, spvit_mini",
            "the file has 6 MB; its stored outputs were dropped",
            "the cell offsets is there twice; the last one counts",
            "the cell id front-page is there twice",
            "the check check-offsets was overwritten; put back",
            "the marks of the cell check-offsets were changed",
            "the cell setup was deleted; put back",
            "the cell check-pad_prefix was deleted; put back",
        ),
    ),
    "right-curious": Student(
        first=f"{CURIOUS}\n{OUTPUT}",
        odd=(
            *REFUSED,
            "mentions the network .socket.",
            "mentions files of the class",
            "the cell that begins .* printed more than 100,000 characters; the rest was cut",
        ),
    ),
    "wrong": Student(SWAPPED, ROWS_ONLY, points=(0, 0, None)),
    "wrong-package": Student(PACKAGE, ZERO, points=(0, 0, None)),
    "unsolved": Student(None, None, None, points=(0, 0, 0), odd=("nothing is solved",)),
    "deleted": Student(
        change=deleted("offsets"),
        first="def broken(:",
        points=(0, 2, None),
        odd=("the cell offsets was deleted$", "a syntax error in the cell number"),
    ),
    "no-json": Student(
        place=lambda folder, text: (folder / "small.ipynb").write_text(text[: len(text) // 2]),
        points=(0, 0, 0),
        odd=("the file is no notebook that can be read .*; ask for small.ipynb again",),
    ),
    "endless": Student(
        OFFSETS + "\nwhile True:\n    pass",
        ENDLESS,
        points=(2, 0, None),
        odd=("the cell offsets was stopped after [0-9]+ s", "the cell check-pad_prefix was stopped after [0-9]+ s"),
    ),
    "endless-stubborn": Student(
        pad="while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass",
        points=(2, 0, None),
        odd=("the cell pad_prefix ran on after it was interrupted; the others were run without it",),
    ),
    "dies": Student(
        offsets="import os\nos._exit(0)",
        first="exit()",
        points=(0, 2, None),
        odd=("the kernel died in the cell offsets; the others were run without it",),
    ),
    "fakes-lesson": Student(first=FAKE, **WRONG_BOTH, odd=("mentions the insides of checks .lesson =.",)),
    "fakes-check": Student(
        first="type(lesson).check = lambda *arguments, **options: None\ntorch.allclose = lambda *arguments, **options: True",
        **WRONG_BOTH,
        odd=("parts of the package changed: spvit_course.lesson.Lesson.check, torch.allclose",),
    ),
}
