"""Extensions: Python files or modules of the user's own, which register attentions, maps, recipes or studies.

On the command line `--import my_attention.py package.module` names them. They are imported before the other options are
read, because names of recipes and attentions depend on them. Nothing is imported because a file of weights names it.
"""

import importlib
import os
import re
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from .errors import UserError
from .files import digest

INSTALLED = ("site-packages", "dist-packages")  # folders of packages whose code is not compared
EXPECTED = "expected an existing Python file (my_attention.py) or a module (package.module)"


def import_extension(name: str) -> ModuleType:
    """Import a user's file (a path that ends with .py) or module (package.module), once in each process.

    The folder of a file, or the working directory for a module, is put on Python's path, so that it can import its neighbours.
    Raises UserError in one line if it is missing, or with the line in the user's file if importing it fails.
    """
    path, module_name, folder = Path(name).resolve(), name, os.getcwd()
    if is_file := path.suffix == ".py" or not all(part.isidentifier() for part in name.split(".")):
        if path.suffix != ".py" or not path.is_file():
            raise UserError(f"--import is {name}; {EXPECTED}")
        module_name, folder = path.stem, str(path.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{module_name}.".startswith(f"{error.name}."):
            raise UserError(f"--import is {name}, but Python finds no module {error.name}; {EXPECTED}") from None
        raise _failure(name, module_name, error) from None
    if is_file and Path(getattr(module, "__file__", None) or "").resolve() != path:
        raise UserError(f"--import is {name}, but another module has the name {module_name}. Rename the file.")
    return module


def import_extensions(names: Iterable[str]) -> None:
    """Import several extensions in their order, such as `Recipe.imports` in a child process."""
    for name in names:
        import_extension(name)


def fingerprint_extensions(names: Iterable[str]) -> str:
    """Fingerprint the code of extensions: their files or packages, and what they import from beside these.

    A file that describes studies alone, with spvit_experiments and without spvit_mini, is left out: another arm changes no run.
    """
    pending: list[Path] = []
    codes: dict[Path, bytes] = {}
    for module in map(import_extension, names):
        file, depth = Path(module.__file__ or ""), module.__name__.count(".") + hasattr(module, "__path__")
        pending += file.parents[depth - 1].rglob("*.py") if depth else [file]
    while pending:
        path = pending.pop()
        if path not in codes and path.is_file():
            codes[path] = path.read_bytes()
            imports = b" ".join(re.findall(rb"(?m)^\s*(?:from|import)\s.*", codes[path]))
            for word in re.findall(rb"\w+", imports) if path.parent.name not in INSTALLED else ():
                package = path.with_name(word.decode())
                is_package = not word.startswith(b"spvit_") and (package / "__init__.py").is_file()
                pending += [package.with_suffix(".py"), *(package.rglob("*.py") if is_package else ())]
    kept = {code for code in codes.values() if b"spvit_experiments" not in code or b"spvit_mini" in code}
    return f"code {digest(sorted(kept))}"


def read_imports(argv: list[str]) -> tuple[tuple[str, ...], list[str]]:
    """Import what `--import X [Y …]` names on a command line; returns the names, and the command line without them."""
    names: list[str] = []
    rest: list[str] = []
    is_value = False
    for word in argv:
        if word == "--import":
            is_value = True
            continue
        if word.startswith("-"):
            is_value = word.startswith("--import=")
        (names if is_value else rest).append(word.removeprefix("--import="))
    if "--import" in argv and not names:
        raise UserError(f"--import has no value; {EXPECTED}")
    import_extensions(names)
    return tuple(names), rest


def _failure(name: str, module_name: str, error: Exception) -> UserError:
    """Report an error that importing an extension raised, with the last line in its own file, or else anywhere."""
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        frames.append((error.filename or "<", error.lineno))
    frames = [frame for frame in frames if not frame[0].startswith("<") and frame[0] != __file__]
    file = os.path.join("", *module_name.split("."))
    own = [frame for frame in frames if frame[0].endswith((f"{file}.py", os.path.join(file, "__init__.py")))]
    where = "".join(f" in line {line} of {Path(path).name}" for path, line in (own or frames)[-1:])
    reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return UserError(f"--import {name} fails{where}: {reason}")


def check_attention(metadata: dict[str, str], *, source: str | Path) -> None:
    """Raise UserError if weights use an attention that isn't registered, and their metadata name the extension that does it."""
    from .attention_registry import attention_names
    from .renamed import current_attention
    from .weights import read_metadata

    config, imports = (read_metadata(metadata, name, source=source) for name in ("config", "imports"))
    attention = current_attention(str((config or {}).get("attention", "mhsa")))
    if imports and attention not in attention_names():
        raise UserError(f"{source} uses the attention {attention!r}, which isn't registered; add --import {' '.join(imports)}")
