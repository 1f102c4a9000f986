"""Extensions: Python files or modules of the user's own, which register attentions, maps, recipes or studies.

On the command line `--import my_attention.py package.module` names them. They are imported before the other options are
read, because names of recipes and attentions depend on them. Nothing is imported because a file of weights names it.
"""

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from .errors import UserError


def import_extension(name: str) -> ModuleType:
    """Import a user's file (a path that ends with .py) or module (package.module), once in each process.

    The folder of a file, or the working directory for a module, is put on Python's path, so that it can import its neighbours.
    Raises UserError in one line if it is missing, or with the line in the user's file if importing it fails.
    """
    path = Path(name)
    if path.suffix != ".py" and all(part.isidentifier() for part in name.split(".")):
        return _import_module(name)
    if path.suffix != ".py" or not path.is_file():
        raise UserError(f"--import is {name}; expected an existing Python file (my_attention.py) or a module (package.module)")
    loaded = sys.modules.get(path.stem)
    if loaded is not None:
        if Path(getattr(loaded, "__file__", None) or "").resolve() == path.resolve():
            return loaded
        raise UserError(f"--import is {name}, but another module named {path.stem} is loaded. Rename the file.")
    _add_to_path(str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(path.stem, path.resolve())
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[path.stem]
        raise _failure(name, error, (str(path.resolve()),)) from None
    return module


def import_extensions(names: Iterable[str]) -> None:
    """Import several extensions in their order, such as `Recipe.imports` in a child process."""
    for name in names:
        import_extension(name)


def read_imports(argv: list[str]) -> tuple[tuple[str, ...], list[str]]:
    """Import what `--import X [Y …]` names on a command line; returns the names, and the command line without them."""
    names, rest, is_value = [], [], False
    for word in argv:
        if word == "--import":
            is_value = True
            continue
        if word.startswith("-"):
            is_value = word.startswith("--import=")
        (names if is_value else rest).append(word.removeprefix("--import="))
    if "--import" in argv and not names:
        raise UserError("--import has no value; expected a Python file (my_attention.py) or a module (package.module)")
    import_extensions(names)
    return tuple(names), rest


def _import_module(name: str) -> ModuleType:
    _add_to_path(os.getcwd())
    try:
        return importlib.import_module(name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            raise UserError(f"--import is {name}, and Python finds no module {error.name}; a file ends with .py") from None
        file = os.path.join("", *name.split("."))
        raise _failure(name, error, (f"{file}.py", os.path.join(file, "__init__.py"))) from None


def _add_to_path(folder: str) -> None:
    if folder not in sys.path:
        sys.path.insert(0, folder)


def _failure(name: str, error: Exception, endings: tuple[str, ...]) -> UserError:
    """Report an error that importing an extension raised, with the line in its own file, whose path has one of these endings."""
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        frames.append((error.filename, error.lineno))
    frames = [frame for frame in frames if frame[0] and not frame[0].startswith("<") and frame[0] != __file__]
    where = ([frame for frame in frames if frame[0].endswith(endings)] or frames)[-1:]
    place = "".join(f" in line {line} of {Path(path).name}" for path, line in where)
    reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return UserError(f"--import {name} fails{place}: {reason}")


def check_attention(metadata: dict[str, str], *, source: str | Path) -> None:
    """Raise UserError if weights use an attention that isn't registered, and their metadata name the extension that does it."""
    from .attention_registry import attention_names
    from .renamed import current_attention
    from .weights import read_metadata

    config, imports = (read_metadata(metadata, name, source=source) for name in ("config", "imports"))
    attention = current_attention((config or {}).get("attention", "mhsa"))
    if imports and attention not in attention_names():
        raise UserError(f"{source} uses the attention {attention!r}, which isn't registered; add --import {' '.join(imports)}")
