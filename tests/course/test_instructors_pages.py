"""The instructors' pages say what the README, the lessons, the problem sets and the variants say."""

import re

import pytest

from spvit_course.classroom import grading as grading_program
from spvit_course.classroom.assignments import assemble, find_problem_set
from spvit_course.classroom.problem_sets import SETS, Part
from spvit_course.classroom.variants import VARIANTS
from spvit_course.lessons import ROOT, grading, heading, lesson_files, read

TEACHING = (ROOT / "docs" / "instructors" / "teaching.md").read_text(encoding="utf-8")
GRADING = (ROOT / "docs" / "instructors" / "grading.md").read_text(encoding="utf-8")
MINUTES = {top.number: top.student_minutes for top in (heading(read(path)) for path in lesson_files())}


def rows(text: str, first: str) -> list[list[list[str]]]:
    """Find the tables of a page whose first column is called `first`: each a list of rows, a row a list of texts."""
    tables = re.findall(rf"^\| {first} \|.*\n\|[-| ]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    return [[[field.strip() for field in line.strip("|").split("|")] for line in table.splitlines()] for table in tables]


def test_the_plans_are_the_readme_s_and_their_minutes_are_the_lessons():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (short,) = rows(readme, "week")
    thirteen, eight, four = rows(TEACHING, "week")
    assert [row[1] for row in eight] == [row[1] for row in short]
    assert [row[1] for row in four] == [row[2] for row in short if row[2]]
    assert [row[1] for row in thirteen] == ["00, 01", *(number for number in MINUTES if number > "01")]
    for plan in (thirteen, eight, four):
        assert [row[0] for row in plan] == [str(week) for week in range(1, len(plan) + 1)]
        for _, lessons, minutes, _ in plan:
            assert int(minutes) == sum(MINUTES[number] for number in lessons.split(", "))


@pytest.mark.parametrize("plan", range(3))
def test_a_set_is_handed_out_when_its_lessons_are_done(plan):
    done, given = set(), []
    for _, lessons, _, sets in rows(TEACHING, "week")[plan]:
        done |= set(lessons.split(", "))
        for name in re.findall("set_[1-4]|project", sets):
            given.append(name)
            asked = {part.lesson for part in SETS[name].parts if isinstance(part, Part)}
            assert asked <= done, f"{name} asks for {asked - done}"
    assert given == [name for name in SETS if name in given]
    assert plan == 2 or given == list(SETS)


def test_the_sets_table_holds_what_is_assembled():
    (table,) = rows(TEACHING, "set")
    for row, name in zip(table, SETS, strict=True):
        problem_set = SETS[name]
        cells = [cell for cell in assemble(find_problem_set(name)).cells if grading(cell).get("grade")]
        points = {kind: sum(grading(cell)["points"] for cell in cells if cell.cell_type == kind) for kind in ("code", "markdown")}
        assert row[0].startswith(f"`{name}` {problem_set.title.split(' · ')[1]}")
        assert f"after lesson {row[1]}" == problem_set.after
        assert row[2].split(",")[0] == str(problem_set.minutes)
        assert row[3] == f"{points['code']} + {points['markdown']}"
        assert row[4].split(", ") == [part.exercise for part in problem_set.parts if isinstance(part, Part)]
        assert row[5].split(", ") == [part.name for part in problem_set.parts if not isinstance(part, Part)]


def test_the_variants_table_says_what_each_changes():
    (table,) = rows(TEACHING, "variant")
    for (name, _, changes), (variant, known) in zip(table, VARIANTS.items(), strict=True):
        assert name == f"`{variant}`"
        exercises = [varied.exercise for varied in known.exercises]
        sets = [name for name in SETS if {getattr(part, "exercise", None) for part in SETS[name].parts} & set(exercises)]
        assert changes == f"{', '.join(exercises)}: {', '.join(sets)}"


def test_the_grading_page_names_folders_and_options_that_are_there():
    program = (ROOT / "spvit_course" / "__main__.py").read_text(encoding="utf-8")
    options = set(re.findall(r"(?:course (?:release|grade) set_1|`)[^\n`]*?(--(?:variant|classroom|rerun|cell-\w+))", GRADING))
    assert {"--variant", "--classroom"} <= options
    for option in options:
        assert f'"{option}"' in program, option
    described = (grading_program.__doc__ or "") + (ROOT / "nbgrader_config.py").read_text(encoding="utf-8")
    folders = {row[0].strip("`").split("/")[0] for row in rows(GRADING, r"in `classroom/`")[0]}
    assert {"source", "release", "submitted", "autograded", "feedback", "reports"} <= folders
    for folder in folders:
        assert folder in described, folder
