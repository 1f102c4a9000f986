"""Atomic writes: a file is complete under its name, or not there at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
