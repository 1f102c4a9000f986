"""Files of the course: the checkout that has the lessons, and text files, written atomically."""

from pathlib import Path

from spvit_mini.errors import UserError
from spvit_mini.files import atomic_write

ROOT = Path(__file__).resolve().parents[1]  # the repository, if the package runs from a checkout


def lesson_files(folder: Path | None = None) -> list[Path]:
    """List the lessons' notebooks in order. Raises UserError if there are none: a wheel has no notebooks."""
    folder = folder or ROOT / "notebooks"
    files = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not files:
        raise UserError(
            f"no lessons are in {folder}; expected the folder notebooks of a checkout. Get the project's repository, install the "
            "package from it with `python -m pip install --editable .[lab]`, and run the command there"
        )
    return files


def write_text(path: Path, text: str) -> None:
    """Write a text file in one step: a reader sees the old or the new text, never a part of it."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
