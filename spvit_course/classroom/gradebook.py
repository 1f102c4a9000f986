"""What came of grading: a line for each student, a table as CSV, a report in Markdown.

Points are read from nbgrader's gradebook, what was odd from the graded notebooks. So the report is right again after
answers have been graded by hand: `grade` once more, and nothing is run that has not changed.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..lessons import grading, read, write

ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Graded:
    """What came of one submission: points by exercise (None: still to be read), what was odd, what the checks said."""

    student: str
    points: dict[str, float | None] = field(default_factory=dict)
    most: dict[str, float] = field(default_factory=dict)
    by_hand: frozenset[str] = frozenset()
    odd: list[str] = field(default_factory=list)
    words: dict[str, str] = field(default_factory=dict)
    failure: str | None = None

    @property
    def checked(self) -> float:
        return sum(self.points[name] or 0 for name in self.points if name not in self.by_hand)

    @property
    def checkable(self) -> float:
        return sum(self.most[name] for name in self.points if name not in self.by_hand)

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


def collect(room, name: str, student: str, failure: str | None) -> Graded:
    """Gather what is known of one submission."""
    from nbgrader.api import MissingEntry

    graded = Graded(student, failure=failure)
    if failure:
        return graded
    notebook = read(room.notebook("autograded", name, student))
    graded.odd = [one_line(said) for said in notebook.metadata.get("spvit_mini", {}).get("odd", [])]
    with room.gradebook() as gradebook:
        try:
            grades = gradebook.find_submission_notebook(name, name, student).grades
        except MissingEntry:
            graded.failure = "it is not in the gradebook"
            return graded
        found = {grade.name: grade for grade in grades}
        for cell in notebook.cells:
            key = grading(cell).get("grade_id")
            if not grading(cell).get("grade") or key not in found:
                continue
            grade = found[key]
            exercise = key.removeprefix("check-")
            waiting = grade.needs_manual_grade and grade.manual_score is None
            graded.points[exercise] = None if waiting else float(grade.score)
            graded.most[exercise] = float(grade.max_score)
            if cell.cell_type == "markdown":
                graded.by_hand |= {exercise}
            elif said := outcome(cell):
                graded.words[exercise] = one_line(said)
    return graded


def one_line(text: str) -> str:
    """Make of what may be a student's words a short line that does nothing to a terminal."""
    line = "".join(sign if sign.isprintable() else " " for sign in str(text))
    return line if len(line) <= 300 else f"{line[:297]}..."


def outcome(cell) -> str:
    """Read from a graded cell's outputs what its check said, in a line; empty where it passed."""
    for output in cell.outputs:
        if output.output_type == "error":
            first = (output.evalue or ANSI.sub("", "\n".join(output.traceback))).strip().splitlines()
            line = first[0] if first else ""
            return line if output.ename in ("CheckFailed", "NotGraded") else f"{output.ename}: {line}"
    return ""


# On paper ---------------------------------------------------------------------------------------------------------------


def save(room, name: str, results: Sequence[Graded]) -> list[str]:
    """Write CSV and report. Returns what to tell: where they are, and what is left to do."""
    folder = room.folder / "reports"
    folder.mkdir(exist_ok=True)
    points, told = folder / f"{name}.csv", folder / f"{name}.md"
    write(points, table(results))
    write(told, report(name, results))
    odd = sum(bool(result.odd or result.failure) for result in results)
    lines = [f"points: {points}", f"what was odd about {odd} of {len(results)}, and what went wrong: {told}"]
    lines.append(f"feedback: {room.folder / 'feedback'}/STUDENT/{name}/{name}.html")
    if waiting := sum(len(result.to_read) for result in results):
        lines.append(f"{waiting} written answers are to be read in nbgrader's formgrader; then run this again")
    return lines


def exercises(results: Sequence[Graded]) -> dict[str, float]:
    """List the exercises of a set with their points, in order."""
    return {name: most for result in results for name, most in result.most.items()}


def table(results: Sequence[Graded]) -> str:
    """Write the points as CSV: a row for each student; a field is empty where a person has to read first."""
    names = exercises(results)
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(["student", *names, "from_checks", "total", "of", "to_read", "odd"])
    for result in results:
        points = ["" if (value := result.points.get(name)) is None else f"{value:g}" for name in names]
        sums = [f"{result.checked:g}", f"{result.total:g}", f"{sum(names.values()):g}"]
        odd = [f"NOT GRADED: {result.failure}"] if result.failure else result.odd
        out.writerow([plain(result.student), *points, *sums, len(result.to_read), plain("; ".join(odd))])
    return text.getvalue()


def plain(text: str) -> str:
    """Keep a spreadsheet from taking a student's words for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def report(name: str, results: Sequence[Graded]) -> str:
    """Write the report: the class as a table, what was odd, and what went wrong how often."""
    names = exercises(results)
    graded = [result for result in results if not result.failure]
    full = sum(result.checked == result.checkable for result in graded)
    lines = [
        f"# {name}: {len(results)} submissions",
        f"{full} have all points from checks. {sum(len(result.to_read) for result in graded)} written answers are to be read.",
        "\n".join(
            [
                "| student | " + " | ".join(f"{key} ({most:g})" for key, most in names.items()) + " | from checks | odd |",
                "|---|" + "---|" * (len(names) + 2),
                *(row(result, names) for result in results),
            ]
        ),
        "## What was odd",
    ]
    for result in results:
        odd = [f"not graded: {result.failure}"] if result.failure else result.odd
        if odd:
            lines.append("\n".join([f"**{result.student}**", "", *(f"- {safe(line)}" for line in odd)]))
    if not any(result.odd or result.failure for result in results):
        lines.append("Nothing.")
    lines.append("## What went wrong, and how often")
    for key in names:
        said = Counter(result.words[key] for result in graded if key in result.words)
        if said:
            lines.append("\n".join([f"**{key}**", "", *(f"- {count} × {safe(words)}" for words, count in said.most_common())]))
    return "\n\n".join(lines) + "\n"


def row(result: Graded, names: dict[str, float]) -> str:
    points = [
        "–" if key not in result.points else "to read" if result.points[key] is None else f"{result.points[key]:g}"
        for key in names
    ]
    odd = "not graded" if result.failure else str(len(result.odd) or "")
    return f"| {result.student} | {' | '.join(points)} | {result.checked:g} of {result.checkable:g} | {odd} |"


def safe(line: str) -> str:
    """Let a line of somebody else's words stand in Markdown as it is."""
    return re.sub(r"([\\`*_<>|\[\]])", r"\\\1", line)
