"""The doctor: what this machine has, what the course needs, each problem with its fix, and how long lessons take here.

`python -m spvit_course doctor` prints plain text; its exit status is 1 if it found a problem.
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
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from spvit_mini.errors import UserError

from ..lessons import CONFLICT, ROOT, grading, lesson_files, read, require_heading
from ..progress import MANIFEST
from .grading import environment_variables

INSTALL = "in the project's folder, run `python -m pip install --editable .[lab]`"
GIB = 2**30
SUFFIXES = (".ipynb", ".md", ".py", ".json", ".jsonl", ".csv", ".toml")
LEAST_MEMORY, LEAST_DISK = 1.5 * GIB, 0.5 * GIB
# Seconds of a step of `calibrate` on the machine that the titles' run minutes are for: one core of a server, no GPU.
REFERENCE = 1.1  # one thread on an idle core: 1.09 to 1.13 in three tries


@dataclass(frozen=True)
class Finding:
    """The result of one check: its name, a line of text, and problems as pairs of what is wrong and how to fix it."""

    name: str
    text: str
    problems: tuple[tuple[str, str], ...] = ()


def print_report(work: Path) -> int:
    """Check the machine, the installation and a folder of copies. Return 1 if there is a problem, else 0."""
    checks = [check_python, check_packages, check_jupyter, check_package, check_profile, check_files]
    checks += [check_device, partial(check_memory, work)]
    findings = []
    network = partial(Finding, "network", "not needed: lessons and checks ask for none")
    for check in [*checks, check_data, network, partial(check_copies, work)]:
        findings.append(check())
        print(f"{findings[-1].name:<11}{findings[-1].text}")
    for line in lesson_minutes():
        print(line)
    problems = [problem for finding in findings for problem in finding.problems]
    print()
    for wrong, fix in problems:
        print(f"PROBLEM: {wrong}. Fix: {fix}.")
    if not problems:
        print("All is well.")
    return 1 if problems else 0


# The installation -----------------------------------------------------------------------------------------------------


def check_python() -> Finding:
    """Report which Python this is. A version that is too old cannot parse this file."""
    return Finding("Python", f"{platform.python_version()}, {sys.executable}")


def check_packages() -> Finding:
    """Check the versions of what the course is built on against the project's ranges."""
    wanted, problems = requirements(), []
    for name, least in wanted.items():
        installed = installed_version(name)
        if installed is None:
            problems.append((f"{name} is not installed", INSTALL))
        elif least and version_numbers(installed) < version_numbers(least):
            problems.append((f"{name} {installed} is older than {least}", INSTALL))
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError, OSError) as error:  # as where it was built for another torch
        wrong = f"torchvision cannot be imported ({str(error).splitlines()[0]:.80})"
        problems.append((wrong, "reinstall both: `python -m pip install --force-reinstall torch torchvision`"))
    text = ", ".join(f"{name} {installed_version(name) or 'missing'}" for name in ("torch", "torchvision", "numpy", "matplotlib"))
    return Finding("packages", text, tuple(problems))


def requirements() -> dict[str, str]:
    """List what the project requires of a student's Python: least versions by name."""
    try:
        lines = metadata.requires("spvit-mini") or []
    except metadata.PackageNotFoundError:
        lines = ["torch>=2.11", 'jupyterlab>=4.2; extra == "lab"', 'nbformat; extra == "lab"', 'nbclient; extra == "lab"']
    wanted = {}
    for line in lines:
        requirement, _, extra = line.partition(";")
        if not extra.strip() or "lab" in re.findall(r"""extra == ["'](\w+)""", extra):
            name, least = re.match(r"([\w.-]+)(?:.*?>=\s*([\w.]+))?", requirement).groups()
            wanted[name] = least or ""
    return wanted


def installed_version(name: str) -> str | None:
    """Return a package's version, None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def version_numbers(text: str) -> list[int]:
    """Return the leading numbers of a version: "2.11.0+cpu" is 2, 11, 0."""
    return [int(part) for part in re.match(r"\d+(?:\.\d+)*", text)[0].split(".")]


def check_jupyter() -> Finding:
    """Check JupyterLab, and which Python its kernel starts."""
    if find_spec("jupyterlab") is None or find_spec("jupyter_client") is None:
        return Finding("JupyterLab", "missing")  # `check_packages` names the fix
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    text = f"{installed_version('jupyterlab')}, kernel python3"
    try:
        with environment_variables({"JUPYTER_PREFER_ENV_PATH": "1"}):  # as `lab` sets it
            program = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except NoSuchKernel:
        return Finding("JupyterLab", f"{text} is missing", (("there is no kernel python3", INSTALL),))
    is_bare = re.fullmatch(r"python(\d(\.\d+)?)?", program)  # JupyterLab then starts its own Python
    if is_bare or os.path.normpath(program) == os.path.normpath(sys.executable):
        return Finding("JupyterLab", f"{text} is this Python")
    problem = f"the kernel python3 starts {program}, a different Python", "run `python -m ipykernel install --sys-prefix`"
    return Finding("JupyterLab", f"{text} is {program}", (problem,))


def check_package() -> Finding:
    """Check which spvit_mini runs here, and which one this Python has installed."""
    from spvit_mini import __version__

    text, problems = f"{__version__}, in {ROOT}", []
    command = "import importlib.util as u; s = u.find_spec('spvit_mini'); print(s.origin if s else '')"
    # -I: neither this folder nor PYTHONPATH counts, as for a program that is started elsewhere.
    installed = subprocess.run([sys.executable, "-I", "-c", command], capture_output=True, encoding="utf-8").stdout.strip()
    if not installed:
        problems.append(("the package is not installed, so that it is found in this folder alone", INSTALL))
    elif Path(installed).resolve().parents[1] != ROOT:
        wrong = f"this Python has a different spvit_mini installed, in {Path(installed).parents[1]}"
        problems.append((wrong, f"{INSTALL}, so that all programs find the one in {ROOT}"))
    else:
        text += ", the one that is installed"
    if not (ROOT / "notebooks").is_dir():
        problems.append((f"there are no lessons in {ROOT}", "get the project's repository, and work in its folder"))
    return Finding("spvit_mini", text, tuple(problems))


def check_profile() -> Finding:
    """Check the variable that sets how much lessons compute."""
    from ..lesson import PROFILES

    name = os.environ.get("SPVIT_PROFILE", "standard")
    wrong = f"SPVIT_PROFILE is {name!r}; expected one of {', '.join(PROFILES)}", "set one of these, or unset it"
    return Finding("profile", name, () if name in PROFILES else (wrong,))


def check_files() -> Finding:
    """Look for marks of a conflict that git left in the project's files."""
    parts = ("notebooks", "docs", "spvit_mini", "spvit_course", "spvit_experiments", "data/results")
    names = [path for part in parts for path in sorted((ROOT / part).rglob("*")) if path.suffix in SUFFIXES]
    names += [path for path in sorted(ROOT.glob("*")) if path.suffix in SUFFIXES]
    bad = [path.relative_to(ROOT) for path in names if CONFLICT.search(path.read_bytes().decode("utf-8", "replace"))]
    problems = ((f"{name} has conflict markers of git", f"in {ROOT}, run `git checkout HEAD -- {name}`") for name in bad)
    return Finding("files", f"{len(bad)} of {len(names)} have conflict markers of git", tuple(problems))


# The machine ----------------------------------------------------------------------------------------------------------


def check_device() -> Finding:
    """Report the device that lessons train on."""
    import torch

    kind = lesson_device().type
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = f" ({torch.cuda.get_device_name()})" if kind == "cuda" else ""
    return Finding("device", f"{kind}{name}; {torch.get_num_threads()} threads on {cores} cores")


def lesson_device():
    """Return the device that lessons train on."""
    from spvit_mini.recipes.recipe import Recipe
    from spvit_mini.training.devices import choose_device

    return choose_device(Recipe())[0]


def check_memory(work: Path) -> Finding:
    """Check free memory, free disk space, and whether the folder of copies is writable."""
    free, problems = free_memory(), []
    place = next(folder for folder in (work, *work.resolve().parents) if folder.is_dir())
    disk = shutil.disk_usage(place).free
    if free is not None and free < LEAST_MEMORY:
        wrong = f"only {free / GIB:.1f} GiB of memory are free; a lesson needs up to {LEAST_MEMORY / GIB:.1f}"
        problems.append((wrong, "close other programs and notebooks whose kernels still run"))
    if disk < LEAST_DISK:
        problems.append((f"only {disk / GIB:.1f} GiB of the disk are free", "delete what you no longer need"))
    if not os.access(place, os.W_OK):
        problems.append((f"{place} cannot be written", "use a different folder: --out FOLDER"))
    memory = "unknown" if free is None else f"{free / GIB:.1f} GiB free"
    return Finding("memory", f"{memory}; disk: {disk / GIB:.0f} GiB free", tuple(problems))


def free_memory(proc: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return the bytes of memory that are free for programs, within a container's limit; None if that is unknown."""
    free = []
    try:
        free.append(1024 * int(re.search(r"MemAvailable:\s+(\d+)", proc.read_text(encoding="utf-8-sig"))[1]))
        limit, used = (int((group / f"memory.{name}").read_text(encoding="utf-8-sig")) for name in ("max", "current"))
        free.append(max(0, limit - used))
    except (OSError, ValueError, TypeError):  # not Linux, or no limit ("max")
        pass
    return min(free, default=None)


def check_data(root: Path | None = None) -> Finding:
    """List the datasets on this machine."""
    from spvit_mini.data.image_folders import find_image_folder

    folder, names = root or ROOT / "data", []
    for name in sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []:
        try:
            find_image_folder(name, folder, known=[])
        except (UserError, OSError):
            name = {"cifar-10-batches-py": "cifar10", "cifar-100-python": "cifar100"}.get(name)
        names += [name] if name else []
    return Finding("data", f"made on the fly: Compass, Textures, Rings; in {folder}: {', '.join(names) or 'no other set'}")


# The copies -----------------------------------------------------------------------------------------------------------


def check_copies(work: Path) -> Finding:
    """Check a student's folder: which copies are present and current, and whether they are complete."""
    from .copies import build_copies, read_manifest

    try:
        report = build_copies(work, dry=True)
    except UserError as error:
        return Finding("copies", f"none: {error}")  # `check_package` and `check_files` name the fix
    if not (work / MANIFEST).is_file():
        return Finding("copies", f"none in {work} yet; `python -m spvit_course lab` makes and opens them")
    counts = [sum(copy.status in states for copy in report) for states in (("unchanged",), ("edited", "newer"))]
    problems = []
    words = {"new": "not there", "updated": "older than the lessons", "newer": "begun, and there are newer forms"}
    for status, wrong in words.items():
        if names := [copy.name for copy in report if copy.status == status]:
            problems.append((f"copies that are {wrong}: {', '.join(names)}", "`python -m spvit_course build`"))
    manifest = read_manifest(work)
    for path in lesson_files():
        if (work / path.name).exists():
            problems += copy_problems(work / path.name, path, manifest.cells.get(path.name, {}), manifest.variant)
    text = f"in {work}: {counts[0]} of {len(report)} as handed out, {counts[1]} begun"
    return Finding("copies", text, tuple(problems))


def copy_problems(copy: Path, lesson: Path, digests: dict[str, str], variant: str | None = None) -> Iterator[tuple[str, str]]:
    """List what keeps a copy from being opened, checked or graded. `digests` has the cells that were handed out."""
    from .copies import apply_variant, student_copy
    from .validation import UnreadableError, find_cells, read_cells

    unread: list[str] = []
    try:
        cells = read_cells(copy, unread)
        ids = [cell.get("id") for cell in json.loads(copy.read_text(encoding="utf-8-sig"))["cells"]]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, UnreadableError) as error:
        reason = error if isinstance(error, UnreadableError) else "the file is no notebook that can be read"
        fix = f"rename it, or repair it by hand; `python -m spvit_course build --out {copy.parent}` then makes a fresh copy"
        yield f"{copy.name}: {reason}", fix
        return
    yield from ((f"{copy.name} has cells that no program can read", line) for line in unread)
    grades = [grading(cell).get("grade_id") for cell in cells]
    for kind, names in (("id", ids), ("grade_id", grades)):
        for name in sorted({name for name in names if name is not None and names.count(name) > 1}):
            yield f"{copy.name} has two cells of the {kind} {name!r}", "delete the one that was pasted"
    try:
        solved = {lesson.name: read(lesson)}
    except UserError:  # `check_files` names it
        return
    handed_out = student_copy((apply_variant(solved, variant) if variant else solved)[lesson.name]).cells
    found = find_cells(cells, handed_out)
    gone = [cell.id for cell in handed_out if grading(cell) and cell.id in digests and grading(cell)["grade_id"] not in found]
    if gone:
        fix = "copy the cell back from a fresh copy: `python -m spvit_course build --out NEW_FOLDER`"
        yield f"{copy.name} has lost the cell {', '.join(gone)}", fix


# How long lessons take ------------------------------------------------------------------------------------------------


def calibrate(*, seconds: float = 1.5, steps: int = 60) -> float:
    """Time the forward and backward pass of one fixed model on the device of the lessons. Return the median in seconds."""
    import torch

    from spvit_mini.zoo import create_model

    where = lesson_device()
    random = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        model = create_model("spvit_mini", num_classes=4).to(where).train()
    images = torch.randn(64, 3, 32, 32, generator=random).to(where)
    labels = torch.randint(4, (64,), generator=random).to(where)
    durations, end = [], math.inf
    while len(durations) < 4 or (len(durations) < 3 + steps and time.perf_counter() < end):
        begin = time.perf_counter()
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        model.zero_grad()
        loss.backward()
        loss.item()  # waits for the device
        durations.append(time.perf_counter() - begin)
        if len(durations) == 3:  # the first ones are warm-up
            end = time.perf_counter() + seconds
    return statistics.median(durations[3:])


def lesson_minutes() -> Iterator[str]:
    """Write a table of each lesson's minutes here, an estimate from its title's minutes and this machine's speed."""
    try:
        files = lesson_files()
    except UserError:
        return
    factor = calibrate() / REFERENCE
    yield f"{'speed':<11}a training step takes {factor:.1f} times as long as where the lessons' minutes were measured"
    yield ""
    yield f"{'lesson':<8}{'your minutes':>12}{'run minutes here':>18}   (an estimate)"
    for path in files:
        with suppress(UserError):  # `check_files` names what cannot be read
            top = require_heading(path, read(path))
            yield f"{top.number:<8}{top.student_minutes:>12}{round_minutes(top.run_minutes * factor):>18}"


def round_minutes(minutes: float) -> str:
    """Round an estimate: up to whole minutes, and to multiples of 5 above ten."""
    if minutes <= 1:
        return "1 or less"
    return f"about {math.ceil(minutes) if minutes <= 10 else 5 * math.ceil(minutes / 5)}"
