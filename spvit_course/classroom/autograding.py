"""Autograding: nbgrader runs a submission under the proctor, and always to an end.

`nbgrader_config.py` replaces nbgrader's `Execute` by `ProctoredExecute`. With `Execute`, an endless cell, a dead kernel or
endless output fails the whole submission, or gives full points for cells that never ran. Here the submission gets the points
of the checks that passed, the cells after one that ended the kernel are run without it, and oddities are saved in the
notebook's metadata.

This is the only module that needs nbgrader when it is imported.
"""

import ast
import re
from collections import defaultdict
from typing import Any

from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbformat.v4 import new_output
from nbgrader.preprocessors import Execute
from traitlets import Integer, Unicode

from . import proctor
from .validation import describe_cell

WORDS = {
    "network": "asked for the network",
    "program": "tried to start a program",
    "signal": "tried to end a process of another program",
    "file": "reached for the class's files",
    "changed": "ran with parts of the package changed",
}
MOST_ODD = 20  # lines about one run
MOST_DEADLY = 5  # cells that end a kernel, after each of which the others are run again


class ProctoredExecute(Execute):
    """Run a submission's cells, cut long output, and fail each check that gave no receipt."""

    max_output = Integer(100_000, help="how many characters a cell may print; the rest is cut").tag(config=True)
    closed = Unicode("classroom", help="the class's folder, of which a submission sees its own part alone").tag(config=True)

    def preprocess(self, nb: NotebookNode, resources: Any = None, km: Any = None) -> tuple[NotebookNode, Any]:
        self.odd, self.deadly, stopped = [], {}, True
        while stopped:
            self.receipts, self.output_sizes = defaultdict(set), defaultdict(int)
            self.cell, self.place, self.secret, stopped = None, 0, "", False
            try:
                super().preprocess(nb, resources, km)
            except (DeadKernelError, CellTimeoutError) as error:
                if self.cell is None:
                    raise  # no cell is to blame
                cell, stopped = describe_cell(self.cell), len(self.deadly) < MOST_DEADLY
                died = isinstance(error, DeadKernelError)
                what = f"the kernel died in {cell}" if died else f"{cell} ran on after it was interrupted"
                self.note(f"{what}; {'the others were run without it' if stopped else 'nothing after it was run'}")
                self.deadly[self.place] = new_output("error", ename=type(error).__name__, evalue=what, traceback=[what])
        for index, cell in enumerate(nb.cells):
            self.apply_receipts(cell, index)
        nb.metadata.setdefault("spvit_mini", NotebookNode()).setdefault("odd", []).extend(self.odd)
        return nb, resources

    def preprocess_cell(self, cell: NotebookNode, resources: Any, index: int) -> tuple[NotebookNode, Any]:
        """Run a cell, unless it has ended a kernel before: an exercise costs its own points and no others."""
        if index in self.deadly:
            cell.outputs = [self.deadly[index]]
            return cell, resources
        return super().preprocess_cell(cell, resources, index)

    def note(self, line: str) -> None:
        """Add a line for the report, once."""
        if line not in self.odd and len(self.odd) < MOST_ODD:
            self.odd.append(line)

    # While it runs ------------------------------------------------------------------------------------------------------

    async def on_notebook_start(self, **_) -> None:
        """Start the proctor before the first cell, without a trace in the history or among the names."""
        watch = f"__import__('importlib').import_module('{proctor.__name__}').watch({self.closed!r})"
        message = self.kc.execute("", silent=True, user_expressions={"secret": watch})
        try:
            while (reply := await self.kc.get_shell_msg(timeout=self.startup_timeout))["parent_header"]["msg_id"] != message:
                pass
            result = reply["content"].get("user_expressions", {}).get("secret", reply["content"])
            if result["status"] != "ok":
                raise RuntimeError(f"the proctor could not begin: {result.get('ename')}: {result.get('evalue')}")
        except BaseException:
            await self._async_cleanup_kernel()  # nbclient would leave it running
            raise
        self.secret = ast.literal_eval(result["data"]["text/plain"])

    def on_cell_start(self, cell: NotebookNode, cell_index: int, **_) -> None:
        self.cell, self.place = cell, cell_index

    def on_cell_executed(self, **event) -> None:
        super().on_cell_executed(**event)
        marks, reply = event["cell"].metadata.get("nbgrader", {}), event["execute_reply"]["content"]
        if reply.get("ename") == self.error_on_timeout["ename"]:
            self.note(f"{describe_cell(event['cell'])} was stopped after {self.timeout} s")
        elif reply["status"] == "error" and marks.get("locked") and not marks.get("grade"):  # not the student's fault, mostly
            self.note(f"{describe_cell(event['cell'])} failed: {reply.get('ename')}: {reply.get('evalue')}")

    def output(self, outs: list, msg: dict, display_id: str | None, cell_index: int) -> NotebookNode | None:
        """Collect the proctor's messages; pass on the cell's output, up to a size."""
        content = msg["content"]
        if message := content.get("data", {}).get(proctor.MIME):
            if "receipt" in message:
                self.receipts[cell_index].add(message["receipt"])
            for kind in WORDS.keys() & message.keys():
                self.note(f"{describe_cell(self.cell)} {WORDS[kind]}: {message[kind]}")
            return None
        if msg["msg_type"] != "error":  # nbgrader must see errors
            self.output_sizes[cell_index] += (size := len(str(content.get("text") or content.get("data") or "")))
            if (over := self.output_sizes[cell_index] - self.max_output) > 0:
                if over <= size:  # the first time
                    cell = describe_cell(self.cell)
                    self.note(f"{cell} printed more than {self.max_output:,} characters; the rest was cut")
                    outs.append(new_output("stream", name="stdout", text="\n(too much output: the rest was cut)\n"))
                return None
        return super().output(outs, msg, display_id, cell_index)

    # When it has run ----------------------------------------------------------------------------------------------------

    def apply_receipts(self, cell: NotebookNode, index: int) -> None:
        """Translate receipts to nbgrader's rule, which gives no points to an error: add one, or remove what looks like one."""
        marks = cell.metadata.get("nbgrader", {})
        if cell.cell_type != "code" or not marks.get("grade") or marks.get("solution"):
            return
        expected = expected_receipts(cell.source, self.secret)
        if not expected:
            return  # not a notebook of `release`: nbgrader's own rule holds
        errors = [output for output in cell.outputs if output.output_type == "error"]
        for output in errors:
            if output.ename == "CheckFailed":  # students read its message, not its traceback
                output.traceback = [f"{output.ename}: {output.evalue}"]
        if expected <= self.receipts[index] and not errors:
            cell.outputs = [output for output in cell.outputs if output.output_type != "execute_result"]
            for output in cell.outputs:
                if output.output_type == "stream":  # a warning on stderr would cost all points
                    output.name = "stdout"
        elif not errors:
            self.note(f"{describe_cell(cell)} showed no error, yet its check did not pass: no points")
            words = "NotGraded: the check did not run to its end"
            cell.outputs.append(new_output("error", ename="NotGraded", evalue="", traceback=[words]))


def expected_receipts(source: str, secret: str) -> set[str]:
    """List the receipts that a graded cell must give: one for each check with `grade=True` of a proctored lesson."""
    number = re.search(r"""proctored\(["'](\d\d)["']\)""", source)
    if not number:
        return set()
    receipts = set()
    for call in ast.walk(ast.parse(source)):
        if isinstance(call, ast.Call) and getattr(call.func, "attr", None) == "check":
            options = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
            if options.pop("grade", False):
                name = options.pop("name", None) or ast.unparse(call.args[0])
                receipts.add(proctor.receipt(secret, number[1], name, options))
    return receipts
