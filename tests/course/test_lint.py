"""The guard: nothing to say about a lesson in order, and a line about each way to break it."""

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from spvit_course.classroom.lint import SECTIONS, problems


def cell(notebook, name):
    return next(cell for cell in notebook.cells if cell.id == name)


def test_a_lesson_in_order_passes(lesson):
    assert problems(lesson) == []


def test_the_set_up_imports_what_the_lesson_uses(lesson):
    cell(lesson, "setup").source = "from spvit_mini import geometry\n" + cell(lesson, "setup").source
    assert problems(lesson) == []


def stripped(lesson):
    cell(lesson, "check-patchify").outputs = []


def out_of_order(lesson):
    cell(lesson, "count").execution_count = 7


def never_run(lesson):
    cell(lesson, "count").execution_count = None


def with_error(lesson):
    cell(lesson, "count").outputs = [new_output("error", ename="ValueError", evalue="no", traceback=[])]


def with_warning(lesson):
    cell(lesson, "count").outputs.append(new_output("stream", name="stderr", text="UserWarning: old"))


def large(lesson):
    cell(lesson, "count").outputs[0].data["text/plain"] = "x" * 500_001


def without_alt(lesson):
    cell(lesson, "experiment").outputs[0].metadata = {}


def with_empty_alt(lesson):
    cell(lesson, "experiment").outputs[0].metadata["image/png"]["alt"] = "  "


def without_alt_in_text(lesson):
    cell(lesson, "idea").source += "\n\n![](attachment:b.png)"


def without_alt_in_html(lesson):
    cell(lesson, "idea").source += "\n\n<img src='a.png' alt='' width=10>"


def same_id(lesson):
    cell(lesson, "question").id = "title"


def widgets(lesson):
    lesson.metadata["widgets"] = {"state": {}}


def other_kernel(lesson):
    lesson.metadata.kernelspec.name = "spvit"


def hidden_outputs(lesson):
    cell(lesson, "count").metadata["jupyter"] = {"outputs_hidden": True}


def collapsed(lesson):
    cell(lesson, "count").metadata["collapsed"] = True


def magic(lesson):
    cell(lesson, "count").source = "%matplotlib inline"


def shell(lesson):
    cell(lesson, "count").source = "!pip install torch"


def long_cell(lesson):
    cell(lesson, "count").source = "\n".join(f"a = {i}" for i in range(16))


def long_class(lesson):
    cell(lesson, "count").source = "class A:\n" + "\n".join(f"    a = {i}" for i in range(35))


def long_line(lesson):
    cell(lesson, "count").source = f"a = '{'x' * 120}'"


def empty_cell(lesson):
    cell(lesson, "count").source = "\n"


def without_section(lesson):
    lesson.cells.remove(cell(lesson, "hand"))


def unknown_section(lesson):
    cell(lesson, "hand").source += "\n\n## A word more"


def sections_swapped(lesson):
    cell(lesson, "further").source, cell(lesson, "table").source = (
        cell(lesson, "table").source,
        cell(lesson, "further").source,
    )


def twice(lesson):
    lesson.cells.append(new_markdown_cell("## References\n\n- more", id="more"))


def without_title(lesson):
    cell(lesson, "title").source = "# A lesson"


def wrong_points(lesson):
    cell(lesson, "title").source = cell(lesson, "title").source.replace("2 points", "3 points")


def without_notation(lesson):
    cell(lesson, "title").source = cell(lesson, "title").source.replace(" · [notation](notation.md)", "")


def link_outside(lesson):
    cell(lesson, "idea").source += "\n\nSee [the records](../data/results/lesson_00.csv)."


def many_goals(lesson):
    cell(lesson, "goals").source += "\n- b\n- c\n- d\n- e"


def other_setup(lesson):
    cell(lesson, "setup").source += "\nimport torch"


def of_another_profile(lesson):
    cell(lesson, "setup").outputs[0].text = "Lesson 00, profile quick, on cpu\n"


def without_not_shown(lesson):
    cell(lesson, "saw").source = "## What we saw\n\nA square."


def without_table(lesson):
    cell(lesson, "table").source = "## Paper, official code, and us\n\nNothing."


def without_picture(lesson):
    cell(lesson, "experiment").outputs = []


def no_solution_cell(lesson):
    cell(lesson, "solution-patchify").metadata = {}


def no_markers(lesson):
    solution = cell(lesson, "solution-patchify")
    solution.source = "\n".join(line for line in solution.source.split("\n") if "###" not in line)


def no_end(lesson):
    solution = cell(lesson, "solution-patchify")
    solution.source = solution.source.replace("    ### END SOLUTION", "")


def solution_outside(lesson):
    solution = cell(lesson, "solution-patchify")
    solution.source = "### BEGIN SOLUTION\ndef patchify(image, p):\n    return image\n### END SOLUTION"


def no_check(lesson):
    lesson.cells.remove(cell(lesson, "check-patchify"))


def no_hidden_tests(lesson):
    cell(lesson, "check-patchify").source = "lesson.check(patchify)"


def same_grade_id(lesson):
    cell(lesson, "check-patchify").metadata["nbgrader"]["grade_id"] = "patchify"


def old_schema(lesson):
    cell(lesson, "check-patchify").metadata["nbgrader"]["schema_version"] = 1


def written(lesson, text="A square.\n\n- **2 points**: it says that.\n- **1 point**: and why.", **changes):
    """Add a written answer, marked by hand, and its points to the title."""
    data = {"grade": True, "grade_id": "why", "locked": False, "points": 3, "schema_version": 3, "solution": True}
    place = lesson.cells.index(cell(lesson, "check-patchify")) + 1
    metadata = {"nbgrader": data | {"task": False} | changes}
    lesson.cells.insert(place, new_markdown_cell(text, id="why", metadata=metadata))
    cell(lesson, "title").source = cell(lesson, "title").source.replace("2 points", "5 points")


def written_given_away(lesson):
    written(lesson, solution=False)


def written_without_a_scheme(lesson):
    written(lesson, "A square.")


def written_with_other_points(lesson):
    written(lesson, "A square.\n\n- **2 points**: it says that.")


def written_not_counted(lesson):
    written(lesson)
    cell(lesson, "title").source = cell(lesson, "title").source.replace("5 points", "2 points")


BROKEN = {
    written_given_away: "why: a graded text that is no solution cell",
    written_without_a_scheme: "gives 0 points, the cell 3",
    written_with_other_points: "gives 2 points, the cell 3",
    written_not_counted: "the title says 2 points, the graded cells give 5",
    stripped: "check-patchify: a checked cell without a stored output",
    out_of_order: "the execution counts are [1, 7, 3, 4, 5], not 1, 2, 3",
    never_run: "the execution counts are [1, None, 3, 4, 5], not 1, 2, 3",
    with_error: "count: a stored error, ValueError",
    with_warning: "count: something on stderr: 'UserWarning: old'",
    large: "bytes, more than 500000",
    without_alt: "experiment: a picture without alt text",
    with_empty_alt: "experiment: a picture without alt text",
    without_alt_in_text: "idea: a picture has no alt text",
    without_alt_in_html: "idea: a picture has no alt text",
    same_id: "the cell id 'title' is used more than once",
    widgets: "metadata.widgets",
    other_kernel: "the kernel is named 'spvit', not 'python3'",
    hidden_outputs: "count: metadata jupyter hide a part of the cell",
    collapsed: "count: metadata collapsed hide a part of the cell",
    magic: "count: no Python",
    shell: "count: no Python",
    long_cell: "count: 16 lines of code, more than 15",
    long_class: "count: 36 lines of code, more than 35",
    long_line: "count: a line of more than 120 characters",
    empty_cell: "count: an empty code cell",
    without_section: "the section 'By hand' is missing",
    unknown_section: "an unknown section 'A word more'",
    sections_swapped: "the sections are out of order",
    twice: "the section 'References' comes 2 times",
    without_title: "the first cell is no title",
    wrong_points: "the title says 3 points, the graded cells give 2",
    without_notation: "the page of notation is not linked",
    link_outside: "idea: a link out of the folder of lessons",
    many_goals: "'You will be able to' has 5 points, not 1 to 4",
    other_setup: "the first code cell is not the set-up",
    of_another_profile: "the stored outputs are not of the standard profile",
    without_not_shown: "the section 'What we saw' lacks a word on what was not shown",
    without_table: "the section 'Paper, official code, and us' lacks a table",
    without_picture: "the experiment shows no picture",
    no_solution_cell: "solution-patchify: a solution region in a cell that is no solution cell",
    no_markers: "solution-patchify: a solution cell without a marked region",
    no_end: "solution-patchify: without its solution it is no Python: a SOLUTION region has no end",
    solution_outside: "solution-patchify: a solution region outside a function's body",
    no_check: "exercise: an exercise without a graded check",
    no_hidden_tests: "check-patchify: a graded cell without hidden tests",
    same_grade_id: "the grade_id 'patchify' is used more than once",
    old_schema: "check-patchify: nbgrader metadata of schema 1, not 3",
}


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_a_broken_lesson_is_refused(lesson, broken):
    broken(lesson)
    found = problems(lesson)
    assert any(BROKEN[broken] in problem for problem in found), found


def test_a_written_answer_with_its_marking_scheme_passes(lesson):
    written(lesson)
    assert problems(lesson) == []


def test_a_notebook_with_nothing_in_it_is_refused(lesson):
    lesson.cells = []
    found = problems(lesson)
    assert all(f"the section '{name}' is missing" in found for name in SECTIONS)


def test_code_and_exercises_may_alternate(lesson):
    place = lesson.cells.index(cell(lesson, "guess"))
    lesson.cells.insert(place, new_markdown_cell("## In code, once more", id="code-2"))
    lesson.cells.insert(place + 1, new_code_cell("3", id="three", execution_count=5))
    cell(lesson, "experiment").execution_count = 6
    assert problems(lesson) == []
