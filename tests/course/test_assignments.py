"""Assignments: each set is whole, in nbgrader's format, and says the truth about itself; variants change what they say."""

import re
from dataclasses import replace

import nbformat
import pytest

from spvit_course.classroom.assignments import CELL_SECONDS, INTEGRITY, assemble, find_problem_set
from spvit_course.classroom.copies import build_copies, student_copy
from spvit_course.classroom.problem_sets import SETS, Part, Question
from spvit_course.classroom.variants import VARIANTS, vary
from spvit_course.lessons import grading, lesson_files, read
from spvit_mini.errors import UserError

each_set = pytest.mark.parametrize("name", SETS)


def graded(notebook):
    return [cell for cell in notebook.cells if grading(cell).get("grade")]


def by_name(notebook):
    return {grading(cell)["grade_id"]: cell for cell in notebook.cells if grading(cell)}


@each_set
def test_a_set_is_a_notebook_whose_names_are_its_own(name):
    notebook = assemble(SETS[name])
    nbformat.validate(notebook)
    ids = [cell.id for cell in notebook.cells]
    names = [grading(cell)["grade_id"] for cell in notebook.cells if grading(cell)]
    assert len(set(ids)) == len(ids) and len(set(names)) == len(names)
    assert all(not cell.outputs for cell in notebook.cells if cell.cell_type == "code")
    for cell in notebook.cells:  # students have this file alone
        assert all(link.startswith("http") for link in re.findall(r"\]\(([^)]+)\)", cell.source)), cell.id


@each_set
def test_exercises_are_the_lessons_own(name):
    cells = by_name(assemble(SETS[name]))
    for part in SETS[name].parts:
        if isinstance(part, Part):
            (path,) = [path for path in lesson_files() if path.name.startswith(part.lesson)]
            theirs = by_name(read(path))
            assert cells[part.exercise].source == theirs[part.exercise].source
            check = next(grading(cell)["grade_id"] for cell in graded(read(path)) if f"({part.exercise})" in cell.source)
            assert grading(cells[check]) == grading(theirs[check])
            lines = cells[check].source.split("\n")
            lines.remove("from spvit_course.classroom.proctor import proctored")
            lines.remove(f'lesson = proctored("{part.lesson}")')
            assert [line for line in lines if line] == theirs[check].source.split("\n")


@each_set
def test_the_front_page_says_what_the_cells_give(name):
    notebook = assemble(SETS[name])
    page = notebook.cells[0].source
    checked = sum(grading(cell)["points"] for cell in graded(notebook) if cell.cell_type == "code")
    read_by_people = sum(grading(cell)["points"] for cell in graded(notebook) if cell.cell_type == "markdown")
    assert checked > 0 and read_by_people == sum(part.points for part in SETS[name].parts if isinstance(part, Question))
    assert f"{SETS[name].minutes} minutes · {checked + read_by_people} points, {checked} from checks" in page
    rows = re.findall(r"^\| \d+ \| (\S+) \| (\d+) \| a (check|person) \|$", page, re.MULTILINE)
    assert sum(int(points) for _, points, _ in rows) == checked + read_by_people
    assert len(rows) == len(SETS[name].parts)
    headings = [cell.source for cell in notebook.cells if re.match(r"## Exercise \d", cell.source)]
    assert [int(re.search(r"\d+", text)[0]) for text in headings] == list(range(1, len(rows) + 1))
    assert INTEGRITY in page and f"`{name}.ipynb`" in page and f"{CELL_SECONDS} seconds" in page


@each_set
def test_nothing_of_an_answer_or_a_rubric_is_handed_out(name):
    handed_out = student_copy(assemble(SETS[name]))
    text = "\n".join(" ".join(line.split()) for cell in handed_out.cells for line in cell.source.split("\n"))
    assert not re.search(r"BEGIN |END SOLUTION|MARK SCHEME|proctored|grade=True", text)
    for part in SETS[name].parts:
        secret = part.answer + "\n" + part.rubric if isinstance(part, Question) else ""
        if isinstance(part, Part):
            source = by_name(assemble(SETS[name]))[part.exercise].source
            secret = re.search(r"### BEGIN SOLUTION\n(.*?)### END SOLUTION", source, re.DOTALL)[1]
        lines = [" ".join(line.split()) for line in secret.split("\n")]
        assert [line for line in lines if len(line) >= 16 and not line.startswith("#") and line in text] == []


def test_a_question_is_two_cells_the_rubric_in_the_locked_one():
    question = Question("why", 3, "Why?", "- **3 points**: because", "Because.")
    *_, text, answer, _ = assemble(replace(SETS["set_1"], parts=(question,))).cells
    assert grading(text)["locked"] and not grading(text)["grade"]
    assert "<!-- BEGIN MARK SCHEME -->\n**What earns points**\n\n- **3 points**: because\n<!-- END MARK SCHEME -->" in text.source
    assert grading(answer) | {"grade": True, "solution": True, "points": 3, "locked": False} == grading(answer)
    copy = student_copy(assemble(replace(SETS["set_1"], parts=(question,))))
    assert [cell.source for cell in copy.cells[-3:-1]] == [
        "## Exercise 1 · in words\n\nWhy?\n\n*(3 points, read by a person)*\n",
        "YOUR ANSWER HERE",
    ]


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ((Part("03", "ofsets"),), "lesson 03 has no exercise 'ofsets'; its exercises: offsets, spread, pad_prefix"),
        ((Part("44", "offsets"),), "there is no lesson '44'"),
        ((Part("03", "offsets"), Part("03", "offsets")), "set_1 has two cells with the grade_id 'check-offsets'"),
    ],
)
def test_a_set_that_cannot_be_is_refused(parts, says):
    with pytest.raises(UserError, match=re.escape(says)):
        assemble(replace(SETS["set_1"], parts=parts))


def test_an_unknown_set_is_refused_with_its_likes():
    with pytest.raises(UserError, match=r"there is no problem set 'set1'; there are set_1, .*Did you mean"):
        find_problem_set("set1")


def test_a_varied_set_is_sealed_like_a_plain_one():
    plain = by_name(assemble(SETS["set_1"]))
    changed = by_name(assemble(SETS["set_1"], vary=lambda notebook: vary(notebook, "x_first")))
    assert changed["offsets"].source != plain["offsets"].source and changed["entropy"].source == plain["entropy"].source
    assert changed["check-offsets"].source.count('variant="x_first"') == 2
    assert 'lesson = proctored("03")' in changed["check-offsets"].source


@pytest.mark.parametrize("variant", VARIANTS)
def test_copies_of_varied_lessons(tmp_path, variant):
    known = {change.lesson for change in VARIANTS[variant].exercises}
    build_copies(tmp_path / "plain")
    build_copies(tmp_path / "varied", variant=variant)
    for path in lesson_files():
        copies = [(tmp_path / folder / path.name).read_text(encoding="utf-8") for folder in ("plain", "varied")]
        assert (copies[0] != copies[1]) == (path.name[:2] in known), path.name
        assert (f'variant=\\"{variant}\\"' in copies[1]) == (path.name[:2] in known)


def test_an_unknown_variant_is_refused(tmp_path):
    with pytest.raises(UserError, match="there is no variant 'y_first'"):
        build_copies(tmp_path, variant="y_first")
    assert not list(tmp_path.iterdir())
