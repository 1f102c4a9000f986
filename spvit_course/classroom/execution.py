"""Running notebooks: the stored lessons in the standard profile, and copies in tests."""

import os
import sys
from pathlib import Path

from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from nbformat import NotebookNode

from spvit_mini.errors import UserError

from ..files import require_writable, write_text
from ..lessons import ROOT, read, text_of

CELL_SECONDS = 600  # no cell of a lesson may take longer
WIDGET = "application/vnd.jupyter.widget-view+json"


def run_notebook(
    notebook: NotebookNode, folder: Path, *, profile: str, allow_errors: bool = False, cell_seconds: int = CELL_SECONDS
) -> NotebookNode:
    """Run a notebook's cells from top to bottom in a fresh kernel, in place, and return it.

    `folder` is the kernel's working directory. The kernel is this very Python, and imports this very package.
    """
    client = NotebookClient(
        notebook, timeout=cell_seconds, kernel_name="python3", allow_errors=allow_errors, coalesce_streams=True,
        extra_arguments=["--IPKernelApp.log_level=40"],  # no warnings of the kernel's own on the terminal
        resources={"metadata": {"path": str(folder)}},
    )  # fmt: skip
    client.execute(env=kernel_environment() | {"SPVIT_PROFILE": profile})
    return notebook


def kernel_environment() -> dict[str, str]:
    """Return the environment in which kernels find this Python before a user's other ones, and this package."""
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    paths = [str(ROOT), *(path for path in paths if path and path != str(ROOT))]
    return os.environ | {"JUPYTER_PREFER_ENV_PATH": "1", "PYTHONPATH": os.pathsep.join(paths)}


def execute_lesson(path: Path, *, profile: str = "standard") -> list[str]:
    """Run a stored lesson, and store its outputs if no cell failed. Return the problems that the guard lists."""
    from .lint import problems

    notebook = read(path)
    require_writable(path.parent)
    try:
        run_notebook(notebook, path.parent, profile=profile)
    except CellExecutionError as error:
        print(error, file=sys.stderr)
        raise UserError(f"a cell of {path.name} failed (see above); the file was left as it was") from None
    except CellTimeoutError:
        raise UserError(f"a cell of {path.name} ran longer than {CELL_SECONDS} s; the file was left as it was") from None
    tidy(notebook)
    write_text(path, text_of(notebook))
    return problems(notebook)


def tidy(notebook: NotebookNode) -> None:
    """Drop what differs between machines or runs and has no reader: times, versions, widgets."""
    notebook.metadata = NotebookNode(
        kernelspec={"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        language_info={"name": "python"},
    )
    for cell in notebook.cells:
        for key in ("execution", "collapsed", "scrolled", "lines_to_next_cell"):
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":  # a widget without its kernel is an error message in the reader's browser
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
