"""Badges: a link at the top of each lesson that opens it in Colab or Binder, from a public copy of the repository.

The public repository's address is known only when it is published, so the lessons are stored without badges:
`python -m spvit_course badges OWNER/NAME` writes them. On Colab three lines come before the lesson; they fetch the
repository and what Colab lacks, and leave its torch as it is.
"""

import re
from pathlib import Path

from spvit_mini.errors import UserError

from ..files import require_writable, write_text
from ..lessons import lesson_files, read, text_of

SHIELDS = "https://colab.research.google.com/assets/colab-badge.svg", "https://mybinder.org/badge_logo.svg"
BLOCK = re.compile(r"\n\n\[!\[Open in Colab\].*", re.DOTALL)


def badge_markdown(repository: str, path: Path, *, branch: str) -> str:
    """Return the badges of one lesson, in Markdown, and what to run first on Colab."""
    place = f"{repository}/blob/{branch}/notebooks/{path.name}"
    colab = f"[![Open in Colab]({SHIELDS[0]})](https://colab.research.google.com/github/{place})"
    binder = f"https://mybinder.org/v2/gh/{repository}/{branch}?urlpath=lab/tree/notebooks/{path.name}"
    name = repository.partition("/")[2]
    first = f"!git clone -q --depth 1 -b {branch} https://github.com/{repository}\n%cd {name}\n%pip install -q tyro filelock"
    return (
        f"\n\n{colab} [![Open in Binder]({SHIELDS[1]})]({binder})\n\nOn Colab, run this in a cell of its own first:\n\n"
        f"```\n{first}\n```"
    )


def set_badges(repository: str, *, branch: str = "main", folder: Path | None = None) -> list[Path]:
    """Put the badges of a public repository into all lessons, in place of older ones. Return the lessons' files.

    Raises UserError unless `repository` is of the form OWNER/NAME.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise UserError(f"repository is {repository!r}; expected OWNER/NAME. Use the names in https://github.com/OWNER/NAME")
    files = lesson_files(folder)
    require_writable(files[0].parent)
    for path, notebook in [(path, read(path)) for path in files]:  # all are read before the first is changed
        title = notebook.cells[0]
        title.source = BLOCK.sub("", title.source) + badge_markdown(repository, path, branch=branch)
        write_text(path, text_of(notebook))
    return files
