"""The results of grading: a line for each student, a table as CSV, a report in Markdown.

Points come from nbgrader's gradebook, oddities from the graded notebooks. After answers have been graded by hand, `grade`
again writes correct reports without running what has not changed.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..files import write_text
from ..lessons import grading, read

ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class SubmissionResult:
    """The result of one submission: points by exercise (None: still to be read), oddities, messages of the checks."""

    student: str
    points: dict[str, float | None] = field(default_factory=dict)
    max_points: dict[str, float] = field(default_factory=dict)
    by_hand: frozenset[str] = frozenset()
    odd: list[str] = field(default_factory=list)
    messages: dict[str, str] = field(default_factory=dict)
    failure: str | None = None

    @property
    def checked(self) -> float:
        return sum(self.points[name] or 0 for name in self.points if name not in self.by_hand)

    @property
    def checkable(self) -> float:
        return sum(self.max_points[name] for name in self.points if name not in self.by_hand)

    @property
    def to_read(self) -> list[str]:
        return [name for name, points in self.points.items() if points is None]

    @property
    def total(self) -> float:
        return sum(points or 0 for points in self.points.values())

    def __str__(self) -> str:
        if self.failure:
            return f"NOT GRADED: {self.failure}"
        answers = f", {count} to read" if (count := len(self.to_read)) else ""
        return f"{self.checked:g} of {self.checkable:g} points from checks{answers}" + "".join(
            f"\n    odd: {line}" for line in self.odd
        )


def collect_result(room, name: str, student: str, failure: str | None) -> SubmissionResult:
    """Collect the result of one submission from the gradebook and the graded notebook."""
    from nbgrader.api import MissingEntry

    result = SubmissionResult(student, failure=failure)
    if failure:
        return result
    notebook = read(room.notebook("autograded", name, student))
    result.odd = [one_line(line) for line in notebook.metadata.get("spvit_mini", {}).get("odd", [])]
    with room.api.gradebook as gradebook:
        try:
            grades = {grade.name: grade for grade in gradebook.find_submission_notebook(name, name, student).grades}
        except MissingEntry:
            result.failure = "it is not in the gradebook"
            return result
        for cell in notebook.cells:
            key = grading(cell).get("grade_id")
            if not grading(cell).get("grade") or key not in grades:
                continue
            grade, exercise = grades[key], key.removeprefix("check-")
            is_unread = grade.needs_manual_grade and grade.manual_score is None
            result.points[exercise] = None if is_unread else float(grade.score)
            result.max_points[exercise] = float(grade.max_score)
            if cell.cell_type == "markdown":
                result.by_hand |= {exercise}
            elif message := check_message(cell):
                result.messages[exercise] = one_line(message)
    return result


def one_line(text: str) -> str:
    """Shorten a text, which may be a student's, to one line without control characters."""
    line = "".join(sign if sign.isprintable() else " " for sign in str(text))
    return line if len(line) <= 300 else f"{line[:297]}..."


def check_message(cell) -> str:
    """Return the first line of a graded cell's error; empty if its check passed."""
    for output in cell.outputs:
        if output.output_type == "error":
            first = (output.evalue or ANSI.sub("", "\n".join(output.traceback))).strip().splitlines()
            line = first[0] if first else ""
            return line if output.ename in ("CheckFailed", "NotGraded") else f"{output.ename}: {line}"
    return ""


# On paper ---------------------------------------------------------------------------------------------------------------


def save_reports(room, name: str, results: Sequence[SubmissionResult]) -> list[str]:
    """Write CSV and report. Return lines for the grader: where they are, and what is left to do."""
    folder = room.folder / "reports"
    folder.mkdir(exist_ok=True)
    table, report = folder / f"{name}.csv", folder / f"{name}.md"
    write_text(table, format_csv(results))
    write_text(report, format_report(name, results))
    odd = sum(bool(result.odd or result.failure) for result in results)
    lines = [f"points: {table}", f"what was odd about {odd} of {len(results)}, and what went wrong: {report}"]
    lines.append(f"feedback: {room.folder / 'feedback'}/STUDENT/{name}/{name}.html")
    if unread := sum(len(result.to_read) for result in results):
        lines.append(f"{unread} written answers are to be read in nbgrader's formgrader; then run this again")
    return lines


def exercise_points(results: Sequence[SubmissionResult]) -> dict[str, float]:
    """List the exercises of a set with their points, in order."""
    return {name: points for result in results for name, points in result.max_points.items()}


def format_csv(results: Sequence[SubmissionResult]) -> str:
    """Write the points as CSV: a row for each student; the field of an answer that nobody has read yet is empty."""
    names = exercise_points(results)
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(["student", *names, "from_checks", "total", "of", "to_read", "odd"])
    for result in results:
        points = ["" if (value := result.points.get(name)) is None else f"{value:g}" for name in names]
        sums = [f"{result.checked:g}", f"{result.total:g}", f"{sum(names.values()):g}"]
        odd = [f"NOT GRADED: {result.failure}"] if result.failure else result.odd
        out.writerow([escape_formula(result.student), *points, *sums, len(result.to_read), escape_formula("; ".join(odd))])
    return text.getvalue()


def escape_formula(text: str) -> str:
    """Quote a text that a spreadsheet would read as a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def format_report(name: str, results: Sequence[SubmissionResult]) -> str:
    """Write the report: the class as a table, what was odd, and what went wrong how often."""
    names = exercise_points(results)
    complete = [result for result in results if not result.failure]
    full = sum(result.checked == result.checkable for result in complete)
    titles = [f"{key} ({points:g})" for key, points in names.items()]
    lines = [
        f"# {name}: {len(results)} submissions",
        f"{full} have all points from checks. {sum(len(result.to_read) for result in complete)} written answers are to be read.",
        "\n".join(
            [
                f"| student | {' | '.join(titles)} | from checks | odd |",
                "|---|" + "---|" * (len(names) + 2),
                *(format_row(result, names) for result in results),
            ]
        ),
        "## What was odd",
    ]
    for result in results:
        odd = [f"not graded: {result.failure}"] if result.failure else result.odd
        if odd:
            lines.append("\n".join([f"**{result.student}**", "", *(f"- {escape_markdown(line)}" for line in odd)]))
    if not any(result.odd or result.failure for result in results):
        lines.append("Nothing.")
    lines.append("## What went wrong, and how often")
    for key in names:
        counts = Counter(result.messages[key] for result in complete if key in result.messages).most_common()
        if counts:
            lines.append("\n".join([f"**{key}**", "", *(f"- {n} × {escape_markdown(message)}" for message, n in counts)]))
    return "\n\n".join(lines) + "\n"


def format_row(result: SubmissionResult, names: dict[str, float]) -> str:
    """Write a student's row of the table of the class."""
    points = [
        "–" if key not in result.points else "to read" if result.points[key] is None else f"{result.points[key]:g}"
        for key in names
    ]
    odd = "not graded" if result.failure else str(len(result.odd) or "")
    return f"| {result.student} | {' | '.join(points)} | {result.checked:g} of {result.checkable:g} | {odd} |"


def escape_markdown(line: str) -> str:
    """Escape a text for Markdown."""
    return re.sub(r"([\\`*_<>|\[\]])", r"\\\1", line)
