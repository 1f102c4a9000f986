"""Pictures with choices: drawn at once and again in a browser, once elsewhere, and no widget stored."""

import importlib
import sys
from pathlib import Path

import IPython.display
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from spvit_course.classroom.execution import run_notebook, tidy
from spvit_course.classroom.lint import problems
from spvit_course.explore import explore
from spvit_course.lesson import PROFILES, Lesson

module = importlib.import_module("spvit_course.explore")


@pytest.fixture
def displayed(monkeypatch):
    shown = []
    monkeypatch.setattr(IPython.display, "display", lambda *values, **options: shown.extend(values))
    return shown


def test_it_draws_the_start_and_what_is_chosen_then(displayed, monkeypatch, capsys):
    pytest.importorskip("ipywidgets")
    monkeypatch.setattr(module, "has_browser", lambda: True)
    drawn = []
    Lesson("00", PROFILES["smoke"]).explore(lambda **values: drawn.append(values), rows=(1, 8, 4), query_row=(0, 7, 1))
    (box,) = displayed
    rows, query_row = box.children[0].children
    assert (rows.min, rows.max, rows.description, query_row.description) == (1, 8, "rows", "query row")
    query_row.value = 3
    assert drawn == [{"rows": 4, "query_row": 1}, {"rows": 4, "query_row": 3}]
    assert "Run this cell again where the fields show an error" in capsys.readouterr().out  # stays when the kernel is gone
    rows.value = 9
    assert drawn[-1] == {"rows": 8, "query_row": 3}


@pytest.mark.parametrize("missing", ["browser", "widgets"])
def test_without_a_browser_or_widgets_it_draws_once(displayed, monkeypatch, missing):
    drawn = []
    if missing == "widgets":
        monkeypatch.setitem(sys.modules, "ipywidgets", None)
        monkeypatch.setattr(module, "has_browser", lambda: True)
    explore(lambda **values: drawn.append(values), rows=(1, 8, 4), query_row=(0, 7, 1))
    assert (drawn, displayed) == ([{"rows": 4, "query_row": 1}], [])


def test_a_program_that_runs_notebooks_gets_no_output_widget():
    """nbclient answers an Output widget on the channel on which it waits for the end of the cell, and may miss that end."""
    pytest.importorskip("ipywidgets")
    begin = "from spvit_course.explore import explore\ndef draw(a, b):\n    print(f'drawn {a} {b}')"
    cells = [new_code_cell(source) for source in (begin, *["explore(draw, a=(1, 9, 3), b=(0, 9, 4))"] * 4)]
    notebook = run_notebook(new_notebook(cells=cells), Path.cwd(), profile="smoke")
    assert [[(output.output_type, output.text) for output in cell.outputs] for cell in notebook.cells[1:]] == [
        [("stream", "drawn 3 4\n")]
    ] * 4
    assert "widgets" not in notebook.metadata


def test_no_widget_is_stored(lesson):
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "1", "version_major": 2, "version_minor": 0}}
    outputs = [new_output("display_data", view | {"text/plain": "VBox()"}), new_output("stream", name="stdout", text="stays\n")]
    lesson.cells.append(new_code_cell("explore()", id="explore", outputs=outputs, execution_count=6))
    tidy(lesson)
    assert [output.get("text") for output in lesson.cells[-1].outputs] == ["stays\n"]
    assert problems(lesson) == []
