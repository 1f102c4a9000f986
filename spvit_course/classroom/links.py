"""Links from lesson to lesson: a line below the title and one at the end, made from the lessons that are there.

`python -m spvit_course links` writes them. They are relative, so that they lead from copy to copy in JupyterLab and
from page to page on GitHub. Colab follows no relative link: where a lesson has its badge (`badges` wrote it, so that the
repository's address is known), the line ends with links that open the neighbours there.

`--progress` adds a cell `lesson.progress()` to the end of lessons that lack it; `execute` stores its output.
"""

import re
from pathlib import Path

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

from ..files import write_text
from ..lessons import COUNTS, Heading, lesson_files, read, require_heading, text_of

NAME, FILE = r"\d\d (?:\\.|[^\]\\\n])+", r"\(\d\d_[^)\s]+\.ipynb\)"
BACK, ON = rf"\[← {NAME}\]{FILE}", rf"\[{NAME} →\]{FILE}"
LINE = re.compile(rf"\n*^(?:{BACK}(?: · {ON})?|{ON})(?: · on Colab: [^\n]*)?$", re.MULTILINE)
COLAB = re.compile(r"\(https://colab\.research\.google\.com/github/([\w.-]+/[\w.-]+/blob/[^\s)]+/)[^/\s)]+\.ipynb\)")
SHOWN = "lesson.progress()"


def link_line(before: tuple[Path, Heading] | None, after: tuple[Path, Heading] | None, colab: str | None) -> str:
    """Write the line of links to the two neighbours of a lesson; `colab` is the address of their folder on Colab."""
    parts = []
    if before:
        parts.append(f"[← {link_text(before[1])}]({before[0].name})")
    if after:
        parts.append(f"[{link_text(after[1])} →]({after[0].name})")
    if colab and parts:
        folder = f"https://colab.research.google.com/github/{colab}"
        links = [f"[← {before[1].number}]({folder}{before[0].name})"] if before else []
        links += [f"[{after[1].number} →]({folder}{after[0].name})"] if after else []
        parts.append("on Colab: " + ", ".join(links))
    return " · ".join(parts)


def link_text(top: Heading) -> str:
    """Return a lesson's number and title, escaped for a link."""
    return f"{top.number} " + re.sub(r"([\[\]])", r"\\\1", top.title)


def set_line(notebook: NotebookNode, text: str) -> None:
    """Put the line below a lesson's title and at its end, in place of older ones. An empty text removes them."""
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
    """End a lesson with the cell that shows progress, unless it has one; its output comes with the next run."""
    if not any(cell.cell_type == "code" and cell.source.strip() == SHOWN for cell in notebook.cells):
        notebook.cells[-1].source = LINE.sub("", notebook.cells[-1].source)
        notebook.cells.append(new_code_cell(SHOWN, id="progress"))


def set_links(folder: Path | None = None, *, progress: bool = False, dry: bool = False) -> list[Path]:
    """Write or refresh the links of all lessons. Return the files that changed; with `dry`, that would change.

    Nothing else of a lesson changes, nor any output. Raises UserError for a lesson without a title cell.
    """
    files = lesson_files(folder)
    notebooks = [read(path) for path in files]
    tops = [(path, require_heading(path, notebook)) for path, notebook in zip(files, notebooks, strict=True)]
    changed = []
    for path, notebook, *neighbours in zip(files, notebooks, [None, *tops[:-1]], [*tops[1:], None], strict=True):
        before = text_of(notebook)
        if progress:
            add_progress(notebook)
        colab = COLAB.search(notebook.cells[0].source.partition("[![Open in Colab]")[2])
        set_line(notebook, link_line(*neighbours, colab and colab[1]))
        if text_of(notebook) != before:
            changed.append(path)
            if not dry:
                write_text(path, text_of(notebook))
    return changed


def has_links(folder: Path | None = None) -> bool:
    """Return whether any lesson has its line of links."""
    return any(LINE.search(read(path).cells[0].source) for path in lesson_files(folder))
