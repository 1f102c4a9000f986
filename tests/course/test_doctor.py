"""The doctor: says what is there, names each problem with its fix, and ends with 1 only where there is one."""

import json
import re
import subprocess
from importlib import metadata

import nbformat
import pytest
import torch

from spvit_course.classroom import doctor as module
from spvit_course.classroom.copies import build_copies
from spvit_course.classroom.doctor import GIB, Finding, check_copies, copy_problems, free_memory, print_report
from spvit_course.lessons import ROOT, lesson_files, read


@pytest.fixture
def source(source, tmp_path, monkeypatch):
    """A repository with one lesson."""
    monkeypatch.setattr("spvit_course.files.ROOT", tmp_path)
    return source


@pytest.fixture
def well(monkeypatch):
    """A machine on which everything but the copies is well, at half the reference's speed."""
    for name in ("check_packages", "check_jupyter", "check_package", "check_device", "check_data"):
        monkeypatch.setattr(module, name, lambda name=name: Finding(name, "as it should be"))
    monkeypatch.setattr(module, "check_memory", lambda work: Finding("memory", "as it should be"))
    monkeypatch.setattr(module, "calibrate", lambda: 2 * module.REFERENCE)


def test_all_is_well_after_a_build_and_the_minutes_follow_the_speed(source, tmp_path, well, capsys):
    build_copies(tmp_path / "work", [source])
    assert print_report(tmp_path / "work") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "All is well."
    assert f"copies     in {tmp_path / 'work'}: 1 of 1 as handed out, 0 begun" in lines
    assert "network    not needed: lessons and checks ask for none" in lines
    assert "speed      a training step takes 2.0 times as long as where the lessons' minutes were measured" in lines
    assert "00                 5           about 2" in lines
    assert all(re.fullmatch(r"[\x20-\x7e]*", line) for line in lines)  # plain text, also in a pipe


def test_a_problem_is_told_with_its_fix_and_ends_with_1(source, tmp_path, well, monkeypatch, capsys):
    monkeypatch.setattr(module, "check_device", lambda: Finding("device", "odd", (("it is odd", "make it even"),)))
    build_copies(tmp_path / "work", [source])
    assert print_report(tmp_path / "work") == 1
    assert capsys.readouterr().out.splitlines()[-1] == "PROBLEM: it is odd. Fix: make it even."


# The copies -----------------------------------------------------------------------------------------------------------


def test_a_folder_without_copies_is_no_problem(source, tmp_path):
    found = check_copies(tmp_path / "work")
    assert found.problems == () and "`python -m spvit_course lab` makes and opens them" in found.text
    assert not (tmp_path / "work").exists()


def edit(path, change):
    notebook = nbformat.v4.reads(path.read_text(encoding="utf-8"))
    change(notebook)
    path.write_text(nbformat.v4.writes(notebook), encoding="utf-8")


def test_copies_that_are_behind_are_named_and_nothing_is_written(source, tmp_path):
    work = tmp_path / "work"
    build_copies(work, [source])
    edit(source, lambda notebook: notebook.cells[3].update(source="## The question\n\nWhy?"))
    assert [wrong for wrong, _ in check_copies(work).problems] == ["copies that are older than the lessons: 00_small.ipynb"]
    edit(work / source.name, lambda notebook: notebook.cells[6].update(source="3 * 3"))
    before = (work / source.name).read_bytes()
    (problem,) = check_copies(work).problems
    assert problem == ("copies that are begun, and there are newer forms: 00_small.ipynb", "`python -m spvit_course build`")
    (work / source.name).unlink()
    assert [wrong for wrong, _ in check_copies(work).problems] == ["copies that are not there: 00_small.ipynb"]
    (work / source.name).write_bytes(before)
    build_copies(work, [source])
    assert check_copies(work).problems == ()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda n: n.cells.append(n.cells[6]), "has two cells of the id 'count'"),
        (lambda n: n.cells.append(nbformat.from_dict(n.cells[9] | {"id": "pasted"})), "has two cells of the grade_id 'patchify'"),
        (lambda n: n.cells.pop(10), "has lost the cell check-patchify"),
    ],
)
def test_a_copy_that_cannot_be_graded_is_named(source, tmp_path, change, says):
    build_copies(tmp_path / "work", [source])
    edit(tmp_path / "work" / source.name, change)
    assert [wrong for wrong, _ in check_copies(tmp_path / "work").problems] == [f"00_small.ipynb {says}"]


def test_an_ordinary_cell_may_go_and_a_new_check_is_not_missed(source, tmp_path):
    work = tmp_path / "work"
    build_copies(work, [source])
    edit(work / source.name, lambda notebook: notebook.cells.pop(6))
    handed = {cell.id: "" for cell in read(source).cells if cell.id != "check-patchify"}
    edit(work / source.name, lambda notebook: notebook.cells.pop(9))
    assert list(copy_problems(work / source.name, source, handed)) == []


def test_a_broken_copy_is_named_with_its_fix(source, tmp_path):
    build_copies(tmp_path / "work", [source])
    (tmp_path / "work" / source.name).write_text("<<<<<<< mine")
    ((wrong, fix),) = check_copies(tmp_path / "work").problems
    assert wrong == "00_small.ipynb: the file is no notebook that can be read (it has conflict markers of git)"
    assert fix.startswith("rename it")


# The installation and the machine -------------------------------------------------------------------------------------


def test_packages_are_held_against_the_projects_ranges(monkeypatch):
    assert {"torch", "jupyterlab", "nbformat"} <= set(module.requirements())
    assert not {"timm", "onnx", "tensorboard"} & set(module.requirements())
    monkeypatch.setattr(module, "requirements", lambda: {"torch": "999.1", "numpy": "1.0", "no-such-thing": "2"})
    found = module.check_packages()
    says = [wrong for wrong, _ in found.problems]
    assert says == [f"torch {metadata.version('torch')} is older than 999.1", "no-such-thing is not installed"]
    assert f"torch {metadata.version('torch')}" in found.text


@pytest.mark.parametrize(
    ("older", "newer"), [("2.9.1", "2.11"), ("2.11.0+cpu", "2.11.1"), ("1.26.0rc1", "1.26.1"), ("4", "4.2")]
)
def test_versions_are_compared_by_their_numbers(older, newer):
    assert module.version_numbers(older) < module.version_numbers(newer)


@pytest.mark.parametrize(("started", "well"), [("python", True), ("/opt/other/bin/python", False)])
def test_a_kernel_of_another_python_is_named(monkeypatch, started, well):
    from jupyter_client import kernelspec

    spec = kernelspec.KernelSpec(argv=[started, "-m", "ipykernel_launcher"])
    monkeypatch.setattr(kernelspec.KernelSpecManager, "get_kernel_spec", lambda *_: spec)
    found = module.check_jupyter()
    assert (found.problems == ()) == well
    assert well or found.problems[0][0] == f"the kernel python3 starts {started}, a different Python"


@pytest.mark.parametrize(
    ("installed", "says"), [("", "is not installed"), ("/opt/x/spvit_mini/__init__.py", "a different spvit_mini")]
)
def test_another_package_than_this_folders_is_named(monkeypatch, installed, says):
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0, f"{installed}\n"))
    ((wrong, _),) = module.check_package().problems
    assert says in wrong
    monkeypatch.setattr(subprocess, "run", lambda c, **_: subprocess.CompletedProcess(c, 0, f"{ROOT}/spvit_mini/__init__.py\n"))
    assert module.check_package().problems == ()


def test_memory_is_what_is_available_within_the_containers_limit(tmp_path):
    proc = tmp_path / "meminfo"
    assert free_memory(proc, tmp_path) is None
    proc.write_text("MemTotal: 9000 kB\nMemAvailable:    5000 kB\n")
    assert free_memory(proc, tmp_path) == 5000 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert free_memory(proc, tmp_path) == 5000 * 1024
    (tmp_path / "memory.max").write_text("4000\n")
    assert free_memory(proc, tmp_path) == 3000


def test_too_little_room_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "free_memory", lambda: GIB)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda place: type("Usage", (), {"free": GIB // 10}))
    monkeypatch.setattr(module.os, "access", lambda *_: False)
    says = [wrong for wrong, _ in module.check_memory(tmp_path / "a" / "b").problems]
    assert says[0].startswith("only 1.0 GiB of memory are free") and says[1] == "only 0.1 GiB of the disk are free"
    assert says[2] == f"{tmp_path} cannot be written"


def test_sets_of_images_are_found_by_their_folders(tmp_path):
    for folder in ("flowers/train/rose", "flowers/val/rose", "cifar-10-batches-py", "results", "notes"):
        (tmp_path / folder).mkdir(parents=True)
    assert module.check_data(tmp_path).text.endswith(f"in {tmp_path}: cifar10, flowers")
    assert module.check_data(tmp_path / "none").text.endswith(": no other set")


@pytest.mark.parametrize(
    ("minutes", "says"), [(0.2, "1 or less"), (1, "1 or less"), (1.1, "about 2"), (9.5, "about 10"), (11, "about 15")]
)
def test_minutes_are_rounded_as_an_estimate_may_be(minutes, says):
    assert module.round_minutes(minutes) == says


@pytest.mark.slow
def test_a_calibration_leaves_the_random_numbers_alone():
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    assert module.calibrate(seconds=0, steps=2) > 0
    assert torch.equal(torch.rand(2), wanted)


@pytest.mark.slow
def test_on_this_machine_it_says_which_device_and_how_long_each_lesson_takes(tmp_path, monkeypatch, capsys):
    status = print_report(tmp_path / "work")
    text = capsys.readouterr().out
    for name in ("Python", "packages", "JupyterLab", "spvit_mini", "device", "memory", "data", "network", "copies", "speed"):
        assert re.search(rf"^{name} +\S", text, re.MULTILINE), name
    for path in lesson_files():
        assert re.search(rf"^{path.name[:2]} +\d+ +(about \d+|1 or less)$", text, re.MULTILINE)
    assert status == ("PROBLEM: " in text) == (not text.endswith("\nAll is well.\n"))


# False alarms, and what was not said ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dropped", ["id", "marks", "both", "line ends"])
def test_a_copy_whose_ids_or_marks_a_program_dropped_has_lost_no_cell(source, tmp_path, dropped):
    build_copies(tmp_path / "work", [source])
    path = tmp_path / "work" / source.name
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if dropped in ("id", "both"):
            del cell["id"]
        if dropped in ("marks", "both"):
            cell["metadata"] = {}
        cell["source"] = "".join(cell["source"]).replace("\n", "\r\n" if dropped == "line ends" else "\n")
    notebook["nbformat_minor"] = 4
    path.write_text(json.dumps(notebook), encoding="utf-8")
    assert check_copies(tmp_path / "work").problems == ()


def test_copies_of_a_variant_are_held_against_it(tmp_path, monkeypatch):
    lesson = next(path for path in lesson_files() if path.name.startswith("03"))
    monkeypatch.setattr("spvit_course.classroom.copies.lesson_files", lambda: [lesson])
    monkeypatch.setattr(module, "lesson_files", lambda: [lesson])
    build_copies(tmp_path / "work", variant="x_first")
    assert check_copies(tmp_path / "work").problems == ()
    assert '"variant": "x_first"' in (tmp_path / "work" / ".copies.json").read_text()


def test_a_misspelt_profile_is_named(monkeypatch):
    for name, well in (("smoke", True), ("", False), ("Standard", False)):
        monkeypatch.setenv("SPVIT_PROFILE", name)
        assert (module.check_profile().problems == ()) == well
    assert module.check_profile().problems == (
        ("SPVIT_PROFILE is 'Standard'; expected one of smoke, quick, standard, full", "set one of these, or unset it"),
    )


def test_files_with_conflict_markers_are_named_and_the_doctor_goes_on(source, tmp_path, well, monkeypatch, capsys):
    assert module.check_files().problems == ()
    other = source.with_name("01_other.ipynb")
    other.write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    build_copies(tmp_path / "work", [source, other])
    monkeypatch.setattr(module, "ROOT", tmp_path)
    for name in ("notebooks/01_other.ipynb", "docs/page.md", "nbgrader_config.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("a\n<<<<<<< HEAD\n=======\n>>>>>>> theirs\n")
    assert print_report(tmp_path / "work") == 1
    said = capsys.readouterr().out
    for name in ("notebooks/01_other.ipynb", "docs/page.md", "nbgrader_config.py"):
        assert f"PROBLEM: {name} has conflict markers of git. Fix: in {tmp_path}, run `git checkout HEAD -- {name}`.\n" in said
    assert "1 of 2 as handed out" in said and "00                 5           about 2" in said
