"""Atomic writes, by which a file is complete under its name or not there at all; texts in UTF-8; digests; names."""

import csv
import hashlib
import io
import os
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from .errors import UserError


@contextmanager
def atomic_write(path: Path, *, backup: Path | None = None) -> Iterator[Path]:
    """Write a file atomically: yield a temporary path, bring what is written there to the disk, and rename it to `path`.

    A file that was at `path` before is kept as `backup`, if given. Raises UserError if writing fails, for example on a full
    disk; the file at `path` is then unchanged.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            mode = os.fstat(file.fileno()).st_mode
        yield temporary
        os.chmod(temporary, mode)  # safetensors creates files that only their owner can read
        with open(temporary, "r+b") as file:
            os.fsync(file.fileno())  # otherwise the rename could reach the disk before the content does
        if backup is not None and path.exists():
            os.replace(path, backup)
        os.replace(temporary, path)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors report a full disk by their own errors
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        if path.parent.is_dir():
            temporary.unlink(missing_ok=True)
        raise UserError(f"{path} could not be written ({reason}); what was saved before is untouched") from error
    except BaseException:  # such as Ctrl-C
        temporary.unlink(missing_ok=True)
        raise


def digest(parts: Iterable[Any]) -> str:
    """Compute the digest of texts, bytes and arrays in this order: 12 hexadecimal digits, the same on every machine."""
    hashed = hashlib.sha256()
    for part in parts:
        content = memoryview(part.encode(errors="surrogateescape") if isinstance(part, str) else part).cast("B")
        hashed.update(len(content).to_bytes(8, "little"))  # ("ab", "c") differs from ("a", "bc")
        hashed.update(content)
    return hashed.hexdigest()[:12]


def read_start(path: str) -> bytes:
    """Read the first 64 KiB of a file; nothing if it can't be read."""
    with suppress(OSError), open(path, "rb") as file:
        return file.read(2**16)
    return b""


def write_text(path: Path, text: str) -> None:
    """Write a text atomically, in UTF-8. Names that are no UTF-8 on disk are written with escapes."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))


def write_csv(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    """Write rows to a CSV file, as `write_text` does."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    write_text(path, text.getvalue())


def compose(name: str) -> str:
    """Compose the characters of a name (Unicode NFC), so that it equals the same name from macOS, in decomposed characters."""
    return unicodedata.normalize("NFC", name)
