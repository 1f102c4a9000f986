"""The guard: refuses in a stored lesson what a run of it lets pass, and what breaks a lesson's shape.

`problems(notebook)` looks at the file alone; nothing is run. Tests and `python -m spvit_course execute` print it.
"""

import ast
import re
from collections.abc import Iterator

from nbformat import NotebookNode

from spvit_mini.errors import UserError

from ..lessons import grading, heading, text_of
from .copies import replace_region

LARGEST = 500_000  # bytes of a stored lesson
CELL_LINES, CLASS_LINES = 15, 35  # lines of code in a cell, and in one that defines a class
CHECKED = "nbval-check-output"

# Level-2 headings, in order. "+" may come several times; `In code` and `Exercise` may alternate.
SECTIONS = (
    "You will be able to",
    "The question",
    "The idea",
    "By hand",
    "In code",
    "Exercise",
    "Guess, then look",
    "What we saw",
    "Into the package",
    "Paper, official code, and us",
    "Further questions",
    "References",
)
REPEATED = {"In code", "Exercise"}


def problems(notebook: NotebookNode) -> list[str]:
    """List what is wrong with a stored lesson, a line each; empty if nothing is."""
    return [*file_problems(notebook), *cell_problems(notebook), *exercise_problems(notebook), *anatomy(notebook)]


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


# The file and its outputs ---------------------------------------------------------------------------------------------


def file_problems(notebook: NotebookNode) -> Iterator[str]:
    """Find what is wrong with the file as a whole."""
    size = len(text_of(notebook).encode())
    if size > LARGEST:
        yield f"the file has {size} bytes, more than {LARGEST}"
    kernel = notebook.metadata.get("kernelspec", {}).get("name")
    if kernel != "python3":
        yield f"the kernel is named {kernel!r}, not 'python3'"
    if "widgets" in notebook.metadata:
        yield "the state of widgets is stored in metadata.widgets"
    ids = [cell.get("id") for cell in notebook.cells]
    for name in sorted({str(name) for name in ids if ids.count(name) > 1}):
        yield f"the cell id {name!r} is used more than once"
    counts = [cell.execution_count for cell in code_cells(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        yield f"the execution counts are {counts}, not 1, 2, 3, …: run it from top to bottom in a fresh kernel"


def cell_problems(notebook: NotebookNode) -> Iterator[str]:
    """Find what is wrong within single cells: outputs, pictures, length, things that do not belong in a lesson."""
    for cell in notebook.cells:
        hidden = {"collapsed", "scrolled", "jupyter"} & set(cell.metadata)
        if hidden:
            yield f"{cell.id}: metadata {', '.join(sorted(hidden))} hide a part of the cell"
        if cell.cell_type == "markdown":
            for image in re.findall(r"!\[\s*\]|<img\b[^>]*>", cell.source):
                if not re.search(r"""alt=(["'])\s*\S.*?\1""", image):
                    yield f"{cell.id}: a picture has no alt text"
        if cell.cell_type != "code":
            continue
        if CHECKED in cell.metadata.get("tags", []) and not cell.outputs:
            yield f"{cell.id}: a checked cell without a stored output"
        yield from output_problems(cell)
        yield from source_problems(cell)


def output_problems(cell: NotebookNode) -> Iterator[str]:
    """Find errors, warnings and pictures without words among a cell's stored outputs."""
    for output in cell.outputs:
        if output.output_type == "error":
            yield f"{cell.id}: a stored error, {output.ename}"
        if output.output_type == "stream" and output.name == "stderr":
            yield f"{cell.id}: something on stderr: {output.text.strip()[:60]!r}"
        for kind in output.get("data", {}):
            alt = output.metadata.get(kind, {}).get("alt", "") if "metadata" in output else ""
            if kind.startswith("image/") and not str(alt).strip():
                yield f"{cell.id}: a picture without alt text; show it by lesson.show(figure, alt=…)"
            if kind.startswith("application/vnd.jupyter.widget") and "text/plain" not in output.data:
                yield f"{cell.id}: a widget without a text in its place"


def source_problems(cell: NotebookNode) -> Iterator[str]:
    """Find code that is too long, does not parse, or steps outside Python."""
    lines = [line for line in cell.source.split("\n") if line.strip() and not line.strip().startswith("### ")]
    if not lines:
        yield f"{cell.id}: an empty code cell"
    try:
        tree = ast.parse(cell.source)
    except SyntaxError as error:
        yield f"{cell.id}: no Python: {error.msg} (line {error.lineno}); magics and shell lines do not belong in a lesson"
        return
    most = CLASS_LINES if any(isinstance(node, ast.ClassDef) for node in tree.body) else CELL_LINES
    if len(lines) > most:
        yield f"{cell.id}: {len(lines)} lines of code, more than {most}"
    if any(len(line) > 120 for line in lines):
        yield f"{cell.id}: a line of more than 120 characters"


# Exercises ------------------------------------------------------------------------------------------------------------


def exercise_problems(notebook: NotebookNode) -> Iterator[str]:
    """Find exercises that are not as nbgrader and the checks need them."""
    ids = [grading(cell)["grade_id"] for cell in notebook.cells if grading(cell)]
    for name in sorted({name for name in ids if ids.count(name) > 1}):
        yield f"the grade_id {name!r} is used more than once"
    points = 0
    for cell in notebook.cells:
        marks = grading(cell)
        if marks and marks.get("schema_version") != 3:
            yield f"{cell.id}: nbgrader metadata of schema {marks.get('schema_version')}, not 3"
        if marks.get("grade"):
            points += marks.get("points", 0)
            if cell.cell_type == "code" and "### BEGIN HIDDEN TESTS" not in cell.source:
                yield f"{cell.id}: a graded cell without hidden tests"
        if cell.cell_type != "code":
            yield from written_problems(cell)
            continue
        yield from solution_problems(cell)
    top = heading(notebook)
    if top and top.points != points:
        yield f"the title says {top.points} points, the graded cells give {points}"


def written_problems(cell: NotebookNode) -> Iterator[str]:
    """Find written answers, which are marked by hand, that a copy would give away or that nobody could mark."""
    marks = grading(cell)
    if not marks.get("grade"):
        return
    if not marks.get("solution"):
        yield f"{cell.id}: a graded text that is no solution cell, so its model answer would stay in the copies"
    scheme = sum(int(points) for points in re.findall(r"^- \*\*(\d+) points?\*\*", cell.source, re.MULTILINE))
    if scheme != marks.get("points", 0):
        yield f"{cell.id}: its marking scheme ('- **1 point**: …') gives {scheme} points, the cell {marks.get('points', 0)}"


def solution_problems(cell: NotebookNode) -> Iterator[str]:
    """Find solution regions outside a function's body or outside a solution cell, and solution cells without one."""
    solution = grading(cell).get("solution", False)
    regions = [number for number, line in enumerate(cell.source.split("\n"), start=1) if "### BEGIN SOLUTION" in line]
    if solution and not regions:
        yield f"{cell.id}: a solution cell without a marked region"
    if not solution and regions:
        yield f"{cell.id}: a solution region in a cell that is no solution cell"
    try:
        stub = replace_region(cell.source, "SOLUTION", "raise NotImplementedError()")
        tree, stub_tree = ast.parse(cell.source), ast.parse(stub)
    except (UserError, SyntaxError) as error:
        yield f"{cell.id}: without its solution it is no Python: {error}"
        return
    bodies = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    if any(not any(node.lineno < number <= node.end_lineno + 1 for node in bodies) for number in regions):
        yield f"{cell.id}: a solution region outside a function's body"
    raised = [node for node in ast.walk(stub_tree) if isinstance(node, ast.Raise)]
    if regions and len(raised) < len(regions):
        yield f"{cell.id}: a solution region leaves no stub"


# Anatomy --------------------------------------------------------------------------------------------------------------


def anatomy(notebook: NotebookNode) -> Iterator[str]:
    """Find what is missing from a lesson's shape, or stands in another order."""
    top = heading(notebook)
    if top is None:
        yield "the first cell is no title: '# 00 · Title', then '45 student minutes · 1 run minute · 4 points'"
    if "](notation.md)" not in "".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown"):
        yield "the page of notation is not linked: [notation](notation.md), best in the title cell"
    outside = [cell.id for cell in notebook.cells if cell.cell_type == "markdown" and "](../" in cell.source]
    yield from (f"{name}: a link out of the folder of lessons, which JupyterLab cannot follow" for name in outside)
    sections = sections_of(notebook)
    yield from order_problems([name for name, _ in sections])
    cells_of = {name: [] for name, _ in sections}
    for name, cells in sections:
        cells_of[name] += cells
    codes = code_cells(notebook)
    number = top.number if top else "00"
    if not codes or not is_setup(codes[0].source, number):
        yield f"the first code cell is not the set-up: imports, among them begin of spvit_course, then lesson = begin({number!r})"
    elif codes[0].id not in {cell.id for cell in cells_of.get(SECTIONS[0], [])}:
        yield f"the set-up cell does not follow '{SECTIONS[0]}'"
    elif not any("profile standard" in output.get("text", "") for output in codes[0].outputs):
        yield "the stored outputs are not of the standard profile"
    bullets = re.findall(r"^[-*] ", "\n".join(cell.source for cell in cells_of.get(SECTIONS[0], [])), re.MULTILINE)
    if not 1 <= len(bullets) <= 4:
        yield f"'{SECTIONS[0]}' has {len(bullets)} points, not 1 to 4"
    yield from section_problems(sections, cells_of)


def is_setup(source: str, number: str) -> bool:
    """Return whether a cell holds imports, `begin` among them, and then the call of `begin`, nothing else."""
    try:
        *imports, last = map(ast.unparse, ast.parse(source).body)
    except (SyntaxError, ValueError):
        return False
    only_imports = all(line.startswith(("from ", "import ")) for line in imports)
    return only_imports and "from spvit_course import begin" in imports and last == f"lesson = begin({number!r})"


def sections_of(notebook: NotebookNode) -> list[tuple[str, list[NotebookNode]]]:
    """Split a lesson at its level-2 headings: (name, cells), a name of SECTIONS or the heading as it stands."""
    sections: list[tuple[str, list[NotebookNode]]] = []
    for cell in notebook.cells:
        text = without_code(cell.source) if cell.cell_type == "markdown" else ""
        headings = re.findall(r"^## +(.+)$", text, re.MULTILINE)
        for title in headings:
            sections.append((next((name for name in SECTIONS if title.startswith(name)), title), [cell]))
        if sections and not headings:
            sections[-1][1].append(cell)
    return sections


def without_code(source: str) -> str:
    """Drop fenced code from a Markdown text: its comments are no headings."""
    return re.sub(r"^```.*?^```", "", source, flags=re.MULTILINE | re.DOTALL)


def order_problems(names: list[str]) -> Iterator[str]:
    """Find sections that are missing, unknown, repeated or out of order."""
    yield from (f"the section '{name}' is missing" for name in SECTIONS if name not in names)
    yield from (f"an unknown section '{name}'" for name in names if name not in SECTIONS)
    yield from (
        f"the section '{name}' comes {names.count(name)} times"
        for name in SECTIONS
        if names.count(name) > 1 and name not in REPEATED
    )
    places = [SECTIONS.index("In code" if name in REPEATED else name) for name in names if name in SECTIONS]
    if places != sorted(places):
        yield f"the sections are out of order: {', '.join(names)}"


def section_problems(sections: list[tuple[str, list[NotebookNode]]], cells_of: dict[str, list[NotebookNode]]) -> Iterator[str]:
    """Find sections without what belongs in them."""
    for name, cells in sections:
        if name == "Exercise":
            kinds = [grading(cell) for cell in cells]
            if not any(kind.get("solution") for kind in kinds):
                yield f"{cells[0].id}: an exercise without a solution cell"
            if not any(kind.get("grade") or kind.get("task") for kind in kinds):
                yield f"{cells[0].id}: an exercise without a graded check"
    experiment = cells_of.get("Guess, then look", [])
    if experiment and not any(
        "image/png" in output.get("data", {}) for cell in experiment for output in cell.get("outputs", [])
    ):
        yield "the experiment shows no picture"
    for name, pattern, what in (
        ("What we saw", r"\bnot\W+show", "a word on what was not shown ('not show')"),
        ("Paper, official code, and us", r"^\|.*\|", "a table"),
        ("References", r"^[-*\d]", "a list"),
    ):
        text = "\n".join(cell.source for cell in cells_of.get(name, []))
        if text and not re.search(pattern, text, re.MULTILINE):
            yield f"the section '{name}' lacks {what}"
