"""Links from lesson to lesson: a line below the title and one at the end, made from the lessons that are there.

`python -m spvit_course links` writes them. They are relative, so that they lead from copy to copy in JupyterLab and
from page to page on GitHub. Colab follows no relative link: where a lesson has its badge (`badges` wrote it, so that the
repository's address is known), the line ends with links that open the neighbours there.

With `--progress`, lessons that do not yet end with a cell `lesson.progress()` get one; `execute` stores its output.
"""

import re
from pathlib import Path

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

from spvit_mini.errors import UserError

from ..lessons import COUNTS, Heading, heading, lesson_files, read, text_of, write

NAME, FILE = r"\d\d (?:\\.|[^\]\\\n])+", r"\(\d\d_[^)\s]+\.ipynb\)"
BACK, ON = rf"\[← {NAME}\]{FILE}", rf"\[{NAME} →\]{FILE}"
LINE = re.compile(rf"\n*^(?:{BACK}(?: · {ON})?|{ON})(?: · on Colab: [^\n]*)?$", re.MULTILINE)
COLAB = re.compile(r"\(https://colab\.research\.google\.com/github/([\w.-]+/[\w.-]+/blob/[^\s)]+/)[^/\s)]+\.ipynb\)")
SHOWN = "lesson.progress()"


def line(before: tuple[Path, Heading] | None, after: tuple[Path, Heading] | None, colab: str | None) -> str:
    """Write the line of a lesson between two others; `colab` is where Colab finds their folder."""
    places = []
    if before:
        places.append(f"[← {name(before[1])}]({before[0].name})")
    if after:
        places.append(f"[{name(after[1])} →]({after[0].name})")
    if colab and places:
        there = f"https://colab.research.google.com/github/{colab}"
        ways = [f"[← {before[1].number}]({there}{before[0].name})"] if before else []
        ways += [f"[{after[1].number} →]({there}{after[0].name})"] if after else []
        places.append("on Colab: " + ", ".join(ways))
    return " · ".join(places)


def name(top: Heading) -> str:
    """Name a lesson in a link's text."""
    return f"{top.number} " + re.sub(r"([\[\]])", r"\\\1", top.title)


def set_line(notebook: NotebookNode, text: str) -> None:
    """Put the line below a lesson's title and at its end, in place of older ones. "" takes them away."""
    title, last = notebook.cells[0], notebook.cells[-1]
    if last.cell_type == "code" and text:
        last = new_markdown_cell("", id="next")
        notebook.cells.append(last)
    for cell in (title, last):
        cell.source = LINE.sub("", cell.source)
    if text:
        at = COUNTS.search(title.source).end()
        end = title.source.find("\n", at)
        end = len(title.source) if end < 0 else end
        title.source = f"{title.source[:end]}\n\n{text}{title.source[end:]}"
        last.source = f"{last.source.rstrip()}\n\n{text}".lstrip()


def add_progress(notebook: NotebookNode) -> None:
    """End a lesson with the cell that shows progress, unless it has one; it has no output before it is run."""
    if not any(cell.cell_type == "code" and cell.source.strip() == SHOWN for cell in notebook.cells):
        notebook.cells[-1].source = LINE.sub("", notebook.cells[-1].source)
        notebook.cells.append(new_code_cell(SHOWN, id="progress"))


def set_links(folder: Path | None = None, *, progress: bool = False, dry: bool = False) -> list[Path]:
    """Write or refresh the links of all lessons. Returns those that changed; with `dry`, that would change.

    Nothing else of a lesson changes, and no output. Raises UserError for a lesson without a title cell.
    """
    files = lesson_files(folder)
    notebooks = [read(path) for path in files]
    tops = [heading(notebook) for notebook in notebooks]
    for path, top in zip(files, tops, strict=True):
        if top is None:
            raise UserError(f"{path.name} has no title cell; `execute` says what one looks like")
    named = list(zip(files, tops, strict=True))
    changed = []
    for place, (path, notebook) in enumerate(zip(files, notebooks, strict=True)):
        before = text_of(notebook)
        if progress:
            add_progress(notebook)
        found = COLAB.search(notebook.cells[0].source.partition("[![Open in Colab]")[2])
        neighbours = [named[at] if 0 <= at < len(named) else None for at in (place - 1, place + 1)]
        set_line(notebook, line(*neighbours, found and found[1]))
        if text_of(notebook) != before:
            changed.append(path)
            if not dry:
                write(path, text_of(notebook))
    return changed


def has_links(folder: Path | None = None) -> bool:
    """Tell whether any lesson has its line already."""
    return any(LINE.search(read(path).cells[0].source) for path in lesson_files(folder))
