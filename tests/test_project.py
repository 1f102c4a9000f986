"""The project's own files agree with each other."""

import re
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parent.parent
PACKAGES = ("spvit_mini", "spvit_course", "spvit_experiments")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def declared() -> dict[str, Requirement]:
    lists = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    return {r.name: r for r in map(Requirement, (text for one in lists for text in one))}


def test_conda_gets_python_alone_and_the_rest_from_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert conda == [f"python{PROJECT['requires-python']}", "pip"]
    assert pip == {"pip": ["-c constraints.txt", "-e .[lab]"]}


def test_make_installs_for_each_target_what_it_needs_and_for_tests_everything():
    makefile = (ROOT / "Makefile").read_text()
    stamps = re.findall(r"^\.venv/\.(\w+): EXTRAS := (\S+)$", makefile, re.MULTILINE)
    extras = {stamp: names.split(",") for stamp, names in stamps}
    assert extras["lab"] == ["lab"]  # what students get
    assert set(extras["test"]) == set(PROJECT["optional-dependencies"])
    needs = dict(re.findall(r"^(\w+): \.venv/\.(\w+)", makefile, re.MULTILINE))
    assert needs | {"lab": "lab", "release": "grade", "grade": "grade", "site": "site", "check": "test", "lint": "test"} == needs


def test_the_tested_versions_lie_in_the_declared_ranges():
    lines = [line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    tested = [Requirement(line) for line in lines if line]
    ranges = declared()
    assert len(tested) > 10
    for pin in tested:
        (version,) = pin.specifier
        assert version.operator == "=="
        if pin.name in ranges:
            assert ranges[pin.name].specifier.contains(version.version), pin


def test_every_declared_requirement_has_a_tested_version():
    pinned = {re.split("==|;", line)[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert set(declared()) <= pinned


def test_requirements_are_ranges_not_pins():
    for requirement in declared().values():
        assert {s.operator for s in requirement.specifier} <= {">=", "<"}, requirement


def test_the_library_never_imports_timm_and_every_file_is_short_and_says_what_it_is():
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        is_library = path.is_relative_to(ROOT / "spvit_mini")
        assert not is_library or not re.search(r"^\s*(import|from) timm\b", text, re.MULTILINE), path
        assert not is_library or text.count("\n") <= 400, path
        assert text.startswith(('"""', "'''")), f"{path} does not say what it is"


def test_readme_names_only_commands_that_exist():
    readme = (ROOT / "README.md").read_text()
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^ {4}|`)make ([a-z]+)", readme, re.MULTILINE)) <= targets
    for module in re.findall(r"python -m (spvit_\w+)", readme):
        assert (ROOT / module / "__main__.py").is_file(), module
    for link in re.findall(r"\]\(([^)#]+)\)", readme):
        assert link.startswith("http") or (ROOT / link).exists(), link


def test_the_matrix_in_the_docs_is_the_package_s():
    from spvit_mini.attention_registry import matrix

    assert f"```\n{matrix()}\n```" in (ROOT / "docs" / "variants.md").read_text()
