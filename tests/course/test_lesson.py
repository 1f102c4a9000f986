"""What a notebook's set-up cell imports, and what `lesson` does and offers."""

import ast
import base64
import functools
import io
import random
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from spvit_course import begin, checks
from spvit_course.checks.engine import CheckFailed
from spvit_course.lesson import PROFILES, Lesson, compact, definition
from spvit_course.lessons import lesson_files, read
from spvit_mini.errors import UserError


@pytest.fixture
def lesson():
    return Lesson("00", PROFILES["smoke"])


def right(image, p):
    tokens = [
        image[:, r : r + p, c : c + p].flatten()
        for r in range(0, image.shape[1], p)
        for c in range(0, image.shape[2], p)
    ]
    return torch.stack(tokens)


def stub(image, p):
    # YOUR CODE HERE
    raise NotImplementedError()


def test_the_set_up_prints_one_line_and_seeds_everything(monkeypatch, capsys):
    monkeypatch.delenv("SPVIT_PROFILE", raising=False)
    threads, drawn = torch.get_num_threads(), []
    for _ in range(2):
        lesson = begin("00")
        drawn.append((torch.rand(2).tolist(), np.random.rand(), random.random()))
    assert drawn[0] == drawn[1]
    line = r"Lesson 00, profile standard, on (cpu|cuda|mps) \(spvit_mini [\d.]+, torch \S+, Python [\d.]+\)"
    assert all(re.fullmatch(line, printed) for printed in capsys.readouterr().out.splitlines())
    assert torch.get_num_threads() == threads
    assert lesson.profile == PROFILES["standard"]
    assert plt.rcParams["figure.constrained_layout.use"]


@pytest.mark.parametrize(("name", "steps"), [("smoke", 2), ("quick", 40), ("standard", 240), ("full", 240)])
def test_the_profile_is_read_from_the_environment(monkeypatch, name, steps):
    monkeypatch.setenv("SPVIT_PROFILE", name)
    profile = begin("00").profile
    assert (profile.name, profile.steps(240)) == (name, steps)
    assert profile.steps(1) == 1
    with pytest.raises(AttributeError):
        profile.share = 2.0


def test_an_unknown_profile_is_refused(monkeypatch):
    monkeypatch.setenv("SPVIT_PROFILE", "fast")
    with pytest.raises(UserError, match="SPVIT_PROFILE is 'fast'; expected one of smoke, quick, standard, full"):
        begin("00")


def test_a_lesson_offers_what_belongs_to_a_lesson_and_nothing_of_the_library(lesson):
    names = {name for name in dir(lesson) if not name.startswith("_")}
    assert names == {"check", "exchange", "explore", "number", "profile", "progress", "show", "source", "train"}
    with pytest.raises(AttributeError):
        _ = lesson.SPSA


# Set-up cells -----------------------------------------------------------------------------------------------------------

LESSONS = lesson_files()
each_lesson = pytest.mark.parametrize("path", LESSONS, ids=[path.stem for path in LESSONS])


def set_up_and_other_cells(path):
    """Parse a lesson's code: the set-up cell, and all other code cells by their ids."""
    setup, *others = (cell for cell in read(path).cells if cell.cell_type == "code")
    return ast.parse(setup.source), {cell.id: ast.parse(cell.source) for cell in others}


def imported_names(tree):
    """Map the names that a cell imports to the modules they come from."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                names[alias.asname or alias.name] = getattr(node, "module", alias.name)
    return names


def bound_names(tree):
    """List the names that a cell's code binds: by assignment, in a loop, by `def`, `class` or `import`."""
    names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    names += [node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    return {*names, *imported_names(tree)}


@each_lesson
def test_only_the_set_up_imports_from_the_packages_and_each_name_is_used(path):
    setup, others = set_up_and_other_cells(path)
    names = imported_names(setup)
    assert names["begin"] == "spvit_course" and "*" not in names
    used = {node.id for tree in others.values() for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert set(names) - {"begin"} <= used
    packages = ("spvit_mini", "spvit_course", "spvit_experiments")
    for name, tree in others.items():
        assert not [module for module in imported_names(tree).values() if module.partition(".")[0] in packages], name


@each_lesson
def test_no_cell_binds_a_name_that_the_set_up_imports(path):
    setup, others = set_up_and_other_cells(path)
    names = {*imported_names(setup), "lesson"}
    assert names.isdisjoint(checks.exercises(path.name[:2]))
    for name, tree in others.items():
        assert names.isdisjoint(bound_names(tree)), name


# Checks and sources -----------------------------------------------------------------------------------------------------


def test_a_check_prints_and_a_graded_one_raises(lesson, capsys):
    lesson.check(right, name="patchify")
    assert capsys.readouterr().out == "PASS patchify: 8 shapes, float32 stays float32, gradients\n"
    lesson.check(stub, name="patchify")
    assert capsys.readouterr().out.startswith("not done yet patchify: ")
    lesson.check(lambda image, p: image, name="patchify")
    assert capsys.readouterr().out.startswith("NOT YET patchify: ")

    lesson.check(right, name="patchify", grade=True)
    with pytest.raises(CheckFailed, match="not done yet patchify"):
        lesson.check(stub, name="patchify", grade=True)
    with pytest.raises(CheckFailed, match="NOT YET patchify: the shape differs"):
        lesson.check(lambda image, p: image, name="patchify", grade=True)
    assert capsys.readouterr().out == ""


def test_a_check_finds_its_exercise_by_the_functions_name(lesson, capsys):
    def patchify(image, p):
        return right(image, p)

    lesson.check(patchify)
    assert capsys.readouterr().out.startswith("PASS patchify")
    with pytest.raises(UserError, match="lesson 00 has no exercise 'right'; its exercises: patchify, unpatchify"):
        lesson.check(right)


class Called:
    def __call__(self, image, p):
        return right(image, p)


def timed(function):
    def wrapper(*arguments):
        return function(*arguments)

    return wrapper


@pytest.mark.parametrize(
    "form",
    [
        "lambda image, p: right(image, p)", "functools.partial(right)", "Called()", "Called().__call__", "timed(right)",
        "torch.compile(right)", "lambda image, p, *, verbose=False: right(image, p) + 0 * image.sum()",
        "lambda image, p: right(image, p).T.contiguous().T", "torch.no_grad()(right)", "right(image, 2)", "[right]", "None",
    ],
)  # fmt: skip
def test_an_answer_without_a_name_of_its_own_is_found_by_the_notebooks_variable(lesson, capsys, form):
    """As a notebook's cell does, this one has globals of its own. The last four are refused as wrong answers."""
    code = f"patchify = {form}\nlesson.check(patchify)"
    names = {"Called": Called, "functools": functools, "image": torch.ones(3, 4, 6), "lesson": lesson, "right": right}
    exec(code, names | {"__name__": "__main__", "timed": timed, "torch": torch})
    printed = capsys.readouterr().out
    says = {
        "torch.no_grad()(right)": "NOT YET patchify: the values are right, but no gradient",
        "right(image, 2)": "NOT YET patchify: this is a Tensor, not a function",
        "[right]": "NOT YET patchify: this is a list, not a function",
        "None": "NOT YET patchify: this is None, not a function",
    }
    assert printed.startswith(says.get(form, "PASS patchify")), printed


def test_a_lesson_without_exercises_says_so():
    with pytest.raises(UserError, match="lesson 99 has no exercise 'right'; its exercises: none"):
        Lesson("99", PROFILES["smoke"]).check(right)


def test_the_solutions_source_is_shown_after_the_check_passed(lesson, capsys):
    lesson.source("patchify")
    assert capsys.readouterr().out == "The package's patchify is shown here once your own passes its check.\n"
    lesson.check(stub, name="patchify")
    capsys.readouterr()
    lesson.source("patchify")
    assert "once your own passes" in capsys.readouterr().out
    lesson.check(right, name="patchify")
    capsys.readouterr()
    lesson.source("patchify")
    assert capsys.readouterr().out.startswith("def patchify(")
    lesson.source("SPSA.weights")
    assert capsys.readouterr().out.startswith("    def weights(")
    with pytest.raises(UserError, match=r"source name is 'SPSB'; expected .*\. Did you mean SPSA"):
        lesson.source("SPSB")


@pytest.mark.parametrize("name", ["Tensor", "einsum", "UserError", "begin"])
def test_a_source_is_a_definition_of_the_modules_not_what_they_import(name):
    with pytest.raises(UserError, match=f"source name is '{name}'"):
        definition(name)


def test_a_source_of_another_name_waits_for_the_exercise_that_it_solves(lesson, capsys):
    lesson.source("SPSA.weights", after="patchify")
    assert capsys.readouterr().out == "The package's SPSA.weights is shown here once your own passes its check.\n"
    lesson.check(right, name="patchify")
    capsys.readouterr()
    lesson.source("SPSA.weights", after="patchify")
    assert capsys.readouterr().out.startswith("    def weights(")


def test_a_figure_is_shown_with_words_and_closed(lesson, monkeypatch):
    import IPython.display

    shown = []
    monkeypatch.setattr(IPython.display, "display", lambda *data, **options: shown.append((data, options)))
    figure = plt.figure(figsize=(2, 1))
    lesson.show(figure, "Nothing at all.")
    ((data,), options) = shown[0]
    assert data["text/plain"] == "Nothing at all."
    png = base64.b64decode(data["image/png"])
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert (int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")) == (288, 144)
    assert options["metadata"]["image/png"] == {"alt": "Nothing at all.", "width": 192}
    assert not plt.fignum_exists(figure.number)


def test_training_is_as_long_as_the_profile_says(monkeypatch):
    import spvit_mini.training

    asked = []
    monkeypatch.setattr(spvit_mini.training, "train", lambda recipe, **options: asked.append((recipe, options)))
    for name in PROFILES:
        Lesson("00", PROFILES[name]).train(
            "spvit_mini_compass6", seed=3, changes={"duration": "600 steps", "optim.warmup": "60 steps"}
        )
    recipes = [recipe for recipe, _ in asked]
    assert [options["max_steps"] for _, options in asked] == [2, None, None, None]
    assert [recipe.duration for recipe in recipes] == [f"{n}.000000 steps" for n in (600, 100, 600, 600)]
    assert [recipe.optim.warmup for recipe in recipes] == [f"{n}.000000 steps" for n in (60, 10, 60, 60)]
    assert all(recipe.seed == 3 and recipe.model.name == "spvit_mini" for recipe in recipes)


@pytest.mark.slow
def test_smoke_trains_two_steps(lesson, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    result = lesson.train("spvit_mini_compass6", progress=False)
    assert result.step == 2
    assert [row["step"] for row in result.rows] == [2]
    assert list(tmp_path.iterdir()) == []


def test_a_picture_is_stored_smaller_and_looks_the_same():
    figure, axes = plt.subplots()
    axes.imshow(np.random.default_rng(0).random((8, 8)))
    axes.plot([0, 7], [7, 0])
    plain = io.BytesIO()
    figure.savefig(plain, format="png", dpi=144)
    plt.close(figure)
    small = compact(plain.getvalue())
    before, after = (np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), float) for png in (plain.getvalue(), small))
    assert len(small) < 0.6 * len(plain.getvalue())
    assert abs(before - after).mean() < 1
    assert len(compact(small)) <= len(small)
