"""The checks inside a real Jupyter kernel: lines are found, loops are stopped, and the network is cut there as well."""

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from spvit_course.classroom.execution import run_notebook

CELLS = {
    "setup": 'from spvit_course import begin\nfrom spvit_mini import geometry\n\nlesson = begin("00")',
    "wrong": "def patchify(image, p):\n    wide = image.flatten()\n    return wide.squash(p)\n\n\nlesson.check(patchify)",
    "endless": (
        "from spvit_course.checks import exercises\n"
        "from spvit_course.checks.engine import examine\n\n\n"
        "def patchify(image, p):\n"
        "    while True:\n"
        "        try:\n"
        "            p += 1\n"
        "        except Exception:\n"
        "            pass\n\n\n"
        'print(examine(exercises("00")["patchify"], patchify, seconds=0.3))'
    ),
    "graded": "def patchify(image, p):\n    return image\n\n\nlesson.check(patchify, grade=True)",
    "after": "print(geometry.patchify(__import__('torch').zeros(3, 4, 4), 2).shape)",
    "figure": "import matplotlib.pyplot as plt\nlesson.show(plt.figure(figsize=(1, 1)), alt='Nothing.')",
    "network": "import urllib.request\nurllib.request.urlopen('http://example.com')",
}


@pytest.mark.slow
def test_a_kernel_says_what_a_check_says(tmp_path):
    notebook = new_notebook(cells=[new_code_cell(source, id=name) for name, source in CELLS.items()])
    notebook.nbformat_minor = 5
    run_notebook(notebook, tmp_path, profile="smoke", allow_errors=True, cell_seconds=100)
    outputs = {cell.id: cell.outputs for cell in notebook.cells}

    def said(name):
        return "".join(output.get("text", "") for output in outputs[name])

    assert said("setup").startswith("Lesson 00, profile smoke, on ")
    assert said("wrong").splitlines()[0] == (
        "NOT YET patchify: AttributeError: 'Tensor' object has no attribute 'squash' (line 3: return wide.squash(p))"
    )
    assert said("endless") == "NOT YET patchify: stopped after 0.3 seconds. Is there a loop that never ends?\n"
    (error,) = outputs["graded"]
    assert (error.ename, error.evalue.splitlines()[0][:36]) == ("CheckFailed", "NOT YET patchify: the shape differs ")
    assert said("after") == "torch.Size([4, 12])\n"
    assert outputs["figure"][0].metadata["image/png"]["alt"] == "Nothing."
    assert "the tests run without a network" in outputs["network"][-1].evalue
