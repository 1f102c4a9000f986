"""The course as web pages, from the stored lessons. The pages need no server and no network.

Lessons, notation, the README and the pages in docs/ are copied as they lie in the repository, so that links between them
hold, and Sphinx makes the pages, configured by docs/site/conf.py. No notebook is run. A page shows what a student gets of an
exercise, and the solution folded up below it.
"""

import base64
import json
import re
import shutil
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from nbformat import NotebookNode

from spvit_mini.errors import UserError

from ..files import require_writable
from ..lessons import ROOT, grading, lesson_files, read, text_of
from .copies import student_copy

OUT = ROOT / "build" / "site"
CONFIGURATION = ROOT / "docs" / "site"
NEEDED = ("sphinx", "myst_nb", "furo", "latex2mathml")
STORY = "saw-story-figure"  # the cell whose picture sums up the course: the front page shows it
ANSWER = "<details><summary>Show an answer</summary>\n\n{}\n\n</details>"
SOLUTION = {"mystnb": {"code_prompt_show": "Show a solution", "code_prompt_hide": "Hide the solution"}, "tags": ["hide-input"]}
PICTURE = "```{{image}} /{place}\n:alt: {alt}\n:width: {width}px\n```"
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!http|#)([^)#\s]+)[^)\s]*\)")


def build_site(out: Path | None = None) -> Path:
    """Build the pages into a folder, in place of older ones. Return the front page.

    Raises UserError if Sphinx is not installed, if the folder holds anything but such pages, and for each warning of Sphinx.
    """
    lessons, out = lesson_files(), out or OUT
    for name in NEEDED:
        if find_spec(name) is None:
            raise UserError(f"{name} is not installed; `python -m pip install --editable .[site]` brings it")
    if out.exists() and not (out / ".buildinfo").is_file() and (out.is_file() or any(out.iterdir())):
        raise UserError(f"{out} holds other things than these pages. Use a different folder: --out FOLDER")
    require_writable(out.parent)
    require_writable(out)
    from sphinx.cmd.build import build_main

    try:
        with tempfile.TemporaryDirectory() as temporary:
            source, cache, html = (Path(temporary) / name for name in ("source", "cache", "html"))
            copy_sources(source, lessons)
            if build_main(["-q", "-W", "--keep-going", "-c", str(CONFIGURATION), "-d", str(cache), str(source), str(html)]):
                raise UserError("no pages were made; Sphinx says above why")
            out.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=out.parent, prefix=".site-") as beside:  # older pages stay until all are here
                shutil.copytree(html, Path(beside) / "new")
                if out.exists():
                    out.rename(Path(beside) / "old")
                (Path(beside) / "new").rename(out)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"the pages cannot be written into {out} ({reason}). Use a different folder: --out FOLDER") from None
    return out / "index.html"


def copy_sources(source: Path, lessons: Sequence[Path]) -> None:
    """Copy all files that become pages into a folder, each to its place in the repository."""
    pages = [ROOT / "README.md", *(page for name in ("notebooks", "data") for page in (ROOT / name).glob("*.md"))]
    pages += [page for page in (ROOT / "docs").rglob("*.md") if page.parent != CONFIGURATION]
    figures = list((ROOT / "docs").rglob("*.png"))
    targets = {*lessons, *pages, *figures}

    def destination(path: Path) -> Path:
        new = source / path.relative_to(ROOT)
        new.parent.mkdir(parents=True, exist_ok=True)
        return new

    for path in figures:
        shutil.copy(path, destination(path))
    for path in pages:
        # A link to what has no page here, such as a program's source, becomes plain text.
        text = path.read_text(encoding="utf-8-sig")
        text = LINK.sub(lambda link, at=path.parent: link[0] if (at / link[2]).resolve() in targets else link[1], text)
        destination(path).write_text(text, encoding="utf-8")
    figures_by_cell = {}
    for path in lessons:
        notebook = lesson_page(read(path))
        figures_by_cell |= {cell.id: move_figures(cell, destination(path).with_suffix("")) for cell in notebook.cells}
        destination(path).write_text(text_of(notebook), encoding="utf-8")
    front = (CONFIGURATION / "index.md").read_text(encoding="utf-8-sig").replace("STORY", figures_by_cell[STORY])
    (source / "index.md").write_text(front, encoding="utf-8")


def lesson_page(lesson: NotebookNode) -> NotebookNode:
    """Change a lesson into its page: each exercise as a student gets it, then its solution folded up; no hidden tests."""
    cells = []
    for cell, stub in zip(lesson.cells, student_copy(lesson).cells, strict=True):
        if not grading(cell).get("solution"):
            cell.source = stub.source
        else:
            stub.id = f"asked-{cell.id}"
            cells.append(stub)
            cell.source = re.sub(r"^ *### (BEGIN|END) SOLUTION\n?", "", cell.source, flags=re.MULTILINE).rstrip()
            if cell.cell_type == "code":
                cell.metadata |= SOLUTION
            else:
                cell.source = ANSWER.format(cell.source)
        cells.append(cell)
    lesson.cells = cells
    return lesson


def move_figures(cell: NotebookNode, folder: Path) -> str:
    """Move the figures of a cell into files, and put Markdown with their alt text in their place. Return the last Markdown."""
    markdown = ""
    for number, output in enumerate(cell.get("outputs", [])):
        if "image/png" not in output.get("data", {}):
            continue
        folder.mkdir(exist_ok=True)
        file = folder / f"{cell.id}-{number}.png"
        file.write_bytes(base64.b64decode(output.data["image/png"]))
        metadata = output.metadata.get("image/png", {})
        alt = json.dumps(metadata.get("alt", ""), ensure_ascii=False)
        place = f"{folder.parent.name}/{folder.name}/{file.name}"
        markdown = PICTURE.format(place=place, alt=alt, width=metadata.get("width", ""))
        output.data = NotebookNode({"text/markdown": markdown})
    return markdown
