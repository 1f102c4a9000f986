"""How nbgrader grades the problem sets. `python -m spvit_course release|grade` reads this, and so does nbgrader itself.

What is set here keeps a submission from running for ever, from filling the disk and from points it has not earned. It is
no wall: code that takes Python apart is kept in by a container without a network, and by nothing else (docs/instructors).
"""

import os
import sysconfig
from pathlib import Path

from spvit_course.classroom.assignments import CELL_SECONDS
from spvit_course.classroom.autograding import ProctoredExecute
from spvit_course.classroom.execution import kernel_environment

c = get_config()  # noqa: F821

# Everything of a class lies in one folder, which git ignores: source, release, submitted, autograded, feedback, gradebook.db.
classroom = Path(__file__).resolve().parent / "classroom"
c.CourseDirectory.course_id = "spvit-mini"
c.CourseDirectory.root = str(classroom)
c.CourseDirectory.db_url = f"sqlite:///{classroom / 'gradebook.db'}"
c.Exchange.root = str(classroom / "exchange")  # not used; its default would draw a warning

# Kernels: this Python and this package, two training steps where a lesson trains, one thread, nothing asked of the network.
os.environ.update(kernel_environment())
os.environ.update(SPVIT_PROFILE="smoke", OMP_NUM_THREADS="1", MPLBACKEND="module://matplotlib_inline.backend_inline")
os.environ.update(HF_HUB_OFFLINE="1", PIP_NO_INDEX="1")
# nbgrader calls alembic by its name when it makes the gradebook; an environment that was not activated does not find it.
os.environ["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])

c.Autograde.autograde_preprocessors = [
    ProctoredExecute,
    "nbgrader.preprocessors.LimitOutput",
    "nbgrader.preprocessors.SaveAutoGrades",
    "nbgrader.preprocessors.AssignLatePenalties",
    "nbgrader.preprocessors.CheckCellMetadata",
]
c.ProctoredExecute.closed = str(classroom)
c.ProctoredExecute.timeout = CELL_SECONDS  # a check stops an answer after 20 s itself
c.ProctoredExecute.startup_timeout = 120  # a kernel's start; slow on a busy machine
c.ProctoredExecute.iopub_timeout = 10  # for what a cell still prints after it has ended
c.ProctoredExecute.max_output = 100_000  # characters of each cell
c.ProctoredExecute.shutdown_kernel = "immediate"
c.ProctoredExecute.extra_arguments = ["--IPKernelApp.log_level=40"]  # what a kernel wonders about is not the grader's business
c.LimitOutput.max_lines = 500
c.LimitOutput.max_traceback = 60

# The stubs that `build` makes too, whatever nbgrader's own will be.
c.ClearSolutions.code_stub = {"python": "# YOUR CODE HERE\nraise NotImplementedError()"}
c.ClearSolutions.text_stub = "YOUR ANSWER HERE"
c.ClearMarkScheme.enforce_metadata = False  # rubrics stand in the locked cells of questions
c.OverwriteCells.add_missing_cells = False  # `grade` puts deleted cells back, in their places
