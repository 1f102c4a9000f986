"""The course as web pages, from the stored lessons: to be read from a folder, without a server and without the network.

Lessons, notation, the README and the pages in docs/ are gathered as they lie in the repository, so that links between
them hold, and Sphinx makes the pages; docs/site/conf.py says how. No notebook is run. Of an exercise a page shows what a
student gets, and folded up below it the solution.
"""

import base64
import json
import re
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

from nbformat import NotebookNode

from spvit_mini.errors import UserError

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
    """Build the pages into a folder, in place of older ones. Returns the front page.

    Raises UserError where Sphinx is missing, where the folder holds anything but such pages, and for what Sphinx warns of.
    """
    out = out or OUT
    for name in NEEDED:
        if find_spec(name) is None:
            raise UserError(f"{name} is not installed; `python -m pip install --editable .[site]` brings it")
    if out.exists() and not (out / ".buildinfo").is_file() and (out.is_file() or any(out.iterdir())):
        raise UserError(f"{out} holds other things than these pages; name another folder with --out")
    from sphinx.cmd.build import build_main

    with tempfile.TemporaryDirectory() as temporary:
        source, kept, made = (Path(temporary) / name for name in ("source", "kept", "made"))
        gather(source)
        if build_main(["-q", "-W", "--keep-going", "-c", str(CONFIGURATION), "-d", str(kept), str(source), str(made)]):
            raise UserError("no pages were made; Sphinx says above why")
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(made, out)
    return out / "index.html"


def gather(source: Path) -> None:
    """Put all that becomes pages into a folder, each file where it lies in the repository."""
    lessons = lesson_files()
    pages = [ROOT / "README.md", *(page for name in ("notebooks", "data") for page in (ROOT / name).glob("*.md"))]
    pages += [page for page in (ROOT / "docs").rglob("*.md") if page.parent != CONFIGURATION]
    figures = list((ROOT / "docs").rglob("*.png"))
    there = {*lessons, *pages, *figures}

    def place(path: Path) -> Path:
        new = source / path.relative_to(ROOT)
        new.parent.mkdir(parents=True, exist_ok=True)
        return new

    for path in figures:
        shutil.copy(path, place(path))
    for path in pages:
        # What is no page here, such as a program's source, is named and not linked.
        linked = LINK.sub(lambda link, at=path.parent: link[0] if (at / link[2]).resolve() in there else link[1], text(path))
        place(path).write_text(linked, encoding="utf-8")
    pictures = {}
    for path in lessons:
        notebook = lesson_page(read(path))
        pictures |= {cell.id: move_pictures(cell, place(path).with_suffix("")) for cell in notebook.cells}
        place(path).write_text(text_of(notebook), encoding="utf-8")
    (source / "index.md").write_text(text(CONFIGURATION / "index.md").replace("STORY", pictures[STORY]), encoding="utf-8")


def lesson_page(lesson: NotebookNode) -> NotebookNode:
    """Show of each exercise what a student gets and then, folded up, the solution; of each check what is not hidden."""
    cells = []
    for solved, handed_out in zip(lesson.cells, student_copy(lesson).cells, strict=True):
        if not grading(solved).get("solution"):
            solved.source = handed_out.source
        else:
            handed_out.id = f"asked-{solved.id}"
            cells.append(handed_out)
            solved.source = re.sub(r"^ *### (BEGIN|END) SOLUTION\n?", "", solved.source, flags=re.MULTILINE).rstrip()
            if solved.cell_type == "code":
                solved.metadata |= SOLUTION
            else:
                solved.source = ANSWER.format(solved.source)
        cells.append(solved)
    lesson.cells = cells
    return lesson


def move_pictures(cell: NotebookNode, folder: Path) -> str:
    """Put the pictures of a cell into files, and in their place Markdown with their words. Returns the last Markdown."""
    shown = ""
    for number, output in enumerate(cell.get("outputs", [])):
        if "image/png" not in output.get("data", {}):
            continue
        folder.mkdir(exist_ok=True)
        file = folder / f"{cell.id}-{number}.png"
        file.write_bytes(base64.b64decode(output.data["image/png"]))
        told = output.metadata.get("image/png", {})
        alt = json.dumps(told.get("alt", ""), ensure_ascii=False)
        shown = PICTURE.format(place=f"{folder.parent.name}/{folder.name}/{file.name}", alt=alt, width=told.get("width", ""))
        output.data = NotebookNode({"text/markdown": shown})
    return shown


def text(path: Path) -> str:
    """Read a page."""
    return path.read_text(encoding="utf-8")
