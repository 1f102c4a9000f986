"""The proctor: watches a kernel in which a submission is graded, and gives a receipt for each check that passed.

A student's code and the checks run in one process, so the student's code could replace the checks, and nbgrader gives all
points to a graded cell that shows no error. The grader therefore does not look for errors. Before the first cell it calls
`watch`, which

- records the state of the packages and of what they use, and refuses to grade once something has been changed;
- keeps a secret, with which it signs a receipt for each check that passed; without a receipt there are no points;
- refuses the network, other programs and the class's folder, and reports each attempt to the grader.

This stops code that is wrong, curious or lazy. It does not stop code that takes Python apart: nothing within the same process
can. A container without a network keeps such code in (docs/instructors).
"""

import builtins
import hmac
import importlib
import inspect
import os
import pkgutil
import secrets
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import ModuleType
from typing import Any

import matplotlib.pyplot  # noqa: F401  here, since it starts a program when it is imported for the first time
import torch

from .. import checks
from ..checks.engine import CheckFailed, Exercise
from ..lesson import PROFILES, Lesson, name_answer

MIME = "application/vnd.spvit-mini.proctor+json"  # of the proctor's messages to the grader, among the cells' outputs

NETWORK = {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.sendto"}
NETWORK |= {"socket.sendmsg", "socket.bind"}
PACKAGES = ("spvit_mini", "spvit_course", "spvit_experiments")
PROGRAMS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "pty.spawn"}
SIGNALS = {"os.kill", "os.killpg"}
FILES = {"open", "sqlite3.connect", "os.listdir", "os.scandir", "os.remove", "os.rename", "os.mkdir", "os.rmdir"}
FILES |= {"os.link", "os.symlink", "os.chmod", "os.truncate", "os.utime", "os.chdir"}

SHELLS_OWN = {"_", "input", "exit", "quit", "display", "get_ipython"}  # builtins that IPython sets again for each cell
NOTEBOOKS_OWN = {"Storage", "print"}  # torch changes the first with its default dtype; a graded check does not print
# Names that Python adds to modules and classes by itself.
PYTHONS_OWN = {"__warningregistry__", "__annotations__", "__annotations_cache__", "__slotnames__"}

_check: Callable | None = None  # the check that signs receipts; set by `watch`


class Proctored(Lesson):
    """A lesson whose checks give receipts under a grader, and are plain checks elsewhere."""

    def check(self, answer: Callable, *, grade: bool = False, **options) -> None:
        if grade and _check is not None:
            _check(self.number, answer, options)
        else:
            super().check(answer, grade=grade, **options)


def proctored(number: str) -> Proctored:
    """Return a fresh handle on a lesson, independent of the notebook's own: hidden tests begin with it."""
    return Proctored(number, PROFILES["smoke"])


def receipt(secret: str, number: str, name: str, options: dict[str, Any]) -> str:
    """Sign that the exercise `name` of a lesson has passed, checked with these options."""
    message = f"{number} {name} {sorted(options.items())}"
    return hmac.new(secret.encode(), message.encode(), "sha256").hexdigest()


def watch(closed: str) -> str:
    """Begin to watch this process, before the student's code runs. Return the secret that signs receipts.

    `closed` is the class's folder: the student's code may use only the folder in it that it runs in.
    """
    from IPython import get_ipython

    global _check
    if _check is not None:
        raise RuntimeError("a proctor watches this process already")
    shell, secret = get_ipython(), secrets.token_hex()
    publish = shell.display_pub.publish
    shell.ask_exit = sys.exit  # of `exit()` and `quit()`, which would end the kernel at some time after their cell
    _check = signed_check(publish, secret)
    sys.addaudithook(audit_hook(publish, closed))
    return secret


def signed_check(publish: Callable, secret: str) -> Callable[[str, Callable, dict[str, Any]], None]:
    """Return a check that publishes a receipt if it passes, and refuses to run once `protected_parts` have changed."""
    for module in pkgutil.walk_packages(checks.__path__, f"{checks.__name__}."):
        importlib.import_module(module.name)
    import_lazy_names()
    before = dict(protected_parts())

    def require_unchanged() -> None:
        now = dict(protected_parts())
        changed = [name for name, value in before.items() if now.get(name) is not value]
        changed = [name for name in changed if name.rpartition(" of ")[2] == name or name.rpartition(" of ")[2] not in changed]
        # A new name in a module or class may hide a name that is imported on first use or inherited.
        added = now.keys() - before.keys() - {name for name, value in now.items() if isinstance(value, ModuleType)}
        added = {name for name in added if isinstance(before.get(name.rpartition(".")[0]), (ModuleType, type))}
        changed += sorted(name for name in added if name.rpartition(".")[2] not in PYTHONS_OWN)
        if changed:
            report(publish, "changed", ", ".join(changed[:3]) + (" and more" if len(changed) > 3 else ""))
            raise CheckFailed(f"not graded: the notebook has changed {changed[0]}")

    def check(number: str, answer: Callable, options: dict[str, Any]) -> None:
        options = {key: value for key, value in options.items() if value is not None}
        require_unchanged()
        name = options.pop("name", None) or name_answer(answer, checks.exercises(number, options.get("variant")))
        lesson = Lesson(number, PROFILES["smoke"])
        lesson.check(answer, grade=True, name=name, **options)
        require_unchanged()
        publish({MIME: {"receipt": receipt(secret, number, name, options)}})

    return check


def import_lazy_names() -> None:
    """Import the public names that the packages import on first use, so that all of them are protected."""
    done: set[str] = set()
    while names := [name for name in sys.modules if name.partition(".")[0] in PACKAGES and name not in done]:
        done |= set(names)
        for name in names:
            for public in getattr(sys.modules[name], "__all__", ()):
                getattr(sys.modules[name], public)


def report(publish: Callable, kind: str, text: str) -> None:
    """Report something odd to the grader, in one line. A failure to report must not help the student's code."""
    with suppress(Exception):
        publish({MIME: {kind: " ".join(str(text).split())[:200]}})


# What must not change ---------------------------------------------------------------------------------------------------


def protected_parts() -> Iterator[tuple[str, Any]]:
    """List the parts that a check uses, by name: members of modules, classes and exercises, and functions' code."""
    for name, module in sorted(sys.modules.items()):
        if name.partition(".")[0] in PACKAGES and module is not None:
            yield name, module
            yield from members(module, name)
    for owner in (torch, torch.Tensor, torch.autograd, torch.random, builtins, hmac):
        for key, value in list(vars(owner).items()):
            if key not in SHELLS_OWN | NOTEBOOKS_OWN:
                yield f"{owner.__name__}.{key}", value


def members(owner: Any, label: str) -> Iterator[tuple[str, Any]]:
    """List the members of a module, a class or an exercise of the packages."""
    for name, value in list(vars(owner).items()):
        if name in ("__builtins__", "_check"):
            continue
        name = f"{label}.{name}"
        yield name, value
        for number, exercise in enumerate(exercises_in(value)):
            yield f"{name}[{number}]", exercise
            yield from members(exercise, f"{name}[{number}]")
        if str(getattr(value, "__module__", "")).partition(".")[0] not in PACKAGES:
            continue
        if inspect.isfunction(value):
            yield f"the code of {name}", value.__code__
            yield f"the defaults of {name}", value.__defaults__
            yield f"the named defaults of {name}", value.__kwdefaults__
        elif inspect.isclass(value) and value.__module__ == label:
            yield from members(value, name)


def exercises_in(value: Any) -> Iterator[Exercise]:
    """Find the exercises in a value: the value itself, or the entries of a list or a dictionary."""
    if isinstance(value, Exercise):
        yield value
    elif isinstance(value, (tuple, list, dict)):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from exercises_in(entry)


# What is refused --------------------------------------------------------------------------------------------------------


def audit_hook(publish: Callable, closed: str) -> Callable[[str, tuple], None]:
    """Return the hook that Python calls before such operations, and that Python code can't remove."""
    closed, own = os.path.realpath(closed), os.path.realpath(os.getcwd())

    def within(path: str, folder: str) -> bool:
        return path == folder or path.startswith(folder + os.sep)

    def refuse(kind: str, what: Any) -> None:
        what = os.fsdecode(what) if isinstance(what, bytes) else what
        report(publish, kind, what)
        raise PermissionError(f"refused while this is graded: {kind} ({what})")

    def audit(event: str, arguments: tuple) -> None:
        if event in NETWORK:
            refuse("network", arguments[1] if isinstance(arguments[0], socket.socket) else arguments[0])
        elif event in PROGRAMS:
            refuse("program", arguments[0] if arguments else event)
        elif event in SIGNALS and arguments[0] != (os.getpid() if event == "os.kill" else os.getpgid(0)):
            refuse("signal", arguments[0])
        elif event in FILES:
            for argument in arguments:
                if isinstance(argument, (str, bytes, os.PathLike)):
                    path = os.path.realpath(os.fsdecode(argument))
                    if within(path, closed) and not within(path, own):
                        refuse("file", path)

    return audit

