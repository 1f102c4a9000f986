"""Pictures with choices: drawn at once and again, nothing where widgets are missing, nothing of them stored."""

import sys

import IPython.display
import pytest
from nbformat.v4 import new_code_cell, new_output

from spvit_course.classroom.execution import tidy
from spvit_course.classroom.lint import problems
from spvit_course.explore import explore
from spvit_course.lesson import PROFILES, Lesson


@pytest.fixture
def displayed(monkeypatch):
    shown = []
    monkeypatch.setattr(IPython.display, "display", lambda *values, **options: shown.extend(values))
    return shown


def test_it_draws_the_start_and_what_is_chosen_then(displayed):
    pytest.importorskip("ipywidgets")
    drawn = []
    Lesson("00", PROFILES["smoke"]).explore(lambda **values: drawn.append(values), rows=(1, 8, 4), query_row=(0, 7, 1))
    (box,) = displayed
    rows, query_row = box.children[0].children
    assert (rows.min, rows.max, rows.description, query_row.description) == (1, 8, "rows", "query row")
    query_row.value = 3
    assert drawn == [{"rows": 4, "query_row": 1}, {"rows": 4, "query_row": 3}]
    rows.value = 9
    assert drawn[-1] == {"rows": 8, "query_row": 3}


def test_without_widgets_it_does_nothing(displayed, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    explore(lambda **values: pytest.fail("drawn"), rows=(1, 8, 4))
    assert displayed == []


def test_no_widget_is_stored(lesson):
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "1", "version_major": 2, "version_minor": 0}}
    outputs = [new_output("display_data", view | {"text/plain": "VBox()"}), new_output("stream", name="stdout", text="stays\n")]
    lesson.cells.append(new_code_cell("explore()", id="explore", outputs=outputs, execution_count=6))
    tidy(lesson)
    assert [output.get("text") for output in lesson.cells[-1].outputs] == ["stays\n"]
    assert problems(lesson) == []
