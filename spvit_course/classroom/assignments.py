"""Assignments: a problem set of `problem_sets`, assembled as a solved notebook in nbgrader's format.

The exercises are the lessons' own: task, solution and check come from the solved lesson, so there is one source. Added are a
front page, the lesson's set-up cell before each part, the questions that a person grades, and in each hidden test a fresh
handle on the lesson (see proctor.py).
"""

import re
from collections.abc import Callable
from copy import deepcopy
from functools import cache

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from spvit_mini.errors import UserError, near

from ..lessons import grading, lesson_files, read
from .problem_sets import SETS, Part, ProblemSet, Question

SETUP = "import math\n\nimport torch\nfrom torch import nn"
HIDDEN = "### BEGIN HIDDEN TESTS\n"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}

HAND_IN = """## How to hand this in

1. Write in the cells that say `YOUR CODE HERE` or `YOUR ANSWER HERE`. Add cells where you like; don't delete, copy or
   rename the others.
2. A check tells what is wrong, as often as you ask it, and the same checks give the points. For that the notebook is run
   again from the top, in a fresh kernel, with no network and no other file. So choose *Kernel → Restart Kernel and Run All
   Cells…* once before you hand it in.
3. A cell may take {seconds} seconds. An exercise without an answer costs its own points and no others.
4. Save, and hand in this file under its own name, `{name}.ipynb`."""

INTEGRITY = """## What is yours

What you hand in is your own work, and you can explain each line of it when you are asked to.

- Lessons, papers, documentation and the package may be read. Talk with others about ideas as much as you like; write code
  and text alone.
- An AI assistant may explain an idea or an error message. It may not write code or text that you hand in, nor be given
  these tasks to solve.
- The public form of these exercises has a public key, in the lessons. Who has read a solution before solving says so: that
  is no offence, hiding it is.
- Say in the last cell who and what has helped you, assistants included, and with what. “Nobody” is a fine answer.

Where your course has rules of its own, those hold."""

HELP = "## Help that I had\n\n*Replace this line: people, texts, programs, AI assistants; who or what, and with which part?*"
CELL_SECONDS = 60  # the front page and nbgrader_config.py both use this limit


def assemble(problem_set: ProblemSet, *, vary: Callable[[NotebookNode], NotebookNode] | None = None) -> NotebookNode:
    """Assemble a problem set as a solved notebook. `vary` may change the exercises.

    Raises UserError if a part names an exercise that its lesson does not have.
    """
    cells = [lock(new_code_cell(SETUP, id="setup"), "setup")]
    lesson, lesson_of_check = None, {}
    for number, item in enumerate(problem_set.parts, start=1):
        if isinstance(item, Question):
            cells += question_cells(item, number)
            continue
        if item.lesson != lesson:
            lesson = item.lesson
            setup = next(cell.source for cell in lesson_cells(lesson) if cell.cell_type == "code")
            cells.append(lock(new_code_cell(setup, id=f"begin-{number}"), f"begin-{number}"))
        part = part_cells(item, number)
        lesson_of_check[grading(part[-1])["grade_id"]] = lesson
        cells += part
    cells.append(new_markdown_cell(HELP, id="help"))
    names = [grading(cell)["grade_id"] for cell in cells if grading(cell)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{problem_set.name} has two cells with the grade_id {twice[0]!r}; each needs a name of its own")
    notebook = new_notebook(cells=cells, metadata={"kernelspec": KERNEL, "language_info": {"name": "python"}})
    notebook.nbformat_minor = 5
    if vary is not None:
        notebook = vary(notebook)
    for cell in notebook.cells:
        if (name := grading(cell).get("grade_id")) in lesson_of_check:
            cell.source = add_fresh_handle(cell.source, lesson_of_check[name])
    notebook.cells.insert(0, new_markdown_cell(front_page(problem_set, notebook), id="front-page"))
    return notebook


def find_problem_set(name: str) -> ProblemSet:
    """Return a problem set by its name. Raises UserError for an unknown name."""
    if name not in SETS:
        raise UserError(f"there is no problem set {name!r}; there are {', '.join(SETS)}.{near(name, SETS)}")
    return SETS[name]


# Parts ------------------------------------------------------------------------------------------------------------------


@cache
def lesson_cells(number: str) -> list[NotebookNode]:
    """Read the cells of a solved lesson, by its number."""
    files = [path for path in lesson_files() if path.name.startswith(f"{number}_")]
    if not files:
        raise UserError(f"there is no lesson {number!r}")
    return read(files[0]).cells


def part_cells(part: Part, number: int) -> list[NotebookNode]:
    """Copy an exercise from its lesson: task, solution and check, after the part's own text and set-up."""
    cells = lesson_cells(part.lesson)
    places = {grading(cell).get("grade_id"): place for place, cell in enumerate(cells) if grading(cell).get("solution")}
    if part.exercise not in places:
        names = [name for name in places if cells[places[name]].cell_type == "code"]
        raise UserError(f"lesson {part.lesson} has no exercise {part.exercise!r}; its exercises: {', '.join(names)}")
    place = places[part.exercise]
    start = max(before for before in range(place) if re.fullmatch(r"exercise-\d+", cells[before].id))
    check = next(cell for cell in cells[place:] if grading(cell).get("grade"))
    copies = [deepcopy(cell) for cell in (*cells[start : place + 1], check)]
    for cell in copies:
        cell.metadata = NotebookNode({"nbgrader": grading(cell)} if grading(cell) else {})
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    task = copies[0]
    task.id = f"task-{number}"
    task.source = re.sub(r"^## Exercise \d+", f"## Exercise {number}", task.source)
    if part.before or part.setup:  # between the heading and the task
        heading, _, task.source = task.source.partition("\n\n")
        copies.insert(0, new_markdown_cell(f"{heading}\n\n{part.before}".strip(), id=f"before-{number}"))
    if part.setup:
        copies.insert(1, lock(new_code_cell(part.setup, id=f"setup-{number}"), f"setup-{number}"))
    return copies


def question_cells(question: Question, number: int) -> list[NotebookNode]:
    """Make the two cells of a question that a person grades: its text with the hidden rubric, and the answer.

    The rubric is part of the locked cell, so that nbgrader cuts it from what students get, and shows it to the grader and in
    the feedback.
    """
    title = "" if question.text.lstrip().startswith("#") else f"## Exercise {number} · in words\n\n"
    points = "1 point" if question.points == 1 else f"{question.points} points"
    text = f"{title}{question.text.strip()}\n\n*({points}, read by a person)*"
    rubric = f"<!-- BEGIN MARK SCHEME -->\n**What earns points**\n\n{question.rubric.strip()}\n<!-- END MARK SCHEME -->"
    answer = mark_solution(new_markdown_cell(question.answer.strip(), id=f"answer-{number}"), question.name)
    answer.metadata.nbgrader |= {"grade": True, "points": question.points}
    return [lock(new_markdown_cell(f"{text}\n\n{rubric}", id=f"task-{number}"), f"text-{question.name}"), answer]


def nbgrader_marks(grade_id: str, **kind: bool) -> dict:
    """Return nbgrader's metadata for a cell."""
    plain = {"grade": False, "locked": False, "solution": False, "task": False}
    return plain | kind | {"grade_id": grade_id, "schema_version": 3}


def lock(cell: NotebookNode, grade_id: str) -> NotebookNode:
    """Mark a cell as locked: nbgrader restores it before it grades."""
    cell.metadata.nbgrader = NotebookNode(nbgrader_marks(grade_id, locked=True))
    return cell


def mark_solution(cell: NotebookNode, grade_id: str) -> NotebookNode:
    """Mark a cell as a solution, whose text a stub replaces in the copies."""
    cell.metadata.nbgrader = NotebookNode(nbgrader_marks(grade_id, solution=True))
    return cell


def add_fresh_handle(source: str, lesson: str) -> str:
    """Let a check's hidden test begin with a fresh handle on its lesson, in case the notebook rebinds `lesson`."""
    if HIDDEN not in source:
        raise UserError(f"a check without hidden tests: {source.splitlines()[0]}")
    handle = f'from spvit_course.classroom.proctor import proctored\n\nlesson = proctored("{lesson}")\n'
    return source.replace(HIDDEN, HIDDEN + handle, 1)


# The front page ---------------------------------------------------------------------------------------------------------


def front_page(problem_set: ProblemSet, notebook: NotebookNode) -> str:
    """Write the front page: subject, points and minutes, how to hand in, which help is allowed."""
    rows, by_program, by_person = [], 0, 0
    for cell in notebook.cells:
        marks = grading(cell)
        if marks.get("grade"):
            is_read = cell.cell_type == "markdown"
            by_person += marks["points"] * is_read
            by_program += marks["points"] * (not is_read)
            name = marks["grade_id"] if is_read else marks["grade_id"].removeprefix("check-")
            rows.append(f"| {len(rows) + 1} | {name} | {marks['points']} | {'a person' if is_read else 'a check'} |")
    total = [f"{by_program + by_person} points", f"{by_program} from checks"] + [f"{by_person} from people"] * (by_person > 0)
    page = [
        f"# {problem_set.title}",
        f"{problem_set.minutes} minutes · {', '.join(total)} · {problem_set.after}",
        problem_set.about.strip(),
        "\n".join(["| exercise | name | points | graded by |", "|---|---|---|---|", *rows]),
        HAND_IN.format(name=problem_set.name, seconds=CELL_SECONDS),
        INTEGRITY,
    ]
    return "\n\n".join(page)
