"""The doctor: what this machine has, what the course needs, each problem with its cure, and how long lessons take here.

`python -m spvit_course doctor` prints plain text and ends with 1 if something needs a cure.
"""

import json
import math
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from spvit_mini.errors import UserError

from ..lessons import ROOT, grading, heading, lesson_files, read
from ..progress import MANIFEST

INSTALL = "in the project's folder, run `python -m pip install --editable .[lab]`"
GIB = 2**30
LEAST_MEMORY, LEAST_DISK = 1.5 * GIB, 0.5 * GIB
# Seconds of a step of `calibrate` on the machine that the titles' run minutes are for: one core of a server, no GPU.
REFERENCE = 1.1  # one thread on an idle core: 1.09 to 1.13 in three tries


@dataclass(frozen=True)
class Finding:
    """What was looked at, what was found, and problems: pairs of what is wrong and its cure."""

    name: str
    text: str
    problems: tuple[tuple[str, str], ...] = ()


def doctor(work: Path, *, say: Callable[[str], None] = print) -> int:
    """Examine the machine, the installation and a folder of copies. Returns 1 if something needs a cure, else 0."""
    findings = []
    for look in (python, packages, jupyter, package, device, lambda: room(work), data, network, lambda: copies(work)):
        findings.append(look())
        say(f"{findings[-1].name:<11}{findings[-1].text}")
    for line in times():
        say(line)
    problems = [problem for finding in findings for problem in finding.problems]
    say("")
    for wrong, cure in problems:
        say(f"PROBLEM: {wrong}. Cure: {cure}.")
    if not problems:
        say("All is well.")
    return 1 if problems else 0


# The installation -----------------------------------------------------------------------------------------------------


def python() -> Finding:
    """Say which Python this is. One that is too old cannot read this file."""
    return Finding("Python", f"{platform.python_version()}, {sys.executable}")


def packages() -> Finding:
    """Look at what the course is built on: versions, and whether they are in the project's ranges."""
    wanted, problems = requirements(), []
    for name, least in wanted.items():
        found = version(name)
        if found is None:
            problems.append((f"{name} is not installed", INSTALL))
        elif least and numbers(found) < numbers(least):
            problems.append((f"{name} {found} is older than {least}", INSTALL))
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError, OSError) as error:  # as where it was built for another torch
        wrong = f"torchvision cannot be imported ({str(error).splitlines()[0]:.80})"
        problems.append((wrong, "reinstall both: `python -m pip install --force-reinstall torch torchvision`"))
    text = ", ".join(f"{name} {version(name) or 'missing'}" for name in ("torch", "torchvision", "numpy", "matplotlib"))
    return Finding("packages", text, tuple(problems))


def requirements() -> dict[str, str]:
    """List what the project's description asks of a student's Python: least versions by name."""
    try:
        lines = metadata.requires("spvit-mini") or []
    except metadata.PackageNotFoundError:
        lines = ["torch>=2.11", 'jupyterlab>=4.2; extra == "lab"', 'nbformat; extra == "lab"', 'nbclient; extra == "lab"']
    wanted = {}
    for line in lines:
        named, _, extra = line.partition(";")
        if not extra.strip() or "lab" in re.findall(r"""extra == ["'](\w+)""", extra):
            name, least = re.match(r"([\w.-]+)(?:.*?>=\s*([\w.]+))?", named).groups()
            wanted[name] = least or ""
    return wanted


def version(name: str) -> str | None:
    """Return a package's version, None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def numbers(text: str) -> list[int]:
    """Read a version's numbers, as far as they go: "2.11.0+cpu" is 2, 11, 0."""
    return [int(part) for part in re.match(r"\d+(?:\.\d+)*", text)[0].split(".")]


def jupyter() -> Finding:
    """Look at JupyterLab and at which Python its kernel starts."""
    if find_spec("jupyterlab") is None or find_spec("jupyter_client") is None:
        return Finding("JupyterLab", "missing")  # `packages` names the cure
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    text = f"{version('jupyterlab')}, kernel python3"
    before = os.environ.get("JUPYTER_PREFER_ENV_PATH")
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # as `lab` sets it
    try:
        started = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except NoSuchKernel:
        return Finding("JupyterLab", f"{text} is missing", (("there is no kernel python3", INSTALL),))
    finally:
        if before is None:
            del os.environ["JUPYTER_PREFER_ENV_PATH"]
        else:
            os.environ["JUPYTER_PREFER_ENV_PATH"] = before
    bare = re.fullmatch(r"python(\d(\.\d+)?)?", started)  # JupyterLab then starts its own Python
    if bare or os.path.normpath(started) == os.path.normpath(sys.executable):
        return Finding("JupyterLab", f"{text} is this Python")
    wrong = f"the kernel python3 starts {started}, another Python", "run `python -m ipykernel install --sys-prefix`"
    return Finding("JupyterLab", f"{text} is {started}", (wrong,))


def package() -> Finding:
    """Look at which spvit_mini runs here, and which one this Python has installed."""
    from spvit_mini import __version__

    text, problems = f"{__version__}, in {ROOT}", []
    command = "import importlib.util as u; s = u.find_spec('spvit_mini'); print(s.origin if s else '')"
    # -I: neither this folder nor PYTHONPATH counts, as for a program that is started elsewhere.
    asked = subprocess.run([sys.executable, "-I", "-c", command], capture_output=True, text=True).stdout.strip()
    if not asked:
        problems.append(("the package is not installed, so that it is found in this folder alone", INSTALL))
    elif Path(asked).resolve().parents[1] != ROOT:
        wrong = f"this Python has another spvit_mini installed, in {Path(asked).parents[1]}"
        problems.append((wrong, f"{INSTALL}, so that all programs find the one in {ROOT}"))
    else:
        text += ", the one that is installed"
    if not (ROOT / "notebooks").is_dir():
        problems.append((f"there are no lessons in {ROOT}", "get the project's repository and work in its folder"))
    return Finding("spvit_mini", text, tuple(problems))


# The machine ----------------------------------------------------------------------------------------------------------


def device() -> Finding:
    """Look at what computes."""
    import torch

    kind = chosen_device().type
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = f" ({torch.cuda.get_device_name()})" if kind == "cuda" else ""
    return Finding("device", f"{kind}{name}; {torch.get_num_threads()} threads on {cores} cores")


def chosen_device():
    """Return the device that lessons train on."""
    from spvit_mini.recipes.recipe import Recipe
    from spvit_mini.training.loop import choose_device

    return choose_device(Recipe())[0]


def room(work: Path) -> Finding:
    """Look at free memory, free disk space, and whether the folder of copies can be written."""
    free, problems = free_memory(), []
    place = next(folder for folder in (work, *work.resolve().parents) if folder.is_dir())
    disk = shutil.disk_usage(place).free
    if free is not None and free < LEAST_MEMORY:
        wrong = f"only {free / GIB:.1f} GiB of memory are free; a lesson needs up to {LEAST_MEMORY / GIB:.1f}"
        problems.append((wrong, "close other programs and notebooks whose kernels still run"))
    if disk < LEAST_DISK:
        problems.append((f"only {disk / GIB:.1f} GiB of the disk are free", "delete what you no longer need"))
    if not os.access(place, os.W_OK):
        problems.append((f"{place} cannot be written", "choose another folder with --out"))
    memory = "unknown" if free is None else f"{free / GIB:.1f} GiB free"
    return Finding("memory", f"{memory}; disk: {disk / GIB:.0f} GiB free", tuple(problems))


def free_memory(proc: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return the bytes of memory that are free for programs, within a container's limit; None where nothing tells."""
    found = []
    try:
        found.append(1024 * int(re.search(r"MemAvailable:\s+(\d+)", proc.read_text())[1]))
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        found.append(max(0, limit - used))
    except (OSError, ValueError, TypeError):  # no Linux, or no limit ("max")
        pass
    return min(found, default=None)


def data(root: Path | None = None) -> Finding:
    """Look at which sets of images are here."""
    from spvit_mini.data.image_folders import find_tree

    folder, found = root or ROOT / "data", []
    for name in sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []:
        try:
            find_tree(name, folder, known=[])
        except (UserError, OSError):
            name = {"cifar-10-batches-py": "cifar10", "cifar-100-python": "cifar100"}.get(name)
        found += [name] if name else []
    return Finding("data", f"made on the fly: Compass, Textures, Rings; in {folder}: {', '.join(found) or 'no other set'}")


def network() -> Finding:
    """Say that there is nothing to look at."""
    return Finding("network", "not needed: lessons and checks ask for none")


# The copies -----------------------------------------------------------------------------------------------------------


def copies(work: Path) -> Finding:
    """Look at a student's folder: which copies are there and current, and whether they are whole."""
    from .copies import build, read_manifest

    try:
        report, lessons = build(work, dry=True), lesson_files()
    except UserError as error:
        return Finding("copies", f"none: {error}")  # `package` names the cure
    if not (work / MANIFEST).is_file():
        return Finding("copies", f"none in {work} yet; `python -m spvit_course lab` makes and opens them")
    counts = [sum(copied.what in kinds for copied in report) for kinds in (("unchanged",), ("kept", "beside"))]
    problems = []
    states = {"new": "not there", "updated": "older than the lessons", "beside": "begun, and there are newer forms"}
    for kind, wrong in states.items():
        if names := [copied.name for copied in report if copied.what == kind]:
            problems.append((f"copies that are {wrong}: {', '.join(names)}", "`python -m spvit_course build`"))
    handed = read_manifest(work)
    for path in lessons:
        if (work / path.name).exists():
            problems += whole(work / path.name, path, handed.cells.get(path.name, {}))
    text = f"in {work}: {counts[0]} of {len(report)} as handed out, {counts[1]} begun"
    return Finding("copies", text, tuple(problems))


def whole(copy: Path, lesson: Path, handed: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Find what keeps a copy from being opened, checked or graded."""
    try:
        cells = json.loads(copy.read_text(encoding="utf-8"))["cells"]
        ids = [cell.get("id") for cell in cells]
        grades = [cell["metadata"].get("nbgrader", {}).get("grade_id") for cell in cells]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        cure = "give it another name, and `python -m spvit_course build` makes a fresh one"
        yield f"{copy.name} cannot be read as a notebook", cure
        return
    for kind, names in (("id", ids), ("grade_id", grades)):
        for name in sorted({name for name in names if name is not None and names.count(name) > 1}):
            yield f"{copy.name} has two cells of the {kind} {name!r}", "delete the one that was pasted"
    gone = [cell.id for cell in read(lesson).cells if grading(cell) and cell.id in handed and cell.id not in ids]
    if gone:
        cure = "copy the cell back from a fresh copy: `python -m spvit_course build --out another_folder`"
        yield f"{copy.name} has lost the cell {', '.join(gone)}", cure


# How long lessons take ------------------------------------------------------------------------------------------------


def calibrate(*, seconds: float = 1.5, steps: int = 60) -> float:
    """Time forward and backward passes, always the same, on the device of the lessons. Returns the median in seconds."""
    import torch

    from spvit_mini.zoo import create_model

    where = chosen_device()
    random = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        model = create_model("spvit_mini", num_classes=4).to(where).train()
    images = torch.randn(64, 3, 32, 32, generator=random).to(where)
    labels = torch.randint(4, (64,), generator=random).to(where)
    taken, end = [], math.inf
    while len(taken) < 4 or (len(taken) < 3 + steps and time.perf_counter() < end):
        started = time.perf_counter()
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        model.zero_grad()
        loss.backward()
        loss.item()  # waits for the device
        taken.append(time.perf_counter() - started)
        if len(taken) == 3:  # the first ones set things up
            end = time.perf_counter() + seconds
    return statistics.median(taken[3:])


def times() -> Iterator[str]:
    """Lay out how long each lesson will take here, an estimate from its title's minutes and this machine's speed."""
    try:
        files = lesson_files()
    except UserError:
        return
    factor = calibrate() / REFERENCE
    yield f"{'speed':<11}a training step takes {factor:.1f} times as long as where the lessons' minutes were measured"
    yield ""
    yield f"{'lesson':<8}{'your minutes':>12}{'run minutes here':>18}   (an estimate)"
    for path in files:
        if top := heading(read(path)):
            yield f"{top.number:<8}{top.student_minutes:>12}{here(top.run_minutes * factor):>18}"


def here(minutes: float) -> str:
    """Round minutes as an estimate may be: a minute, then halves up, then fives."""
    if minutes <= 1:
        return "1 or less"
    return f"about {math.ceil(minutes) if minutes <= 10 else 5 * math.ceil(minutes / 5)}"
