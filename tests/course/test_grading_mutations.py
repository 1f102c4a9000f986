"""Mutated notebooks through validation: each becomes a whole notebook of the set, and nothing of the student's is lost."""

import json

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from spvit_course.classroom.assignments import assemble
from spvit_course.classroom.copies import student_copy
from spvit_course.classroom.gradebook import one_line
from spvit_course.classroom.validation import validate_submission
from spvit_course.lessons import grading, text_of

from .mutations import MUTATIONS, SPARES, mutate
from .submissions import OFFSETS, PAD, SMALL, cell

BLANK = student_copy(assemble(SMALL))
WHY = "Because it changes nothing: 1 · s = s."
QUIET = {  # what programs do by themselves is nothing to look at
    "ids-dropped", "marks-dropped", "ids-and-marks-dropped", "one-id-invalid", "metadata-missing", "sources-are-text",
    "carriage-returns", "white-space", "byte-order-mark", "nul-bytes-at-the-end", "half-an-emoji", "outputs-of-unknown-types",
    "unknown-fields",
}  # fmt: skip
SOURCES = {"offsets": OFFSETS, "pad_prefix": PAD, "why": WHY}


@pytest.fixture
def good():
    """A solved notebook, and in its metadata the solutions as they were handed out."""
    notebook = nbformat.from_dict(json.loads(text_of(BLANK)))
    notebook.metadata["stubs"] = {name: cell(BLANK, name).source for name in SOURCES}
    for name, source in SOURCES.items():
        cell(notebook, name).source = source
    return json.loads(text_of(notebook))


def last_definitions(notebook):
    """Run the code that only defines functions, as a kernel does from top to bottom; return what the names mean at the end."""
    found = {}
    for one in notebook.cells:
        if one.cell_type == "code" and not grading(one).get("grade"):
            source = TransformerManager().transform_cell(one.source)
            for name in ("offsets", "pad_prefix"):
                if f"def {name}(" in source:
                    found[name] = source
    return found


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutated_notebook_is_whole_again(tmp_path, good, name, seed):
    (tmp_path / "small.ipynb").write_bytes(mutate(good, name, seed))
    submission = validate_submission(tmp_path, BLANK, "small")
    notebook = submission.notebook
    nbformat.validate(nbformat.reads(text_of(notebook).encode().decode(), as_version=4))
    assert len({one.id for one in notebook.cells}) == len(notebook.cells)
    for one in BLANK.cells:
        marks = grading(one)
        if marks and not (marks["solution"] and one.cell_type == "code"):
            same = cell(notebook, marks["grade_id"])
            assert (same.cell_type, grading(same)) == (one.cell_type, marks)
            assert marks["solution"] or same.source == one.source
    names = [grading(one)["grade_id"] for one in notebook.cells if grading(one)]
    assert len(names) == len(set(names))
    assert all(line and len(one_line(line).encode().splitlines()) == 1 for line in submission.odd)
    if name in QUIET:
        assert submission.odd == []
    if name in SPARES:
        definitions = last_definitions(notebook)
        assert all("raise NotImplementedError" not in source for source in definitions.values()) and len(definitions) == 2
        answer = cell(notebook, "why").source
        assert WHY[:20] in answer or submission.elsewhere == ["why"] or "\ufffd" in answer


def test_a_mutated_notebook_is_a_different_one_and_the_same_for_a_seed(good):
    plain = json.dumps(good).encode()
    for name in MUTATIONS:
        assert mutate(good, name, 1) == mutate(good, name, 1) != plain or name == "sources-are-text"
