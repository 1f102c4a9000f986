"""Text files, written atomically."""

from pathlib import Path

from spvit_mini.files import atomic_write


def write_text(path: Path, text: str) -> None:
    """Write a text file in one step: a reader sees the old or the new text, never a part of it."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
