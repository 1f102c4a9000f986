"""Files of the course: the checkout that has the lessons, and its text files, written in one step."""

import tempfile
from pathlib import Path

from spvit_mini.errors import UserError
from spvit_mini.files import write_text as write_text

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


def require_writable(folder: Path) -> None:
    """Raise UserError if no file can be written into a folder, or into the nearest folder above it that exists."""
    place = next(above for above in (folder, *folder.absolute().parents) if above.exists())
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(bytes(4096))
    except OSError as error:
        raise UserError(f"{place} cannot be written ({error.strerror}). Use a different folder, or free some space") from None
