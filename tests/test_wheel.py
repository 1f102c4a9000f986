"""The wheel: built from the checkout, unpacked somewhere else, it is whole without the checkout."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SMALL = ["--duration", "2 steps", "--batch-size", "20", "--data.train-images", "40", "--data.val-images", "20", "--device", "cpu"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder that a wheel of this checkout was installed into, without its requirements."""
    pytest.importorskip("setuptools", minversion="77")
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in files.stdout.splitlines():  # a copy, since a build leaves its folders in the checkout
        if name.startswith(("spvit_", "README", "LICENSE", "pyproject")) and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(folder), str(source)], check=True)
    return folder


def python(installed, folder, *words):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(installed), os.environ["PYTHONPATH"]])}
    return subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_library_and_command_line_work_without_the_checkout(installed, tmp_path):
    where = python(installed, tmp_path, "-c", "import spvit_mini; print(spvit_mini.__file__)")
    assert Path(where.stdout.strip()).is_relative_to(installed), where.stderr
    assert (installed / "spvit_mini" / "py.typed").is_file()
    assert "spvit_mini_compass6" in python(installed, tmp_path, "-m", "spvit_mini", "recipes").stdout
    train = python(installed, tmp_path, "-m", "spvit_mini", "train", "spvit_mini_compass6", "--run-dir", "run", *SMALL)
    assert train.returncode == 0 and (tmp_path / "run" / "summary.md").is_file(), train.stderr
    assert len(list((installed / "spvit_mini" / "data").glob("imagenet100*_wnids.txt"))) == 2


@pytest.mark.slow
@pytest.mark.parametrize("command", ["list", "lab", "site"])
def test_course_commands_say_where_the_lessons_are(installed, tmp_path, command):
    done = python(installed, tmp_path, "-m", "spvit_course", command)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "notebooks" in done.stderr and "checkout" in done.stderr
