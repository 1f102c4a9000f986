"""A class's submissions to a small set: right answers, each in its own way, wrong ones, and every accident and trick."""

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
LOOPS = """def offsets(rows, columns):
    found = [[(r, c) for c in range(1 - columns, columns)] for r in range(1 - rows, rows)]
    return torch.tensor(found)"""
FILLED = """def pad_prefix(spatial, prefix, neutral):
    n = spatial.shape[-1]
    framed = spatial.new_full((*spatial.shape[:-2], n + prefix, n + prefix), neutral)
    framed[..., prefix:, prefix:] = spatial
    return framed"""
PRODUCT = """def offsets(rows, columns):
    places = torch.cartesian_prod(axis(rows), axis(columns))
    return places.reshape(2 * rows - 1, 2 * columns - 1, 2)"""
JOINED = """def pad_prefix(spatial, prefix, neutral):
    n, leading = spatial.shape[-1], spatial.shape[:-2]
    left = spatial.new_full((*leading, n, prefix), neutral)
    top = spatial.new_full((*leading, prefix, n + prefix), neutral)
    return torch.cat([top, torch.cat([left, spatial], dim=-1)], dim=-2)"""
WARNS = FILLED.replace("    n =", '    warnings.warn("this goes to stderr")\n    print("and this to stdout")\n    n =')
STUB = "def {0}\n    # YOUR CODE HERE\n    raise NotImplementedError()"
SWAPPED = OFFSETS.replace("torch.stack(", "torch.stack(tuple(reversed(").replace('"ij")', '"ij")))')
TURNED = OFFSETS.replace("dim=-1)", "dim=-1) * -1")
LENGTHS = OFFSETS.replace("dim=-1)", "dim=-1).abs()")
REAL = OFFSETS.replace("dim=-1)", "dim=-1).float()")
ROWS_ONLY = PAD.replace("(prefix, 0, prefix, 0)", "(0, 0, prefix, 0)")
ZERO = PAD.replace("value=neutral", "value=0")
PACKAGE = """def offsets(rows, columns):
    from spvit_mini.geometry import offsets as theirs
    return theirs(rows, columns)"""
NO_RETURN = OFFSETS.replace("return ", "")
WRONG = "def {0}(*arguments):\n    return torch.zeros(3)"
ENDLESS = "def offsets(rows, columns):\n    while True:\n        pass"


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


def copied_cell(notebook):
    """Copy a cell as JupyterLab's paste does: marks and all, the first try above."""
    place = notebook.cells.index(cell(notebook, "offsets"))
    notebook.cells.insert(place, new_code_cell(SWAPPED, id="solution-offsets", metadata=notebook.cells[place].metadata))


def same_id(notebook):
    notebook.cells.insert(0, new_code_cell("mine = 1", id="front-page"))


def deleted(*names):
    def change(notebook):
        notebook.cells = [cell for cell in notebook.cells if grading(cell).get("grade_id") not in names]

    return change


def without_marks(notebook):
    for each in notebook.cells:
        each.metadata = type(each.metadata)()


def overwritten(notebook):
    for name in ("check-offsets", "check-pad_prefix"):
        cell(notebook, name).source = 'print("PASS", flush=True)'
        cell(notebook, name).metadata.nbgrader["points"] = 100


def made_text(notebook):
    one = cell(notebook, "offsets")
    one.cell_type = "markdown"
    del one["outputs"], one["execution_count"]


def written_as(name):
    return lambda folder, text: (folder / name).write_text(text, encoding="utf-8")


def with_others(folder, text):
    """Bring stored output, a folder that would stand in the package's place, and a link to the gradebook."""
    notebook = json.loads(text)
    output = {"output_type": "stream", "name": "stdout", "text": "x" * 6_000_000}
    next(each for each in notebook["cells"] if each["cell_type"] == "code")["outputs"] = [output]
    (folder / "small.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
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
WRONG_BOTH = {"offsets": WRONG.format("offsets"), "pad": WRONG.format("pad_prefix"), "points": (0, 0, None)}

CLASS = {
    "right": Student(),
    "right-loops": Student(LOOPS, FILLED),
    "right-helper": Student(PRODUCT, JOINED, first="def axis(length):\n    return torch.arange(1 - length, length)"),
    "right-warns": Student(pad=WARNS, first="import warnings"),
    "right-no-marks": Student(change=without_marks),
    "right-other-name": Student(
        change=same_id,
        place=written_as("small (1)-Copy1.ipynb"),
        odd=("handed in as small .1.-Copy1.ipynb, not as small.ipynb", "the cell id front-page is there twice"),
    ),
    "right-copied-cell": Student(change=copied_cell, odd=("the cell offsets is there twice; the last one counts",)),
    "right-deleted": Student(
        change=deleted("setup", "begin-1", "check-offsets", "check-pad_prefix"),
        odd=("the cell setup was deleted; put back", "the cell check-offsets was deleted; put back"),
    ),
    "right-overwritten": Student(
        change=overwritten,
        odd=("the check check-offsets was overwritten; put back", "the marks of the cell check-offsets were changed"),
    ),
    "right-output": Student(
        first='print("x" * 3_000_000)\nfor _ in range(10_000):\n    print("y" * 100)',
        odd=("the cell that begins .* printed more than 100,000 characters; the rest was cut",),
    ),
    "right-others": Student(
        place=with_others,
        odd=(
            "the file has 6 MB; its stored outputs were dropped",
            "left out, since only the notebook is graded: mine.ipynb, spvit_mini",
        ),
    ),
    "right-curious": Student(first=CURIOUS, odd=(*REFUSED, "mentions the network .socket.", "mentions files of the class")),
    "wrong-swapped": Student(SWAPPED, ROWS_ONLY, points=(0, 0, None)),
    "wrong-sign": Student(TURNED, points=(0, 2, None)),
    "wrong-zero": Student(pad=ZERO, points=(2, 0, None)),
    "wrong-absolute": Student(LENGTHS, points=(0, 2, None)),
    "wrong-type": Student(REAL, points=(0, 2, None)),
    "wrong-package": Student(PACKAGE, points=(0, 2, None)),
    "wrong-no-return": Student(NO_RETURN, points=(0, 2, None)),
    "unsolved": Student(None, None, None, points=(0, 0, 0), odd=("nothing is solved",)),
    "only-words": Student(None, None, points=(0, 0, None), odd=("unsolved: offsets, pad_prefix",)),
    "syntax-error": Student(
        OFFSETS.replace("(rows, columns):", "(rows, columns)"), points=(0, 2, None), odd=("a syntax error in the cell offsets",)
    ),
    "made-text": Student(change=made_text, odd=("the cell offsets was made markdown; made code again",)),
    "deleted": Student(change=deleted("offsets"), points=(0, 2, None), odd=("the cell offsets was deleted$",)),
    "endless-cell": Student(
        OFFSETS + "\nwhile True:\n    pass", points=(2, 2, None), odd=("the cell offsets was stopped after [0-9]+ s",)
    ),
    "endless-answer": Student(ENDLESS, points=(0, 2, None), odd=("the cell check-offsets was stopped after [0-9]+ s",)),
    "endless-stubborn": Student(
        pad="while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass",
        points=(2, 0, None),
        odd=("the cell pad_prefix ran on after it was interrupted; nothing after it was run",),
    ),
    "dies": Student(
        pad="import os\nos._exit(0)",
        points=(2, 0, None),
        odd=("the kernel died in the cell pad_prefix", "the cell check-pad_prefix showed no error"),
    ),
    "no-json": Student(
        place=lambda folder, text: (folder / "small.ipynb").write_text(text[: len(text) // 2]),
        points=(0, 0, 0),
        odd=("the file is no notebook that can be read .*; graded as if nothing were solved",),
    ),
    "empty": Student(place=lambda folder, text: None, points=(0, 0, 0), odd=("no notebook was handed in",)),
    "fakes-lesson": Student(first=FAKE, **WRONG_BOTH, odd=("mentions the insides of checks .lesson =.",)),
    "fakes-check": Student(
        first="type(lesson).check = lambda *arguments, **options: None\ntorch.allclose = lambda *arguments, **options: True",
        **WRONG_BOTH,
        odd=("parts of the package changed: spvit_course.lesson.Lesson.check, torch.allclose",),
    ),
    "fakes-engine": Student(
        first="from spvit_course.checks import engine\nengine.same.__code__ = (lambda one, other: True).__code__",
        **WRONG_BOTH,
        odd=("parts of the package changed: the code of spvit_course.checks.engine.same",),
    ),
    "fakes-proctor": Student(
        first="import sys, types\nfake = types.ModuleType('fake')\nfake.proctored = lambda number: lesson\n"
        "lesson.__dict__['check'] = lambda *arguments, **options: None\nsys.modules['spvit_course.classroom.proctor'] = fake",
        **WRONG_BOTH,
        odd=("the cell check-offsets showed no error, yet its check did not pass: no points",),
    ),
    "renames": Student(
        pad="pad_prefix = offsets", points=(2, 0, None), odd=("the cell check-pad_prefix showed no error, yet",)
    ),
    "hides-errors": Student(
        first="get_ipython().showtraceback = lambda *arguments, **options: None\n"
        "type(get_ipython())._showtraceback = lambda *arguments, **options: None",
        **WRONG_BOTH,
        odd=("mentions the insides of checks .get_ipython.",),
    ),
    "forges-receipt": Student(
        offsets="from spvit_course.classroom.proctor import MIME\nfrom IPython.display import display\n"
        "def offsets(*arguments):\n    display({MIME: {'receipt': 'f' * 64}}, raw=True)\n    return torch.zeros(3)",
        points=(0, 2, None),
        odd=("mentions the insides of checks .proctor.",),
    ),
}
