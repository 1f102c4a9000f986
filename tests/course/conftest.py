"""A small whole lesson, made by hand, for the tests of what handles lessons."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from spvit_course.lessons import text_of

SETUP = 'from spvit_course import begin\n\nlesson = begin("00")'

SOLUTION = '''def patchify(image, p):
    """Cut an image (channels, rows·p, columns·p) into tokens (rows·columns, channels·p·p)."""
    channels, height, width = image.shape
    ### BEGIN SOLUTION
    cut = image.reshape(channels, height // p, p, width // p, p)
    return cut.permute(1, 3, 0, 2, 4).reshape(-1, channels * p * p)
    ### END SOLUTION'''

CHECK = """lesson.check(patchify)
### BEGIN HIDDEN TESTS
lesson.check(patchify, grade=True)
### END HIDDEN TESTS"""

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="


def nbgrader(grade_id: str, *, points: int | None = None) -> dict:
    """Make the metadata of a solution cell, or with points of a graded one."""
    grade = points is not None
    marks = {
        "grade": grade,
        "grade_id": grade_id,
        "locked": grade,
        "schema_version": 3,
        "solution": not grade,
        "task": False,
    }
    return {"nbgrader": marks | ({"points": points} if grade else {})}


def text(stdout: str):
    return new_output("stream", name="stdout", text=stdout)


COUNTS = "5 student minutes · 1 run minute · 2 points"


@pytest.fixture
def lesson() -> nbformat.NotebookNode:
    """A lesson that the guard has nothing to say about. Its outputs were written by hand."""
    cells = [
        new_markdown_cell(f"# 00 · A small lesson\n\n{COUNTS} · [notation](notation.md)", id="title"),
        new_markdown_cell("## You will be able to\n\n- cut an image", id="goals"),
        new_code_cell(SETUP, id="setup", outputs=[text("Lesson 00, profile standard, on cpu\n")]),
        new_markdown_cell("## The question\n\nWhere does a pixel go?", id="question"),
        new_markdown_cell("## The idea\n\n```\n## no heading\n```\n![two patches](attachment:a.png)", id="idea"),
        new_markdown_cell("## By hand", id="hand"),
        new_code_cell("2 * 2", id="count", metadata={"tags": ["nbval-check-output"]},
                      outputs=[new_output("execute_result", {"text/plain": "4"}, execution_count=2)]),
        new_markdown_cell("## In code", id="code"),
        new_markdown_cell("## Exercise 1 · patchify", id="exercise"),
        new_code_cell(SOLUTION, id="solution-patchify", metadata=nbgrader("patchify")),
        new_code_cell(CHECK, id="check-patchify",
                      metadata=nbgrader("check-patchify", points=2) | {"tags": ["nbval-check-output"]},
                      outputs=[text("PASS patchify: 8 shapes, float32 stays float32, gradients\n")]),
        new_markdown_cell("## Guess, then look\n\nWhat will it be?", id="guess"),
        new_code_cell(
            "import matplotlib.pyplot as plt\n\nlesson.show(plt.figure(figsize=(1, 1)), alt='A white square.')",
            id="experiment",
            outputs=[new_output("display_data", {"image/png": PIXEL, "text/plain": "A white square."},
                                metadata={"image/png": {"alt": "A white square."}})],
        ),
        new_markdown_cell("## What we saw\n\nA square. We did not show a circle.", id="saw"),
        new_markdown_cell("## Into the package", id="package"),
        new_markdown_cell("## Paper, official code, and us\n\n| a | b |\n|---|---|\n| c | d |", id="table"),
        new_markdown_cell("## Further questions", id="further"),
        new_markdown_cell("## References\n\n- none", id="references"),
    ]  # fmt: skip
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    notebook = new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})
    notebook.nbformat_minor = 5
    for count, cell in enumerate((cell for cell in cells if cell.cell_type == "code"), start=1):
        cell.execution_count = count
    nbformat.validate(notebook)
    return notebook


@pytest.fixture
def source(tmp_path, lesson):
    """A file with the lesson."""
    path = tmp_path / "notebooks" / "00_small.ipynb"
    path.parent.mkdir()
    path.write_text(text_of(lesson), encoding="utf-8")
    return path
