"""What happens to lessons and to a folder of copies, for the tests of copies: newer lessons, a student's work."""

import nbformat

from spvit_course.classroom.copies import MANIFEST
from spvit_course.lessons import read, text_of


def change(path, text="A new word."):
    """Bring out a newer form of a lesson."""
    notebook = read(path)
    notebook.cells[3].source += f"\n\n{text}"
    path.write_text(text_of(notebook), encoding="utf-8")


def work_on(path, text):
    """Do what a student does: write into a cell and save."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[-1].source += f"\n\n{text}"
    nbformat.write(notebook, path)
    return path.read_bytes()


def names(folder):
    """List the files of a folder of copies."""
    return sorted(path.name for path in folder.iterdir() if path.name != MANIFEST)
