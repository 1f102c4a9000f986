"""The results of grading: a line for each student, a table as CSV, a report in Markdown.

Points come from nbgrader's gradebook, oddities from the graded notebooks. After answers have been graded by hand, `grade`
again writes correct reports without running what has not changed. An answer that has changed since it was graded by hand
keeps its points, and is *to read again*: nbgrader's own flag `needs_manual_grade`, which the formgrader resets, says so.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from ..files import write_text
from ..lessons import grading, read

ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class SubmissionResult:
    """The result of one submission: points by exercise (None: still to be read), oddities, messages of the checks.

    `again` lists exercises that have changed since they were graded by hand. `due` and `submitted` are times in UTC, empty
    if the gradebook does not have them; `hours_late` is then None.
    """

    student: str
    points: dict[str, float | None] = field(default_factory=dict)
    max_points: dict[str, float] = field(default_factory=dict)
    by_hand: frozenset[str] = frozenset()
    odd: list[str] = field(default_factory=list)
    messages: dict[str, str] = field(default_factory=dict)
    failure: str | None = None
    again: list[str] = field(default_factory=list)
    due: str = ""
    submitted: str = ""
    hours_late: float | None = None

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
        answers += f", to read again: {', '.join(self.again)}" if self.again else ""
        answers += f", {self.hours_late:g} hours late" if self.hours_late else ""
        return f"{self.checked:g} of {self.checkable:g} points from checks{answers}" + "".join(
            f"\n    odd: {line}" for line in self.odd
        )


def collect_result(room, name: str, student: str, failure: str | None) -> SubmissionResult:
    """Collect the result of one submission from the gradebook and the graded notebook."""
    result = SubmissionResult(student, failure=failure)
    if failure:
        return result
    try:
        notebook = read(room.notebook("autograded", name, student))
        result.odd = [one_line(line) for line in notebook.metadata.get("spvit_mini", {}).get("odd", [])]
        with room.api.gradebook as gradebook:
            submission = gradebook.find_submission(name, student)
            due, handed_in = submission.duedate, submission.timestamp
            result.due, result.submitted = (f"{time:%Y-%m-%d %H:%M}" if time else "" for time in (due, handed_in))
            if due and handed_in:
                result.hours_late = round(submission.total_seconds_late / 3600, 1)
            grades = grades_by_cell(gradebook, name, student)
            for cell in notebook.cells:
                key = grading(cell).get("grade_id")
                if not grading(cell).get("grade") or key not in grades:
                    continue
                grade, exercise = grades[key], key.removeprefix("check-")
                is_unread = grade.needs_manual_grade and not has_hand_points(grade)
                result.points[exercise] = None if is_unread else float(grade.score)
                result.max_points[exercise] = float(grade.max_score)
                result.again += [exercise] if grade.needs_manual_grade and not is_unread else []
                if cell.cell_type == "markdown":
                    result.by_hand |= {exercise}
                elif message := check_message(cell):
                    result.messages[exercise] = one_line(message)
    except Exception as error:  # any error: the others must still be listed
        return SubmissionResult(student, failure=one_line(f"its result cannot be read: {type(error).__name__}: {error}"))
    return result


def grades_by_cell(gradebook, name: str, student: str) -> dict:
    """Return the grades of a submission in a gradebook, by their cells' grade_id."""
    return {grade.name: grade for grade in gradebook.find_submission_notebook(name, name, student).grades}


def has_hand_points(grade) -> bool:
    """Return whether a person has given points for a cell."""
    return grade.manual_score is not None or bool(grade.extra_credit)


def is_scored(room, name: str, student: str) -> bool:
    """Return whether the gradebook has the points of all checks of a submission; not so if it was lost or restored."""
    from nbgrader.api import MissingEntry

    with room.api.gradebook as gradebook, suppress(MissingEntry):
        return all(
            grade.auto_score is not None or grade.needs_manual_grade or has_hand_points(grade)
            for grade in grades_by_cell(gradebook, name, student).values()
        )
    return False


def list_to_read_again(room, name: str, student: str) -> list[str]:
    """List the cells that are to be read again."""
    from nbgrader.api import MissingEntry

    with room.api.gradebook as gradebook, suppress(MissingEntry):
        grades = grades_by_cell(gradebook, name, student).items()
        return [key for key, grade in grades if grade.needs_manual_grade and has_hand_points(grade)]
    return []


def set_to_read(room, name: str, student: str, *, elsewhere: Sequence[str], again: Sequence[str]) -> None:
    """Flag in the gradebook what is to be read by a person, where nbgrader knows less.

    `elsewhere` lists answers that may stand in a different cell, where nbgrader gives 0 points, `again` answers that have
    changed; nbgrader flags all that have points by hand. A submission without a time loses the time of an earlier one.
    """
    with room.api.gradebook as gradebook:
        for key, grade in grades_by_cell(gradebook, name, student).items():
            if has_hand_points(grade):
                grade.needs_manual_grade = key in again
            elif key in elsewhere:
                grade.auto_score, grade.needs_manual_grade = None, True
        if not (room.path("vetted", name, student) / "timestamp.txt").is_file():
            gradebook.find_submission(name, student).timestamp = None
        gradebook.db.commit()


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
    write_text(table, "\ufeff" + format_csv(results))  # without a byte order mark Excel takes UTF-8 for something else
    write_text(report, format_report(name, results))
    odd = sum(bool(result.odd or result.failure) for result in results)
    lines = [f"points: {table}", f"what was odd about {odd} of {len(results)}, and what went wrong: {report}"]
    lines.append(f"feedback: {room.folder / 'feedback'}/STUDENT/{name}/{name}.html")
    if unread := sum(len(result.to_read) for result in results):
        lines.append(f"{unread} written answers are to be read in nbgrader's formgrader; then run this again")
    if again := sum(len(result.again) for result in results):
        lines.append(f"{again} answers have changed since they were graded by hand, and are to be read again there")
    return lines


def exercise_points(results: Sequence[SubmissionResult]) -> dict[str, float]:
    """List the exercises of a set with their points, in order."""
    return {name: points for result in results for name, points in result.max_points.items()}


def format_csv(results: Sequence[SubmissionResult]) -> str:
    """Write the points as CSV: a row for each student; the field of an answer that nobody has read yet is empty."""
    names = exercise_points(results)
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    sums, times = ["from_checks", "total", "of", "to_read"], ["to_read_again", "due", "submitted", "hours_late"]
    out.writerow(["student", *names, *sums, *times, "odd"])
    for result in results:
        points = ["" if (value := result.points.get(name)) is None else f"{value:g}" for name in names]
        sums = [f"{result.checked:g}", f"{result.total:g}", f"{sum(names.values()):g}"]
        odd = [f"NOT GRADED: {result.failure}"] if result.failure else result.odd
        late = "" if result.hours_late is None else f"{result.hours_late:g}"
        times = [" ".join(result.again), result.due, result.submitted, late]
        odd = escape_formula("; ".join(odd))
        out.writerow([escape_formula(result.student), *points, *sums, len(result.to_read), *times, odd])
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
        *list_times(results),
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
            items = [f"- {escape_markdown(line)}" for line in odd]
            lines.append("\n".join([f"**{escape_markdown(result.student)}**", "", *items]))
    if not any(result.odd or result.failure for result in results):
        lines.append("Nothing.")
    if changed := [result for result in results if result.again]:
        lines.append("## To read again\n\nThese have changed since they were graded by hand. They keep their points until then.")
        lines.append("\n".join(f"- **{escape_markdown(result.student)}**: {', '.join(result.again)}" for result in changed))
    lines.append("## What went wrong, and how often")
    for key in names:
        counts = Counter(result.messages[key] for result in complete if key in result.messages).most_common()
        if counts:
            lines.append("\n".join([f"**{key}**", "", *(f"- {n} × {escape_markdown(message)}" for message, n in counts)]))
    return "\n\n".join(lines) + "\n"


def list_times(results: Sequence[SubmissionResult]) -> list[str]:
    """Write when the set was due, and who was late; nothing if the gradebook has no due date."""
    if not (due := {result.due for result in results} - {""}):
        return []
    late = [f"{escape_markdown(result.student)} ({result.hours_late:g} hours)" for result in results if result.hours_late]
    unknown = sum(not result.submitted for result in results)
    line = f"Due {', '.join(sorted(due))} UTC. Late: {', '.join(late) or 'nobody'}."
    return [line + (f" Without a time of submission: {unknown}." if unknown else "")]


def format_row(result: SubmissionResult, names: dict[str, float]) -> str:
    """Write a student's row of the table of the class."""
    points = [
        "–" if key not in result.points else "to read" if result.points[key] is None
        else f"{result.points[key]:g}" + ", to read again" * (key in result.again)
        for key in names
    ]
    odd = "not graded" if result.failure else str(len(result.odd) or "")
    return f"| {escape_markdown(result.student)} | {' | '.join(points)} | {result.checked:g} of {result.checkable:g} | {odd} |"


def escape_markdown(line: str) -> str:
    """Escape a text for Markdown."""
    return re.sub(r"([\\`*_<>|\[\]])", r"\\\1", line)
