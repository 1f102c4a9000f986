"""How nbgrader runs a submission here: under the proctor's eyes, and to an end whatever the submission does.

`nbgrader_config.py` puts `ProctoredExecute` in the place of nbgrader's `Execute`. What that makes of a cell that runs for
ever, of a kernel that dies and of endless output is a failed submission, or full points for cells that never ran; here
the submission gets points for the checks that have passed, and what was odd is noted in the notebook's metadata.

This is the one module that needs nbgrader when it is imported.
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

WORDS = {
    "network": "asked for the network",
    "program": "tried to start a program",
    "file": "reached for the class's files",
    "changed": "ran with parts of the package changed",
}
MOST_ODD = 20  # lines about one run


class ProctoredExecute(Execute):
    """Run a submission's cells, cut what they print, and fail each check that gave no receipt."""

    max_output = Integer(100_000, help="how many characters a cell may print; the rest is cut").tag(config=True)
    closed = Unicode("classroom", help="the class's folder, of which a submission sees its own part alone").tag(config=True)

    def preprocess(self, nb: NotebookNode, resources: Any = None, km: Any = None) -> tuple[NotebookNode, Any]:
        self.receipts, self.printed, self.odd = defaultdict(set), defaultdict(int), []
        self.cell, self.secret = None, ""
        try:
            super().preprocess(nb, resources, km)
        except DeadKernelError:
            self.note(f"the kernel died in {place(self.cell)}; nothing after it was run")
        except CellTimeoutError:
            self.note(f"{place(self.cell)} ran on after it was interrupted; nothing after it was run")
        for index, cell in enumerate(nb.cells):
            self.settle(cell, index)
        nb.metadata.setdefault("spvit_mini", NotebookNode()).setdefault("odd", []).extend(self.odd)
        return nb, resources

    def note(self, line: str) -> None:
        """Keep a line for the report, once."""
        if line not in self.odd and len(self.odd) < MOST_ODD:
            self.odd.append(line)

    # While it runs ------------------------------------------------------------------------------------------------------

    async def on_notebook_start(self, **_) -> None:
        """Let the proctor in before the first cell, and leave no trace of it in the history or among the names."""
        watch = f"__import__('importlib').import_module('{proctor.__name__}').watch({self.closed!r})"
        message = self.kc.execute("", silent=True, user_expressions={"secret": watch})
        try:
            while (reply := await self.kc.get_shell_msg(timeout=self.startup_timeout))["parent_header"]["msg_id"] != message:
                pass
            told = reply["content"].get("user_expressions", {}).get("secret", reply["content"])
            if told["status"] != "ok":
                raise RuntimeError(f"the proctor could not begin: {told.get('ename')}: {told.get('evalue')}")
        except BaseException:
            await self._async_cleanup_kernel()  # nbclient would leave it running
            raise
        self.secret = ast.literal_eval(told["data"]["text/plain"])

    def on_cell_start(self, cell: NotebookNode, **_) -> None:
        self.cell = cell

    def on_cell_executed(self, **event) -> None:
        super().on_cell_executed(**event)
        if event["execute_reply"]["content"].get("ename") == self.error_on_timeout["ename"]:
            self.note(f"{place(event['cell'])} was stopped after {self.timeout} s")

    def output(self, outs: list, msg: dict, display_id: str | None, cell_index: int) -> NotebookNode | None:
        """Take what the proctor says; keep what the cell says, up to a size."""
        content = msg["content"]
        if said := content.get("data", {}).get(proctor.MIME):
            if "receipt" in said:
                self.receipts[cell_index].add(said["receipt"])
            for kind in WORDS.keys() & said.keys():
                self.note(f"{place(self.cell)} {WORDS[kind]}: {said[kind]}")
            return None
        if msg["msg_type"] != "error":  # nbgrader needs to see that
            self.printed[cell_index] += (size := len(str(content.get("text") or content.get("data") or "")))
            if (over := self.printed[cell_index] - self.max_output) > 0:
                if over <= size:  # the first time
                    self.note(f"{place(self.cell)} printed more than {self.max_output:,} characters; the rest was cut")
                    outs.append(new_output("stream", name="stdout", text="\n(too much output: the rest was cut)\n"))
                return None
        return super().output(outs, msg, display_id, cell_index)

    # When it has run ----------------------------------------------------------------------------------------------------

    def settle(self, cell: NotebookNode, index: int) -> None:
        """Make nbgrader's rule for points mean ours: an error without the receipts, nothing that looks like one with them."""
        marks = cell.metadata.get("nbgrader", {})
        if cell.cell_type != "code" or not marks.get("grade") or marks.get("solution"):
            return
        expected = receipts(cell.source, self.secret)
        if not expected:
            return  # a notebook that was not made by `release`: nbgrader's own rule holds
        errors = [output for output in cell.outputs if output.output_type == "error"]
        for output in errors:
            if output.ename == "CheckFailed":  # its words are for the student, the way through the checks is not
                output.traceback = [f"{output.ename}: {output.evalue}"]
        if expected <= self.receipts[index] and not errors:
            cell.outputs = [output for output in cell.outputs if output.output_type != "execute_result"]
            for output in cell.outputs:
                if output.output_type == "stream":  # a warning on stderr would cost all points
                    output.name = "stdout"
        elif not errors:
            self.note(f"{place(cell)} showed no error, yet its check did not pass: no points")
            words = "NotGraded: the check did not run to its end"
            cell.outputs.append(new_output("error", ename="NotGraded", evalue="", traceback=[words]))


def place(cell: NotebookNode | None) -> str:
    """Name a cell in a report: by its exercise, or by how it begins."""
    if cell is None:
        return "the start"
    name = cell.metadata.get("nbgrader", {}).get("grade_id")
    first = next((line.strip() for line in cell.source.split("\n") if line.strip()), "")
    return f"the cell {name}" if name else f"the cell that begins {first[:40]!r}"


def receipts(source: str, secret: str) -> set[str]:
    """List the receipts that a graded cell has to bring: one for each check with `grade=True` of a proctored lesson."""
    number = re.search(r"""proctored\(["'](\d\d)["']\)""", source)
    if not number:
        return set()
    found = set()
    for call in ast.walk(ast.parse(source)):
        if isinstance(call, ast.Call) and getattr(call.func, "attr", None) == "check":
            options = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
            if options.pop("grade", False):
                name = options.pop("name", None) or ast.unparse(call.args[0])
                found.add(proctor.receipt(secret, number[1], name, options))
    return found
